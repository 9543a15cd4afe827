"""The cases of the benchmark: which executor runs which schedule, by the family of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import flux_caches
import numpy as np
from benchmark_models import Subject
from component_counter import computed_bits, macs_of
from executors import FirstBlock, ModuleHooks, StepMask, Stock
from random_schedules import random_schedule

from ecad.execution.families import open_model
from ecad.schedule import Schedule, heuristics

STOCK, ALL_TRUE = "stock", "ours, all computed"
INTERVALS = (2, 3, 4, 5)  # one row in so many computed, which is about the cost level
STRETCHES = (12, 6)  # of the random schedules of 5x; shorter ones than 5.2 do not cost so little
EXTRA = ("cache-dit", "reference")
PROBE = 2  # images of the passes that look for a threshold


@dataclass
class Case:
    """One way to make the images. `kind`: "baseline", "ours" (a schedule in our executor) or "peer".

    `model` stands in the place of the image generator's; `settings` are remembered in the JSON. `plans` is the
    generator's memory of lowered plans, one for each case, for executors lower differently.
    """

    name: str
    kind: str
    model: Any
    schedule: Schedule
    settings: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, Any] = field(default_factory=dict)

    @property
    def own_grid(self) -> bool:
        """Whether its rows are all of the sampler's: caching alone, no fewer steps."""
        return self.schedule.timesteps is None and self.schedule.sigmas is None


def case_set(
    subject: Subject,
    *,
    extra: tuple[str, ...] = (),
    files: tuple[Path, ...] = (),
    wanted: Callable[[str], bool] = lambda name: True,
) -> list[Case]:
    """All cases of a model whose names are wanted; both baselines always.

    extra: peers of `EXTRA`. files: schedules of the model, or folders of them, run beside the others.
    Raises ImportError where an extra peer's library is not installed.
    """
    generator = subject.generator
    fast, layout, rows = generator.model, generator.layout, generator.rows
    transformer, table = generator.transformer, generator.cost_table("full")
    uncached = heuristics.uncached(layout, rows)
    stock = Stock(transformer, layout)
    cases = [Case(STOCK, "baseline", stock, uncached), Case(ALL_TRUE, "baseline", fast, uncached)]
    if "reference" in extra:
        reference = open_model(transformer, "reference")
        cases.append(Case("reference, all computed", "peer", reference, uncached))

    fora = {n: heuristics.fora(layout, rows, n) for n in INTERVALS}
    irregular = _random_schedules(layout, rows, table)
    steps = _fewer_steps(generator, ("uniform", "late"))
    ours = [*fora.values(), *irregular, *steps, *_loaded(files, layout)]
    cases += _each_once("ours", "ours", fast, ours, {uncached.key})
    hooked = [fora[2], fora[3], fora[5], *irregular[:1]]  # enough to see; the others only cost time
    cases += _each_once("module hooks", "peer", ModuleHooks(transformer, layout), hooked)
    for n, mask in fora.items():
        for order, word in enumerate(("copy", "Taylor")):
            model = StepMask(transformer, layout, order)
            cases.append(Case(f"step mask, {word}, every {n}", "peer", model, mask))
            name = f"cache-dit mask, {word}, every {n}"
            if "cache-dit" in extra and wanted(name):
                from cache_dit_masks import CacheDitMask

                cases.append(Case(name, "peer", CacheDitMask(transformer, layout, mask, order), mask))
    cases += _each_once("stock", "peer", stock, _fewer_steps(generator, ("uniform",)))
    if layout.family == "flux":
        cases += _diffusers_caches(subject, uncached, wanted)
    else:
        cases += _first_blocks(subject, uncached, wanted)
    return [case for case in cases if case.kind == "baseline" or wanted(case.name)]


def _each_once(
    who: str, kind: str, model: Any, schedules: list[Schedule], known: set[str] | None = None
) -> list[Case]:
    """A case for every schedule, equal ones once."""
    unique: dict[str, Schedule] = {}
    for schedule in schedules:
        unique.setdefault(schedule.key, schedule)
    return [Case(f"{who}, {s.name}", kind, model, s) for key, s in unique.items() if key not in (known or ())]


def _random_schedules(layout: Any, rows: int, table: Any) -> list[Schedule]:
    """Of 5x, with long and with short stretches; none in layouts too small to hold them."""
    if len(layout) < 5 * max(STRETCHES):
        return []
    return [random_schedule(layout, rows, table, ratio=5, stretch=length) for length in STRETCHES]


def _fewer_steps(generator: Any, spacings: tuple[str, ...]) -> list[Schedule]:
    """As many rows as FORA computes at each interval, at least 2 and fewer than all."""
    layout, rows, grid = generator.layout, generator.rows, generator.timesteps
    counts = sorted({max(2, -(-rows // n)) for n in INTERVALS} - {rows}, reverse=True)
    return [
        heuristics.fewer_steps(layout, count, spacing=spacing, grid=grid)
        for spacing in spacings
        for count in counts
    ]


def _loaded(files: tuple[Path, ...], layout: Any) -> list[Schedule]:
    paths = [
        path for given in files for path in (sorted(given.glob("*.json")) if given.is_dir() else [given])
    ]
    return [Schedule.load(path, layout=layout) for path in paths]


def _first_blocks(subject: Subject, uncached: Schedule, wanted: Callable[[str], bool]) -> list[Case]:
    """Thresholds of about each cost level, and the rows that each found as a schedule of ours.

    Named by the level; the threshold is in the settings.
    """
    names = {level: f"first block, about {level}x" for level in INTERVALS}
    frozen = {level: f"ours, rows of {name}" for level, name in names.items()}
    levels = [level for level in INTERVALS if wanted(names[level]) or wanted(frozen[level])]
    fast = subject.generator.model
    cases: list[Case] = []
    for level, threshold in _thresholds(subject, levels, lambda t: FirstBlock(fast, t), uncached).items():
        model = FirstBlock(fast, threshold)
        cases.append(Case(names[level], "peer", model, uncached, {"threshold": threshold}))
        whole = _probe(subject, model, uncached).all(axis=1)
        bits = np.repeat(whole[:, None], len(uncached.layout), axis=1)
        cases.append(Case(frozen[level], "ours", fast, uncached.replace(bits=bits, name=frozen[level])))
    return cases


def _diffusers_caches(subject: Subject, uncached: Schedule, wanted: Callable[[str], bool]) -> list[Case]:
    """diffusers' own caches, each so that it skips about as much as FORA 2, 3 and 5 where it can."""
    generator = subject.generator
    transformer, layout, rows = generator.transformer, generator.layout, generator.rows

    def cache(config: Any) -> flux_caches.DiffusersCache:
        return flux_caches.DiffusersCache(transformer, layout, config)

    named: dict[str, Callable[[], Any]] = {}
    for n, interval in ((2, 2), (3, 3), (5, 6)):  # with 20 rows, 6 computes as many as FORA-5
        forecast = partial(flux_caches.taylor, interval, generator.dtype)
        named[f"diffusers TaylorSeer, every {interval}"] = forecast
        named[f"diffusers TaylorSeer lite, every {interval}"] = partial(forecast, lite=True)
        named[f"diffusers MagCache, every {n}"] = partial(flux_caches.mag, n, rows)
        named[f"diffusers PAB, every {n}"] = partial(flux_caches.broadcast, n)
    cases = [Case(name, "peer", cache(make()), uncached) for name, make in named.items() if wanted(name)]
    names = {level: f"diffusers FirstBlockCache, about {level}x" for level in (2, 3, 5)}
    levels = [level for level, name in names.items() if wanted(name)]

    def first_block(threshold: float) -> flux_caches.DiffusersCache:
        return cache(flux_caches.first_block(threshold))

    for level, threshold in _thresholds(subject, levels, first_block, uncached).items():
        model = first_block(threshold)
        cases.append(Case(names[level], "peer", model, uncached, {"threshold": threshold}))
    return cases


def _probe(subject: Subject, model: Any, schedule: Schedule) -> np.ndarray:
    """What a pass of a few images computes, bool [R, C]."""
    return computed_bits(subject.generator, model, schedule, subject.embeddings(PROBE), list(range(PROBE)))


def _thresholds(
    subject: Subject, levels: list[int], make: Callable[[float], Any], uncached: Schedule
) -> dict[int, float]:
    """Per cost level the threshold of `make` that comes closest; levels that share one are one."""
    table = subject.generator.cost_table("full")
    full = table.uncached(uncached.rows).total

    def ratio_of(threshold: float) -> float:
        return full / macs_of(_probe(subject, make(threshold), uncached), table)

    found: dict[float, int] = {}
    for level, threshold in flux_caches.thresholds_for(levels, ratio_of).items():
        found.setdefault(threshold, level)
    return {level: threshold for threshold, level in found.items()}

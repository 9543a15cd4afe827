"""A short calibration: a fixed set of schedules timed on the present device, and the prices fitted to them."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecad.execution import ExecutionError
from ecad.execution.latency import CONDITIONS, EXECUTION, Calibration, Sample, counts
from ecad.execution.lowering import Lowering
from ecad.schedule import Layout, Schedule, heuristics

PROMPT = "a red house left of a blue tree in snow at night"
TURNS = 3, 9
"""Timed passes of every schedule: at least the first number; at most the second, while time is left."""
SECONDS = 15.0
"""After this long no further turn begins."""


def calibrate(
    generator: Any,
    *,
    batch: int = 1,
    embeddings: Any = None,
    between: Callable[[], None] | None = None,
    time_pass: Callable[[Schedule], float] | None = None,
    seconds: float | None = None,
) -> Calibration:
    """Time a few small schedules on an image generator's device and fit what their parts cost.

    Turns over all schedules alternate, so that a slower minute meets all of them; one turn of warm-up is not
    counted, and every schedule's time is its median. No pass is interrupted.

    Args:
        batch: images of a pass.
        embeddings: encoded prompts to time with; else one of our own, encoded here.
        between: called before every pass; may raise to give up, and may run other passes on the device.
        time_pass: schedule -> seconds, in place of the generator's own clock.
        seconds: `SECONDS`, or another time for it.

    Raises:
        ExecutionError: the model lowers its schedules in a way that has no latency model.
    """
    seconds = SECONDS if seconds is None else seconds
    layout = generator.layout
    lowering = generator.model.lower
    if not isinstance(lowering, Lowering):
        raise ExecutionError(f"there is no latency model for a {type(generator.model).__name__}")
    fitted, held_out = calibration_schedules(layout), held_out_schedules(layout)
    chosen = [*fitted, *held_out]
    if time_pass is None:
        encoded = repeated(generator.encode([PROMPT]) if embeddings is None else embeddings, batch)
        time_pass = _clock(generator, encoded, list(range(batch)))
    started = time.perf_counter()
    times: dict[str, list[float]] = {schedule.name: [] for schedule in chosen}
    for turn in range(1 + TURNS[1]):
        if turn > TURNS[0] and time.perf_counter() - started > seconds:
            break
        for schedule in chosen:
            if between is not None:
                between()
            took = time_pass(schedule)
            if turn:
                times[schedule.name].append(took)
    samples = [
        Sample(one.name, counts(lowering(one)), statistics.median(times[one.name]), one in held_out)
        for one in chosen
    ]
    return Calibration.fitted(
        layout,
        samples,
        conditions=conditions_of(generator, batch),
        rows=generator.rows,
        lowering=lowering,
        took=time.perf_counter() - started,
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _clock(generator: Any, embeddings: Any, seeds: list[int]) -> Callable[[Schedule], float]:
    """Schedule -> seconds of its denoising loop.

    On one CPU thread only the time that the thread really ran counts: what else runs on its core would
    otherwise be fitted as a price.
    """
    alone = getattr(generator.device, "type", generator.device) == "cpu" and generator.threads == 1

    def time_pass(schedule: Schedule) -> float:
        began, ran = time.perf_counter(), time.thread_time()
        seconds = generator.denoise_timed(embeddings, seeds, schedule)[1]
        if alone:
            seconds *= min(1.0, (time.thread_time() - ran) / (time.perf_counter() - began))
        return seconds

    return time_pass


def calibration_schedules(layout: Layout) -> list[Schedule]:
    """What is timed: a few short schedules in which everything with a price occurs in other proportions.

    All rows stand on the sampler's own times for their number. FORA reads sums, single kinds of components
    computed alone tell their prices apart, and random ones read kept values in short and in long stretches.
    """
    found = [_named(heuristics.uncached(layout, rows)) for rows in (2, 5)]
    found += [_named(heuristics.fora(layout, rows, n)) for rows, n in ((5, 2), (7, 3), (14, 14))]
    for name in layout.names:
        bits = np.zeros((6, len(layout)), dtype=bool)
        bits[0] = True
        bits[:, layout.columns(tuple(_with_readers(layout, name)))] = True
        found.append(_named(Schedule(layout, bits, name=f"{name} in every row")))
    seeds_shares_lengths = ((1, 0.5, 2), (2, 0.2, 6), (3, 0.15, 20), (4, 0.05, 40))
    return found + [_random(layout, 6, *one) for one in seeds_shares_lengths]


def held_out_schedules(layout: Layout) -> list[Schedule]:
    """What is timed beside them to know the prices' error: such schedules as people try."""
    found = [heuristics.uncached(layout, 4), heuristics.fora(layout, 9, 4)]
    found.append(heuristics.cross_and_self(layout, 7, 3))
    return [_named(one) for one in found] + [_random(layout, 8, 5, 0.3, 9)]


def _with_readers(layout: Layout, name: str) -> dict[str, None]:
    """The name of a component and those of all that must be computed for its value to reach the output."""
    found, new = {name: None}, [name]
    while new:
        values = [v for column in layout.columns(new.pop()) for v in layout.values_of[column]]
        if any(layout.values[v].adds_to == layout.output for v in values):
            continue
        streams = {layout.values[v].adds_to for v in values}
        for reader in layout.values:
            if streams & set(reader.reads_streams) or set(values) & set(reader.reads_values):
                known = layout.components[reader.component].name
                if known not in found:
                    found[known] = None
                    new.append(known)
    return found


def _named(schedule: Schedule) -> Schedule:
    return schedule.replace(name=f"{schedule.name}, {schedule.rows} rows")


def _random(layout: Layout, rows: int, seed: int, share: float, length: int) -> Schedule:
    rng = np.random.default_rng(seed)
    bits = np.array([_stretches(rng, len(layout), share, length) for _ in range(rows)])
    bits[0] = True
    return _named(Schedule(layout, bits, name=f"random {share:.0%} in stretches of {length}"))


def _stretches(rng: np.random.Generator, columns: int, share: float, length: int) -> np.ndarray:
    """A row bool [C] of which about `share` is computed, skipped in stretches of about `length`."""
    run = max(1.0, length * share / (1 - share))  # neighbouring computed components
    row: list[bool] = []
    state = bool(rng.random() < share)
    while len(row) < columns:
        row += [state] * int(rng.geometric(1 / (run if state else length)))
        state = not state
    return np.array(row[:columns])


def repeated(embeddings: Any, batch: int) -> Any:
    """The first `batch` encoded prompts, the given ones again and again if they are fewer."""
    import dataclasses

    import torch

    given = len(embeddings)
    if given >= batch:
        return embeddings[:batch]
    index = torch.arange(batch) % given
    changes = {
        one.name: value[index.to(value.device)]
        for one in dataclasses.fields(embeddings)
        if len(value := getattr(embeddings, one.name)) == given and not one.name.startswith("empty_")
    }
    return dataclasses.replace(embeddings, **changes)


def conditions_of(generator: Any, batch: int) -> dict[str, Any]:
    """What a time on this generator depends on."""
    found = {**generator.fingerprint(), "processor": processor(), "batch": int(batch), "execution": EXECUTION}
    return {name: found[name] for name in CONDITIONS if name in found}


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# where calibrations lie


def calibrations_folder(data: str | Path) -> Path:
    """Where the calibrations of a data folder lie."""
    return Path(data) / "calibrations"


def calibration_path(data: str | Path, conditions: Mapping[str, Any]) -> Path:
    """The file of the calibration for these conditions in a data folder; other conditions have another."""
    text = json.dumps({name: conditions.get(name) for name in CONDITIONS}, sort_keys=True)
    stem = "".join(c if c.isalnum() or c in "-." else "-" for c in str(conditions.get("model", "model")))
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return calibrations_folder(data) / f"{stem}-{digest}.json"


def stored_calibration(generator: Any, batch: int, data: str | Path) -> Calibration | None:
    """The calibration of a data folder that holds for this generator and batch; None if there is none.

    Raises ExecutionError for a file in its place that is none.
    """
    conditions = conditions_of(generator, batch)
    path = calibration_path(data, conditions)
    if not path.exists():
        return None
    found = Calibration.load(path)
    found.check(conditions)
    return found


def store_calibration(calibration: Calibration, data: str | Path) -> Path:
    """Write a calibration to its place in a data folder; returns the file."""
    return calibration.save(calibration_path(data, calibration.conditions))

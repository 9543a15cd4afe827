"""Search from one call: open or begin the run, check that it is the same search, run it to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecad.execution.latency import Calibration
from ecad.metrics.protocol import Metric
from ecad.models.protocol import ImageGenerator, OnRow
from ecad.search.errors import SearchError
from ecad.search.evaluation import Evaluation
from ecad.search.evaluator import Evaluator
from ecad.search.progress import Progress
from ecad.search.settings import STOPS, SearchSettings
from ecad.search.store import RunStore
from ecad.search.thread import RunOnDevice, Search


def search(
    generator: ImageGenerator,
    metrics: Metric | Sequence[Metric],
    settings: SearchSettings,
    path: str | Path,
    *,
    run_on_device: RunOnDevice | None = None,
    on_row: OnRow | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    accept_changes: bool = False,
    calibration: Calibration | None = None,
) -> list[Evaluation]:
    """Search for schedules on the front of cost against quality; returns the front, cheapest first.

    The run is the file `path`: called again with the same arguments, it goes on where it was, or returns at
    once.

    Args:
        metrics: the reward first; the others are noted beside it.
        on_progress: called about twice a second.
        accept_changes: go on although the weights, versions, device or threads are others than before.
        calibration: what predicts latency, for a new run whose cost is that (`ecad.calibrate` makes one).

    >>> import ecad, tempfile, pathlib
    >>> settings = ecad.SearchSettings.of("default", prompts=["a red house"], reward="ssim", generations=40)
    >>> settings.population, settings.generations
    (24, 40)
    """
    evaluator = make_evaluator(generator, metrics, settings)
    with open_run(path, evaluator, settings, accept_changes=accept_changes, calibration=calibration) as store:
        task = Search(evaluator, store, run_on_device=run_on_device, on_row=on_row)
        task.start()
        try:
            while not task.wait(0.5):
                if on_progress is not None:
                    on_progress(task.progress())
        except BaseException:
            task.stop()
            task.wait()
            raise
        if on_progress is not None:
            on_progress(task.progress())
        return store.front()


def make_evaluator(
    generator: ImageGenerator, metrics: Metric | Sequence[Metric], settings: SearchSettings
) -> Evaluator:
    """The evaluator of a search's settings; its first metric must be the settings' reward."""
    metrics = tuple(metrics) if isinstance(metrics, (list, tuple)) else (metrics,)
    if not metrics or metrics[0].name != settings.reward:
        given = metrics[0].name if metrics else "nothing"
        raise SearchError(f"the settings' reward is {settings.reward}, but the first metric is {given}")
    prompts, seeds = settings.images()
    return Evaluator(generator, metrics, prompts, seeds, settings.batch)


def open_run(
    path: str | Path,
    evaluator: Evaluator,
    settings: SearchSettings,
    *,
    accept_changes: bool = False,
    calibration: Calibration | None = None,
) -> RunStore:
    """The run `path` for writing, begun if it is not there.

    A run goes on only with the settings it was begun with (when to stop may change) and, unless
    `accept_changes`, with the same fingerprint; otherwise one sentence says what differs. An accepted change
    is noted in the run. `calibration` is for a new run whose cost is latency; a run that goes on has its own.
    """
    path = Path(path)
    fingerprint = evaluator.fingerprint()
    if not path.exists():
        if calibration is not None:
            calibration.check({**evaluator.generator.fingerprint(), "batch": settings.batch})
        return RunStore.create(
            path,
            settings,
            layout=evaluator.generator.layout,
            uncached_macs=evaluator.uncached_macs,
            higher_is_better=evaluator.reward.higher_is_better,
            batches=[len(batch.prompts) for batch in evaluator.batches],
            fingerprint=fingerprint,
            calibration=calibration,
        )
    store = RunStore.open(path, write=True)
    try:
        other = store.settings.differences(settings, but=STOPS)
        if other:
            said = "; ".join(f"`{name}` was {_short(a)}, now {_short(b)}" for name, (a, b) in other.items())
            raise SearchError(
                f"the run {store.name} was begun with other settings ({said}): choose another name"
            )
        if store.layout != evaluator.generator.layout:
            raise SearchError(
                f"the run {store.name} is for {store.layout.name}, not for {evaluator.generator.layout.name}"
            )
        changes = differences(store.fingerprint, fingerprint)
        if changes and not accept_changes:
            said = "; ".join(f"{name} was {_short(a)}, now {_short(b)}" for name, (a, b) in changes.items())
            raise SearchError(
                f"the run {store.name} was made under other conditions ({said}), so new scores would not be"
                f" comparable to the last bit: pass --accept-changes to go on all the same"
            )
        if changes:
            last = store.last_generation()
            store.add_event("changed", generation=0 if last is None else last[0] + 1, changes=changes)
            store.fingerprint = fingerprint
        if store.settings != settings:
            store.settings = settings
    except BaseException:
        store.close()
        raise
    return store


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (before, now) of every leaf in which two nested JSON objects differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{name}.")
        elif a != b:
            found[prefix + name] = (a, b)
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."

"""The search itself: NSGA-II over a run, in a thread that can be paused, stopped and fed from outside."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from ecad.execution import Cancelled
from ecad.models.protocol import OnRow
from ecad.schedule import Schedule
from ecad.search.errors import SearchError
from ecad.search.evaluation import Evaluation
from ecad.search.evaluator import Evaluator
from ecad.search.front import hypervolume, non_dominated
from ecad.search.genome import Genome, RawGenome, RowGenome
from ecad.search.progress import Pace, Progress
from ecad.search.seeds import seed_schedules
from ecad.search.settings import STOPS
from ecad.search.store import RunStore

RunOnDevice = Callable[[Callable[[], Any]], Any]
"""Runs a job where the device may be used, waits for it, returns its result; by default right here."""

PLATEAU = 1e-3  # growth of the hypervolume below which a plateau is one


class _Stopped(Exception):
    """Somebody called `stop`."""


class _Enough(Exception):
    """A limit is reached; the message says which."""


class Search:
    """A search over one run.

    `start` begins it, or goes on after `stop` or a kill: whatever the run holds is not computed again.
    `pause` lets the batch in flight end; `stop` drops it at the next denoising row. All methods may be called
    from any thread.

    Args:
        evaluator: must have the settings' images; `open_run` in `ecad.search.run` sees to it.
        store: the run, opened for writing; its settings decide the search.
        run_on_device: see `RunOnDevice`; called once per batch of images.
        on_row: called before each denoising row of the search's own evaluations.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        store: RunStore,
        *,
        run_on_device: RunOnDevice | None = None,
        on_row: OnRow | None = None,
    ):
        if not store.writable:
            raise SearchError(f"the run {store.path} was opened for reading only; a search writes")
        self.evaluator, self.store = evaluator, store
        self._run_on_device = run_on_device or (lambda job: job())
        self._on_row = on_row
        generator, settings = evaluator.generator, store.settings
        self.genome: Genome
        if settings.preset == "paper":
            self.genome = RawGenome(generator.layout, generator.rows)
        else:
            layout = generator.layout
            self.genome = RowGenome(layout, generator.timesteps, kind=layout.times_name)
        self._keys: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._go, self._halt = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._state, self._message = "new", ""
        self._generation = self._done = self._wanted = 0
        self._hypervolume: float | None = None
        self._pace = Pace()

    # control

    @property
    def state(self) -> str:
        return self._state

    @property
    def _busy(self) -> bool:
        return self._state in ("running", "pausing", "paused", "stopping")

    def start(self) -> None:
        """Begin, or go on after a stop, in a new thread; end a pause. Does nothing while it runs or stops."""
        with self._lock:
            if self._state in ("pausing", "paused"):
                self._state = "running"
                self._go.set()
            if self._state in ("running", "stopping"):
                return
            self._halt.clear()
            self._go.set()
            self._error, self._state, self._message = None, "running", "reading the run"
            self._thread = threading.Thread(target=self._main, name=f"search {self.store.name}", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Wait after the batch in flight until `resume`."""
        with self._lock:
            if self._state == "running":
                self._go.clear()
                self._state = "pausing"

    def resume(self) -> None:
        """End a pause; begin again after a stop."""
        if self._state in ("pausing", "paused", "stopped"):
            self.start()

    def stop(self) -> None:
        """End soon, at the next denoising row; the run stays resumable."""
        with self._lock:
            if self._state in ("running", "pausing", "paused"):
                self._state = "stopping"
                self._halt.set()
                self._go.set()

    def wait(self, timeout: float | None = None) -> bool:
        """True once the thread ended, within `timeout` seconds. Raises what made the search fail."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        if self._error is not None:
            raise self._error
        return True

    def set_stops(self, **stops: Any) -> None:
        """Change when to stop (`generations`, `evaluations`, `time_limit`, `plateau`), also while it runs."""
        unknown = sorted(set(stops) - set(STOPS))
        if unknown:
            raise SearchError(f"`{unknown[0]}` of a run cannot change; what can is {', '.join(STOPS)}")
        self.store.settings = self.store.settings.replace(**stops)

    # from outside

    def inject(self, schedule: Schedule, *, name: str | None = None) -> None:
        """Bring a schedule into the search: the generation under way takes it in as an individual.

        It is noted in the run at once, so it survives a kill. Raises `SearchError` if this search cannot vary
        it.
        """
        self.genome.encode(schedule)
        macs = self.evaluator.macs(schedule)
        self.store.add_schedule(schedule, macs=macs, origin="hand", name=name or schedule.name or "by hand")
        self.store.add_event("inject", generation=None, key=schedule.key)

    def evaluate(
        self,
        schedule: Schedule,
        *,
        name: str | None = None,
        run_on_device: RunOnDevice | None = None,
        on_row: OnRow | None = None,
    ) -> Evaluation:
        """Evaluate a schedule of any kind into the run, in the calling thread; one known is not computed
        again.

        The search need not run, and does not take the schedule in (`inject` does). A `Cancelled` raised by
        `on_row` passes through; whole batches scored before it are kept.
        """
        name = name or schedule.name or "by hand"
        return self._evaluate(
            schedule, name, "hand", None, run_on_device or self._run_on_device, on_row, lambda: None
        )

    def progress(self) -> Progress:
        """Where the search stands now; cheap enough to be asked every second."""
        settings = self.store.settings
        seconds, evaluations = self.store.seconds(), self.store.count()
        with self._lock:
            return Progress(
                state=self._state,
                message=self._message,
                generation=self._generation,
                generations=settings.generations,
                done=self._done,
                wanted=self._wanted,
                evaluations=evaluations,
                seconds=seconds,
                eta=self._pace.eta(settings, self._generation, evaluations, seconds) if self._busy else None,
                hypervolume=self._hypervolume,
            )

    # the thread

    def _main(self) -> None:
        try:
            reason = self._search()
            state, message, note = "finished", reason, f"finished: {reason}"
        except (_Stopped, CancelledError):
            state, message, note = "stopped", "stopped; it can go on from here", "stopped"
        except BaseException as error:  # kept for `wait`; a thread has nobody else to tell
            self._error = error
            state, message, note = "failed", str(error) or type(error).__name__, f"failed: {error}"
        try:
            self.store.state = note
        except Exception as error:
            self._error = self._error or error
        with self._lock:
            self._state, self._message = state, message

    def _search(self) -> str:
        """Run generations until a limit is reached; returns which."""
        from ecad.search.evolution import Evolution  # here, because pymoo takes a second to import

        store = self.store
        store.state = "running"
        settings = store.settings
        generator = self.evaluator.generator
        seeds = seed_schedules(generator.layout, generator.rows, generator.timesteps, settings)
        genomes = np.array([self.genome.encode(seed) for seed in seeds])
        names = {seed.key: seed.name for seed in seeds}
        evolution = Evolution(self.genome, settings, genomes, self._key, self._cost)
        archive: list[tuple[float, float]] = []
        reference: tuple[float, float] | None = None
        number = 0
        last = store.last_generation()
        if last is not None:
            number, state = last[0] + 1, last[1]
            evolution.restore(state, store.tried())
            archive = [(float.fromhex(a), float.fromhex(b)) for a, b in state["archive"]]
            reference = tuple(state["reference"])
            self._hypervolume = state["statistics"]["hypervolume"]
        try:
            while True:
                self._check_limits(number)
                asked = evolution.ask()
                if not len(asked):
                    return "no new schedule is left to try"
                told = self._evaluate_all([self.genome.decode(genome) for genome in asked], number, names)
                brought = store.take_injections(number)
                self._set(wanted=self._wanted + len(brought))
                extra = self._evaluate_all(brought, number, names, origin="hand", begin=len(told))
                outsiders = np.zeros((len(brought), self.genome.length), dtype=bool)
                for genome, schedule in zip(outsiders, brought, strict=True):
                    genome[:] = self.genome.encode(schedule)
                evolution.tell(np.array(told), outsiders, np.array(extra).reshape(-1, 2))

                points = archive + told + extra
                archive = [points[i] for i in non_dominated(points)]
                if (
                    reference is None
                ):  # fixed by the seeds, so that the figure means the same in every generation
                    reference = (1.1, max(error for _, error in told))
                volume = hypervolume(archive, reference)
                statistics = {
                    "hypervolume": volume,
                    "front": len(archive),
                    "evaluations": len(told) + len(extra),
                }
                state = {
                    **evolution.state(),
                    "archive": [[value.hex() for value in point] for point in archive],
                    "reference": list(reference),
                    "statistics": statistics,
                }
                store.add_generation(number, state)
                self._set(hypervolume=volume)
                number += 1
        except _Enough as enough:
            return str(enough)

    def _set(self, **values: Any) -> None:
        with self._lock:
            for name, value in values.items():
                setattr(self, "_" + name, value)

    def _check_limits(self, number: int) -> None:
        """Raise `_Enough` if generation `number` is not to begin."""
        settings = self.store.settings
        if settings.generations is not None and number > settings.generations:
            raise _Enough(f"{settings.generations} generations")
        if settings.plateau is not None and number > settings.plateau:
            volumes = [statistics["hypervolume"] for _, statistics in self.store.generations()]
            if volumes[-1] <= volumes[-1 - settings.plateau] * (1 + PLATEAU):
                raise _Enough(f"the front did not grow in {settings.plateau} generations")
        self._check_spent()

    def _check_spent(self) -> None:
        settings = self.store.settings
        if settings.evaluations is not None and self.store.count() >= settings.evaluations:
            raise _Enough(f"{settings.evaluations} evaluations")
        if settings.time_limit is not None and self.store.seconds() >= settings.time_limit:
            raise _Enough(f"{settings.time_limit:g} seconds")

    def _evaluate_all(
        self,
        schedules: list[Schedule],
        number: int,
        names: dict[str, str],
        *,
        origin: str = "",
        begin: int = 0,
    ) -> list[tuple[float, float]]:
        """Objectives (cost, 1 - quality) of the candidates of generation `number`, in order."""
        if not begin:
            self._set(generation=number, done=0, wanted=len(schedules))
        costs = [self._share(schedule) for schedule in schedules]
        objectives = []
        for index, schedule in enumerate(schedules):
            name = names.get(schedule.key) or schedule.name or f"g{number:03d}-{index:02d}"
            kind = origin or ("seed" if number == 0 else "search")
            self._set(message=f"generation {number}: {name}")
            self._pace.left(costs[index:])
            known = self.store.evaluation(schedule.key)
            if known is None:
                self._check_spent()
                start = time.perf_counter()
                known = self._evaluate(
                    schedule, name, kind, number, self._run_on_device, self._search_row, self._checkpoint
                )
                self._pace.took(costs[index], time.perf_counter() - start)
            if not math.isfinite(known.quality):
                raise SearchError(f"{name} has no quality: the reward gave no number")
            objectives.append((known.objective, 1.0 - known.quality))
            self._set(done=begin + index + 1)
            self._pace.left(costs[index + 1 :])
        return objectives

    def _checkpoint(self) -> None:
        """Between two batches: stop or wait here if asked to."""
        while not self._go.is_set():
            with self._lock:
                if self._state == "pausing":
                    self._state = "paused"
            self._go.wait()
        if self._halt.is_set():
            raise _Stopped

    def _search_row(self, row: int, rows: int) -> None:
        if self._halt.is_set():
            raise Cancelled("the search was stopped")
        if self._on_row is not None:
            self._on_row(row, rows)

    def _evaluate(
        self,
        schedule: Schedule,
        name: str,
        origin: str,
        generation: int | None,
        run_on_device: RunOnDevice,
        on_row: OnRow | None,
        between: Callable[[], None],
    ) -> Evaluation:
        """The stored evaluation of a schedule; batches that are not stored are computed, one job each."""
        known = self.store.evaluation(schedule.key)
        if known is not None:
            return known
        schedule = schedule.canonical()
        macs = self.evaluator.macs(schedule)
        self.store.add_schedule(schedule, macs=macs, origin=origin, generation=generation, name=name)
        done = self.store.batches_done(schedule.key)
        for index in range(len(self.evaluator.batches)):
            if index not in done:
                between()
                try:
                    run_on_device(lambda index=index: self._score(schedule, index, on_row))
                except Cancelled:
                    if self._halt.is_set() and on_row == self._search_row:
                        raise _Stopped from None
                    raise
        return self.store.evaluation(schedule.key)

    def _score(self, schedule: Schedule, index: int, on_row: OnRow | None) -> None:
        """One device job: compute and commit one batch, unless another job did so since it was asked for."""
        if index in self.store.batches_done(schedule.key):
            return
        elsewhere = 0.0  # time that others took the device for between two rows

        def row_hook(row: int, rows: int) -> None:
            nonlocal elsewhere
            start = time.perf_counter()
            on_row(row, rows)
            elsewhere += time.perf_counter() - start

        start = time.perf_counter()
        scores = self.evaluator.score_batch(schedule, index, on_row=None if on_row is None else row_hook)
        self.store.add_scores(schedule.key, index, scores, time.perf_counter() - start - elsewhere)

    def _key(self, genome: np.ndarray) -> str:
        """The canonical key of a genome's schedule."""
        packed = np.packbits(genome).tobytes()
        if packed not in self._keys:
            if len(self._keys) > 20_000:
                self._keys.clear()
            self._keys[packed] = self.genome.decode(genome.astype(bool)).key
        return self._keys[packed]

    def _cost(self, genome: np.ndarray) -> float:
        """The share of the uncached cost of a genome's schedule."""
        return self._share(self.genome.decode(genome.astype(bool)))

    def _share(self, schedule: Schedule) -> float:
        """A schedule's share of the uncached cost: of the MACs, or of the time that the run's calibration predicts."""
        if self.store.calibration is not None:
            return self.store.calibration.share(schedule.canonical())
        return self.evaluator.macs(schedule) / self.evaluator.uncached_macs

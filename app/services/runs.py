"""The runs the page shows, and the one search that all visitors share.

A run is opened for reading. The first time somebody evaluates a schedule or starts a search on it, it becomes
writable: in place if it lies in the data folder, else as a copy there, so what is shipped stays as it is. The
copy begins with the same evaluations in the same order, so points keep their ids and every open page simply
goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecad import (
    RunStore,
    Schedule,
    Search,
    SearchError,
    SearchSettings,
    find_run,
    fingerprint_differences,
    make_evaluator,
    open_run,
    run_path,
    runs_folder,
)

from .evaluating import EvaluationTask
from .points import Points
from .schedules import PageError
from .worker import DeviceWorker, Priority

# Leaves of a fingerprint that change an image's last bits at most; with others scores do not compare.
_HARMLESS = re.compile(
    r"threads|device|dtype|mode|torch|diffusers|transformers|.*version.*|library|python|numpy"
)
ACTIVE = ("running", "pausing", "paused", "stopping")


def _harmless(leaf: str) -> bool:
    return _HARMLESS.fullmatch(leaf.rsplit(".", 1)[-1]) is not None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """("dotted.name", value) of every leaf of nested mappings, sorted."""
    found = []
    for name, value in sorted(tree.items()):
        found += (
            _leaves(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
        )
    return found


class Run:
    """One run on the page: its points, and its search once it is writable."""

    def __init__(self, key: str, title: str, path: Path, rows: int):
        self.path = path
        self.points = Points(key, title, RunStore.open(path), rows)
        self.search: Search | None = None
        self.note = ""

    @property
    def key(self) -> str:
        return self.points.key

    @property
    def store(self) -> RunStore:
        return self.points.store


class Runs:
    """All runs of one page.

    Args:
        generator: the image generator; called in the worker's thread only.
        metrics: name -> metric, every metric a run may ask for.
        of_runs: names of the metrics of a new run, the reward first.
        prompts: count -> that many texts for a new run.
        shipped: a run file to show first, or None; `asked` (a name or path) goes before it.
    """

    def __init__(
        self,
        generator: Any,
        worker: DeviceWorker,
        *,
        metrics: Mapping[str, Any],
        of_runs: Sequence[str],
        prompts: Callable[[int], Sequence[str]],
        data_dir: Path,
        shipped: Path | None = None,
        asked: str | Path | None = None,
    ):
        self.generator, self.worker = generator, worker
        self.metrics, self.of_runs, self.prompts = metrics, of_runs, prompts
        self.data_dir = data_dir
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}
        self._active: Run | None = None
        self._tasks: list[EvaluationTask] = []
        self._looked = 0.0
        path = find_run(asked, data_dir) if asked is not None else shipped
        if path is not None:
            self._show(path)
        else:
            settings = self.settings(population=16, generations=4, images=6)
            self._new(settings, f"explorer-{self._stamp(settings)}")

    # what is shown

    def __getitem__(self, key: str | None) -> Run:
        """The run of that key; the first one for a key that is none."""
        with self._lock:
            return self._runs.get(key) or next(iter(self._runs.values()))

    @property
    def first(self) -> Run:
        return self[None]

    def poll(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """What a page must know now: the points it does not have, the runs there are, the state of the
        search."""
        run = self[query.get("run")]
        now = time.monotonic()
        if now - self._looked > 0.4:  # many pages ask; the file need not be read for each
            self._looked = now
            for one in list(self._runs.values()):
                one.points.refresh()
        since = query.get("since")
        known = query.get("run") == run.key and isinstance(since, int) and 0 <= since <= len(run.points)
        answer = run.points.delta(since if known else 0)
        answer["runs"] = [{"key": one.key, "title": one.points.title} for one in list(self._runs.values())]
        answer["note"] = run.note
        answer["state"] = self.state()
        return answer

    def state(self) -> dict[str, Any]:
        """The shared search in words and numbers, as every visitor sees it."""
        run = self._active
        evaluating = sum(not task.done for task in list(self._tasks))
        state: dict[str, Any] = {"status": "idle", "words": "No search is running", "can_start": True}
        if run is not None:
            progress = run.search.progress()
            status = {"pausing": "paused", "new": "idle", "stopped": "idle"}.get(
                progress.state, progress.state
            )
            words = {
                "running": f"Searching: generation {progress.generation}"
                + (f" of {progress.generations}" if progress.generations is not None else ""),
                "pausing": "Pausing after this batch",
                "paused": "Paused",
                "stopping": "Stopping",
                "stopped": "Stopped; it can go on from here",
                "finished": f"Finished after {progress.message}",
                "failed": "The search failed",
            }
            numbers = [["candidates", f"{progress.done} of {progress.wanted}"]] if progress.wanted else []
            numbers.append(["evaluated in all", f"{progress.evaluations:,}"])
            if progress.hypervolume is not None:
                numbers.append(["hypervolume", f"{progress.hypervolume:.4f}"])
            share = 0.0
            if progress.generations:
                share = (progress.generation + progress.done / max(1, progress.wanted)) / (
                    progress.generations + 1
                )
            state = {
                "status": status,
                "words": words.get(progress.state, "No search is running"),
                "numbers": numbers,
                "share": min(1.0, share),
                "eta": progress.eta,
                "can_start": progress.state not in ACTIVE,
                "message": progress.message if progress.state == "failed" else "",
                "run": run.key,
            }
        state["running"] = state["status"] == "running"
        state["evaluating"] = evaluating
        state["waiting"] = self.worker.waiting(Priority.EVALUATE)
        return state

    # the search

    def settings(
        self, *, population: int, generations: int, images: int, preset: str = "default", seed: int = 0
    ) -> SearchSettings:
        """Settings of a new run; `images` are judged per candidate, each of another prompt."""
        return SearchSettings.of(
            preset,
            prompts=tuple(self.prompts(images)),
            model=self.generator.name,
            population=population,
            generations=generations,
            seeds_per_prompt=1,
            batch=min(6, images),
            reward=self.of_runs[0],
            seed=seed,
        )

    def go_on(self, key: str | None, generations: int) -> Run:
        """Search on in a run by that many generations; all it holds stays. `PageError` while a search
        runs."""
        with self._lock:
            self._refuse_second()
            run = self.writable(self[key])
            last = run.store.last_generation()
            run.search.set_stops(
                generations=(-1 if last is None else last[0]) + generations,
                evaluations=None,
                time_limit=None,
                plateau=None,
            )
            self._active = run
            run.search.start()
            return run

    def begin(self, settings: SearchSettings) -> Run:
        """Begin a new run with these settings and search. `PageError` while a search runs."""
        with self._lock:
            self._refuse_second()
            numbers = [
                int(m.group(1))
                for p in runs_folder(self.data_dir).glob("search-*.sqlite")
                if (m := re.fullmatch(r"search-(\d+)", p.stem))
            ]
            run = self._new(settings, f"search-{max(numbers, default=0) + 1}")
            self._active = run
            run.search.start()
            return run

    def _refuse_second(self) -> None:
        if self._active is not None and self._active.search.state in ACTIVE:
            raise PageError("A search is under way already; stop it first, it is shared by all visitors.")

    def pause(self) -> None:
        if self._active is not None:
            self._active.search.pause()

    def resume(self) -> None:
        if self._active is not None:
            self._active.search.resume()

    def stop(self) -> None:
        if self._active is not None:
            self._active.search.stop()

    # by hand

    def evaluate(self, key: str | None, schedule: Schedule, name: str) -> EvaluationTask:
        """Score a schedule on the run's evaluation set; a search that runs there takes it in as an
        individual."""
        with self._lock:
            run = self.writable(self[key])
            if run is self._active and run.search.state in ACTIVE:
                with contextlib.suppress(SearchError):  # one that the search cannot vary is still evaluated
                    run.search.inject(schedule, name=name)
            task = EvaluationTask(run, schedule, name, self.worker)
            self._tasks = [one for one in self._tasks if not one.done] + [task]
            return task

    # files

    def writable(self, run: Run) -> Run:
        """`run` with a search over it; another run where its scores would not compare with what is loaded."""
        with self._lock:
            if run.search is not None:
                return run
            evaluator = self._evaluator(run.store)
            serious = self._serious(run.store, evaluator)
            if serious:
                name = f"{run.key}-{self._stamp(run.store.settings)}"
                return self._runs.get(name) or self._new(run.store.settings, name)
            path = run.path
            if path.parent.resolve() != runs_folder(self.data_dir).resolve():
                path = self._copy_of(path)
                if not path.exists():
                    run.store.export(path)
            store = open_run(path, evaluator, run.store.settings, accept_changes=True)
            run.search = self._search(evaluator, store)
            run.path = path
            run.points.replace_store(store)
            return run

    def _show(self, path: Path) -> Run:
        copy = self._copy_of(path)
        if path.parent.resolve() != runs_folder(self.data_dir).resolve() and copy.exists():
            path = copy  # somebody searched on or edited by hand here before: nothing of it is lost
        title = "the shipped run" if path == copy or "assets" in path.parts else path.stem
        run = Run(path.stem, title, path, self.generator.rows)
        if run.store.layout != self.generator.layout:
            raise SearchError(
                f"the run {path} is for {run.store.layout.name}, but {self.generator.name} has"
                f" {self.generator.layout.name}; choose another with --run"
            )
        serious = self._serious(run.store, self._evaluator(run.store))
        if serious:
            run.note = (
                "This run was made with other weights or metrics than those loaded here: its points show what"
                " was measured then, the images what the present weights make of the same schedules."
            )
        self._runs[run.key] = run
        return run

    def _copy_of(self, path: Path) -> Path:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if path.is_file() else "none"
        return run_path(f"{path.stem}-{digest}", self.data_dir)

    def _new(self, settings: SearchSettings, name: str) -> Run:
        evaluator = make_evaluator(self.generator, self._metrics([settings.reward, *self.of_runs]), settings)
        path = run_path(name, self.data_dir)
        store = open_run(path, evaluator, settings, accept_changes=True)
        run = Run(name, name, path, self.generator.rows)
        run.search = self._search(evaluator, store)
        run.points.replace_store(store)
        self._runs[run.key] = run
        return run

    def _stamp(self, settings: SearchSettings) -> str:
        """Six digits that stand for everything that makes scores comparable: weights, metrics, prompts."""
        names = [settings.reward, *self.of_runs]
        fingerprint = make_evaluator(self.generator, self._metrics(names), settings).fingerprint()
        kept = [leaf for leaf in _leaves(fingerprint) if not _harmless(leaf[0])]
        return hashlib.sha256(repr([kept, settings.to_json()]).encode()).hexdigest()[:6]

    def _search(self, evaluator: Any, store: RunStore) -> Search:
        return Search(
            evaluator,
            store,
            run_on_device=lambda job: self.worker.run(lambda _: job(), Priority.SEARCH),
            on_row=lambda row, rows: self.worker.yield_point(),
        )

    def _metrics(self, names: Sequence[str]) -> list[Any]:
        unknown = [name for name in names if name not in self.metrics]
        if unknown:
            raise PageError(f"This run is scored by {unknown[0]}, which the loaded model does not come with.")
        return [self.metrics[name] for name in dict.fromkeys(names)]

    def _evaluator(self, store: RunStore) -> Any:
        names = [store.settings.reward, *store.fingerprint.get("metrics", {})]
        return make_evaluator(self.generator, self._metrics(names), store.settings)

    def _serious(self, store: RunStore, evaluator: Any) -> list[str]:
        found = fingerprint_differences(store.fingerprint, evaluator.fingerprint())
        return [name for name in found if not _harmless(name)]

    def close(self) -> None:
        """Stop the search and close every file; what was scored is in the runs."""
        for task in self._tasks:
            task.cancel()
        for run in self._runs.values():
            if run.search is not None:
                run.search.stop()
                run.search.wait(30)
            run.store.close()

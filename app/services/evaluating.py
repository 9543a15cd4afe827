"""One schedule on its way through a run's evaluation set, on behalf of a visitor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ecad import Cancelled, Schedule

from .worker import DeviceWorker, Priority

if TYPE_CHECKING:
    from .runs import Run


class EvaluationTask:
    """A schedule on its way through a run's evaluation set; poll `done`, read `share`, or `cancel`."""

    def __init__(self, run: Run, schedule: Schedule, name: str, worker: DeviceWorker):
        self.run, self.schedule, self.name = run, schedule, name
        self.share = 0.0
        self.error: BaseException | None = None
        self._worker = worker
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._batch = -1
        threading.Thread(target=self._main, name="evaluate by hand", daemon=True).start()

    @property
    def done(self) -> bool:
        return self._finished.is_set()

    def cancel(self) -> None:
        """Stop at the next denoising row; batches scored before it stay in the run."""
        self._cancelled.set()

    def wait(self, timeout: float) -> bool:
        return self._finished.wait(timeout)

    def _main(self) -> None:
        try:
            self.run.search.evaluate(
                self.schedule, name=self.name, run_on_device=self._on_device, on_row=self._on_row
            )
            self.run.points.refresh()
            self.share = 1.0
        except BaseException as error:
            self.error = error
        finally:
            self._finished.set()

    def _on_device(self, job: Callable[[], Any]) -> Any:
        self._batch += 1
        return self._worker.run(lambda _: job(), Priority.EVALUATE)

    def _on_row(self, row: int, rows: int) -> None:
        if self._cancelled.is_set():
            raise Cancelled("the evaluation was cancelled")
        batches = len(self.run.search.evaluator.batches)
        self.share = min(1.0, (self._batch + row / rows) / batches)
        self._worker.yield_point()

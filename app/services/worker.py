"""One thread owns the device; everything that computes waits for its turn here.

Jobs carry a priority: a visitor's render goes before a hand-edited schedule's evaluation, and that before the
search. A job of lower urgency gives way in its middle: it calls `yield_point()` between two denoising steps,
and the worker then runs what waits with more urgency, in the same thread, before it returns. So a render
waits for one step of the search, never for a candidate, and while it runs nothing else computes: its time
is a fair one.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any


class Priority(enum.IntEnum):
    """Lower goes first."""

    RENDER = 0
    EVALUATE = 5
    SEARCH = 10
    PREPARE = 20


class Job:
    """A piece of work on its way through the worker.

    Attributes:
        progress: share of the work that is done, 0 to 1; the job's own function writes it, anyone may read
            it.
    """

    def __init__(self, work: Callable[[Job], Any], priority: int, number: int):
        self.work = work
        self.priority = priority
        self.number = number
        self.progress = 0.0
        self.started = False
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def __lt__(self, other: Job) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)

    @property
    def cancelled(self) -> bool:
        """True once somebody called `cancel`; the work itself looks here between two denoising steps."""
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        return self._finished.is_set()

    @property
    def error(self) -> BaseException | None:
        """What the work raised; None while it runs and after it went well."""
        return self._error

    def cancel(self) -> None:
        """Ask the job to end. One that has not begun never begins; a running one ends at its next look."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> bool:
        return self._finished.wait(timeout)

    def result(self) -> Any:
        """The work's result, waiting for it. Raises what the work raised, `CancelledError` if it never
        began."""
        self._finished.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        self.started = True
        try:
            if self.cancelled:
                raise CancelledError
            self._result = self.work(self)
            self.progress = 1.0
        except BaseException as error:  # whatever went wrong belongs to whoever waits for this job
            self._error = error
        finally:
            self._finished.set()


class DeviceWorker:
    """The only thread that touches the device.

    Args:
        prepare: called once in the thread before its first job (loads the model, pins the number of threads).
    """

    def __init__(self, prepare: Callable[[], None] | None = None):
        self._prepare = prepare
        self._queue: list[Job] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._running: list[
            Job
        ] = []  # a stack: the outermost job first, those that ran at its yield points after
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="device-worker", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Job], Any], priority: int = Priority.RENDER) -> Job:
        """Queue `work`; it is called with its own `Job`, to look for `cancelled` and to write `progress`."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the worker is closed")
            job = Job(work, priority, next(self._numbers))
            heapq.heappush(self._queue, job)
            self._changed.notify_all()
        return job

    def run(self, work: Callable[[Job], Any], priority: int = Priority.SEARCH) -> Any:
        """Submit, wait, return the result. Inside the worker's own thread the work runs at once, in place."""
        if threading.current_thread() is self._thread:
            job = Job(work, priority, next(self._numbers))
            self._run_now(job)
            return job.result()
        return self.submit(work, priority).result()

    def yield_point(self) -> None:
        """Run what waits with more urgency than the job that calls this, one after another, then return.

        Outside the worker's thread, and where nothing is urgent, it does nothing.
        """
        if threading.current_thread() is not self._thread:
            return
        while True:
            with self._changed:
                here = self._running[-1].priority if self._running else max(Priority) + 1
                if not self._queue or self._queue[0].priority >= here:
                    return
                job = heapq.heappop(self._queue)
            self._run_now(job)

    def ahead(self, job: Job) -> int:
        """How many jobs the worker will take before `job`; 0 for one that runs or is finished."""
        with self._changed:
            if job.started or job not in self._queue:
                return 0
            interruptible = [j for j in self._running if j.priority > job.priority]
            waiting = sum(other < job for other in self._queue if not other.cancelled)
            return waiting + len(self._running) - len(interruptible)

    def waiting(self, priority: int) -> int:
        """How many jobs of at least this urgency wait for their turn."""
        with self._changed:
            return sum(job.priority <= priority and not job.cancelled for job in self._queue)

    @property
    def busy(self) -> bool:
        with self._changed:
            return bool(self._running or self._queue)

    def close(self) -> None:
        """Cancel what waits, let the running job end at its next look, and end the thread."""
        with self._changed:
            self._closed = True
            for job in [*self._queue, *self._running]:
                job.cancel()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=60)

    def _run_now(self, job: Job) -> None:
        with self._changed:
            self._running.append(job)
        try:
            job._run()
        finally:
            with self._changed:
                self._running.remove(job)

    def _loop(self) -> None:
        if self._prepare is not None:
            self._prepare()
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                job = heapq.heappop(self._queue)
            self._run_now(job)

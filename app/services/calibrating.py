"""The device's latency calibration: read where it was kept, else made once nobody wants the device."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from ecad import (
    Calibration,
    Cancelled,
    ExecutionError,
    calibrate,
    store_calibration,
    stored_calibration,
)

from .worker import DeviceWorker, Job, Priority

IDLE = 15.0
"""Seconds for which nobody wanted the device before it is calibrated."""


class DeviceCalibration:
    """What predicts how much faster a schedule is on this device; predictions are never shown as measured.

    It is read from the data folder. Where there is none that holds for this device, it is made in the worker's turn
    when the device has been idle, giving way to visitors between any two passes, and kept.

    Args:
        generator: the loaded image generator; only the worker's thread runs it.
        data_dir: the data folder.
        idle: see `IDLE`.

    Attributes:
        found: the calibration, or None as long as there is none.
    """

    def __init__(self, generator: Any, worker: DeviceWorker, data_dir: Path, *, idle: float = IDLE):
        self.generator, self.worker, self.data_dir = generator, worker, data_dir
        self.found: Calibration | None = worker.run(lambda job: self._stored())
        self._idle = idle
        self._closed = threading.Event()
        self._job: Job | None = None
        self._thread = threading.Thread(target=self._wait_for_idle, name="calibrate when idle", daemon=True)
        if self.found is None:
            self._thread.start()

    def close(self) -> None:
        """Make no calibration any more; one that is being made ends after its pass."""
        self._closed.set()
        if self._job is not None:
            self._job.cancel()

    def _stored(self) -> Calibration | None:
        try:
            return stored_calibration(self.generator, 1, self.data_dir)
        except ExecutionError as error:
            logging.getLogger(__name__).warning("%s; it will be made anew", error)
            return None

    def _wait_for_idle(self) -> None:
        last_busy = time.monotonic()
        while time.monotonic() - last_busy < self._idle:
            if self._closed.wait(min(0.5, self._idle)):
                return
            if self.worker.busy:
                last_busy = time.monotonic()
        try:
            self._job = self.worker.submit(self._calibrate, Priority.PREPARE)
        except RuntimeError:  # the worker was closed meanwhile
            return
        self._job.wait()
        error = self._job.error
        if error is not None and not self._closed.is_set():
            logging.getLogger(__name__).warning("no latency calibration: %s", error)

    def _calibrate(self, job: Job) -> None:
        def between() -> None:
            if job.cancelled or self._closed.is_set():
                raise Cancelled("the page is closing")
            self.worker.yield_point()

        found = calibrate(self.generator, batch=1, between=between)
        store_calibration(found, self.data_dir)
        self.found = found

"""One writer per run: a file lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import os
from pathlib import Path

from ecad.search.errors import SearchError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


class RunLock:
    """An exclusive lock on `FILE.lock` beside a run, held until `release`.

    SQLite's own locks refuse a transaction, not a second search between two transactions; this one does.
    Raises `SearchError` if another process, or another store of this one, holds it.
    """

    def __init__(self, run: Path):
        self.path = run.with_name(run.name + ".lock")
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(self._handle)
            raise SearchError(
                f"another search is writing the run {run}; wait for its end or stop it"
            ) from None

    def release(self) -> None:
        """Give the lock back; the side file stays: deleting it would let two writers hold two locks."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

"""The file of a run: how it is begun, opened, locked and recognised, and what it says of itself."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ecad.execution.latency import Calibration
from ecad.schedule import Layout
from ecad.schedule.layouts import layout as layout_by_name
from ecad.search.errors import SearchError
from ecad.search.lock import RunLock
from ecad.search.settings import SearchSettings

APPLICATION_ID = 0x45434144  # "ECAD", in the header of every run file
FORMAT = 1

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE schedules (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, row_count INTEGER NOT NULL, bits BLOB NOT NULL,
    keywords TEXT NOT NULL, name TEXT NOT NULL, origin TEXT NOT NULL, generation INTEGER);
CREATE TABLE scores (
    schedule INTEGER NOT NULL REFERENCES schedules, batch INTEGER NOT NULL, metric TEXT NOT NULL, value BLOB
    NOT NULL, PRIMARY KEY (schedule, batch, metric)) WITHOUT ROWID;
CREATE TABLE costs (
    schedule INTEGER NOT NULL REFERENCES schedules, kind TEXT NOT NULL, value NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (schedule, kind, record)) WITHOUT ROWID;
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY, schedule INTEGER NOT NULL UNIQUE REFERENCES schedules, means TEXT NOT NULL,
    images INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE genomes (id INTEGER PRIMARY KEY, bits BLOB NOT NULL UNIQUE);
CREATE TABLE generations (number INTEGER PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, generation INTEGER, schedule INTEGER REFERENCES schedules,
    detail TEXT NOT NULL);
"""


class RunFile:
    """An open run file: connections, transactions, and the facts that hold for the whole run.

    Any thread may read; any thread may write if it was created or opened with `write=True`, which holds the
    run's lock until `close`. Errors a user can cause are `SearchError`s.
    """

    def __init__(self, path: Path, *, uri: str, lock: RunLock | None):
        self.path = path
        self._uri = uri
        self._lock = lock
        self._local = threading.local()  # SQLite connections do not cross threads: each thread opens its own
        self._closed = False

    @classmethod
    def create(
        cls,
        path: str | Path,
        settings: SearchSettings,
        *,
        layout: Layout,
        uncached_macs: int,
        higher_is_better: bool,
        batches: Sequence[int],
        fingerprint: Mapping[str, Any],
        calibration: Calibration | None = None,
    ) -> Self:
        """Start a run file; refuses a path where something lies.

        Args:
            uncached_macs: of the uncached schedule, `full` convention: the unit of `Evaluation.cost`.
            higher_is_better: of the reward.
            batches: number of images of each fixed batch of the evaluation set.
            fingerprint: what else decides a score; see `Evaluator.fingerprint`.
            calibration: what predicts latency, where the settings' cost is that; the run keeps it.
        """
        if (settings.cost == "latency") != (calibration is not None):
            raise SearchError(
                "a search whose cost is latency needs a calibration of this device: begin it with"
                " `python -m ecad search --cost latency`, which makes one"
                if calibration is None
                else "a search whose cost is macs takes no latency calibration"
            )
        path = Path(path)
        lock = RunLock(path)
        unfinished = path.with_name(f".{path.name}.new")
        try:
            if path.exists():
                raise SearchError(f"{path} exists already")
            facts = {
                "settings": settings.to_json(),
                "layout": json.dumps(layout.name),
                "uncached_macs": json.dumps(int(uncached_macs)),
                "higher_is_better": json.dumps(bool(higher_is_better)),
                "batches": json.dumps([int(size) for size in batches]),
                "fingerprint": json.dumps(fingerprint, sort_keys=True),
                "created": json.dumps(datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
                "state": json.dumps("new"),
            }
            if calibration is not None:
                facts["calibration"] = calibration.to_json()
            # Under its name the file is a whole run or not there: a kill in between leaves the name free.
            unfinished.unlink(missing_ok=True)
            db = sqlite3.connect(unfinished)
            db.executescript(_TABLES)
            db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.commit()
            db.close()
            unfinished.replace(path)
            store = cls(path, uri=path.absolute().as_uri() + "?mode=rw", lock=lock)
            store._db().execute("PRAGMA journal_mode=WAL")
        except BaseException:
            unfinished.unlink(missing_ok=True)
            lock.release()
            raise
        return store

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Self:
        """Open a run. A file that is no run is refused with one sentence."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                header = file.read(100)
        except OSError as error:
            raise SearchError(f"the run {path} cannot be read ({error.strerror})") from None
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise SearchError(f"{path} is not a run of ECAD Explorer")
        wal = header[18] == 2  # the file format's write version: 2 is WAL
        alone = not os.access(path.parent, os.W_OK)
        journal = path.with_name(path.name + "-wal")
        if alone and wal and journal.exists() and journal.stat().st_size:
            raise SearchError(
                f"the run {path} was not closed; copy it with {journal.name} to where one can write"
            )
        if write:
            mode = "?mode=rw"
        elif not wal or alone:
            # Nothing may write it, or nothing can: SQLite then needs neither locks nor side files.
            mode = "?mode=ro&immutable=1"
        else:
            mode = "?mode=ro"
        store = cls(path, uri=path.absolute().as_uri() + mode, lock=RunLock(path) if write else None)
        try:
            db = store._db()
            found = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if found != APPLICATION_ID:
                raise SearchError(f"{path} is not a run of ECAD Explorer")
            if version != FORMAT:
                raise SearchError(f"{path} is a run of format {version}; this version reads format {FORMAT}")
            if write and not wal:
                db.execute("PRAGMA journal_mode=WAL")
            _ = (store.settings, store.layout)
        except sqlite3.DatabaseError as error:
            store.close()
            raise SearchError(f"{path} is not a readable run of ECAD Explorer ({error})") from None
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file; a writer that is the last to close leaves no side file but the lock."""
        self._closed = True
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
        self._local = threading.local()  # other threads' connections close as they are collected
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def writable(self) -> bool:
        return self._lock is not None

    def _db(self) -> sqlite3.Connection:
        if self._closed:
            raise SearchError(f"the run {self.path} is closed")
        connection = getattr(self._local, "connection", None)
        if connection is None:
            # Autocommit: transactions are opened where they are meant. Threads wait for each other.
            connection = sqlite3.connect(self._uri, uri=True, isolation_level=None, timeout=60)
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._lock is None:
            raise SearchError(f"the run {self.path} was opened for reading only")
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    # facts

    def _fact(self, name: str) -> Any:
        row = self._db().execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise SearchError(f"{self.path} is a damaged run: it does not say its {name}")
        return json.loads(row[0])

    def _set_fact(self, name: str, value: Any) -> None:
        with self._transaction() as db:
            text = value if name == "settings" else json.dumps(value, sort_keys=True)
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, text))

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def settings(self) -> SearchSettings:
        return SearchSettings.of(**self._fact("settings"))

    @settings.setter
    def settings(self, value: SearchSettings) -> None:
        self._set_fact("settings", value.to_json())

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self._fact("fingerprint")

    @fingerprint.setter
    def fingerprint(self, value: Mapping[str, Any]) -> None:
        self._set_fact("fingerprint", value)

    @property
    def state(self) -> str:
        """What the search last said: "new", "running", "stopped", "failed: ..." or "finished: ..."."""
        return self._fact("state")

    @state.setter
    def state(self, value: str) -> None:
        self._set_fact("state", value)

    @functools.cached_property
    def layout(self) -> Layout:
        return layout_by_name(self._fact("layout"))

    @property
    def uncached_macs(self) -> int:
        return self._fact("uncached_macs")

    @functools.cached_property
    def calibration(self) -> Calibration | None:
        """What predicts the latency of this run's schedules; None where its cost is MACs.

        It is part of the run: predictions after a resume are those from before, on whatever machine.
        """
        if self.settings.cost != "latency":
            return None
        return Calibration.from_json(json.dumps(self._fact("calibration")), source=str(self.path))

    @property
    def batches(self) -> list[int]:
        """Number of images of each batch of the evaluation set."""
        return self._fact("batches")

"""A run on disk: one SQLite file that survives `kill -9` at any moment.

Every scored batch is committed before the next begins, every generation leaves the whole state of the search,
and nothing is written but numbers, text and packed bits. While a search writes, the file is in WAL mode with
`synchronous=FULL`; a run that is shipped is exported without WAL and opened immutable, so that it may lie on
a read-only disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecad.schedule import Schedule
from ecad.search.errors import SearchError
from ecad.search.evaluation import Evaluation, keywords_of, mean
from ecad.search.front import non_dominated
from ecad.search.runfile import RunFile

_EVALUATIONS = """
SELECT e.id, s.key, s.name, c.value, e.means, e.images, s.origin, s.generation, e.seconds, s.row_count,
       s.bits, s.keywords, t.value FROM evaluations e JOIN schedules s ON s.id = e.schedule
       JOIN costs c ON c.schedule = s.id AND c.kind = 'macs_full'
       LEFT JOIN costs t ON t.schedule = s.id AND t.kind = 'predicted_latency'
"""


class RunStore(RunFile):
    """What a run holds: schedules, scores, evaluations, generations, events."""

    # schedules and scores

    def add_schedule(
        self,
        schedule: Schedule,
        *,
        macs: int,
        origin: str,
        generation: int | None = None,
        name: str | None = None,
    ) -> int:
        """Row number of the canonical schedule, added if new; one known keeps its first name and origin.

        Where the run's cost is latency, what its calibration predicts is noted with it.
        """
        canonical = schedule.canonical()
        predicted = None if self.calibration is None else self.calibration.seconds(canonical)
        keywords = json.dumps(keywords_of(canonical))
        with self._transaction() as db:
            row = db.execute("SELECT id FROM schedules WHERE key = ?", (schedule.key,)).fetchone()
            if row is not None:
                return row[0]
            packed = np.packbits(canonical.bits).tobytes()
            values = (
                schedule.key,
                canonical.rows,
                packed,
                keywords,
                name or schedule.name,
                origin,
                generation,
            )
            number = db.execute(
                "INSERT INTO schedules (key, row_count, bits, keywords, name, origin, generation)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            ).lastrowid
            db.execute("INSERT INTO costs VALUES (?, 'macs_full', ?, '{}')", (number, int(macs)))
            if predicted is not None:
                db.execute("INSERT INTO costs VALUES (?, 'predicted_latency', ?, '{}')", (number, predicted))
            return number

    def add_cost(self, key: str, kind: str, value: float, record: Mapping[str, Any]) -> None:
        """Note a measured cost (such as kind "latency", in seconds) with the record of how it was taken."""
        with self._transaction() as db:
            number = self._number(key)
            values = (number, kind, value, json.dumps(record, sort_keys=True))
            db.execute("INSERT OR REPLACE INTO costs VALUES (?, ?, ?, ?)", values)

    def costs(self, key: str) -> list[tuple[str, float, dict[str, Any]]]:
        """(kind, value, record) of every cost noted for the schedule of that key."""
        rows = self._db().execute(
            "SELECT kind, value, record FROM costs WHERE schedule = ? ORDER BY kind, record",
            (self._number(key),),
        )
        return [(kind, value, json.loads(record)) for kind, value, record in rows]

    def _number(self, key: str) -> int:
        row = self._db().execute("SELECT id FROM schedules WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise SearchError(f"the run {self.name} holds no schedule with the key {key}")
        return row[0]

    def batches_done(self, key: str) -> set[int]:
        """Indices of the batches whose scores are stored for the schedule of that key."""
        rows = self._db().execute(
            "SELECT DISTINCT batch FROM scores WHERE schedule = (SELECT id FROM schedules WHERE key = ?)",
            (key,),
        )
        return {batch for (batch,) in rows}

    def add_scores(self, key: str, batch: int, scores: Mapping[str, np.ndarray], seconds: float) -> None:
        """Commit one batch's scores, metric -> float64 [B]; the last batch completes the evaluation."""
        with self._transaction() as db:
            number = self._number(key)
            # One that is there already stays: what was once read must never change.
            db.executemany(
                "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?)",
                [(number, batch, name, np.asarray(v, "<f8").tobytes()) for name, v in sorted(scores.items())],
            )
            spent = db.execute(
                "SELECT value FROM costs WHERE schedule = ? AND kind = 'seconds'", (number,)
            ).fetchone()
            seconds += spent[0] if spent else 0.0
            db.execute("INSERT OR REPLACE INTO costs VALUES (?, 'seconds', ?, '{}')", (number, seconds))
            done = db.execute(
                "SELECT COUNT(DISTINCT batch) FROM scores WHERE schedule = ?", (number,)
            ).fetchone()[0]
            sizes = self.batches
            if done == len(sizes):
                means = {name: mean(values) for name, values in self._scores(db, number).items()}
                means = {name: value if value == value else None for name, value in means.items()}
                db.execute(
                    "INSERT OR IGNORE INTO evaluations (schedule, means, images, seconds)"
                    " VALUES (?, ?, ?, ?)",
                    (number, json.dumps(means, sort_keys=True), sum(sizes), seconds),
                )

    def _scores(self, db: sqlite3.Connection, number: int) -> dict[str, np.ndarray]:
        rows = db.execute(
            "SELECT metric, value FROM scores WHERE schedule = ? ORDER BY metric, batch", (number,)
        )
        parts: dict[str, list[np.ndarray]] = {}
        for metric, value in rows:
            parts.setdefault(metric, []).append(np.frombuffer(value, "<f8"))
        return {metric: np.concatenate(values) for metric, values in parts.items()}

    def scores(self, key: str) -> dict[str, np.ndarray]:
        """metric -> float64 [images], in the evaluation set's order, of what is stored for that schedule."""
        return self._scores(self._db(), self._number(key))

    # evaluations

    def evaluation(self, key: str) -> Evaluation | None:
        """The finished evaluation of the schedule with that key, or None."""
        row = self._db().execute(_EVALUATIONS + "WHERE s.key = ?", (key,)).fetchone()
        return None if row is None else self._evaluations([row])[0]

    def evaluations(self) -> list[Evaluation]:
        """Every finished evaluation, in the order of completion."""
        return self._evaluations(self._db().execute(_EVALUATIONS + "ORDER BY e.id"))

    def since(self, last: int, *, limit: int = 1000) -> tuple[list[Evaluation], int]:
        """(evaluations finished after number `last`, oldest first, at most `limit`; the new `last`)."""
        rows = self._db().execute(_EVALUATIONS + "WHERE e.id > ? ORDER BY e.id LIMIT ?", (last, limit))
        found = self._evaluations(rows)
        return found, found[-1].id if found else last

    def count(self) -> int:
        """Number of finished evaluations."""
        return self._db().execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]

    def seconds(self) -> float:
        """Device time spent on evaluations, all sessions together."""
        return self._db().execute("SELECT TOTAL(value) FROM costs WHERE kind = 'seconds'").fetchone()[0]

    def _evaluations(self, rows: Any) -> list[Evaluation]:
        rows = list(rows)
        if not rows:
            return []
        layout, settings, uncached = self.layout, self.settings, self.uncached_macs
        sign = 1.0 if self._fact("higher_is_better") else -1.0
        found = []
        for (
            number,
            key,
            name,
            macs,
            means,
            images,
            origin,
            generation,
            seconds,
            height,
            packed,
            keywords,
            predicted,
        ) in rows:
            means = {metric: float("nan") if v is None else v for metric, v in json.loads(means).items()}
            evaluation = Evaluation(
                key=key,
                name=name,
                macs=macs,
                cost=macs / uncached,
                quality=sign * means.get(settings.reward, float("nan")),
                means=means,
                images=images,
                origin=origin,
                generation=generation,
                id=number,
                seconds=seconds,
                layout=layout,
                bits=self._bits(packed, height),
                keywords=json.loads(keywords),
                model=settings.model,
                latency=None if predicted is None else predicted / self.calibration.uncached_seconds,
            )
            found.append(evaluation)
        return found

    def _bits(self, packed: bytes, height: int) -> np.ndarray:
        """Read-only bool [R, C] from its packed bits."""
        count = height * len(self.layout)
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool).reshape(height, -1)
        bits.flags.writeable = False
        return bits

    def front(self) -> list[Evaluation]:
        """The non-dominated evaluations by rising cost; of equal ones the one with the smallest key."""
        found = sorted(self.evaluations(), key=lambda evaluation: evaluation.key)
        return [found[i] for i in non_dominated([(e.objective, -e.quality) for e in found])]

    def digest(self) -> str:
        """SHA-256 over the finished evaluations sorted by key: keys, MACs and every image's exact scores.

        Where the run's cost is latency, what was predicted too. No measured time, no order and no row number
        goes in: a resumed run has the digest of the undisturbed one.
        """
        db = self._db()
        rows = db.execute(
            "SELECT s.id, s.key, c.value, t.value FROM evaluations e JOIN schedules s ON s.id = e.schedule"
            " JOIN costs c ON c.schedule = s.id AND c.kind = 'macs_full'"
            " LEFT JOIN costs t ON t.schedule = s.id AND t.kind = 'predicted_latency' ORDER BY s.key"
        ).fetchall()
        digest = hashlib.sha256()
        for number, key, macs, predicted in rows:
            digest.update(f"{key} {macs}\n".encode())
            if predicted is not None:
                digest.update(f"{predicted.hex()}\n".encode())
            for metric, values in sorted(self._scores(db, number).items()):
                digest.update(f"{metric} {len(values)}\n".encode() + values.astype("<f8").tobytes())
        return digest.hexdigest()

    # generations and events

    def add_generation(self, number: int, state: Mapping[str, Any]) -> None:
        """Commit a finished generation; `state["population"]` holds packed genomes, each stored once."""
        with self._transaction() as db:
            ids = []
            for genome in state["population"]:
                db.execute("INSERT OR IGNORE INTO genomes (bits) VALUES (?)", (genome,))
                ids.append(db.execute("SELECT id FROM genomes WHERE bits = ?", (genome,)).fetchone()[0])
            text = json.dumps({**state, "population": ids}, sort_keys=True, allow_nan=False)
            db.execute("INSERT INTO generations VALUES (?, ?)", (number, text))

    def last_generation(self) -> tuple[int, dict[str, Any]] | None:
        """(number, state as `add_generation` took it) of the last finished generation; None before one."""
        db = self._db()
        row = db.execute("SELECT number, state FROM generations ORDER BY number DESC LIMIT 1").fetchone()
        if row is None:
            return None
        state = json.loads(row[1])
        ids = state["population"]
        state["population"] = [
            db.execute("SELECT bits FROM genomes WHERE id = ?", (number,)).fetchone()[0] for number in ids
        ]
        return row[0], state

    def generations(self) -> list[tuple[int, dict[str, Any]]]:
        """(number, statistics) of every finished generation: hypervolume and counts."""
        rows = self._db().execute(
            "SELECT number, json_extract(state, '$.statistics') FROM generations ORDER BY number"
        )
        return [(number, json.loads(text or "{}")) for number, text in rows]

    def tried(self) -> set[str]:
        """Keys of every schedule that a finished generation was told about."""
        rows = self._db().execute("SELECT value FROM generations, json_each(state, '$.told')")
        return {key for (key,) in rows}

    def add_event(self, kind: str, *, generation: int | None, key: str | None = None, **detail: Any) -> None:
        """Note what came from outside; an "inject" without a generation waits for the next to take it."""
        with self._transaction() as db:
            number = None if key is None else self._number(key)
            db.execute(
                "INSERT INTO events (kind, generation, schedule, detail) VALUES (?, ?, ?, ?)",
                (kind, generation, number, json.dumps(detail, sort_keys=True)),
            )

    def take_injections(self, generation: int) -> list[Schedule]:
        """The schedules that generation `generation` takes in, in the order they were brought.

        What waits is assigned to it first, in the same transaction: after a kill the same generation finds
        the same.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE events SET generation = ? WHERE kind = 'inject' AND generation IS NULL", (generation,)
            )
            rows = db.execute(
                "SELECT s.name, s.row_count, s.bits, s.keywords"
                " FROM events e JOIN schedules s ON s.id = e.schedule"
                " WHERE e.kind = 'inject' AND e.generation = ? ORDER BY e.id",
                (generation,),
            ).fetchall()
        return [
            Schedule(self.layout, self._bits(packed, height), name=name, **json.loads(keywords))
            for name, height, packed, keywords in rows
        ]

    def events(self) -> list[dict[str, Any]]:
        """Every event in order: kind, generation, key of its schedule, detail."""
        rows = self._db().execute(
            "SELECT e.kind, e.generation, s.key, e.detail"
            " FROM events e LEFT JOIN schedules s ON s.id = e.schedule ORDER BY e.id"
        )
        return [
            {"kind": kind, "generation": generation, "key": key, "detail": json.loads(detail)}
            for kind, generation, key, detail in rows
        ]

    def export(self, path: str | Path) -> Path:
        """Write a copy without WAL, to ship or to archive; it replaces `path` in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            self._db().execute("VACUUM INTO ?", (str(temporary),))
            copy = sqlite3.connect(temporary)
            copy.execute("PRAGMA journal_mode=DELETE")
            copy.close()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

"""A run's evaluations as the points of a plot: appended to, never changed, handed out as deltas."""

from __future__ import annotations

import base64
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

# How the plot draws a point. The letters go over the wire, one per point.
UNCACHED, FEWER, FORA, HAND, OTHER = "u", "f", "o", "e", "s"

_LABELS = {
    "facts-right": ("facts right", True),
    "storybook-reward": ("reward", False),
    "psnr": ("PSNR to uncached, dB", False),
    "ssim": ("SSIM to uncached", False),
    "flip": ("FLIP to uncached (low is close)", False),
}
_LOWER_IS_BETTER = {"flip"}
_ORDER = ["storybook-reward", "facts-right", "psnr", "ssim", "flip"]


def kind_of(evaluation: Any, rows: int) -> str:
    """The kind of an evaluation in a run whose sampler makes `rows` steps."""
    name = (evaluation.name or "").lower()
    if evaluation.origin == "hand":
        return HAND
    if bool(evaluation.bits.all()):
        if evaluation.rows == rows and not evaluation.keywords:
            return UNCACHED
        return FEWER if evaluation.origin == "seed" else OTHER
    if evaluation.origin == "seed" and re.fullmatch(r"fora-?\d+", name) and evaluation.rows == rows:
        return FORA
    return OTHER


def doubles(values: Sequence[float]) -> str:
    """Little-endian float64, base64: a tenth of the same numbers as JSON text, and exact."""
    return base64.b64encode(np.asarray(values, dtype="<f8").tobytes()).decode()


class Points:
    """What the plot shows of one run. Any thread may read; ids are places in the order of completion, from 0.

    Args:
        key: names the run in the browser; another key makes the browser forget what it has.
        title: for people.
        store: an open `RunStore`.
        rows: steps of the sampler without a schedule's own times.
    """

    def __init__(self, key: str, title: str, store: Any, rows: int):
        self.key, self.title, self.rows = key, title, rows
        self._lock = threading.Lock()
        self._evaluations: list[Any] = []
        self._kinds: list[str] = []
        self._ids: dict[str, int] = {}  # schedule key -> id
        self._last = 0
        self.replace_store(store)

    def replace_store(self, store: Any) -> None:
        """Go on reading from another file of the same run: a copy that begins with the same evaluations."""
        with self._lock:
            self.store = store
        self.refresh()

    def refresh(self) -> None:
        """Read what was evaluated since the last look."""
        with self._lock:
            while True:
                found, last = self.store.since(self._last)
                for evaluation in found:
                    self._ids[evaluation.key] = len(self._evaluations)
                    self._evaluations.append(evaluation)
                    self._kinds.append(kind_of(evaluation, self.rows))
                self._last = last
                if not found:
                    return

    def __len__(self) -> int:
        return len(self._evaluations)

    def evaluation(self, number: int) -> Any | None:
        """The evaluation with that id, or None."""
        return self._evaluations[number] if 0 <= number < len(self._evaluations) else None

    def id_of(self, schedule_key: str) -> int | None:
        return self._ids.get(schedule_key)

    @property
    def reward(self) -> str:
        return self.store.settings.reward

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics of this run, the reward first."""
        names = set(
            self._evaluations[0].means if self._evaluations else self.store.fingerprint.get("metrics", ())
        )
        known = [name for name in _ORDER if name in names]
        rest = sorted(names - set(known))
        ordered = [*known, *rest]
        return sorted(ordered, key=lambda name: name != self.reward)

    def front(self, metric: str | None = None) -> list[int]:
        """Ids of the non-dominated points, by rising MACs."""
        metric = metric or self.reward
        sign = -1.0 if metric in _LOWER_IS_BETTER else 1.0
        scored = [
            (e.macs, -sign * e.means.get(metric, math.nan), i)
            for i, e in enumerate(self._evaluations)
            if math.isfinite(e.means.get(metric, math.nan))
        ]
        front, best = [], math.inf
        for _, loss, i in sorted(scored):
            if loss < best:
                front.append(i)
                best = loss
        return front

    def first_choice(self, speed: float = 2.5) -> int | None:
        """The point to show before anybody chose: on the front, found by the search, near `speed` times fewer
        MACs."""
        front = self.front()
        found = [i for i in front if self._kinds[i] == OTHER] or front
        uncached = self.store.uncached_macs
        return min(
            found, key=lambda i: abs(math.log(uncached / self._evaluations[i].macs / speed)), default=None
        )

    def delta(self, since: int) -> dict[str, Any]:
        """The points from id `since` on, ready for the browser."""
        fresh = self._evaluations[since:]
        metrics = self.metrics
        names, labels = {}, {}
        for i, evaluation in enumerate(fresh, since):
            kind = self._kinds[i]
            names[str(i)] = title_of(evaluation, i)
            if kind == FEWER:
                labels[str(i)] = str(evaluation.rows)
            elif kind == FORA:
                labels[str(i)] = "FORA-" + re.search(r"\d+", evaluation.name).group()
        return {
            "run": self.key,
            "from": since,
            "uncached": self.store.uncached_macs,
            "metrics": [
                {
                    "name": name,
                    "label": _LABELS.get(name, (name, False))[0],
                    "percent": _LABELS.get(name, (name, False))[1],
                    "higher": name not in _LOWER_IS_BETTER,
                }
                for name in metrics
            ],
            "macs": doubles([e.macs for e in fresh]),
            "quality": {name: doubles([e.means.get(name, math.nan) for e in fresh]) for name in metrics},
            "kinds": "".join(self._kinds[since : since + len(fresh)]),
            "names": names,
            "labels": labels,
            "generations": [-1 if e.generation is None else e.generation for e in fresh],
        }


def title_of(evaluation: Any, number: int) -> str:
    """What people call an evaluation: its own name, or its number where it was bred."""
    if evaluation.origin == "search" or not evaluation.name:
        return f"found #{number}"
    return evaluation.name

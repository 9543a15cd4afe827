"""A schedule's cost and quality, measured on a prompt set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ecad.schedule import Layout, Schedule


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One schedule's place in a run.

    Attributes:
        key: the canonical schedule's key.
        name: of the schedule, for people.
        macs: multiply-accumulates per image in the `full` convention.
        cost: `macs` over those of the uncached schedule.
        quality: mean reward, in the reward's own unit; sign turned if the reward is a distance.
        means: metric -> mean over the images, NaN where the metric says nothing about any of them.
        images: how many images the means are over.
        origin: "seed" (a heuristic), "search" (a child), "hand" (brought in by a person).
        generation: the generation that proposed it; None if no generation did.
        id: place in the run's order of completion, from 1; None if it is not of a run.
        seconds: device time its images and scores took.
        layout, bits, keywords: the canonical schedule; bits bool [R, C], and what else its constructor was
            given: its own times, T-GATE's gate; {} for most.
        scores: metric -> float64 [images], in the order of the evaluation set; None when read back in short.
        latency: predicted time over that of the uncached schedule, in a run whose cost is latency; else None.
    """

    key: str
    name: str
    macs: int
    cost: float
    quality: float
    means: Mapping[str, float]
    images: int
    origin: str
    generation: int | None
    id: int | None
    seconds: float
    layout: Layout
    bits: np.ndarray
    keywords: Mapping[str, Any]
    model: str | None = None
    scores: Mapping[str, np.ndarray] | None = field(default=None, repr=False)
    latency: float | None = None

    @property
    def objective(self) -> float:
        """What its run minimises beside the error: the predicted latency where there is one, else the cost."""
        return self.cost if self.latency is None else self.latency

    @property
    def speed(self) -> float:
        """How many times fewer MACs than uncached: what the speed-up would be if time followed MACs."""
        return 1.0 / self.cost

    @property
    def rows(self) -> int:
        return len(self.bits)

    @cached_property
    def schedule(self) -> Schedule:
        """The canonical schedule, ready to run or to save, with what was measured of it."""
        measured = {"total_macs": self.macs, **{name: finite(value) for name, value in self.means.items()}}
        return Schedule(
            self.layout, self.bits, name=self.name, model=self.model, metrics=measured, **self.keywords
        )

    def summary(self) -> dict[str, Any]:
        """What a list of the front shows of it, as JSON values."""
        predicted = {} if self.latency is None else {"predicted_speed": 1.0 / self.latency}
        return {
            "name": self.name,
            "key": self.key,
            "rows": self.rows,
            "macs": self.macs,
            "cost": self.cost,
            "speed": self.speed,
            **predicted,
            "quality": finite(self.quality),
            "metrics": {name: finite(value) for name, value in self.means.items()},
            "origin": self.origin,
            "generation": self.generation,
        }


def keywords_of(schedule: Schedule) -> dict[str, Any]:
    """What besides layout and bits makes a schedule the one it is, as its constructor takes it, for JSON."""
    values = {"timesteps": schedule.timesteps, "sigmas": schedule.sigmas, "gate_step": schedule.gate_step}
    return {name: value for name, value in values.items() if value is not None}


def mean(scores: Iterable[float]) -> float:
    """Exactly rounded mean of the finite scores; NaN without any. NaN marks an image not judged."""
    judged = [float(score) for score in scores if math.isfinite(score)]
    return math.fsum(judged) / len(judged) if judged else math.nan


def finite(value: float) -> float | None:
    """`value`, or None where strict JSON has no number for it."""
    return value if math.isfinite(value) else None

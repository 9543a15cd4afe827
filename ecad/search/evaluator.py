"""From a schedule to its cost and quality, the same way every time.

An image's last bits depend on the size of its batch (not on its place in it, nor on its mates), on the thread
count, the kind of device and the dtype. So the evaluation set is cut once into fixed batches, every schedule
runs on whole batches only, schedules are never stacked, and means are exactly rounded sums in float64.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecad.metrics.protocol import Metric
from ecad.models.protocol import ImageGenerator, OnRow
from ecad.schedule import Schedule
from ecad.search.errors import SearchError
from ecad.search.evaluation import Evaluation, keywords_of, mean


@dataclass(frozen=True)
class Batch:
    """Images computed together: equally many prompts and noise seeds."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


class Evaluator:
    """Evaluates schedules of one image generator on one evaluation set.

    Args:
        metrics: one metric or several; the first is the reward, whose mean is the quality.
        prompts, seeds: of every image of the evaluation set, equally many.
        batch: images per batch; the last batch may be smaller.
    """

    def __init__(
        self,
        generator: ImageGenerator,
        metrics: Metric | Sequence[Metric],
        prompts: Sequence[str],
        seeds: Sequence[int],
        batch: int = 6,
    ):
        self.generator = generator
        self.metrics = tuple(metrics) if isinstance(metrics, (list, tuple)) else (metrics,)
        if len({metric.name for metric in self.metrics}) != len(self.metrics) or not self.metrics:
            raise SearchError("an evaluation needs at least one metric, each of them once")
        if len(prompts) != len(seeds) or not prompts:
            raise SearchError(
                f"an evaluation needs as many seeds as prompts, not {len(seeds)} for {len(prompts)}"
            )
        self.batches = tuple(
            Batch(tuple(prompts[i : i + batch]), tuple(seeds[i : i + batch]))
            for i in range(0, len(prompts), batch)
        )
        self._table = generator.cost_table("full")
        self.uncached = Schedule(
            generator.layout, np.ones((generator.rows, len(generator.layout)), dtype=bool), name="uncached"
        )
        self.uncached_macs = int(self._table.macs(self.uncached).total)
        self._embeddings: dict[int, Any] = {}
        self._references: dict[int, np.ndarray] = {}

    @property
    def reward(self) -> Metric:
        return self.metrics[0]

    @property
    def images(self) -> int:
        """Number of images of the evaluation set."""
        return sum(len(batch.prompts) for batch in self.batches)

    def fingerprint(self) -> dict[str, Any]:
        """What decides a score to the bit, as JSON: generator, metrics and the batches (as a digest)."""
        cut = json.dumps([[batch.prompts, batch.seeds] for batch in self.batches])
        return {
            "generator": dict(self.generator.fingerprint()),
            "metrics": {metric.name: dict(metric.fingerprint()) for metric in self.metrics},
            "images": hashlib.sha256(cut.encode()).hexdigest()[:16],
        }

    def macs(self, schedule: Schedule) -> int:
        """Multiply-accumulates per image, `full` convention: what running the schedule really computes."""
        self._check(schedule)
        return int(self._table.macs(schedule).total)

    def _check(self, schedule: Schedule) -> None:
        if schedule.layout.name != self.generator.layout.name:
            raise SearchError(
                f"the schedule is for {schedule.layout.name}, but {self.generator.name} needs one for"
                f" {self.generator.layout.name}"
            )

    def score_batch(
        self, schedule: Schedule, index: int, *, on_row: OnRow | None = None
    ) -> dict[str, np.ndarray]:
        """metric -> scores float64 [images] of batch `index` under `schedule`, in the batch's order."""
        self._check(schedule)
        batch = self.batches[index]
        references = None
        if any("references" in metric.needs for metric in self.metrics):
            references = self.references(index, on_row=on_row)
        if references is not None and schedule.key == self.uncached.key:
            images = references
        else:
            images = self._render(schedule, index, on_row)
        scores = {}
        for metric in self.metrics:
            values = metric.score(
                images,
                prompts=list(batch.prompts) if "prompts" in metric.needs else None,
                references=references if "references" in metric.needs else None,
            )
            scores[metric.name] = np.asarray(values, dtype=np.float64)
        if not np.isfinite(scores[self.reward.name]).all():
            raise SearchError(
                f"the reward {self.reward.name} gave no number for an image; the search needs one for each"
            )
        return scores

    def references(self, index: int, *, on_row: OnRow | None = None) -> np.ndarray:
        """The uncached images of batch `index`, uint8 [B, H, W, 3]; computed once."""
        if index not in self._references:
            self._references[index] = self._render(self.uncached, index, on_row)
        return self._references[index]

    def _render(self, schedule: Schedule, index: int, on_row: OnRow | None) -> np.ndarray:
        batch = self.batches[index]
        if index not in self._embeddings:
            self._embeddings[index] = self.generator.encode(list(batch.prompts))
        latents = self.generator.denoise(self._embeddings[index], list(batch.seeds), schedule, on_row=on_row)
        return self.generator.decode(latents)

    def evaluate(self, schedule: Schedule, *, on_row: OnRow | None = None) -> Evaluation:
        """Evaluate a schedule outside any run; `Search.evaluate` does it inside one, batch by batch."""
        start = time.perf_counter()
        parts = [self.score_batch(schedule, index, on_row=on_row) for index in range(len(self.batches))]
        scores = {
            metric.name: np.concatenate([part[metric.name] for part in parts]) for metric in self.metrics
        }
        means = {name: mean(values) for name, values in scores.items()}
        canonical = schedule.canonical()
        macs = self.macs(schedule)
        return Evaluation(
            key=schedule.key,
            name=schedule.name,
            macs=macs,
            cost=macs / self.uncached_macs,
            quality=means[self.reward.name] * (1.0 if self.reward.higher_is_better else -1.0),
            means=means,
            images=self.images,
            origin="hand",
            generation=None,
            id=None,
            seconds=time.perf_counter() - start,
            layout=schedule.layout,
            bits=canonical.bits,
            keywords=keywords_of(canonical),
            model=self.generator.name,
            scores=scores,
        )

"""Which of a search's schedules stands for a level of cost: a second round on more images.

A search judges each candidate on a few images and keeps the best of many, so its winners are in part the lucky ones.
Here the best few of a level meet again on other images, more of them, and the best of those is chosen. The images
that the chosen one is reported on are others once more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecad.schedule import Schedule
from ecad.search import SearchSettings

if TYPE_CHECKING:
    from ecad.metrics.protocol import Metric
    from ecad.models import ImageGenerator
    from ecad.search import Evaluation

Pick = Callable[[Sequence["Evaluation"]], Schedule]
"""Chooses one of a level's evaluations."""

NOISE_SEED = 2_000_000  # far from the seeds of any search, and from those of the report


def best(found: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The `count` best by the run's own scores, the cheaper first of equal ones."""
    return sorted(found, key=lambda one: (-one.quality, one.macs))[:count]


def by_own_score(found: Sequence[Evaluation]) -> Schedule:
    """The best by the run's own scores."""
    return best(found, 1)[0].schedule


def second_round(
    generator: ImageGenerator, reward: Metric, prompts: Sequence[str], count: int, path: Path, *, batch: int
) -> Pick:
    """The best of the `count` best on `prompts`; scored batches are kept in the run file `path`."""
    from ecad.search import Search, make_evaluator, open_run

    settings = SearchSettings.of(
        prompts=list(prompts),
        model=generator.name,
        reward=reward.name,
        noise_seed=NOISE_SEED,
        batch=batch,
        generations=0,
    )
    evaluator = make_evaluator(generator, [reward], settings)

    def pick(found: Sequence[Evaluation]) -> Schedule:
        finalists = best(found, count)
        if len(finalists) == 1:
            return finalists[0].schedule
        with open_run(path, evaluator, settings) as store:
            search = Search(evaluator, store)
            for number, one in enumerate(finalists):
                name = one.schedule.name
                print(f"finalist {number + 1} of {len(finalists)}: {name}", file=sys.stderr, flush=True)
                search.evaluate(one.schedule)
            again = {one.key: store.evaluation(one.key).quality for one in finalists}
        return max(finalists, key=lambda one: (again[one.key], -one.macs)).schedule

    return pick

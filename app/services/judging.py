"""The metrics of the loaded model, and the facts its judge reads in a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ecad import load_judge, metric

FIDELITY = ("psnr", "ssim", "flip")


class Judging:
    """What images of a model are scored by.

    Attributes:
        metrics: name -> metric, all that runs may ask for.
        of_runs: names of the metrics of a new run, the reward first; a search pays for each of them.
        fidelity: the metrics that compare with the uncached image.
        read_facts: (image, prompt) -> [(fact, right?)], or None where the model has no judge.
    """

    def __init__(self, storybook: bool):
        self.fidelity = [metric(name) for name in FIDELITY]
        self.metrics: dict[str, Any] = {}
        self.read_facts: Callable[[np.ndarray, str], Sequence[tuple[str, bool]]] | None = None
        if storybook:
            judge = load_judge()
            self.metrics |= {one.name: one for one in (judge.reward, judge.facts)}
            self.read_facts = lambda image, prompt: _facts(judge, image, prompt)
        self.metrics |= {one.name: one for one in self.fidelity}
        self.of_runs = ("storybook-reward", "facts-right", "psnr") if storybook else ("ssim", "psnr")


def _facts(judge: Any, image: np.ndarray, prompt: str) -> list[tuple[str, bool]]:
    """The caption's facts in words; what the judge saw instead where it is another."""
    found = judge.read(image[None], [prompt])[0]
    return [] if found is None else [(_words(fact), fact.right) for fact in found]


def _words(fact: Any) -> str:
    if fact.right:
        return fact.asked
    return f"{fact.asked}, seen: {fact.seen or 'nothing'}"

"""A toy image generator and metric for the search's tests: exact, instant, deterministic.

Run as a script it searches in a process of its own that a test may kill:
    python toy.py RUN [--generations N] [--pause SECONDS] [--preset NAME] [--inject]
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from ecad.schedule import Schedule, heuristics, layout
from ecad.schedule.costs import cost_table
from ecad.schedule.layouts import PixArtDimensions
from ecad.search import Search, SearchSettings, make_evaluator, open_run

BLOCKS, ROWS, SIDE = 3, 8, 6


def _rng(*words) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr(words).encode()).digest()))


class ToyGenerator:
    """Images are noise of (prompt, seed) plus an error that grows with what a schedule leaves out."""

    name = "toy"
    layout = layout(f"pixart-{BLOCKS}")
    rows = ROWS
    timesteps = tuple(range(960, 0, -120))
    guidance_scale, height, width, device, dtype, threads = 1.0, SIDE, SIDE, "cpu", "float64", 1

    def __init__(self, pause: float = 0.0, weights: str = "w0"):
        self.pause, self.weights = pause, weights
        self.passes: list[tuple[str, tuple[int, ...]]] = []  # (key of the schedule, seeds) of every pass

    def fingerprint(self):
        return {"weights": self.weights, "threads": self.threads}

    def cost_table(self, convention="full"):
        size = PixArtDimensions(**{**_dimensions().__dict__, "num_blocks": BLOCKS})
        return cost_table(size, convention=convention)

    def encode(self, prompts):
        return list(prompts)

    def denoise(self, embeddings, seeds, schedule=None, *, on_row=None):
        schedule = schedule or heuristics.uncached(self.layout, self.rows)
        self.passes.append((schedule.key, tuple(seeds)))
        for row in range(schedule.rows):
            if on_row is not None:
                on_row(row, schedule.rows)
            time.sleep(self.pause)
        bits = schedule.canonical().bits
        weight = _rng("weights").random(len(self.layout)) + 0.1
        held = np.cumsum(1.0 - bits, axis=0) * (1 - bits)  # how long each value has been reused
        error = float((held * weight).sum()) + 3.0 * (self.rows - schedule.rows) ** 1.5
        latents = [
            _rng(prompt, seed).normal(size=(SIDE, SIDE, 3)) * 30 + _rng(prompt, seed, 1).normal() * error
            for prompt, seed in zip(embeddings, seeds, strict=True)
        ]
        return np.stack(latents)

    def decode(self, latents):
        return np.clip(np.round(latents + 128), 0, 255).astype(np.uint8)


def _dimensions():
    from ecad.schedule.layouts.pixart import STORYBOOK

    return STORYBOOK


class ToyReward:
    """Minus the mean absolute difference to the uncached image, plus a constant per prompt."""

    name = "toy-reward"
    higher_is_better = True
    needs = frozenset({"prompts", "references"})

    def __init__(self):
        self.calls = 0

    def fingerprint(self):
        return {"version": 1}

    def score(self, images, *, prompts=None, references=None):
        self.calls += 1
        difference = np.abs(images.astype(float) - references.astype(float)).mean(axis=(1, 2, 3))
        return np.array([len(prompt) / 1000 for prompt in prompts]) - difference / 50


def toy_settings(**overrides) -> SearchSettings:
    values = {
        "prompts": ("a red house", "a blue tree", "a car"),
        "model": "toy",
        "reward": "toy-reward",
        "population": 6,
        "generations": 4,
        "seed_count": 10,
        "seed": 3,
        "batch": 2,
    }
    values |= overrides
    return SearchSettings.of(values.pop("preset", "default"), **values)


def toy_search(path, settings=None, *, generator=None, accept_changes=False, **options) -> Search:
    settings = settings or toy_settings()
    evaluator = make_evaluator(generator or ToyGenerator(), ToyReward(), settings)
    return Search(evaluator, open_run(path, evaluator, settings, accept_changes=accept_changes), **options)


def brought_in() -> Schedule:
    """A schedule that nobody proposes by chance."""
    bits = _rng("brought in").random((ROWS, 3 * BLOCKS)) < 0.5
    return Schedule(ToyGenerator.layout, bits, name="by hand")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--inject", action="store_true")
    args = parser.parse_args()
    settings = toy_settings(generations=args.generations, preset=args.preset)
    search = toy_search(args.run, settings, generator=ToyGenerator(args.pause))
    if args.inject and not search.store.events():
        search.inject(brought_in())
    print("open", flush=True)
    search.start()
    search.wait()
    passes = search.evaluator.generator.passes
    search.store.close()
    print(f"passes {len(passes)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Times, errors and counted MACs of a set of cases: interleaved samples of one and the same denoising loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from benchmark_cases import ALL_TRUE, PROBE, STOCK, Case
from benchmark_models import Subject
from component_counter import computed_bits, macs_of


@dataclass
class Samples:
    """What was measured of one case. `macs`: of one image, in the convention `full`, really spent."""

    seconds: list[float] = field(default_factory=list)
    macs: int = 0
    error: float | None = None


class Measurement:
    """The cases on one batch. Samples alternate between all cases, every second turn in reverse."""

    def __init__(self, subject: Subject, cases: list[Case], batch: int, *, cpu_time: bool) -> None:
        self.generator, self.subject = subject.generator, subject
        self.cases, self.batch, self.cpu_time = cases, batch, cpu_time
        self.found = {case.name: Samples() for case in cases}

    def run(self, samples: int, images: int = 0, say: Callable[[str], None] = lambda text: None) -> None:
        """Count and warm up, compare `images` images with the stock model's, then take the samples.

        The first batch is the one that is timed; its pass is the warm-up.
        """
        given = self.subject.embeddings(max(self.batch, images))
        truth: list[torch.Tensor] = []
        for case in sorted(self.cases, key=lambda case: case.name != STOCK):  # the stock model's come first
            say(f"warming up: {case.name}")
            latents = [
                self._pass(case, given[start : start + self.batch], start)[0]
                for start in range(0, max(images, 1), self.batch)
            ]
            if case.name == STOCK:
                truth = latents
            if images:
                self.found[case.name].error = _distance(latents, truth)
        timed = given[: self.batch]
        table = self.generator.cost_table("full")
        for case in self.cases:
            # Only a threshold's decisions depend on the batch.
            count = self.batch if "threshold" in case.settings else min(self.batch, PROBE)
            bits = computed_bits(self.generator, case.model, case.schedule, timed[:count], list(range(count)))
            self.found[case.name].macs = macs_of(bits, table)
        for turn in range(samples):
            say(f"sample {turn + 1} of {samples}")
            for case in self.cases if turn % 2 == 0 else reversed(self.cases):
                self.found[case.name].seconds.append(self._pass(case, timed, 0)[1])

    def _pass(self, case: Case, embeddings: Any, first_seed: int) -> tuple[torch.Tensor, float]:
        """One pass: final latents (float32, on the CPU) and its seconds."""
        generator = self.generator
        before, generator.model = generator.model, case.model
        plans, generator._plans = generator._plans, case.plans
        seeds = list(range(first_seed, first_seed + len(embeddings)))
        started = time.process_time()
        try:
            latents, seconds = generator.denoise_timed(embeddings, seeds, case.schedule)
            if self.cpu_time:
                seconds = time.process_time() - started
        finally:
            generator.model, generator._plans = before, plans
            if hasattr(case.model, "forget"):
                case.model.forget()
        return latents.float().cpu(), seconds

    def results(self) -> dict[str, dict[str, Any]]:
        """Per case its figures, fit for JSON; ratios are against the faster of stock and ours all-true."""
        medians = {name: statistics.median(one.seconds) for name, one in self.found.items()}
        base = min(medians[STOCK], medians[ALL_TRUE])
        rows = self.generator.rows
        full = self.generator.cost_table("full").uncached(rows).total
        results = {}
        for case in self.cases:
            one, median = self.found[case.name], medians[case.name]
            pairs = [a / b for a, b in zip(self.found[STOCK].seconds, one.seconds, strict=True)]
            results[case.name] = {
                "kind": case.kind,
                "own_grid": case.own_grid,
                "settings": case.settings,
                "rows": case.schedule.rows,
                "ms_per_image": 1000 * median / self.batch,
                "spread": (max(one.seconds) - min(one.seconds)) / median,
                "macs": one.macs,
                "macs_ratio": full / one.macs,
                "speed_up": base / median,
                "reached": base / median * one.macs / full,
                "stock_over_this": statistics.median(pairs),
                "stock_over_this_range": [min(pairs), max(pairs)],
                "error": one.error,
                "seconds": one.seconds,
            }
        return results


def _distance(latents: list[torch.Tensor], truth: list[torch.Tensor]) -> float:
    """Root mean square difference of final latents over the spread of the uncached ones."""
    ours, stock = torch.cat(latents), torch.cat(truth)
    return float((ours - stock).square().mean().sqrt() / stock.std())

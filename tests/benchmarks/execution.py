"""How fast schedules run: ours against the stock pipeline and against other ways to execute the same savings.

    python tests/benchmarks/execution.py [--model storybook] [--batch 8] [--samples 9] [--json out.json]

Every executor runs in the same denoising loop, on the same noise, with the same sampler; only the model's call
differs. Samples alternate between all of them, so that a slower minute meets all. `reached` is the measured speed-up
over the one that the MACs promise, against the faster of the stock model and ours with everything computed. `error`
is the root mean square difference of the final latents to the uncached ones over their spread; on random weights
(without --model) it says nothing and is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ecad import load_image_generator  # noqa: E402
from ecad.execution.families import open_model  # noqa: E402
from ecad.models import SETTINGS, ModelSettings  # noqa: E402
from ecad.schedule import Schedule, heuristics  # noqa: E402

PROMPT = "a red house left of a blue tree in snow at night"


class Stock:
    """The stock transformer in the place of our executor (`ecad.execution.families.Model`)."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.transformer = transformer

    def lower(self, schedule: Schedule) -> Any:
        from ecad.execution import lower

        return lower(schedule)

    def components(self, plan: Any, timesteps: torch.Tensor) -> None:
        self.begin(plan.schedule)

    def begin(self, schedule: Schedule) -> None:
        """A new pass begins."""

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        return self.transformer(**inputs, return_dict=False)[0]


class ModuleHooks(Stock):
    """The original's way: every block runs, its attention and feed-forward modules return their last output or
    compute; norms, modulations, gates and residuals are always computed, and every output is kept."""

    def begin(self, schedule: Schedule) -> None:
        self.bits, self.kept = schedule.bits, {}

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        modules = [
            getattr(block, name)
            for block in self.transformer.transformer_blocks
            for name in ("attn1", "attn2", "ff")
        ]
        for column, module in enumerate(modules):

            def call(*args: Any, module: Any = module, column: int = column, **kwargs: Any) -> torch.Tensor:
                if self.bits[row, column] or column not in self.kept:
                    self.kept[column] = type(module).forward(module, *args, **kwargs)
                return self.kept[column]

            module.forward = call
        try:
            return super().run(one_pass, row, inputs)
        finally:
            for module in modules:
                del module.forward


class StepMask(Stock):
    """Whole rows only: a masked row's output is the last one (order 0) or extrapolated over time (order 1), as the
    static step masks of other libraries do."""

    def __init__(self, transformer: torch.nn.Module, order: int) -> None:
        super().__init__(transformer)
        self.order = order

    def begin(self, schedule: Schedule) -> None:
        self.mask, self.known = schedule.bits.any(axis=1), []

    def run(self, one_pass: Any, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        if row == 0 or self.mask[row]:
            output = super().run(one_pass, row, inputs)
            self.known = [*self.known[-1:], (row, output)]
            return output
        last_row, last = self.known[-1]
        if self.order == 0 or len(self.known) == 1:
            return last
        first_row, first = self.known[0]
        return last + (last - first) * ((row - last_row) / (last_row - first_row))


def with_stretches(layout: Any, rows: int, computed: float, stretch: float, seed: int = 0) -> Schedule:
    """A random schedule: runs of skipped components of this mean length, this share computed."""
    rng = np.random.default_rng(seed)
    bits: list[bool] = []
    run = stretch * computed / (1 - computed)
    while len(bits) < rows * len(layout):
        bits += [True] * rng.geometric(1 / max(run, 1)) + [False] * rng.geometric(1 / stretch)
    array = np.array(bits[: rows * len(layout)]).reshape(rows, len(layout))
    return Schedule(layout, array, name=f"random, stretches of {stretch:g}")


def random_pipeline(folder: Path) -> Path:
    """A pipeline of Storybook's size with random weights."""
    from importlib.util import module_from_spec, spec_from_file_location

    from diffusers import PixArtTransformer2DModel

    spec = spec_from_file_location("fixtures", ROOT / "tests" / "conftest.py")
    fixtures = module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    fixtures.save_tiny_pixart(folder, blocks=1)
    torch.manual_seed(0)
    PixArtTransformer2DModel(
        num_attention_heads=4, attention_head_dim=32, in_channels=4, out_channels=8, num_layers=28,
        cross_attention_dim=128, sample_size=32, patch_size=4, caption_channels=16, norm_type="ada_norm_single",
        norm_elementwise_affine=False, attention_bias=True, use_additional_conditions=False,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    return folder


def measure(
    generator: Any, cases: dict[str, tuple[Any, Schedule]], batch: int, samples: int, clock: Any
) -> dict:
    """Per case its samples in seconds and its final latents; samples alternate between the cases."""
    embeddings = generator.encode([PROMPT] * batch)
    seeds = list(range(batch))
    found: dict[str, Any] = {name: {"seconds": []} for name in cases}
    for turn in range(samples + 1):  # the first turn warms up
        for name, (model, schedule) in cases.items():
            generator.model = model
            generator._plans.clear()  # the executors' plans differ
            started = clock()
            latents = generator.denoise(embeddings, seeds, schedule)
            elapsed = clock() - started
            if turn:
                found[name]["seconds"].append(elapsed)
            else:
                found[name]["latents"] = latents.float()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", help="a trained model's name or folder; random weights of Storybook's size if not given"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--wall", action="store_true", help="wall clock instead of this process's CPU time")
    parser.add_argument("--only", help="run only cases whose name contains this (and the two baselines)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    options = {"threads": args.threads, "device": args.device, "dtype": args.dtype}
    trained = args.model is not None
    with tempfile.TemporaryDirectory() as folder:
        if trained:
            generator = load_image_generator(args.model, **options)
        else:
            path = random_pipeline(Path(folder))
            settings = ModelSettings("random", str(path), text_tokens=SETTINGS["storybook"].text_tokens)
            generator = load_image_generator(path, settings=settings, **options)
    fast, reference = generator.model, open_model(generator.transformer, "reference")
    stock, hooks = Stock(generator.transformer), ModuleHooks(generator.transformer)
    layout, rows, grid = generator.layout, generator.rows, generator.timesteps
    uncached = heuristics.uncached(layout, rows)
    schedules = [heuristics.fora(layout, rows, n) for n in (2, 3, 5)]
    schedules += [with_stretches(layout, rows, 0.2, 12), with_stretches(layout, rows, 0.2, 4)]
    cases: dict[str, tuple[Any, Schedule]] = {
        "stock": (stock, uncached),
        "ours, all computed": (fast, uncached),
        "reference, all computed": (reference, uncached),
    }
    for schedule in schedules:
        cases[f"ours, {schedule.name}"] = (fast, schedule)
        cases[f"module hooks, {schedule.name}"] = (hooks, schedule)
    for n in (2, 3, 5):
        cases[f"step mask, copy, every {n}"] = (
            StepMask(generator.transformer, 0),
            heuristics.fora(layout, rows, n),
        )
        cases[f"step mask, Taylor, every {n}"] = (
            StepMask(generator.transformer, 1),
            heuristics.fora(layout, rows, n),
        )
    for count in (10, 7, 4):
        few = heuristics.fewer_steps(layout, count, grid=grid)
        cases[f"fewer steps, {count}"] = (fast, few)
    if args.only:
        baselines = ("stock", "ours, all computed")
        cases = {name: case for name, case in cases.items() if name in baselines or args.only in name}

    clock = time.perf_counter if args.wall or generator.device.type != "cpu" else time.process_time
    found = measure(generator, cases, args.batch, args.samples, clock)
    table = generator.cost_table("full")
    all_macs = table.macs(uncached).total
    base = min(statistics.median(found[name]["seconds"]) for name in ("stock", "ours, all computed"))
    truth = found["stock"]["latents"]
    results = {}
    print(
        f"{generator.name}, batch {args.batch}, {generator.device}, {generator.dtype}, {generator.threads} thread(s),"
    )
    print(
        f"{args.samples} samples, {'wall' if clock is time.perf_counter else 'CPU'} time of the denoising loop"
    )
    print(f"{'':34}    ms/image   spread    MACs   speed  reached   error")
    for name, (_, schedule) in cases.items():
        seconds = found[name]["seconds"]
        median = statistics.median(seconds)
        ratio = all_macs / table.macs(schedule).total
        error = float((found[name]["latents"] - truth).square().mean().sqrt() / truth.std())
        results[name] = {
            "ms_per_image": 1000 * median / args.batch,
            "spread": (max(seconds) - min(seconds)) / median,
            "macs_ratio": ratio,
            "speed_up": base / median,
            "reached": base / median / ratio,
            "error": error if trained else None,
        }
        one = results[name]
        shown = f"{one['error']:7.4f}" if trained else "      -"
        print(
            f"{name:34} {one['ms_per_image']:11.1f} {one['spread']:8.0%} {ratio:6.2f}x {one['speed_up']:6.2f}x"
            f" {one['reached']:8.3f} {shown}"
        )
    if args.json:
        about = {**generator.fingerprint(), "batch": args.batch, "samples": args.samples}
        args.json.write_text(json.dumps({"about": about, "results": results}, indent=4) + "\n")


if __name__ == "__main__":
    main()

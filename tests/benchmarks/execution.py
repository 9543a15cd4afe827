"""How fast schedules run: ours against the stock pipeline and against other ways to execute the same savings.

    python tests/benchmarks/execution.py --model storybook --batch 8 --samples 9 --json out.json
    python tests/benchmarks/execution.py --config pixart-alpha --size 256 1024 --dtype bfloat16 --device cuda
    python tests/benchmarks/execution.py --config flux-dev --batch 1 4 --dtype bfloat16 --device cuda

Every executor runs in the same denoising loop, on the same noise, with the same sampler; only the model's call
differs. Samples alternate between all of them, so that a slower minute meets all. `reached` is the measured speed-up
over the one that the MACs promise, against the faster of the stock model and ours with everything computed. `error`
is the root mean square difference of the final latents to the uncached ones over their spread, over 8 images of each
of two prompts, taken at the largest batch; on random weights (without --model) it says nothing and is left out.

On a CPU the process's own CPU time is taken, so that a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from benchmark_cases import EXTRA, case_set  # noqa: E402
from benchmark_models import CONFIGS, PROMPTS, Subject, random, resized, trained  # noqa: E402
from benchmark_tables import FLUX_NOTES, NOTES, level_table, timing_table, verdicts  # noqa: E402
from measuring import Measurement  # noqa: E402

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def arguments() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="a trained model's name or folder")
    which.add_argument(
        "--config", choices=sorted(CONFIGS), default="small",
        help="random weights of this configuration (default: small, which is Storybook's)",
    )  # fmt: skip
    parser.add_argument(
        "--layers", type=int, nargs="+", help="blocks of the configuration; FLUX: full, single"
    )
    parser.add_argument("--width", type=int, help="width of the configuration")
    parser.add_argument("--size", type=int, nargs="+", help="pixels of a side, a table each (with --config)")
    parser.add_argument("--batch", type=int, nargs="+", default=[8], help="images at once, a table each")
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--error-images", type=int, default=8, help="of each of the two prompts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--wall", action="store_true", help="wall clock instead of this process's CPU time")
    parser.add_argument(
        "--schedules", type=Path, nargs="*", default=[], help="files or folders to run as well"
    )
    parser.add_argument("--peers", nargs="*", choices=EXTRA, default=[], help="peers that are not always run")
    parser.add_argument(
        "--only", nargs="+", help="only cases whose name contains one of these (and both baselines)"
    )
    parser.add_argument("--json", type=Path)
    return parser


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what `--json` writes."""
    parser = arguments()
    args = parser.parse_args(given)
    if args.model is not None and (args.layers or args.width or args.size):
        parser.error("--layers, --width and --size are of a --config; a trained model has its own")
    options = {"threads": args.threads, "device": args.device, "dtype": DTYPES.get(args.dtype, args.dtype)}
    written: dict[str, Any] = {"prompts": list(PROMPTS), "samples": args.samples, "tables": []}
    for size in args.size or [None]:
        if args.model is not None:
            subject = trained(args.model, **options)
        else:
            config = resized(CONFIGS[args.config], args.layers, args.width)
            subject = random(args.config, config, size, **options)
        written["tables"] += one_size(subject, args)
    if args.json:
        args.json.write_text(json.dumps(written, indent=4) + "\n")
    return written


def one_size(subject: Subject, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A table per batch, printed; returns what the JSON says of them."""
    generator = subject.generator

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{text:70}", end="", file=sys.stderr, flush=True)

    def wanted(name: str) -> bool:
        return not args.only or any(part in name for part in args.only)

    say("choosing thresholds")
    try:
        cases = case_set(subject, extra=tuple(args.peers), files=tuple(args.schedules), wanted=wanted)
    except ImportError as error:
        raise SystemExit(str(error)) from error
    cpu_time = generator.device.type == "cpu" and not args.wall
    tables = []
    for batch in args.batch:
        measurement = Measurement(subject, cases, batch, cpu_time=cpu_time)
        with_errors = subject.trained and batch == max(args.batch)
        measurement.run(args.samples, 2 * args.error_images if with_errors else 0, say)
        say("")
        results = measurement.results()
        about = {**subject.about(), "batch": batch, "clock": "CPU" if cpu_time else "wall"}
        print(
            f"\n{generator.name}, {generator.height} x {generator.width} px, batch {batch}, {about['device']},"
            f" {about['dtype']}, {generator.threads} thread(s); {args.samples} samples,"
            f" {about['clock']} time of the denoising loop"
        )
        print(timing_table(results))
        print(NOTES)
        if generator.layout.family == "flux" and not subject.trained:
            print(FLUX_NOTES)
        table: dict[str, Any] = {"about": about, "results": results}
        if with_errors and args.error_images:
            print(f"\n{level_table(results)}")
            table["levels"] = verdicts(results)
        tables.append(table)
    return tables


if __name__ == "__main__":
    main()

"""Time schedule files on this machine: milliseconds an image, and how much of the promised speed-up is reached.

Timed is the denoising loop alone, after a warm-up, the device synchronised; samples of all schedules and of the
uncached model alternate, so that a slower minute meets all of them. `reached` is the measured speed-up over the one
that the MACs promise. Without --json the figures are written into the files (`metrics.latency`); with --json the
files stay as they are and one object is printed: file name -> figures.

    python -m ecad latency --calibrate
    python -m ecad latency --predict --schedule mine.json

The first times a fixed set of small schedules for some seconds and keeps what the parts of a pass cost on this device
in the data folder; the second predicts from it, without timing anything and without loading the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecad.execution.errors import ExecutionError
from ecad.schedule import Schedule
from ecad.workbench.infer import whole_number

if TYPE_CHECKING:
    from ecad.models import ImageGenerator

PROMPTS = ("a red house left of a blue tree in snow at night", "a green boat at sea by day")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, most of them the original's."""
    parser.add_argument(
        "-m", "--model", "--image-generator", default="storybook", help="a model's name or folder"
    )
    parser.add_argument(
        "-d",
        "--schedule-dir",
        "-s",
        "--schedule",
        type=Path,
        action="append",
        default=[],
        help="a schedule file or folder; repeatable",
    )
    parser.add_argument("--schedule-list", type=Path, help="a text file that names one schedule file a line")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--calibrate", action="store_true", help="fit and keep what a pass's parts cost here")
    what.add_argument(
        "--predict", action="store_true", help="predict from the kept calibration; nothing is timed"
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("-p", "--prompt", action="append", help="prompts to fill the batch with; repeatable")
    prompts.add_argument(
        "-i",
        "--embedding-dir",
        "--input-embeddings",
        type=Path,
        help="a file of embeddings, or a folder of them, instead of prompts",
    )
    parser.add_argument("-b", "--batch-size", help="images at once (8; to calibrate 1)")
    parser.add_argument("-w", "--warmup-steps", default="2", help="untimed passes of each schedule (2)")
    parser.add_argument("-n", "--num-samples", default="5", help="timed passes of each schedule (5)")
    parser.add_argument("--seed", default="0", help="the first image's seed (0)")
    parser.add_argument(
        "--recompute-existing", action="store_true", help="time files again that have a figure"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16; on a CPU float32 if not given")
    parser.add_argument("--threads", help="CPU threads; torch's own choice if not given")
    parser.add_argument("--mode", help="how passes execute: fast (if not given) or reference")
    parser.add_argument(
        "--compile", action="store_true", help="let torch compile the components (once for all blocks; off)"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="where calibrations lie; else ECAD_DATA_DIR or the user's folder"
    )
    parser.add_argument("--json", action="store_true", help="print one object and write no schedule file")


def run(args: argparse.Namespace) -> int:
    """Time every file; figures go into the files or to the output."""
    whole_number("--seed", args.seed, 0, 2**62)
    whole_number("--warmup-steps", args.warmup_steps, 0, 1000)
    whole_number("--num-samples", args.num_samples, 1, 10_000)
    batch = None if args.batch_size is None else whole_number("--batch-size", args.batch_size, 1, 10_000)
    threads = None if args.threads is None else whole_number("--threads", args.threads, 1, 1024)
    if args.calibrate or args.predict:
        from ecad.workbench import _latency_model

        if args.calibrate:
            return _latency_model.calibrate_here(args, batch or 1, threads)
        return _latency_model.predict_files(args, _files(args), batch, threads)
    return _time(args, batch or 8, threads)


def _time(args: argparse.Namespace, batch: int, threads: int | None) -> int:
    seed, samples = int(args.seed), int(args.num_samples)
    schedules = {path: Schedule.load(path) for path in _files(args)}
    if not args.json and not args.recompute_existing:
        schedules = {path: one for path, one in schedules.items() if "latency" not in one.metrics}
    if not schedules:
        print("every file has its latency already; --recompute-existing times them again")
        return 0

    generator = load_model(args, threads)
    timed = time_schedules(
        generator,
        {str(path): schedule for path, schedule in schedules.items()},
        embeddings_of(generator, args, batch),
        list(range(seed, seed + batch)),
        warmup=int(args.warmup_steps),
        samples=samples,
    )
    if args.json:
        print(json.dumps(timed, indent=4))
        return 0
    for path, schedule in schedules.items():
        figures = timed[str(path)]
        schedule.replace(metrics={**schedule.metrics, "latency": figures}).save(path)
        print(
            f"{path}: {figures['median']:.1f} ms an image (batch {batch}), {figures['speed_up']:.2f} x of"
            f" {figures['macs_ratio']:.2f} x fewer MACs ({figures['reached']:.0%})"
        )
    return 0


def load_model(args: argparse.Namespace, threads: int | None) -> ImageGenerator:
    """The model that the options name; without its text encoder where the prompts come encoded."""
    from ecad.models import load_image_generator

    return load_image_generator(
        args.model,
        device=args.device,
        dtype=args.dtype,
        threads=threads,
        mode=args.mode or "fast",
        compile=args.compile,
        text_encoder=None if args.embedding_dir is None else "none",
    )


def embeddings_of(generator: ImageGenerator, args: argparse.Namespace, batch: int) -> Any:
    """The encoded prompts of a batch: those of the options again and again, else of our own."""
    from ecad.models.calibrating import repeated

    if args.embedding_dir is not None:
        from ecad.models.embedding_files import load_embeddings

        return repeated(load_embeddings(args.embedding_dir, generator), batch)
    return repeated(generator.encode((args.prompt or list(PROMPTS))[:batch]), batch)


def time_schedules(
    generator: ImageGenerator,
    schedules: dict[str, Schedule],
    embeddings: Any,
    seeds: list[int],
    *,
    warmup: int = 2,
    samples: int = 5,
) -> dict[str, dict[str, Any]]:
    """Milliseconds an image of each schedule, by name, and what they are of the uncached model's.

    embeddings, seeds: of one batch, equally many.

    Returns per name: avg, median, lowest and highest (ms), speed_up, macs_ratio, reached, and what it was timed on.
    """
    from ecad.execution.families import check_schedule
    from ecad.schedule import heuristics

    uncached = heuristics.uncached(generator.layout, generator.rows)
    for schedule in schedules.values():
        check_schedule(schedule, generator.layout)
    cases = {None: uncached, **schedules}
    times: dict[str | None, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + samples):
        for name, schedule in cases.items():
            seconds = generator.denoise_timed(embeddings, seeds, schedule)[1]
            if turn >= warmup:
                times[name].append(1000 * seconds / len(seeds))
    table = generator.cost_table("full")
    base, base_macs = statistics.median(times[None]), table.macs(uncached).total
    found = {}
    for name, schedule in schedules.items():
        median = statistics.median(times[name])
        ratio = base_macs / table.macs(schedule).total
        found[name] = {
            "avg": statistics.mean(times[name]),
            "median": median,
            "lowest": min(times[name]),
            "highest": max(times[name]),
            "latencies": times[name],
            "uncached": base,
            "speed_up": base / median,
            "macs_ratio": ratio,
            "reached": base / median / ratio,
            "batch_size": len(seeds),
            "num_samples": samples,
            "warmup_steps": warmup,
            "timed": "denoising loop",
            "device": str(generator.fingerprint()["device"]),
            "dtype": str(generator.dtype).removeprefix("torch."),
            "threads": generator.threads,
            "mode": getattr(generator, "mode", None),
        }
    return found


def _files(args: argparse.Namespace) -> list[Path]:
    """The schedule files that were asked for, each once."""
    paths: list[Path] = []
    for given in args.schedule_dir:
        paths += sorted(given.rglob("*.json")) if given.is_dir() else [given]
    if args.schedule_list is not None:
        try:
            lines = args.schedule_list.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ExecutionError(
                f"{args.schedule_list} cannot be read as a list of files: {error}"
            ) from error
        paths += [Path(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise ExecutionError("there is no schedule to time: give --schedule-dir or --schedule-list")
    return list(dict.fromkeys(paths))

"""Make images of prompts, under a schedule or uncached, and say what it saved.

    python -m ecad infer --prompt "a red house at sea" --schedule schedules/storybook/fora-3.json --seed 7

writes `results/images/*.png`, each with its prompt, seed, model and schedule in the PNG's own text, and
prints the time of the denoising loop, the MACs and the speed-up. The speed-up is measured in the same
process against the uncached model with the same prompts, after a warm-up; with `--predict` the uncached run
is left out and the speed-up is predicted, from the calibration that `python -m ecad latency --calibrate` keeps
for this model, device and batch, else from the MACs.

Size and guidance are the model's own, or those in the schedule's file if it was made for this very model, or what
the options say. With `--input-embeddings` the prompts come encoded, in files of ours or the original's, and the
text encoder is not loaded.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecad.execution.errors import ExecutionError
from ecad.schedule import Schedule
from ecad.schedule.files import write_atomically

if TYPE_CHECKING:
    import numpy as np

    from ecad.models import ImageGenerator

MAX_SEED = 2**63 - 1
SIZED = ("height", "width", "guidance_scale")  # settings that a schedule's file may hold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options; the original's spellings are accepted beside ours."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-p", "--prompt", help="what the image should show")
    what.add_argument("-f", "--prompt-file", type=Path, help="a text file with one prompt a line")
    what.add_argument(
        "-i",
        "--input-embeddings",
        type=Path,
        help="a file of embeddings, or a folder of them, instead of prompts",
    )
    parser.add_argument(
        "-s", "--schedule", type=Path, help="a schedule file; without it everything is computed"
    )
    parser.add_argument(
        "-m", "--model", "--image-generator", default="storybook", help="a model's name or folder (storybook)"
    )
    parser.add_argument(
        "-o", "--output-dir", type=Path, default=Path("results"), help="where images/ goes (results)"
    )
    parser.add_argument("--seed", "--start-seed", default="0", help="the first image's seed (0)")
    parser.add_argument("--seed-step", default="1", help="from one image of a prompt to its next (1)")
    parser.add_argument("-n", "--num-images-per-prompt", default="1", help="images of each prompt (1)")
    parser.add_argument("-b", "--batch-size", "--batch-size-generate", default="8", help="images at once (8)")
    parser.add_argument("--height", help="pixels; the model's own if not given")
    parser.add_argument("--width", help="pixels; the model's own if not given")
    parser.add_argument("--guidance-scale", help="how strongly the prompt is followed; the model's own")
    parser.add_argument(
        "--num-inference-steps",
        help="steps without a schedule (the model's own); a schedule has its own number",
    )
    parser.add_argument("--predict", action="store_true", help="predict the speed-up instead of measuring it")
    parser.add_argument("--mode", default="fast", help="how passes execute: fast (default) or reference")
    parser.add_argument(
        "--compile", action="store_true", help="let torch compile the components (once for all blocks; off)"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16; on a CPU float32 if not given")
    parser.add_argument("--threads", help="CPU threads; torch's own choice if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")


def run(args: argparse.Namespace) -> int:
    """Check everything cheap first, then load the model, make the images and report."""
    prompts = None if args.input_embeddings is not None else _prompts(args)
    seed = whole_number("--seed", args.seed, 0, MAX_SEED)
    step = whole_number("--seed-step", args.seed_step, 0, MAX_SEED)
    count = whole_number("--num-images-per-prompt", args.num_images_per_prompt, 1, 10_000)
    batch = whole_number("--batch-size", args.batch_size, 1, 10_000)
    threads = None if args.threads is None else whole_number("--threads", args.threads, 1, 1024)
    schedule = None if args.schedule is None else Schedule.load(args.schedule)
    settings, remark = _settings(args, schedule)

    from ecad.models import load_image_generator

    if prompts is None:
        from ecad.models.embedding_files import embedding_names

        prompts = embedding_names(
            args.input_embeddings
        )  # what is wrong with the files is said before a model loads
        settings["text_encoder"] = "none"
    generator = load_image_generator(
        args.model,
        device=args.device,
        dtype=args.dtype,
        threads=threads,
        mode=args.mode,
        compile=args.compile,
        **settings,
    )
    embeddings = None
    if args.input_embeddings is not None:
        from ecad.models.embedding_files import load_embeddings

        embeddings = load_embeddings(args.input_embeddings, generator)
        embeddings = embeddings[[i for i in range(len(embeddings)) for _ in range(count)]]
    jobs = [(i, prompt, seed + step * j) for i, prompt in enumerate(prompts) for j in range(count)]
    report = infer(
        generator,
        jobs,
        schedule,
        args.output_dir / "images",
        batch=batch,
        predict=args.predict,
        embeddings=embeddings,
    )
    if remark:
        report["remark"] = remark
    print(json.dumps(report, indent=4) if args.json else _sentences(report))
    return 0


def infer(
    generator: ImageGenerator,
    jobs: list[tuple[int, str, int]],
    schedule: Schedule | None,
    folder: Path,
    *,
    batch: int = 8,
    predict: bool = False,
    embeddings: Any = None,
) -> dict[str, Any]:
    """Make and write the images of (number, prompt, seed) jobs; returns the report as a JSON-able
    dictionary.

    embeddings: the jobs' prompts, encoded; None encodes them.
    """
    from ecad.schedule import heuristics

    table = generator.cost_table("full")
    uncached = heuristics.uncached(generator.layout, generator.rows)
    macs = table.macs(schedule or uncached).total
    macs_uncached = table.macs(uncached).total
    parts = [jobs[start : start + batch] for start in range(0, len(jobs), batch)]
    if embeddings is None:
        embeddings = generator.encode([prompt for _, prompt, _ in jobs])
    first = embeddings[: len(parts[0])], [seed for _, _, seed in parts[0]]

    # Both paths run once before anything is timed: the first pass of a process allocates and loads kernels.
    short = heuristics.fora(generator.layout, 2, 2)
    generator.denoise_timed(*first, short)
    if getattr(generator, "compile", False):  # every graph that the timed passes need
        generator.denoise_timed(*first, schedule)
    baseline = None if predict or schedule is None else generator.denoise_timed(*first)[1]

    files, seconds, done = [], [], 0
    for part in parts:
        latents, elapsed = generator.denoise_timed(
            embeddings[done : done + len(part)], [seed for _, _, seed in part], schedule
        )
        seconds.append(elapsed)
        done += len(part)
        for (number, prompt, seed), image in zip(part, generator.decode(latents), strict=True):
            path = folder / f"{number:03d}_seed{seed:03d}.png"
            write_atomically(path, _png(image, prompt, seed, generator.name, schedule))
            files.append(str(path))
    report = {
        "images": files,
        "model": generator.name,
        "schedule": None if schedule is None else schedule.name,
        "rows": (schedule or uncached).rows,
        "height": generator.height,
        "width": generator.width,
        "guidance_scale": generator.guidance_scale,
        "seconds": sum(seconds),
        "seconds_per_image": sum(seconds) / len(jobs),
        "macs_per_image": macs,
        "macs_uncached_per_image": macs_uncached,
        "cache_bytes_per_image": generator.cache_bytes(schedule or uncached),
        "speed_up": 1.0,
        "speed_up_is": "uncached",
        "device": str(generator.device),
        "dtype": str(generator.dtype).removeprefix("torch."),
        "threads": generator.threads,
        "batch": len(parts[0]),
    }
    if schedule is not None:
        measured = baseline is not None
        if measured:
            report["speed_up"], report["speed_up_is"] = baseline / seconds[0], "measured"
        else:
            report["speed_up_is"] = "predicted"
            report["speed_up"], report["predicted_from"] = _predicted(
                generator, schedule, len(parts[0]), macs_uncached / macs
            )
    return report


def _predicted(
    generator: ImageGenerator, schedule: Schedule, batch: int, times_fewer: float
) -> tuple[float, str]:
    """How much faster than uncached the schedule should be, and from what that is known: a kept calibration, else
    that its MACs are `times_fewer`.
    """
    from ecad.models.calibrating import stored_calibration
    from ecad.search.folders import data_folder

    calibration = stored_calibration(generator, batch, data_folder())
    if calibration is not None:
        return 1 / calibration.share(schedule), "this device's calibration"
    return times_fewer, "the MACs"


def _sentences(report: dict[str, Any]) -> str:
    lines = [*report["images"]]
    count = len(report["images"])
    lines.append(
        f"{count} image{'s' * (count > 1)} of {report['model']}, {report['width']} x {report['height']} px,"
        f" {report['rows']} rows, {report['schedule'] or 'uncached'}"
    )
    if "remark" in report:
        lines.append(report["remark"])
    lines.append(
        f"time: {report['seconds_per_image']:.3f} s an image for denoising (batch {report['batch']})"
    )
    lines.append(
        f"MACs: {report['macs_per_image'] / 1e9:.2f} G an image, uncached"
        f" {report['macs_uncached_per_image'] / 1e9:.2f} G"
        f" ({report['macs_uncached_per_image'] / report['macs_per_image']:.2f} x fewer)"
    )
    if report["schedule"] is not None:
        lines.append(f"cache: {report['cache_bytes_per_image'] / 1e6:.2f} MB an image at its peak")
    if report["speed_up_is"] != "uncached":
        against = (
            "measured against uncached, warm-up apart"
            if report["speed_up_is"] == "measured"
            else f"predicted from {report['predicted_from']}, not measured"
        )
        lines.append(f"speed-up: {report['speed_up']:.2f} x ({against})")
    return "\n".join(lines)


def _png(image: np.ndarray, prompt: str, seed: int, model: str, schedule: Schedule | None) -> bytes:
    """The image [H, W, 3] as a PNG that says how it was made."""
    from PIL import Image, PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_itxt("prompt", prompt)
    text.add_text("seed", str(seed))
    text.add_itxt("model", model)
    if schedule is not None:
        text.add_itxt("schedule", schedule.to_json(), zip=True)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", pnginfo=text)
    return stream.getvalue()


def _prompts(args: argparse.Namespace) -> list[str]:
    from ecad.models.protocol import check_prompt

    if args.prompt is not None:
        prompts = [args.prompt]
    else:
        try:
            lines = args.prompt_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ExecutionError(
                f"{args.prompt_file} cannot be read as a file of prompts: {error}"
            ) from error
        prompts = [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise ExecutionError(f"{args.prompt_file} holds no prompt; write one a line")
    for prompt in prompts:
        check_prompt(prompt)
    return prompts


def _settings(args: argparse.Namespace, schedule: Schedule | None) -> tuple[dict[str, Any], str]:
    """(settings of the model for `load_image_generator`, what is to be said of them).

    An option goes first; a file's own settings are used where it was made for the model that is loaded.
    """
    from ecad.models.settings import ALIASES

    given: dict[str, Any] = {}
    for name in ("height", "width"):
        if getattr(args, name) is not None:
            given[name] = whole_number(f"--{name}", getattr(args, name), 8, 8192)
    if args.guidance_scale is not None:
        given["guidance_scale"] = _number("--guidance-scale", args.guidance_scale, 0, 100)
    if args.num_inference_steps is not None:
        given["rows"] = whole_number("--num-inference-steps", args.num_inference_steps, 1, 1000)
        if schedule is not None and given["rows"] != schedule.rows:
            raise ExecutionError(
                f"--num-inference-steps is {given['rows']}, but the schedule has {schedule.rows} steps; leave the"
                " option out, or give a schedule of that many steps"
            )
    own = {} if schedule is None else {name: schedule.config.get(name) for name in SIZED}
    own = {name: value for name, value in own.items() if isinstance(value, int | float) and name not in given}
    own |= {name: int(own[name]) for name in ("height", "width") if name in own}
    if not own:
        return given, ""
    if schedule.model == ALIASES.get(args.model, args.model):
        return {**own, **given}, ""
    held = ", ".join(f"{name} {value:g}" for name, value in own.items())
    made_for = "names no model" if schedule.model is None else f"was made for {schedule.model}"
    return given, f"the schedule {made_for}: its {held} not used, the loaded model's own are"


def _number(option: str, given: str, low: float, high: float) -> float:
    """A number option within low ... high."""
    try:
        value = float(given)
    except ValueError:
        raise ExecutionError(f"{option} must be a number, not {given!r}") from None
    if not low <= value <= high:  # also refuses what is not a number
        raise ExecutionError(f"{option} must be {low:g} to {high:g}, not {value:g}")
    return value


def whole_number(option: str, given: str, low: int, high: int) -> int:
    """A whole number option within low ... high."""
    try:
        value = int(given)
    except ValueError:
        raise ExecutionError(f"{option} must be a whole number, not {given!r}") from None
    if not low <= value <= high:
        raise ExecutionError(f"{option} must be {low} to {high}, not {value}")
    return value

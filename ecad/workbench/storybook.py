"""Make and check Storybook, the embedded model: its world, its nets, its judge.

    python -m ecad storybook world --output world.png       look at the world
    python -m ecad storybook autoencoder --minutes 20       train, each from a seed; killed, it goes on
    python -m ecad storybook transformer --minutes 80
    python -m ecad storybook judge
    python -m ecad storybook export                         put the latest checkpoint into assets/
    python -m ecad storybook check --count 256 --json       how many of the captions' facts are right
    python -m ecad storybook sheet                          a contact sheet of held-out captions

A training keeps checkpoints in --work and goes on from them; remove that folder to start afresh.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".training" / "storybook"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per step."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    world = steps.add_parser("world", help="a contact sheet of scenes as they are rendered")
    world.add_argument("-o", "--output", type=Path, default=Path("world.png"), help="where to (world.png)")
    world.add_argument("--count", type=_positive, default=24, help="scenes (24)")

    autoencoder = steps.add_parser("autoencoder", help="train the autoencoder")
    _training(autoencoder, minutes=20)
    autoencoder.add_argument(
        "--decoder-only", action="store_true", help="go on with the decoder, latents unchanged"
    )

    transformer = steps.add_parser("transformer", help="train the transformer and the text encoder")
    _training(transformer, minutes=80)
    transformer.add_argument("--pictures", type=_positive, default=16000, help="training pictures (16000)")

    judge = steps.add_parser("judge", help="train the judge: CLIP and attribute reader")
    judge.add_argument(
        "--work", type=Path, default=WORK / "judge", help="checkpoints (.training/storybook/judge)"
    )
    judge.add_argument("--seed", type=int, default=0)

    export = steps.add_parser("export", help="write assets/storybook/pipeline from the latest checkpoint")
    export.add_argument("--work", type=Path, default=WORK, help="checkpoints (.training/storybook)")
    export.add_argument("--latest", action="store_true", help="the latest weights, not their moving average")
    export.add_argument("--target", type=Path, help="another folder than the assets'")

    check = steps.add_parser("check", help="share of the facts right, of the model and of its judge")
    _generating(check, count=256)
    check.add_argument("--json", action="store_true", help="print one JSON object")

    sheet = steps.add_parser("sheet", help="a contact sheet of held-out captions, uncached")
    _generating(sheet, count=24)
    sheet.add_argument(
        "-o",
        "--output",
        type=Path,
        default=ROOT / "assets" / "storybook-sheet.jpg",
        help="(assets/storybook-sheet.jpg)",
    )

    for command in (autoencoder, transformer, judge, check, sheet):
        command.add_argument("--threads", type=_positive, default=1, help="CPU threads (1)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _training(parser: argparse.ArgumentParser, minutes: float) -> None:
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--minutes", type=float, help=f"how long, earlier runs on the same work counted ({minutes})"
    )
    budget.add_argument("--steps", type=_positive, help="how many steps instead: then equal runs end equal")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints (.training/storybook)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(usual_minutes=minutes)


def _generating(parser: argparse.ArgumentParser, count: int) -> None:
    parser.add_argument("--count", type=_positive, default=count, help=f"held-out captions ({count})")
    parser.add_argument("--model", default="storybook", help="a model's name or folder (storybook)")
    parser.add_argument("--seed", type=int, default=0, help="which captions, and the first image's noise (0)")
    parser.add_argument("--batch-size", type=_positive, default=8, help="images at once (8)")
    parser.add_argument("--guidance", type=float, help="guidance scale; the model's own if not given")


def run(args: argparse.Namespace) -> int:
    """Run one step."""
    steps: dict[str, Callable[[argparse.Namespace], None]] = {
        "world": _world,
        "autoencoder": _autoencoder,
        "transformer": _transformer,
        "judge": _judge,
        "export": _export,
        "check": _check,
        "sheet": _sheet,
    }
    if getattr(args, "threads", None):
        import torch

        torch.set_num_threads(args.threads)
    steps[args.step](args)
    return 0


def _world(args: argparse.Namespace) -> None:
    import numpy as np

    from ecad.storybook.sheet import contact_sheet
    from ecad.storybook.world import caption, render, sample_scene

    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(args.count)]
    pictures = np.stack([np.asarray(render(scene, rng)) for scene in scenes])
    contact_sheet(pictures, [caption(scene) for scene in scenes]).save(args.output)
    print(f"wrote {args.output}")


def _budget(args: argparse.Namespace) -> Any:
    from ecad.storybook.course import Budget

    minutes = None if args.steps is not None else args.minutes or args.usual_minutes
    return Budget(steps=args.steps, minutes=minutes)


def _autoencoder(args: argparse.Namespace) -> None:
    from ecad.storybook.build import build_autoencoder

    psnr = build_autoencoder(args.work, _budget(args), args.seed, args.decoder_only)
    print(f"held-out PSNR {psnr:.2f} dB")


def _transformer(args: argparse.Namespace) -> None:
    from ecad.storybook.build import build_transformer

    build_transformer(args.work, _budget(args), pictures=args.pictures, seed=args.seed)


def _judge(args: argparse.Namespace) -> None:
    from ecad.storybook.judge import JUDGE_FOLDER
    from ecad.storybook.judge_training import train

    train(JUDGE_FOLDER, args.work, seed=args.seed, threads=args.threads)


def _export(args: argparse.Namespace) -> None:
    from ecad.storybook.build import export
    from ecad.storybook.pipeline import PIPELINE_FOLDER

    target = args.target or PIPELINE_FOLDER
    steps = export(args.work, target, averaged=not args.latest)
    print(f"wrote {target} from step {steps}")


def _generate(args: argparse.Namespace) -> tuple[Any, list[str], float]:
    """Uncached images of held-out captions: uint8 [B, H, W, 3], captions, seconds of denoising an image."""
    import numpy as np

    from ecad.models import load_image_generator
    from ecad.storybook.world import caption, sample_scene

    generator = load_image_generator(args.model, threads=args.threads)
    if args.guidance is not None:
        generator.guidance_scale = args.guidance
    rng = np.random.default_rng((args.seed, 3))
    captions = [caption(sample_scene(rng, held_out=True)) for _ in range(args.count)]
    images, seconds = [], 0.0
    for start in range(0, args.count, args.batch_size):
        batch = captions[start : start + args.batch_size]
        seeds = [args.seed + start + k for k in range(len(batch))]
        pictures, spent = generator.generate_timed(batch, seeds)
        images.append(pictures)
        seconds += spent
    return np.concatenate(images), captions, seconds / args.count


def _check(args: argparse.Namespace) -> None:
    from ecad.storybook.judge import load_judge
    from ecad.storybook.judge_check import check_on_truth

    judge = load_judge()
    images, captions, seconds = _generate(args)
    figures = {
        "facts_right": float(judge.facts.score(images, prompts=captions).mean()),
        "facts_by_kind": judge.facts.facts_by_kind(images, captions),
        "reward": float(judge.reward.score(images, prompts=captions).mean()),
        "count": args.count,
        "seconds_per_image": seconds,
        **check_on_truth(args.count, judge=judge),
    }
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"facts right {figures['facts_right']:.1%} of {args.count} held-out captions, {seconds:.2f} s an image"
    )
    for kind, share in figures["facts_by_kind"].items():
        print(f"  {kind}: " + ("not asked" if share is None else f"{share:.1%}"))
    print(f"judge on rendered truth: {figures['judge_facts_on_truth']:.1%} of facts read right,", end=" ")
    print(f"{figures['judge_ranks_truth']:.1%} of pairs ranked right")


def _sheet(args: argparse.Namespace) -> None:
    from ecad.storybook.sheet import contact_sheet

    images, captions, _ = _generate(args)
    contact_sheet(images, captions).save(args.output, quality=88)
    print(f"wrote {args.output}")

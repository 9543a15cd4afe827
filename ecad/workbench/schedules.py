"""Write the schedules that follow from rules for a model: FORA, T-GATE, fewer steps and the like.

Each becomes a JSON file named after it in the output folder. `--only` takes names or patterns such as
'fora-*'.
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from ecad.schedule import Schedule, ScheduleError, heuristics
from ecad.schedule.layouts import MODELS, default_rows, layout, local_dimensions, model_name
from ecad.schedule.times import own_grid

# What `schedules/` ships, by rules: enough to compare, small enough to carry.
SHIPPED = {
    "storybook": (
        *("uncached", "fora-2", "fora-3", "fora-4", "fora-5", "fora-7", "cross-and-self-3", "tgate-10-5"),
        *("evenly-attn1-27x15", "steps-10", "steps-8", "steps-6", "steps-8-late", "steps-10-fora-2"),
    ),
    "pixart-alpha": ("uncached", "fora-2", "fora-3", "fora-5", "tgate-10-5", "steps-10"),
    "pixart-sigma": ("uncached", "fora-2", "fora-3", "fora-5", "steps-10"),
    "flux-dev": ("uncached", "fora-2", "fora-3", "fora-5", "steps-10"),
    "flux-schnell": ("uncached", "fora-2", "cross-and-self-2", "steps-2"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--model",
        default="storybook",
        help=f"{', '.join(MODELS)}, or a folder saved by diffusers (default: storybook)",
    )
    parser.add_argument(
        "-o", "--output-dir", type=Path, required=True, help="folder to write to; made if missing"
    )
    parser.add_argument("--rows", type=int, help="denoising steps (default: 20; flux-schnell 4)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these, by name or pattern such as 'fora-*'"
    )
    parser.add_argument(
        "--shipped", action="store_true", help="only those that the repository ships for the model"
    )
    parser.add_argument("--skip-existing", action="store_true", help="leave files that are there as they are")
    parser.add_argument("--list", action="store_true", help="print the names and write nothing")


def run(args: argparse.Namespace) -> int:
    """Write the files; prints how many."""
    schedules = for_model(args.model, args.rows)
    if args.shipped:
        wanted = SHIPPED[model_name(args.model)]
        schedules = [schedule for schedule in schedules if schedule.name in wanted]
    if args.only:
        schedules = [
            s for s in schedules if any(fnmatch.fnmatchcase(s.name, pattern) for pattern in args.only)
        ]
        if not schedules:
            raise ScheduleError(f"No schedule is named {' or '.join(args.only)}; --list shows the names.")
    if args.list:
        print("\n".join(schedule.name for schedule in schedules))
        return 0
    written = 0
    for schedule in schedules:
        path = args.output_dir / f"{schedule.name}.json"
        if args.skip_existing and path.exists():
            continue
        schedule.save(path)
        written += 1
    print(f"{written} schedules for {args.model} in {args.output_dir}")
    return 0


def for_model(model: str, rows: int | None = None) -> list[Schedule]:
    """The heuristics for a known model or a local folder, tagged with its name.

    Raises:
        ScheduleError: neither is there, or the number of rows is outside 1 ... 1000.
    """
    if Path(model).is_dir():
        name, of, rows = Path(model).name, local_dimensions(model).layout, 20 if rows is None else rows
    else:
        name = model_name(model)
        of, rows = layout(name), default_rows(name) if rows is None else rows
    if not 1 <= rows <= 1000:
        raise ScheduleError(f"--rows must be 1 to 1000, not {rows}.")
    return [schedule.replace(model=name) for schedule in heuristics.library(of, rows, own_grid(of, rows))]

"""Count the multiply-accumulates of schedule files, by closed form: no weights, no GPU, no torch.

Without --json the figures are written into the files, under the original's keys for the convention `paper`
and under the same keys with `_full` for `full`. With --json the files stay as they are and one object is
printed: file name -> {"total_macs", "by_inference_step"}. A file's own height and width count unless it names
another model than --image-generator.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from ecad.schedule import Schedule, ScheduleError
from ecad.schedule.costs import CONVENTIONS, CostTable, Macs, cost_table
from ecad.schedule.layouts import default_rows, local_dimensions, model_name

_WEIGHTS_SIZE = re.compile(r"XL-2-(256|512|1024)")  # PixArt's hub names say the size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options; the first four are the original's."""
    parser.add_argument(
        "--image-generator",
        help="a model's name, the original's, or a folder saved by diffusers (default: the one a file names)",
    )
    parser.add_argument(
        "-i", "--input-dir", type=Path, required=True, help="a schedule file, or a folder of them"
    )
    parser.add_argument(
        "--recompute-existing", action="store_true", help="count files again that have figures"
    )
    parser.add_argument("--print-detailed", action="store_true", help="print every step of every file")
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default="paper",
        help="paper: as the original counts, without attention products; full: what one image really takes",
    )
    parser.add_argument("--height", type=int, help="pixels, instead of the file's own size")
    parser.add_argument("--width", type=int, help="pixels; one side alone means a square")
    parser.add_argument("--json", action="store_true", help="print one object and write nothing")


def run(args: argparse.Namespace) -> int:
    """Count; the exit code is 2 if a file was no schedule for the model (the others are counted)."""
    tables: dict[tuple, CostTable] = {}
    figures: dict[str, dict[str, Any]] = {}
    bad = 0
    if args.image_generator and not Path(args.image_generator).is_dir():
        model_name(args.image_generator)  # refused once, not per file
    paths = schedule_files(args.input_dir)
    for path in paths:
        name = path.relative_to(args.input_dir).as_posix() if path != args.input_dir else path.name
        try:
            schedule = Schedule.load(path)
            macs, table = _count(schedule, path, args, tables)
        except ScheduleError as error:
            print(f"error: {error}", file=sys.stderr)
            bad += 1
            continue
        figures[name] = as_json(macs)
        if args.json:
            continue
        print(_line(name, macs, table, _usual_rows(schedule, args)))
        if args.print_detailed:
            print("\n".join(f"    {row:03} {count:>24,}" for row, count in enumerate(macs.by_row)))
        _write(schedule, path, macs, args)
    if args.json:
        print(json.dumps(figures, indent=4))
    return 2 if bad else 0


def schedule_files(where: Path) -> list[Path]:
    """The file itself, or every .json file in the folder and below, sorted.

    Raises:
        ScheduleError: nothing is there.
    """
    if where.is_dir():
        found = sorted(path for path in where.rglob("*.json") if path.is_file())
        if not found:
            raise ScheduleError(f"{where} holds no .json file; expected schedules.")
        return found
    if not where.exists():
        raise ScheduleError(f"{where} does not exist; expected a schedule file or a folder of them.")
    return [where]


def as_json(macs: Macs) -> dict[str, Any]:
    """One file's figures as --json prints them."""
    figures: dict[str, Any] = {
        "total_macs": macs.total,
        "by_inference_step": {f"{row:03}": {"macs": count} for row, count in enumerate(macs.by_row)},
    }
    return figures | ({"once_per_pass": macs.once} if macs.once else {})


def _count(
    schedule: Schedule, path: Path, args: argparse.Namespace, tables: dict[tuple, CostTable]
) -> tuple[Macs, CostTable]:
    model = args.image_generator or schedule.model
    if model is None:
        raise ScheduleError(f"{path}: names no model; expected --image-generator.")
    local = Path(model).is_dir()
    height, width = args.height, args.width
    if height is None and width is None:
        height, width = _size(schedule, None if local else model_name(model))
    key = (model, height, width)
    if key not in tables:
        dimensions = local_dimensions(model) if local else model
        tables[key] = cost_table(dimensions, height=height, width=width, convention=args.convention)
    try:
        return tables[key].macs(schedule), tables[key]
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from error


def _size(schedule: Schedule, model: str | None) -> tuple[int | None, int | None]:
    """The size a file asks for, if it is for this model or names none.

    Sides that are no integers do not count.
    """
    if schedule.model is not None and schedule.model != model:
        return None, None
    sides = [schedule.config.get(side) for side in ("height", "width")]
    height, width = (side if isinstance(side, int) and not isinstance(side, bool) else None for side in sides)
    weights = schedule.config.get("transformer_weights")
    if (
        height is None
        and width is None
        and isinstance(weights, str)
        and (match := _WEIGHTS_SIZE.search(weights))
    ):
        return int(match[1]), int(match[1])
    return height, width


def _line(name: str, macs: Macs, table: CostTable, rows: int) -> str:
    ratio = table.uncached(rows).total / macs.total
    count = f"{macs.total:>22,} MACs  {macs.total / 1e12:9.4f} T"
    return f"{count}  {ratio:6.2f}x fewer than {rows} uncached steps  {name}"


def _usual_rows(schedule: Schedule, args: argparse.Namespace) -> int:
    """The steps to compare with: the model's usual ones, or the schedule's own if those are more."""
    model = args.image_generator or schedule.model
    return schedule.rows if Path(model).is_dir() else max(schedule.rows, default_rows(model))


def _write(schedule: Schedule, path: Path, macs: Macs, args: argparse.Namespace) -> None:
    """Put the figures into the file; other metrics in it stay."""
    suffix = "" if args.convention == "paper" else "_full"
    metrics = dict(schedule.metrics)
    if f"total_macs{suffix}" in metrics and not args.recompute_existing:
        return
    steps = metrics.get(f"by_inference_step{suffix}")
    old = steps if isinstance(steps, dict) else {}
    metrics[f"by_inference_step{suffix}"] = {
        step: (old[step] if isinstance(old.get(step), dict) else {}) | figures
        for step, figures in as_json(macs)["by_inference_step"].items()
    }
    metrics[f"total_macs{suffix}"] = macs.total
    metrics[f"total_macs{suffix}_T"] = macs.total / 1e12
    try:
        schedule.replace(metrics=metrics).save(path)
    except OSError as error:
        raise ScheduleError(
            f"{path}: cannot be written ({error.strerror or error}); --json only prints."
        ) from error

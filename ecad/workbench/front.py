"""Print a run's front: the schedules that no other one of the run beats in both cost and quality.

    python -m ecad front try                     a table
    python -m ecad front try --json              evaluations, front and digest as one JSON object
    python -m ecad front try --export DIR        the front's schedules as files

RUN is the name of a run in the data folder, or a path. The digest is over every evaluation's exact scores:
two runs with one digest found the same.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ecad.search import Evaluation, RunStore, find_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("run_name", metavar="RUN", help="the name of a run, or its file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write the front's schedules as JSON files"
    )
    parser.add_argument(
        "--copy", type=Path, metavar="FILE", help="write the run as one read-only file to ship"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="where runs lie; else ECAD_DATA_DIR or the user's folder"
    )


def run(args: argparse.Namespace) -> int:
    """Read the run, write what was asked for, print."""
    with RunStore.open(find_run(args.run_name, args.data_dir)) as store:
        front = store.front()
        if args.export is not None:
            files = export(front, args.export)
            print(f"{len(files)} schedules written to {args.export}", file=sys.stderr)
        if args.copy is not None:
            store.export(args.copy)
        if args.json:
            settings = store.settings
            report = {
                "run": store.name,
                "model": settings.model,
                "state": store.state,
                "reward": settings.reward,
                "images": sum(store.batches),
                "uncached_macs": store.uncached_macs,
                "evaluations": store.count(),
                "front": [evaluation.summary() for evaluation in front],
                "digest": store.digest(),
            }
            print(json.dumps(report, indent=4, allow_nan=False))
        else:
            print(f"{store.name}: {store.count()} evaluations of {store.settings.model} ({store.state})")
            print(table(front, store.settings.reward))
    return 0


def table(front: Sequence[Evaluation], reward: str) -> str:
    """The front as text columns, cheapest first; `reward` is what the quality is the mean of."""
    metrics = sorted({name for evaluation in front for name in evaluation.means} - {reward})
    predicted = any(evaluation.latency is not None for evaluation in front)
    head = ["name", "steps", "GMACs", "speed", *(["predicted"] if predicted else []), "quality", *metrics]
    lines = [
        [
            evaluation.name,
            str(evaluation.rows),
            f"{evaluation.macs / 1e9:.2f}",
            f"{evaluation.speed:.2f}x",
            *([f"{1 / evaluation.objective:.2f}x"] if predicted else []),
            f"{evaluation.quality:.4f}",
            *(f"{evaluation.means.get(name, float('nan')):.4f}" for name in metrics),
        ]
        for evaluation in front
    ]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rows = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in [head, *lines]]
    return "\n".join(row.rstrip() for row in rows)


def export(front: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write every schedule of a front to `folder`, a file per name; the key is added where two share one."""
    files: list[Path] = []
    for evaluation in front:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", evaluation.name).strip("-.")[:60]
        file = folder / f"{plain or evaluation.key[:8]}.json"
        if file in files:
            file = folder / f"{file.stem}-{evaluation.key[:8]}.json"
        evaluation.schedule.save(file)
        files.append(file)
    return files

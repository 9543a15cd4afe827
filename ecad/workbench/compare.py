"""Re-score the best schedules of a run on prompts it never saw, beside FORA and fewer steps of the same cost.

    python -m ecad compare try --prompts held-out --count 128

For each cost level (2, 3, 4, 5 times fewer MACs than uncached) it takes the best schedule that the run found
at that cost or less (the best few by the run's own scores meet again on other images first), the nearest FORA-n
and the nearest numbers of steps without caching (evenly spaced, and dense late), and evaluates all of them and
the uncached model on the same prompts and the same noise. It prints a Markdown table: reward, facts right and
fidelity to the uncached image, each with the 95 % interval of the paired difference (Student's t). Every scored
batch is kept in a run of its own, so an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecad.schedule import Schedule, heuristics
from ecad.search import RunStore, SearchError, SearchSettings, find_run, run_path
from ecad.workbench._evaluation_set import captions, metrics_for, read_prompts
from ecad.workbench._finalists import Pick, by_own_score, second_round

if TYPE_CHECKING:
    from ecad.models import ImageGenerator
    from ecad.search import Evaluation, Search

HELD_OUT = "held-out"
CAPTION_SEED = 128
NOISE_SEED = 1_000_000  # far from the seeds of any search
FIDELITY = ("psnr", "ssim", "flip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("run_name", metavar="RUN", help="the name of a run, or its file")
    parser.add_argument(
        "--prompts",
        default=HELD_OUT,
        help="held-out (captions no net has seen), or a text file, one prompt a line",
    )
    parser.add_argument("--count", type=int, default=128, help="how many prompts (128)")
    parser.add_argument("--levels", type=float, nargs="+", default=[2.0, 3.0, 4.0, 5.0], metavar="TIMES")
    parser.add_argument(
        "--finalists",
        type=int,
        help="how many of a level's best meet again (4; 1, none, with a file of prompts)",
    )
    parser.add_argument(
        "--validation",
        type=int,
        default=96,
        help="images they meet on: training captions, or the file's prompts after the first COUNT (96)",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images computed together (16)")
    parser.add_argument("--model", help="a model's name or folder; the run's own if not given")
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")
    parser.add_argument("--threads", type=int, help="CPU threads; cores - 1 if not given")
    parser.add_argument(
        "--data-dir", type=Path, help="where runs lie; else ECAD_DATA_DIR or the user's folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    """Choose, evaluate, compare, print."""
    if args.count < 2:
        raise SearchError(f"`count` must be at least 2 for an interval, not {args.count}")
    if not all(math.isfinite(level) and level >= 1 for level in args.levels):
        raise SearchError("`levels` are how many times fewer MACs: numbers from 1")
    finalists = args.finalists if args.finalists is not None else (4 if args.prompts == HELD_OUT else 1)
    if finalists < 1 or args.validation < 1:
        raise SearchError("`finalists` and `validation` must be at least 1")
    with RunStore.open(find_run(args.run_name, args.data_dir)) as source:
        found = source.evaluations()
        name, reward = source.name, source.settings.reward
        model = args.model or source.settings.model
    prompts, others = _prompts(args, args.validation if finalists > 1 else 0)
    settings = SearchSettings.of(
        prompts=prompts,
        model=model,
        reward=reward,
        noise_seed=NOISE_SEED,
        batch=args.batch_size,
        generations=0,
    )
    metrics = metrics_for(reward)
    from ecad.metrics import metric
    from ecad.models import load_image_generator
    from ecad.search import Search, make_evaluator, open_run
    from ecad.workbench.search import default_threads

    have = {one.name for one in metrics}
    metrics += [metric(other) for other in FIDELITY if other not in have]
    generator = load_image_generator(model, device=args.device, threads=args.threads or default_threads())
    evaluator = make_evaluator(generator, metrics, settings)
    which = HELD_OUT if args.prompts == HELD_OUT else Path(args.prompts).stem
    path = run_path(f"{name}-on-{which}-{len(settings.prompts)}", args.data_dir)
    pick = by_own_score
    if finalists > 1:
        again = run_path(f"{name}-finalists-{which}-{len(others)}", args.data_dir)
        pick = second_round(generator, metrics[0], others, finalists, again, batch=args.batch_size)
    with open_run(path, evaluator, settings) as store:
        chosen = choose(found, generator, args.levels, pick)
        report = compare(Search(evaluator, store), chosen)
    report = {"run": name, "model": model, "prompts": which, "count": len(settings.prompts), **report}
    print(json.dumps(report, indent=4, allow_nan=False) if args.json else markdown(report))
    return 0


def _prompts(args: argparse.Namespace, others: int) -> tuple[list[str], list[str]]:
    """The prompts of the report, and `others` for the choice among finalists."""
    if args.prompts == HELD_OUT:
        chosen = captions(args.count, seed=CAPTION_SEED, held_out=True)
        return chosen, captions(others, seed=CAPTION_SEED, held_out=False)
    prompts, wanted = read_prompts(Path(args.prompts)), args.count + others
    if len(prompts) < wanted:
        raise SearchError(f"{args.prompts} holds {len(prompts)} prompts, fewer than {wanted}")
    return prompts[: args.count], prompts[args.count : wanted]


@dataclass(frozen=True)
class Choice:
    """A schedule that stands for one way to save at one level; `kind` is a key of `_KINDS`."""

    level: float
    kind: str
    schedule: Schedule


def choose(
    found: Sequence[Evaluation],
    generator: ImageGenerator,
    levels: Sequence[float],
    pick: Pick = by_own_score,
) -> list[Choice]:
    """The schedules to compare at each level.

    Found: of what the run's search made itself and saves at least so much, the one that `pick` takes.
        Baselines: the n or the number of steps whose cost is nearest to the level's, by ratio; it may save a
        little less.
    """
    layout, rows, grid = generator.layout, generator.rows, generator.timesteps
    table = generator.cost_table("full")
    uncached = table.uncached(rows).total
    ways = {
        "fora": [heuristics.fora(layout, rows, n) for n in range(2, rows)],
        "steps": [heuristics.fewer_steps(layout, n, grid=grid) for n in range(2, rows)],
        "steps-late": [heuristics.fewer_steps(layout, n, spacing="late", grid=grid) for n in range(2, rows)],
    }
    chosen = []
    for level in levels:
        own = [one for one in found if one.origin == "search" and one.speed >= level]
        if own:
            chosen.append(Choice(level, "found", pick(own)))
        for kind, schedules in ways.items():
            nearest = min(schedules, key=lambda one: abs(math.log(uncached / table.macs(one).total / level)))
            chosen.append(Choice(level, kind, nearest))
    return chosen


def compare(search: Search, chosen: Sequence[Choice]) -> dict[str, Any]:
    """Evaluate the choices and the uncached model into the search's run, and report means and intervals."""
    store, evaluator = search.store, search.evaluator
    schedules = {choice.schedule.key: choice.schedule for choice in chosen}
    everything = [evaluator.uncached, *schedules.values()]
    for number, schedule in enumerate(everything):
        print(f"{number + 1} of {len(everything)}: {schedule.name}", file=sys.stderr, flush=True)
        search.evaluate(schedule)
    base = store.scores(evaluator.uncached.key)
    levels = []
    for level in dict.fromkeys(choice.level for choice in chosen):
        entries = []
        mine = [choice for choice in chosen if choice.level == level]
        own = next((choice for choice in mine if choice.kind == "found"), None)
        for choice in mine:
            evaluation, scores = store.evaluation(choice.schedule.key), store.scores(choice.schedule.key)
            entry = {
                "kind": choice.kind,
                "name": choice.schedule.name,
                "key": choice.schedule.key,
                "rows": evaluation.rows,
                "macs": evaluation.macs,
                "speed": evaluation.speed,
                "metrics": {name: interval(values) for name, values in scores.items()},
                "against_uncached": {name: interval(scores[name] - base[name]) for name in scores},
            }
            if own is not None and choice is not own:
                better = store.scores(own.schedule.key)
                entry["found_minus_this"] = {name: interval(better[name] - scores[name]) for name in scores}
            entries.append(entry)
        levels.append({"level": level, "entries": entries})
    return {
        "reward": evaluator.reward.name,
        "uncached": {name: interval(values) for name, values in base.items()},
        "levels": levels,
        "digest": store.digest(),
    }


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Mean and 95 % interval (Student's t) of float64 [n]; images without a score are left out."""
    from scipy.stats import t

    judged = values[np.isfinite(values)]
    if not len(judged):
        return {"mean": None, "low": None, "high": None}
    middle = math.fsum(judged) / len(judged)
    if len(judged) < 2:
        return {"mean": middle, "low": None, "high": None}
    half = float(t.ppf(0.975, len(judged) - 1)) * float(np.std(judged, ddof=1)) / math.sqrt(len(judged))
    return {"mean": middle, "low": middle - half, "high": middle + half}


_KINDS = {
    "found": "found",
    "fora": "FORA",
    "steps": "fewer steps",
    "steps-late": "fewer steps, dense late",
}


def markdown(report: Mapping[str, Any]) -> str:
    """The report as two Markdown tables: against uncached, and found against each baseline."""
    base, judged = report["uncached"], [(report["reward"], "reward", 1.0, "%.3f")]
    if "facts-right" in base:
        judged.append(("facts-right", "facts right, %", 100.0, "%.1f"))
    fidelity = [
        (name, name.upper(), 1.0, "%.2f" if name == "psnr" else "%.3f") for name in FIDELITY if name in base
    ]
    fidelity = [column for column in fidelity if column[0] != report["reward"]]

    head = ["fewer MACs", "schedule", "really"]
    first = ["1x", "uncached", "1.00x"]
    for name, title, scale, form in judged:
        head += [title, "against uncached"]
        first += [_mean(base[name], scale, form), ""]
    head += [title for _, title, _, _ in fidelity]
    lines, against = [first + [""] * len(fidelity)], []
    for level in report["levels"]:
        for entry in level["entries"]:
            name = f"{_KINDS[entry['kind']]} ({entry['name']})"
            line = [f"{level['level']:g}x", name, f"{entry['speed']:.2f}x"]
            for metric, _, scale, form in judged:
                line.append(_mean(entry["metrics"][metric], scale, form))
                line.append(_change(entry["against_uncached"][metric], scale, form))
            line += [_mean(entry["metrics"][metric], scale, form) for metric, _, scale, form in fidelity]
            lines.append(line)
            if "found_minus_this" in entry:
                gains = [
                    _change(entry["found_minus_this"][metric], scale, form)
                    for metric, _, scale, form in judged + fidelity
                ]
                against.append([f"{level['level']:g}x", name, *gains])
    tables = [_table(head, lines)]
    if against:
        tables.append(
            _table(["fewer MACs", "found less", *(column[1] for column in judged + fidelity)], against)
        )
    note = f"{report['count']} prompts ({report['prompts']}), the same noise for all; [95 % interval]"
    return "\n\n".join([note, *tables])


def _mean(value: Mapping[str, float | None], scale: float, form: str) -> str:
    return "-" if value["mean"] is None else form % (scale * value["mean"])


def _change(value: Mapping[str, float | None], scale: float, form: str) -> str:
    if value["mean"] is None or value["low"] is None:
        return "-"
    middle, low, high = (form.replace("%", "%+") % (scale * value[name]) for name in ("mean", "low", "high"))
    return f"{middle} [{low}, {high}]"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)

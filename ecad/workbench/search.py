"""Search for schedules: NSGA-II on cost against quality, in a run that survives any interruption.

    python -m ecad search --name try --population-size 16 --num-cycles 4

evaluates the heuristics (among them the whole line of fewer steps), then 4 generations of 16 children, and
prints the front. The same command goes on with a run that was interrupted, and returns at once for one that
is finished; more cycles continue it. Candidates of Storybook are judged on captions that the model was
trained on, so that the held-out ones stay unseen (`python -m ecad compare`). Ctrl-C leaves a run that can go
on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from ecad.search import Progress, RunStore, SearchError, SearchSettings, data_folder, run_path
from ecad.workbench._evaluation_set import captions, metrics_for, read_prompts

CAPTION_SEED = 20
"""Which training captions a search of Storybook uses, if it is not told."""

# Option -> setting, for those that are the same thing under another name.
_SETTINGS = {
    "population_size": "population",
    "num_cycles": "generations",
    "evaluations": "evaluations",
    "time_limit": "time_limit",
    "plateau": "plateau",
    "seed": "seed",
    "seeds_per_prompt": "seeds_per_prompt",
    "batch_size": "batch",
    "reward": "reward",
    "cost": "cost",
    "seed_count": "seed_count",
    "model": "model",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options. What is not given comes from the run that goes on, else from the preset."""
    parser.add_argument("--name", required=True, help="the run's name; a known one goes on")
    parser.add_argument("--preset", help="default (rows and components) or paper (the original's operators)")
    parser.add_argument("--population-size", type=int, help="survivors and children of a generation")
    parser.add_argument("--num-cycles", type=int, help="generations of children after the seeds")
    parser.add_argument("--evaluations", type=int, help="stop at this many evaluated schedules")
    parser.add_argument("--time-limit", type=float, help="stop after this many seconds of evaluation")
    parser.add_argument("--plateau", type=int, help="stop if the front did not grow in so many generations")
    parser.add_argument("--seed", type=int, help="of the search's random choices")
    parser.add_argument("--seed-count", type=int, help="heuristic schedules to begin with")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--images", type=int, help="captions per candidate, of Storybook's own (12)")
    prompts.add_argument("--prompts", type=Path, help="a text file with one prompt a line")
    parser.add_argument("--seeds-per-prompt", type=int, help="images per prompt")
    parser.add_argument("--batch-size", type=int, help="images computed together")
    parser.add_argument("--reward", help="the metric to search on: storybook-reward, ssim, ...")
    parser.add_argument("--cost", help="what to minimise beside it: macs, or latency as predicted here")
    parser.add_argument("-m", "--model", "--image-generator", help="a model's name or folder (storybook)")
    parser.add_argument("--device", help="cpu, cuda, ...; a GPU if there is one")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16")
    parser.add_argument("--threads", type=int, help="CPU threads; the run's own, else cores - 1")
    parser.add_argument(
        "--data-dir", type=Path, help="where runs lie; else ECAD_DATA_DIR or the user's folder"
    )
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with other weights, versions, ..."
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Check everything cheap, load the model, search; 130 if interrupted."""
    path = run_path(args.name, args.data_dir)
    stored = RunStore.open(path) if path.exists() else None
    settings = settings_of(args, stored.settings if stored else None)
    threads = args.threads or (stored and stored.fingerprint["generator"].get("threads")) or default_threads()
    if threads < 1:
        raise SearchError(f"`threads` must be at least 1, not {threads}")
    known = stored.count() if stored else 0
    if stored:
        stored.close()
    say = _silent if args.quiet else _say
    say(f"{'going on with' if known else 'beginning'} the run {args.name} in {path}")
    if known:
        say(f"{known} evaluations are there")

    metrics = metrics_for(settings.reward)
    from ecad.models import load_image_generator
    from ecad.search import Search, make_evaluator, open_run
    from ecad.workbench.front import table

    generator = load_image_generator(settings.model, device=args.device, dtype=args.dtype, threads=threads)
    evaluator = make_evaluator(generator, metrics, settings)
    calibration = None
    if settings.cost == "latency" and not path.exists():
        calibration = calibration_of(generator, settings.batch, args.data_dir, say)
    with open_run(
        path, evaluator, settings, accept_changes=args.accept_changes, calibration=calibration
    ) as store:
        search = Search(evaluator, store)
        search.start()
        show = _silent if args.quiet else Display(sys.stderr)
        try:
            while not search.wait(0.25):
                show(search.progress())
        except KeyboardInterrupt:
            say("\nstopping ...")
            search.stop()
            search.wait()
            say("stopped; the same command goes on from here")
            return 130
        show(search.progress())
        say("")
        print(f"{store.count()} evaluations in {path} ({store.state})")
        print(f"digest {store.digest()}")
        print(table(store.front(), settings.reward))
    return 0


def calibration_of(generator: Any, batch: int, data: Path | None, say: Any) -> Any:
    """The kept latency calibration for this device and batch, else one made now and kept."""
    from ecad.models.calibrating import calibrate, store_calibration, stored_calibration

    folder = data_folder(data)
    found = stored_calibration(generator, batch, folder)
    if found is None:
        say(f"calibrating: how long the parts of a pass of {batch} images take here")
        found = calibrate(generator, batch=batch)
        store_calibration(found, folder)
    say(f"the cost is the time predicted by the calibration of {found.made}, off by {found.median_error:.1%}")
    return found


def settings_of(args: argparse.Namespace, stored: SearchSettings | None) -> SearchSettings:
    """The settings that the options and the run (if there is one) give together."""
    given: dict[str, Any] = {
        setting: getattr(args, option)
        for option, setting in _SETTINGS.items()
        if getattr(args, option) is not None
    }
    if args.prompts is not None:
        given["prompts"] = read_prompts(args.prompts)
    elif args.images is not None or stored is None:
        model = given.get("model", stored.model if stored else "storybook")
        if model != "storybook" and args.images is None:
            raise SearchError(f"name a file of prompts for {model} with --prompts, one a line")
        count = 12 if args.images is None else args.images
        if not 1 <= count <= 10_000:
            raise SearchError(f"`images` must be a whole number from 1 to 10000, not {count}")
        given["prompts"] = captions(count, seed=CAPTION_SEED, held_out=False)
    if stored is None:
        return SearchSettings.of(args.preset or "default", **given)
    if args.preset is not None:
        given["preset"] = args.preset
    return stored.replace(**given)


def default_threads() -> int:
    """Cores less one, at least one: two torch threads beside one busy core can be slower than one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


class Display:
    """Progress as one line that changes on a terminal, or a line now and then elsewhere."""

    def __init__(self, stream: Any, *, every: float = 10.0):
        self._stream, self._every = stream, every
        self._live = stream.isatty()
        self._last, self._shown = -every, ("", -1)

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        due = now - self._last >= (0.5 if self._live else self._every)
        if not due and (progress.state, progress.generation) == self._shown:
            return
        self._last, self._shown = now, (progress.state, progress.generation)
        text = sentence(progress)
        self._stream.write(f"\r\x1b[K{text}" if self._live else text + "\n")
        self._stream.flush()


def sentence(progress: Progress) -> str:
    """Progress in one line, such as "generation 2 of 4: 7 of 16 candidates, 71 evaluations, 3 min left"."""
    limit = "" if progress.generations is None else f" of {progress.generations}"
    parts = [f"generation {progress.generation}{limit}: {progress.done} of {progress.wanted} candidates"]
    parts.append(f"{progress.evaluations} evaluations")
    if progress.hypervolume is not None:
        parts.append(f"hypervolume {progress.hypervolume:.4f}")
    if progress.eta is not None:
        parts.append(f"{duration(progress.eta)} left")
    if progress.state != "running":
        parts.append(progress.state)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds in words: "45 s", "3 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(_: Any) -> None:
    return None

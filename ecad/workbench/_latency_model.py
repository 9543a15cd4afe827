"""`latency --calibrate` and `latency --predict`: the kept calibration, in sentences or as one JSON object."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ecad.execution.errors import ExecutionError
from ecad.execution.latency import EXECUTION, PASS, ROW, STRETCH, SUM_BUILT, SUM_READ, Calibration
from ecad.models.calibrating import calibrations_folder, processor
from ecad.models.settings import ALIASES
from ecad.schedule import Schedule
from ecad.search.folders import data_folder

_WORDS = {
    PASS: "a pass, whatever it runs",
    ROW: "a row, whatever it computes",
    STRETCH: "beginning to add a stretch",
    SUM_READ: "reading one sum of a kept segment",
    SUM_BUILT: "building a kept segment's sums, per component",
}


def calibrate_here(args: argparse.Namespace, batch: int, threads: int | None) -> int:
    """Time, fit, keep and print."""
    from ecad.models.calibrating import calibrate, store_calibration
    from ecad.workbench.latency import embeddings_of, load_model

    folder = data_folder(args.data_dir)
    generator = load_model(args, threads)
    found = calibrate(generator, batch=batch, embeddings=embeddings_of(generator, args, batch))
    path = store_calibration(found, folder)
    if args.json:
        print(json.dumps({"file": str(path), **json.loads(found.to_json())}, indent=4))
    else:
        print(f"{described(found)}\nkept in {path}")
    return 0


def described(calibration: Calibration) -> str:
    """Prices and error in plain words."""
    about = calibration.conditions
    lines = [f"{_made_for(about)}: what a pass of {calibration.batch} image(s) is made of"]
    for name, seconds in calibration.prices.items():
        lines.append(f"{1000 * seconds:10.3f} ms  {_words(name)}")
    lines.append(
        f"{1000 * calibration.uncached_seconds:10.1f} ms  an uncached pass of {calibration.rows} rows"
    )
    lines.append(f"error: {_error(calibration)}; it took {calibration.took:.0f} s")
    return "\n".join(lines)


def _words(term: str) -> str:
    if term in _WORDS:
        return _WORDS[term]
    kind, name = term.split(" ", 1)
    return f"computing {name}" if kind == "compute" else f"adding a kept value to the {name} tokens"


def predict_files(args: argparse.Namespace, files: list[Path], batch: int | None, threads: int | None) -> int:
    """Predict each schedule file's time; the files stay as they are."""
    path, found = find(args, data_folder(args.data_dir), batch, threads)
    predicted = {str(file): figures(found, Schedule.load(file, layout=found.layout)) for file in files}
    if args.json:
        about = {"calibration": str(path), "conditions": dict(found.conditions)}
        print(json.dumps({name: {**figure, **about} for name, figure in predicted.items()}, indent=4))
        return 0
    for name, figure in predicted.items():
        print(
            f"{name}: predicted {figure['milliseconds']:.1f} ms an image (batch {found.batch}),"
            f" {figure['speed_up']:.2f} x faster than uncached"
        )
    print(
        f"nothing was timed: predicted from the calibration of {found.made} for {_made_for(found.conditions)};"
        f" {_error(found)}"
    )
    return 0


def figures(calibration: Calibration, schedule: Schedule) -> dict[str, Any]:
    """What is predicted of a schedule: milliseconds an image, the uncached model's, their ratio, the error."""
    image = 1000 * calibration.seconds(schedule) / calibration.batch
    uncached = 1000 * calibration.uncached_seconds / calibration.batch
    return {
        "predicted": True,
        "milliseconds": image,
        "uncached": uncached,
        "speed_up": uncached / image,
        "median_error": calibration.median_error,
        "worst_error": calibration.worst_error,
    }


def find(
    args: argparse.Namespace, data: Path, batch: int | None, threads: int | None
) -> tuple[Path, Calibration]:
    """The newest kept calibration that fits the model and all options given.

    The model is not loaded, so its weights are not compared; a CPU's name is.

    Raises:
        ExecutionError: there is none; the sentence says which condition the nearest one misses.
    """
    given = str(args.model)
    model = ALIASES.get(given, Path(given).name if Path(given).is_dir() else given)
    held = [(path, Calibration.load(path)) for path in sorted(calibrations_folder(data).glob("*.json"))]
    held = [(path, one) for path, one in held if one.conditions.get("model") == model]
    hint = f"`python -m ecad latency --calibrate -m {given}` makes one, with the same options"
    if not held:
        raise ExecutionError(f"there is no latency calibration of {model} in {data}; {hint}")
    mode = f"{args.mode or 'fast'}, compiled" if args.compile else args.mode  # as a fingerprint says it
    asked = {"batch": batch, "threads": threads, "dtype": args.dtype, "mode": mode, "execution": EXECUTION}
    reasons, fitting = [], []
    for path, one in held:
        wanted = {**asked, "device": _device(args.device, one)}
        if one.conditions.get("device") == "cpu":
            wanted["processor"] = processor()
        conditions = {"execution": 1, **one.conditions}  # the first execution's files do not say so
        why = replace(one, conditions=conditions).mismatch(wanted)
        if why is None:
            fitting.append((one.made, path, one))
        else:
            reasons.append((one.made, why))
    if not fitting:
        raise ExecutionError(f"no latency calibration of {model} holds here: {max(reasons)[1]}; {hint}")
    return max(fitting)[1:]


def _device(asked: str | None, calibration: Calibration) -> str | None:
    """The name under which a calibration knows the device that was asked for; None if any will do."""
    if asked is None or asked == "cpu":
        return asked
    import torch

    if not torch.cuda.is_available():
        return asked
    return torch.cuda.get_device_name(torch.device(asked))


def _made_for(about: Any) -> str:
    device = about.get("processor", "cpu") if about.get("device") == "cpu" else about.get("device")
    threads = about.get("threads")
    return (
        f"{about.get('model')} on {device}, {threads} CPU thread{'s' * (threads != 1)}, {about.get('dtype')},"
        f" batch {about.get('batch')}, mode {about.get('mode')}"
    )


def _error(calibration: Calibration) -> str:
    median, worst = calibration.median_error, calibration.worst_error
    if median is None or worst is None or not math.isfinite(worst):
        return "its error is not known"
    return (
        f"off by {median:.1%} (median) and {worst:.1%} (worst) on {len(calibration.errors)} schedules that it was"
        " not fitted to"
    )

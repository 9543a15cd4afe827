"""How long a pass takes: a linear model of a schedule's plan, fitted from a short calibration.

What a pass does is counted in its plan (numpy alone): components computed, by name; kept values added, by
stream; stretches; tensors read and built where a segment is kept as sums; rows; the pass itself. Each has a
price in seconds that is not negative, found by non-negative least squares (Lawson and Hanson 1974) on the
relative errors of timed passes. A computed component costs at least what adding its kept value would, since it
adds its output too: so a component less never makes a prediction longer where values are kept one by one.

A calibration is for one model at one size, device, dtype, number of threads, mode and batch. Its file says all
of it, with its own error on schedules that were left out of the fit.

On Storybook (one thread of a Xeon that other work shared, CPU time, the 14 schedules that are shipped, three checks at
batch 1 and 6) it was off by 1 to 3 % in the median and by 8 % at worst; MACs taken for speed-ups by 4 to 8 % and 22 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ecad.execution.errors import ExecutionError
from ecad.execution.lowering import Lowering
from ecad.execution.plan import Combine, Compute, Plan
from ecad.schedule import Layout, Schedule
from ecad.schedule.files import write_atomically

FORMAT = "ecad-latency-1"
PASS, ROW, STRETCH, SUM_READ, SUM_BUILT = "pass", "row", "stretch", "sum read", "sum built"

# What must agree between a calibration and what it predicts for, and how to say it.
CONDITIONS = {
    "model": "the model {}",
    "weights": "the weights {}",
    "layout": "the layout {}",
    "size": "the size {}",
    "guidance_scale": "guidance {}",
    "mode": "the mode {}",
    "device": "the device {}",
    "processor": "the processor {}",
    "dtype": "{}",
    "threads": "{} CPU thread(s)",
    "batch": "batch {}",
    "torch": "torch {}",
    "execution": "version {} of the execution",
}
# Counted up whenever something in a plan comes to run at another speed: older calibrations hold no longer.
EXECUTION = 2


def terms(layout: Layout) -> tuple[str, ...]:
    """The names of what a plan of this layout is counted in, one price each."""
    streams = dict.fromkeys(value.adds_to for value in layout.values if value.adds_to is not None)
    computed = (f"compute {name}" for name in layout.names)
    return (PASS, ROW, STRETCH, SUM_READ, SUM_BUILT, *computed, *(f"reuse {name}" for name in streams))


def counts(plan: Plan) -> dict[str, float]:
    """How often a pass does what has a price: term -> number, all of `terms(plan.layout)`.

    A component of which only some values are wanted counts as their share; from T-GATE's gate on, where one
    guidance half is left, everything counts half.
    """
    layout, gate = plan.layout, plan.schedule.gate_step
    found = dict.fromkeys(terms(layout), 0.0)
    found[PASS] = 1.0
    for row, steps in enumerate(plan.steps):
        share = 0.5 if gate is not None and row >= gate else 1.0
        found[ROW] += share
        opened = None
        for step in steps:
            if isinstance(step, Compute):
                part = len(step.wanted) / len(layout.values_of[step.index])
                found[f"compute {layout.components[step.index].name}"] += share * part
                if step.segment is not None and step.segment is not opened:
                    # Each member is added to its sum, then the hidden states' difference is taken.
                    found[SUM_BUILT] += share * (step.segment.stop - step.segment.start + 1)
                opened = step.segment
            elif isinstance(step, Combine):
                opened = None
                found[STRETCH] += share
                for v in step.values:
                    found[f"reuse {layout.values[v].adds_to}"] += share
                found[SUM_READ] += share * sum(one.tensors for one in step.segments)
    return found


def fit(layout: Layout, counted: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Prices in seconds, term -> price, of passes that took `seconds`; the relative errors' least squares.

    Raises:
        ExecutionError: fewer passes than two, or a time that is none.
    """
    times = np.asarray(seconds, dtype=np.float64)
    if len(times) < 2 or len(counted) != len(times) or not (np.isfinite(times).all() and (times > 0).all()):
        raise ExecutionError("a calibration needs at least two passes, each with a time above zero")
    names = terms(layout)
    matrix = np.array([[one[name] for name in names] for one in counted])
    # Prices = basis @ parts with parts >= 0 says that they are not negative, and that computing a component
    # costs at least one stretch and one reuse of each of its values.
    basis = np.eye(len(names))
    for component in {one.name: one for one in layout.components}.values():
        streams = [layout.values[v].adds_to for v in layout.values_of[component.index]]
        for stream in streams:
            if stream is not None:
                basis[names.index(f"reuse {stream}"), names.index(f"compute {component.name}")] += 1.0
        if any(streams):
            basis[names.index(STRETCH), names.index(f"compute {component.name}")] += 1.0
    basis = basis.T
    from scipy.optimize import nnls

    parts, _ = nnls(matrix @ basis / times[:, None], np.ones(len(times)))
    return {name: float(price) for name, price in zip(names, basis @ parts, strict=True)}


@dataclass(frozen=True)
class Sample:
    """One timed schedule of a calibration: its name, what its plan counts, and seconds of a pass (median).

    held_out: the prices were not fitted to it; it tells their error.
    """

    name: str
    counts: Mapping[str, float]
    seconds: float
    held_out: bool = False


@dataclass(frozen=True)
class Calibration:
    """Prices of what a plan does, and what they hold for.

    Attributes:
        conditions: what it was measured under; the keys of `CONDITIONS` where known.
        rows: of the sampler's own pass, which uncached means.
        lowering: how the mode plans.
        prices: term -> seconds.
        samples: the timed schedules.
        took: seconds that the calibration took; made: date and time (UTC), for people.
    """

    layout: Layout
    conditions: Mapping[str, Any]
    rows: int
    lowering: Lowering
    prices: Mapping[str, float]
    samples: tuple[Sample, ...] = ()
    took: float = 0.0
    made: str = ""
    _known: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def fitted(cls, layout: Layout, samples: Sequence[Sample], **about: Any) -> Calibration:
        """Fit the prices to those of the samples that are not held out; `about` are the other attributes."""
        chosen = [one for one in samples if not one.held_out]
        prices = fit(layout, [one.counts for one in chosen], [one.seconds for one in chosen])
        return cls(layout=layout, prices=prices, samples=tuple(samples), **about)

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """Relative errors of the schedules that were held out: 0.02 is 2 % too long."""
        held_out = [one for one in self.samples if one.held_out]
        return tuple(_priced(one.counts, self.prices) / one.seconds - 1 for one in held_out)

    @property
    def median_error(self) -> float | None:
        """The middle one of the errors' sizes; None if none was held out."""
        return float(np.median(np.abs(self.errors))) if self.errors else None

    @property
    def worst_error(self) -> float | None:
        """The largest of the errors' sizes; None if none was held out."""
        return float(np.abs(self.errors).max()) if self.errors else None

    def seconds(self, schedule: Schedule) -> float:
        """The predicted time of one pass, of as many images as the calibration's batch.

        Raises:
            ExecutionError: the schedule is for another layout.
        """
        if schedule.layout != self.layout:
            raise ExecutionError(
                f"the schedule is for {schedule.layout.name}, but the calibration for {self.layout.name}"
            )
        key = schedule.key
        if key not in self._known:
            if len(self._known) > 20_000:
                self._known.clear()
            self._known[key] = _priced(counts(self.lowering(schedule)), self.prices)
        return self._known[key]

    @cached_property
    def uncached_seconds(self) -> float:
        """The predicted time of a pass that computes everything on the sampler's own times."""
        bits = np.ones((self.rows, len(self.layout)), dtype=bool)
        return self.seconds(Schedule(self.layout, bits, name="uncached"))

    def share(self, schedule: Schedule) -> float:
        """A schedule's predicted time over that of the uncached one."""
        return self.seconds(schedule) / self.uncached_seconds

    @property
    def batch(self) -> int:
        """Images of one pass."""
        return int(self.conditions["batch"])

    def mismatch(self, conditions: Mapping[str, Any]) -> str | None:
        """Why it does not hold under other conditions, as the end of a sentence; None if it does.

        Conditions that only one side names are not compared.
        """
        for name, words in CONDITIONS.items():
            mine, theirs = self.conditions.get(name), conditions.get(name)
            if mine is not None and theirs is not None and mine != theirs:
                return f"it was made for {words.format(mine)}, not {words.format(theirs)}"
        return None

    def check(self, conditions: Mapping[str, Any]) -> None:
        """Raise ExecutionError with the reason if it does not hold under these conditions."""
        why = self.mismatch(conditions)
        if why is not None:
            raise ExecutionError(f"the latency calibration does not hold here: {why}")

    # as text

    def to_json(self) -> str:
        """The file's text: everything, exact floats."""
        return json.dumps(
            {
                "format": FORMAT,
                "layout": self.layout.name,
                "conditions": dict(self.conditions),
                "rows": self.rows,
                "lowering": {"gates": self.lowering.gates, "whole": self.lowering.whole},
                "seconds": dict(self.prices),
                "error": {
                    "median": self.median_error,
                    "worst": self.worst_error,
                    "held_out": len(self.errors),
                },
                "samples": [
                    {
                        "name": one.name,
                        "seconds": one.seconds,
                        "held_out": one.held_out,
                        "counts": dict(one.counts),
                    }
                    for one in self.samples
                ],
                "took": self.took,
                "made": self.made,
            },
            indent=1,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str, *, source: str = "the text") -> Calibration:
        """A calibration from `to_json`'s text.

        Raises:
            ExecutionError: another format, or a damaged one; the sentence names `source`.
        """
        from ecad.schedule.layouts import layout as layout_by_name

        try:
            given = json.loads(text)
            found = given.get("format") if isinstance(given, dict) else None
        except ValueError:
            raise ExecutionError(f"{source} is not a latency calibration: it is not JSON") from None
        if found != FORMAT:
            raise ExecutionError(
                f"{source} is not a latency calibration that this version reads: its format is {found!r},"
                f" expected {FORMAT!r}"
            )
        try:
            layout = layout_by_name(given["layout"])
            prices = {name: float(given["seconds"][name]) for name in terms(layout)}
            if not all(math.isfinite(price) and price >= 0 for price in prices.values()):
                raise ValueError("a price is no number of seconds")
            return cls(
                layout=layout,
                conditions={**given["conditions"], "batch": int(given["conditions"]["batch"])},
                rows=int(given["rows"]),
                lowering=Lowering(given["lowering"]["gates"], bool(given["lowering"]["whole"])),
                prices=prices,
                samples=tuple(
                    Sample(
                        str(one["name"]),
                        {name: float(one["counts"][name]) for name in prices},
                        float(one["seconds"]),
                        bool(one["held_out"]),
                    )
                    for one in given["samples"]
                ),
                took=float(given["took"]),
                made=str(given["made"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExecutionError(f"{source} is a damaged latency calibration ({error})") from None

    def save(self, path: str | Path) -> Path:
        """Write the file in one step."""
        write_atomically(path, self.to_json())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file.

        Raises:
            ExecutionError: it cannot be read, or is none; the sentence names it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExecutionError(f"the calibration {path} cannot be read ({error})") from None
        return cls.from_json(text, source=str(path))


def _priced(counted: Mapping[str, float], prices: Mapping[str, float]) -> float:
    # fsum: the same whatever order a file's terms come in.
    return math.fsum(number * prices[name] for name, number in counted.items())

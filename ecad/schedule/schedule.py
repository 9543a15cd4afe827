"""`Schedule`: which components are computed in which row, at which times."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ecad.schedule.canonical import canonical_bits, effective_bits
from ecad.schedule.errors import ScheduleError
from ecad.schedule.files import write_atomically
from ecad.schedule.layouts.base import Layout
from ecad.schedule.times import check_gate_step, check_sigmas, check_timesteps

MAX_ROWS = 1000
_FIELDS = (
    "layout",
    "bits",
    "name",
    "model",
    "timesteps",
    "sigmas",
    "gate_step",
    "config",
    "attributes",
    "metrics",
    "extra",
)


class Schedule:
    """Rows x components booleans (True = compute, False = reuse) for one layout, and what is said of them.

    Immutable; its identity (`==`, `hash`, `key`) is the layout, the canonical bits, the times and T-GATE's
    gate: two schedules are equal if they make the same images from any model of the layout. Names, configs
    and metrics are carried along and play no part in it.

    >>> import numpy as np
    >>> from ecad.schedule import Schedule, layout
    >>> bits = np.ones((20, 84), bool)
    >>> bits[1::2] = False
    >>> Schedule(layout("storybook"), bits, name="every second").call()
    {'num_inference_steps': 20}
    """

    layout: Layout
    bits: np.ndarray  # [R, C], read-only
    name: str
    model: str | None
    timesteps: tuple[int, ...] | None
    sigmas: tuple[float, ...] | None
    gate_step: int | None
    config: dict[str, Any]
    attributes: dict[str, Any]
    metrics: dict[str, Any]
    extra: dict[str, Any]

    def __init__(
        self,
        layout: Layout,
        bits: np.ndarray | Sequence[Sequence[bool]],
        *,
        name: str = "",
        model: str | None = None,
        timesteps: Iterable[int] | None = None,
        sigmas: Iterable[float] | None = None,
        gate_step: int | None = None,
        config: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            layout: what the columns of `bits` are.
            bits: [R, C] booleans, copied.
            name: a short name for people.
            model: the name of the model it was made for.
            timesteps: its own times (PixArt): one integer per row, strictly falling, 999 at most; None: the
                rows stand on the sampler's own grid for R steps.
            sigmas: its own times (FLUX): one number per row in (0, 1], unshifted, strictly falling.
            gate_step: true T-GATE: from this row on guidance is dropped and cross-attention is its kept mean.
            config: settings of a run (height, width, guidance_scale, ...).
            attributes: how it was made.
            metrics: what was measured of it.
            extra: unknown keys at the top of a file, kept so that writing it back loses nothing.

        Raises:
            ScheduleError: any of these is not as described.
        """
        array = np.array(bits)  # a copy
        if array.dtype != np.bool_:
            raise ScheduleError(f"A schedule's bits must be booleans, not {array.dtype}.")
        if array.ndim != 2 or array.shape[1] != len(layout):
            raise ScheduleError(
                f"A schedule for {layout.name} has the shape rows x {len(layout)}, "
                f"not {' x '.join(map(str, array.shape))}."
            )
        if not 1 <= len(array) <= MAX_ROWS:
            raise ScheduleError(f"A schedule has 1 to {MAX_ROWS} rows, not {len(array)}.")
        array.setflags(write=False)
        values = {
            "layout": layout,
            "bits": array,
            "name": str(name),
            "model": model,
            "timesteps": check_timesteps(timesteps, len(array), layout),
            "sigmas": check_sigmas(sigmas, len(array), layout),
            "gate_step": check_gate_step(gate_step, array, layout),
            "config": copy.deepcopy(dict(config or {})),
            "attributes": copy.deepcopy(dict(attributes or {})),
            "metrics": copy.deepcopy(dict(metrics or {})),
            "extra": copy.deepcopy(dict(extra or {})),
        }
        self.__dict__.update(values)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"A Schedule does not change; use replace({attribute}=...).")

    def __delattr__(self, attribute: str) -> None:
        raise AttributeError("A Schedule does not change.")

    @property
    def rows(self) -> int:
        """R: the number of model calls."""
        return len(self.bits)

    @property
    def times(self) -> tuple[int, ...] | tuple[float, ...] | None:
        """Its own times, `timesteps` or `sigmas`; None: the sampler's own grid."""
        return self.timesteps if self.timesteps is not None else self.sigmas

    @cached_property
    def _canonical_bits(self) -> np.ndarray:
        bits = canonical_bits(self.layout, self.bits, self.gate_step)
        bits.setflags(write=False)
        return bits

    def canonical(self) -> Schedule:
        """The schedule with its neutral bits at their canonical values (`ecad.schedule.canonical`).

        The images are the same to the bit; so are name, config, attributes and metrics of quality, but for
        metrics that count the bits, so metrics are dropped if the bits change.
        """
        if np.array_equal(self._canonical_bits, self.bits):
            return self
        return self.replace(bits=self._canonical_bits, attributes=self.attributes)

    def effective_bits(self) -> np.ndarray:
        """[R, C]: what following the bits as they are computes, dead work too; so the original counts."""
        return effective_bits(self.layout, self.bits, self.gate_step)

    @cached_property
    def key(self) -> str:
        """32 hex digits: the identity of the schedule as `==` sees it. Stable over processes and versions."""
        gate = (
            self.gate_step if self.gate_step != self.rows else None
        )  # a gate after the last row does nothing
        header = f"ecad-schedule-1|{self.layout.name}|{self.rows}|{self.timesteps}|{self.sigmas}|{gate}|"
        digest = hashlib.blake2b(header.encode(), digest_size=16)
        digest.update(np.packbits(self._canonical_bits).tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Schedule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        own = "" if self.times is None else ", own times"
        computed = f"{int(self.bits.sum())}/{self.bits.size}"
        return f"Schedule({self.name!r}, {self.layout.name}, {self.rows} rows, {computed} computed{own})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({field: getattr(self, field) for field in _FIELDS},)

    def call(self) -> dict[str, Any]:
        """What a diffusers pipeline must be called with: `timesteps`, `sigmas` or `num_inference_steps`."""
        if self.timesteps is not None:
            return {"timesteps": list(self.timesteps)}
        if self.sigmas is not None:
            return {"sigmas": list(self.sigmas)}
        return {"num_inference_steps": self.rows}

    def replace(self, **changes: Any) -> Schedule:
        """A copy with other values for some arguments of the constructor.

        What was measured and said of the old schedule does not hold for another one: with new bits, times or
        layout, `metrics` and `attributes` are dropped unless given too.
        """
        unknown = changes.keys() - set(_FIELDS)
        if unknown:
            raise TypeError(f"Schedule.replace() got unknown fields: {', '.join(sorted(unknown))}")
        values = {field: getattr(self, field) for field in _FIELDS}
        if changes.keys() & {"layout", "bits", "timesteps", "sigmas", "gate_step"}:
            values |= {"metrics": {}, "attributes": {}}
        return _rebuild(values | changes)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], layout: Layout | None = None, model: str | None = None
    ) -> Schedule:
        """Read a schedule file.

        Args:
            path: the file.
            layout: the layout it must be for, if one is expected.
            model: the model to note if the file names none.

        Raises:
            ScheduleError: the file is missing, too large, no schedule, or for another layout.
        """
        from ecad.schedule.reading import read_text

        schedule = cls.from_json(read_text(Path(path)), source=str(path), layout=layout)
        return schedule if schedule.model is not None or model is None else schedule.replace(model=model)

    @classmethod
    def from_json(
        cls, text: str | bytes, *, source: str = "The text", layout: Layout | None = None
    ) -> Schedule:
        """Read the text of a schedule file; `source` is what the errors call it.

        Raises:
            ScheduleError: the text is no schedule, or for another layout.
        """
        from ecad.schedule.reading import parse

        return parse(text, source=source, layout=layout)

    def to_json(self) -> str:
        """The text of its file (the contract C3).

        Raises:
            ScheduleError: config, attributes or metrics hold what JSON cannot.
        """
        from ecad.schedule.writing import to_json

        return to_json(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write its file, at once or not at all.

        Raises:
            ScheduleError: as `to_json`.
            OSError: the file cannot be written.
        """
        write_atomically(path, self.to_json())


def _rebuild(fields: dict[str, Any]) -> Schedule:
    fields = dict(fields)
    return Schedule(fields.pop("layout"), fields.pop("bits"), **fields)

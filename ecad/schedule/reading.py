"""Reading a schedule file strictly (the contract C3): nothing runs uncached, or permuted, by accident.

Every refusal is one sentence that names the file, the place in it and what was expected there. Reading never
depends on the order of keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Layout
from ecad.schedule.layouts.flux import SINGLE_PREFIX, flux_layout
from ecad.schedule.layouts.pixart import pixart_layout
from ecad.schedule.schedule import MAX_ROWS, Schedule

FORMAT = 1  # the version of the format that this writes; files of the original have none
MAX_BYTES = 16 * 2**20
MAX_BLOCKS = 1000
TGATE = "compute_attn_tgate"
# Keys that a block may hold besides its components, and the functions known under each, by lower-case name.
_CUSTOM = {"custom_compute_attn": {"compute_attn_cached", TGATE}, "custom_compute_ff": {"compute_ff_cached"}}
_SCHEDULE_KEYS = {"num_blocks", "num_single_blocks", "num_inference_steps", "name", "attributes", "schedule"}
_TOP_KEYS = {"format", "model", "cache_schedule", "config", "metrics"}


def read_text(path: Path) -> bytes:
    """The bytes of a schedule file, never more than `MAX_BYTES`.

    Raises:
        ScheduleError: the file is missing, unreadable or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScheduleError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(data) > MAX_BYTES:
        raise ScheduleError(f"{path}: larger than {MAX_BYTES // 2**20} MB, which no schedule is.")
    return data


def parse(text: str | bytes, *, source: str, layout: Layout | None) -> Schedule:
    """The schedule in the text of a file; see `Schedule.from_json`."""
    return _Reader(source).schedule(_decode(text, source), layout)


def _decode(text: str | bytes, source: str) -> Any:
    """The JSON value in `text`, with repeated keys, NaN and infinity refused."""
    if len(text) > MAX_BYTES:
        raise ScheduleError(f"{source}: larger than {MAX_BYTES // 2**20} MB, which no schedule is.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise ScheduleError(
                f"{source}: the key {_short(twice)} stands twice in one object; expected it once."
            )
        return found

    def refuse(constant: str) -> NoReturn:
        raise ScheduleError(f"{source}: {constant} is no JSON number; expected a finite number.")

    def finite(number: str) -> float:
        value = float(number)
        return value if math.isfinite(value) else refuse(number[:40])

    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except ScheduleError:
        raise
    except json.JSONDecodeError as error:
        raise ScheduleError(f"{source}: not JSON ({error.msg} at line {error.lineno}).") from error
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{source}: not JSON (not UTF-8 text).") from error
    except RecursionError as error:
        raise ScheduleError(f"{source}: nested too deeply for a schedule.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise ScheduleError(f"{source}: not JSON that can be read ({error}).") from error


class _Reader:
    """Walks through one file; every method checks and returns one part of it."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, sentence: str) -> NoReturn:
        raise ScheduleError(f"{self.source}: {sentence}")

    def schedule(self, top: Any, expected: Layout | None) -> Schedule:
        if not isinstance(top, dict) or "cache_schedule" not in top:
            self.fail('not a schedule; expected a JSON object with the key "cache_schedule".')
        if top.get("dit_schedule") is not None:
            self.fail("holds a dit_schedule, which reorders the blocks; expected a cache_schedule alone.")
        if top.get("format", FORMAT) != FORMAT or isinstance(top.get("format"), bool):
            self.fail(
                f"format {_short(top['format'])} is unknown; expected {FORMAT}, or none as in the original."
            )
        if not isinstance(top.get("model"), str | None):
            self.fail(f"model must be a name, not {_short(top['model'])}.")
        config, metrics = self.mapping(top, "config"), self.mapping(top, "metrics")

        body = top["cache_schedule"]
        if not isinstance(body, dict):
            self.fail(f"cache_schedule must be an object, not {_short(body)}.")
        unknown = body.keys() - _SCHEDULE_KEYS
        if unknown:
            self.fail(
                f"cache_schedule has the unknown key {_short(min(unknown))}; "
                f"expected {_listed(_SCHEDULE_KEYS)}."
            )
        layout = self.layout(body, expected)
        rows = self.integer(body, "num_inference_steps", MAX_ROWS)
        if not isinstance(body.get("name", ""), str):
            self.fail(f"cache_schedule.name must be text, not {_short(body['name'])}.")
        bits, gate = self.bits(body.get("schedule"), layout, rows)
        config, gate = self.pipeline_gate(config, gate)
        timesteps, sigmas = self.times(config, "timesteps"), self.times(config, "sigmas")
        if timesteps is not None and sigmas is not None:
            self.fail("config has both timesteps and sigmas; expected one of them.")
        try:
            return Schedule(
                layout,
                bits,
                name=body.get("name", ""),
                model=top.get("model"),
                timesteps=timesteps,
                sigmas=sigmas,
                gate_step=gate,
                config={key: value for key, value in config.items() if key not in ("timesteps", "sigmas")},
                attributes=self.mapping(body, "attributes"),
                metrics=metrics,
                extra={key: value for key, value in top.items() if key not in _TOP_KEYS},
            )
        except ScheduleError as error:
            where = "config." if str(error).startswith(("timesteps", "sigmas")) else ""
            self.fail(f"{where}{error}")

    def mapping(self, parent: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(f"{key} must be an object, not {_short(value)}.")
        return value

    def integer(self, body: Mapping[str, Any], key: str, most: int) -> int:
        if key not in body:
            self.fail(f"cache_schedule.{key} is missing; expected an integer.")
        value = body[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self.fail(f"cache_schedule.{key} must be an integer from 1 to {most}, not {_short(value)}.")
        return value

    def times(self, config: Mapping[str, Any], key: str) -> list[Any] | None:
        value = config.get(key)
        if value is not None and not isinstance(value, list):
            self.fail(f"config.{key} must be a list of times, not {_short(value)}.")
        return value

    def layout(self, body: Mapping[str, Any], expected: Layout | None) -> Layout:
        """The layout that the file says it is for, and its blocks show."""
        num_blocks = self.integer(body, "num_blocks", MAX_BLOCKS)
        singles = body.get("num_single_blocks")
        if singles is not None:
            found = flux_layout(num_blocks, self.integer(body, "num_single_blocks", MAX_BLOCKS))
        else:
            found = pixart_layout(num_blocks)
            steps = body.get("schedule")
            first = next(iter(steps.values()), None) if isinstance(steps, dict) else None
            if isinstance(first, dict) and any(key.startswith(SINGLE_PREFIX) for key in first):
                self.fail("a FLUX schedule without cache_schedule.num_single_blocks; expected their number.")
        if expected is not None and found != expected:
            self.fail(f"made for {_described(found)}; expected a schedule for {_described(expected)}.")
        return found

    def bits(self, steps: Any, layout: Layout, rows: int) -> tuple[np.ndarray, int | None]:
        """[R, C] and T-GATE's gate."""
        if not isinstance(steps, dict):
            self.fail("cache_schedule.schedule is missing or no object; expected one entry per step.")
        by_row: dict[int, tuple[str, Any]] = {}
        for key, blocks in steps.items():
            if not (key.isascii() and key.isdigit() and len(key) <= 6):
                self.fail(f"the step key {_short(key)} is no number; expected 000 to {rows - 1:03}.")
            if int(key) in by_row:
                self.fail(f"step {int(key):03} stands twice; expected it once.")
            by_row[int(key)] = (key, blocks)
        for row in range(rows):
            if row not in by_row:
                self.fail(f"step {row:03} is missing; expected {rows} steps, as num_inference_steps says.")
        if len(by_row) != rows:
            extra = min(row for row in by_row if row >= rows)
            self.fail(
                f"step {extra:03} is too many; expected {rows} steps, 000 to {rows - 1:03}, "
                "as num_inference_steps says."
            )
        bits = np.zeros((rows, len(layout)), dtype=bool)
        gates: dict[int | None, str] = {}  # gate -> the first place that has it
        for row in range(rows):
            blocks = by_row[row][1]
            place = f"step {row:03}"
            if not isinstance(blocks, dict):
                self.fail(f"{place} must be an object of blocks, not {_short(blocks)}.")
            self.same_keys(blocks.keys(), layout.blocks, place, "block")
            for block, components in layout.by_block.items():
                entries, here = blocks[block], f"{place}, block {block}"
                if not isinstance(entries, dict):
                    self.fail(f"{here} must be an object of components, not {_short(entries)}.")
                names = [component.name for component in components]
                customs = _CUSTOM if layout.gated is not None else {}
                self.same_keys([key for key in entries if key not in customs], names, here, "component")
                for component in components:
                    bit = entries[component.name]
                    if not isinstance(bit, bool):
                        self.fail(f"{here}: {component.name} must be true or false, not {_short(bit)}.")
                    bits[row, component.index] = bit
                gates.setdefault(self.custom_gate(entries, here), here)
        if len(gates) > 1:
            (one, first), (other, second) = list(gates.items())[:2]
            self.fail(
                f"T-GATE must be the same in every block of every step, but {first} has gate_step "
                f"{_short(one)} and {second} has {_short(other)}."
            )
        return bits, next(iter(gates), None)

    def same_keys(self, found: Any, expected: Any, place: str, what: str) -> None:
        for key in expected:
            if key not in found:
                self.fail(f"{place}: {what} {_short(key)} is missing; expected {_counted(expected)}.")
        for key in found:
            if key not in expected:
                self.fail(f"{place}: {what} {_short(key)} is unknown; expected {_counted(expected)}.")

    def custom_gate(self, entries: Mapping[str, Any], place: str) -> int | None:
        """T-GATE's gate if the block's custom function is T-GATE's; any other unknown function is refused."""
        gate = None
        for key, known in _CUSTOM.items():
            custom = entries.get(key)
            if custom is None or custom == {}:
                continue
            if not isinstance(custom, dict) or not isinstance(custom.get("name"), str):
                self.fail(f"{place}: {key} must be an object with a name, not {_short(custom)}.")
            name = custom["name"].lower()
            if name not in known:
                self.fail(
                    f"{place}: the function {_short(custom['name'])} is unknown; expected {_listed(known)}."
                )
            kwargs = custom.get("kwargs") or {}
            wanted = {"gate_step"} if name == TGATE else set()
            if not isinstance(kwargs, dict) or set(kwargs) != wanted:
                self.fail(f"{place}: {name} expects the kwargs {_listed(wanted)}, not {_short(kwargs)}.")
            if name == TGATE:
                gate = kwargs["gate_step"]
                if isinstance(gate, bool) or not isinstance(gate, int):
                    self.fail(f"{place}: gate_step must be an integer, not {_short(gate)}.")
        return gate

    def pipeline_gate(self, config: dict[str, Any], gate: int | None) -> tuple[dict[str, Any], int | None]:
        """The config without the original's T-GATE pipeline, which `gate_step` stands for."""
        pipeline = config.get("pipeline")
        if not isinstance(pipeline, dict) or pipeline.get("name") != "tgate":
            return config, gate
        kwargs = pipeline.get("kwargs")
        named = kwargs.get("gate_step") if isinstance(kwargs, dict) else None
        if gate is None:
            self.fail(
                f"config.pipeline is tgate, but the blocks have no custom_compute_attn; expected {TGATE}."
            )
        if named != gate:
            self.fail(f"config.pipeline has gate_step {_short(named)}; expected {gate}, as its blocks have.")
        return {key: value for key, value in config.items() if key != "pipeline"}, gate


def _short(value: Any) -> str:
    """A value as an error shows it: JSON-like, one line, never long."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = (
        {True: "true", False: "false", None: "nothing"}.get(value) if isinstance(value, bool | None) else None
    )
    text = text or (f'"{value}"' if isinstance(value, str) else str(value))
    text = (
        " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
    )  # no newlines, no lone surrogates
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(names: Any) -> str:
    ordered = sorted(names)
    return ", ".join(ordered) if ordered else "none"


def _counted(names: Any) -> str:
    """Few names as they are, many as first to last."""
    names = list(names)
    return ", ".join(names) if len(names) <= 3 else f"the {len(names)} from {names[0]} to {names[-1]}"


def _described(layout: Layout) -> str:
    blocks = len(layout.blocks)
    if layout.family == "flux":
        singles = sum(block.startswith(SINGLE_PREFIX) for block in layout.blocks)
        return f"FLUX with {blocks - singles} full and {singles} single blocks"
    return f"PixArt with {blocks} blocks"

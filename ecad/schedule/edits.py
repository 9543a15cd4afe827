"""Editing a schedule by hand: pure functions, each gives a new schedule.

A cell is (row, column). Where rows, columns or names are not given, all are meant. The result is the old
schedule with other bits: what was measured of the old one is dropped, and its name says that it was edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ecad.schedule.errors import ScheduleError
from ecad.schedule.schedule import Schedule

Cell = tuple[int, int]
_MARK = "-edited"


def toggle_cells(schedule: Schedule, cells: Iterable[Cell]) -> Schedule:
    """Turn over each of these cells, once however often it is named.

    Raises:
        ScheduleError: a cell lies outside the schedule (as in all functions here).
    """
    bits = schedule.bits.copy()
    for row, column in set(cells):
        _check(schedule, [row], [column])
        bits[row, column] = not bits[row, column]
    return with_bits(schedule, bits)


def set_cells(schedule: Schedule, cells: Iterable[Cell], compute: bool) -> Schedule:
    """Set each of these cells to compute (True) or reuse (False): one stroke of a brush."""
    bits = schedule.bits.copy()
    for row, column in set(cells):
        _check(schedule, [row], [column])
        bits[row, column] = compute
    return with_bits(schedule, bits)


def set_range(
    schedule: Schedule,
    compute: bool,
    *,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
    names: str | Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
) -> Schedule:
    """Set every cell where all the given conditions meet.

    These rows, these columns, names of components and blocks.
    """
    bits = schedule.bits.copy()
    at = np.ix_(*_selected(schedule, rows, columns, names, blocks))
    bits[at] = compute
    return with_bits(schedule, bits)


def toggle_range(
    schedule: Schedule,
    *,
    rows: Sequence[int] | None = None,
    columns: Sequence[int] | None = None,
    names: str | Sequence[str] | None = None,
    blocks: Sequence[str] | None = None,
) -> Schedule:
    """Turn a range as one switch does: all to reuse if every cell of it is computed, else all to compute."""
    selected = _selected(schedule, rows, columns, names, blocks)
    compute = not bool(schedule.bits[np.ix_(*selected)].all())
    return set_range(schedule, compute, rows=selected[0], columns=selected[1])


def toggle_rows(schedule: Schedule, rows: Sequence[int]) -> Schedule:
    """`toggle_range` of whole rows (steps)."""
    return toggle_range(schedule, rows=rows)


def toggle_columns(schedule: Schedule, columns: Sequence[int]) -> Schedule:
    """`toggle_range` of whole columns (components of a layer)."""
    return toggle_range(schedule, columns=columns)


def copy_row(schedule: Schedule, source: int, to: Sequence[int]) -> Schedule:
    """Write the bits of one row over those of others."""
    _check(schedule, [source, *to], [])
    bits = schedule.bits.copy()
    bits[list(to)] = bits[source]
    return with_bits(schedule, bits)


def difference(one: Schedule, other: Schedule) -> list[Cell]:
    """The cells in which two schedules differ, by row and column, as their bits stand (not canonically).

    Raises:
        ScheduleError: they have different layouts or numbers of rows.
    """
    if one.layout != other.layout or one.rows != other.rows:
        raise ScheduleError(
            f"Only schedules of one shape can be compared, not {one.rows} rows of {one.layout.name} with "
            f"{other.rows} rows of {other.layout.name}."
        )
    return [(int(row), int(column)) for row, column in np.argwhere(one.bits != other.bits)]


def with_bits(schedule: Schedule, bits: np.ndarray) -> Schedule:
    """The schedule with other bits [R, C]; itself if they are the same."""
    if np.array_equal(bits, schedule.bits):
        return schedule
    name = schedule.name if schedule.name.endswith(_MARK) else f"{schedule.name or 'schedule'}{_MARK}"
    return schedule.replace(bits=bits, name=name)


def _selected(
    schedule: Schedule,
    rows: Sequence[int] | None,
    columns: Sequence[int] | None,
    names: str | Sequence[str] | None,
    blocks: Sequence[str] | None,
) -> tuple[list[int], list[int]]:
    chosen_rows = list(range(schedule.rows)) if rows is None else list(rows)
    wanted = None if names is None else {names} if isinstance(names, str) else set(names)
    for unknown in sorted((wanted or set()) - set(schedule.layout.names)):
        raise ScheduleError(f"{schedule.layout.name} has no component {unknown!r}.")
    for unknown in sorted(set(blocks or ()) - set(schedule.layout.blocks)):
        raise ScheduleError(f"{schedule.layout.name} has no block {unknown!r}.")
    _check(schedule, chosen_rows, columns or [])
    chosen_columns = [
        component.index
        for component in schedule.layout.components
        if (columns is None or component.index in set(columns))
        and (wanted is None or component.name in wanted)
        and (blocks is None or component.block in set(blocks))
    ]
    return chosen_rows, chosen_columns


def _check(schedule: Schedule, rows: Iterable[int], columns: Iterable[int]) -> None:
    for row in rows:
        if not 0 <= row < schedule.rows:
            raise ScheduleError(f"Row {row} is outside the schedule; expected 0 to {schedule.rows - 1}.")
    for column in columns:
        if not 0 <= column < len(schedule.layout):
            raise ScheduleError(
                f"Component {column} is outside the schedule; expected 0 to {len(schedule.layout) - 1}."
            )

"""The plan: a schedule lowered for execution. Pure numpy; nothing here knows a model.

For every row the plan says which components are computed, which stretches of skipped components are combined
from what was kept, what is kept and when it is given up. A kept value is the component's output before gate
and residual. The liveness is exact: a value is kept only if a later step reads it and is freed right after its
last reader.

A *segment* is a run of neighbouring components that were computed in one row and will be recomputed in the
same later row, so that every row between reads all of them together. Where a family's gates are `table_i +
g(t)` with one `g` for many components (adaLN-single), a segment can be kept as a few sums instead of its
values:

    hidden_after - hidden_before               at the row that computed it, and
    S_g = sum of the values under gate g       for each shared gate g,

because the same segment adds, at a later time t', exactly `delta + sum_g (g(t') - g(t)) * S_g`. The members'
own tables cancel. Which of the two a segment uses is decided by the tensors that each would move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecad.schedule import Layout, Schedule

# A tensor that was just computed lies in the processor's cache; one kept since an earlier row does not. The
# cost of touching a hot tensor against a cold one, measured with the CPU benchmark
# (tests/benchmarks/NOTES.md).
HOT = 0.5


@dataclass(frozen=True)
class Segment:
    """Neighbouring components start..stop-1, computed in `row` and all read in rows `row + 1 .. until - 1`.

    `gates` are the distinct shared gates of its members, in order of appearance (empty strings, "no gate",
    left out).
    """

    row: int
    start: int
    stop: int
    until: int
    gates: tuple[str, ...]

    @property
    def tensors(self) -> int:
        """Tensors kept: the difference of the hidden states and one sum per shared gate."""
        return 1 + len(self.gates)


@dataclass(frozen=True)
class Compute:
    """Compute component `index` and add what it yields to its streams.

    `wanted`: the positions in `Layout.values` that somebody reads, now or later; `keep`: those that a later
    step reads. `segment`: the component is a member of this segment, which is kept as sums.
    `free`: kept values that nobody reads after this step.
    """

    index: int
    wanted: tuple[int, ...]
    keep: tuple[int, ...]
    apart: bool = False
    segment: Segment | None = None
    free: tuple[int, ...] = ()


@dataclass(frozen=True)
class Combine:
    """Add a stretch of skipped components: kept values (positions in `Layout.values`) and kept segments, in
    order.

    `free` and `free_segments` are given up right after.
    """

    values: tuple[int, ...]
    segments: tuple[Segment, ...] = ()
    free: tuple[int, ...] = ()
    free_segments: tuple[Segment, ...] = ()


Step = Compute | Combine


@dataclass(frozen=True)
class Plan:
    """What each row does, in order. `computes` is a read-only bool array [R, C]: what is really computed."""

    schedule: Schedule
    steps: tuple[tuple[Step, ...], ...]
    computes: np.ndarray

    @property
    def layout(self) -> Layout:
        """The layout of the schedule."""
        return self.schedule.layout

    @property
    def rows(self) -> int:
        """Model calls of one pass, R."""
        return len(self.steps)

    @property
    def computed(self) -> int:
        """Component computations of one pass."""
        return int(self.computes.sum())

    def kept_after(self) -> list[list[tuple[frozenset[int], frozenset[Segment]]]]:
        """Per row, after each of its steps: the values and the segments whose tensors are alive."""
        values: set[int] = set()
        segments: set[Segment] = set()
        history = []
        for steps in self.steps:
            history.append([])
            for step in steps:
                if isinstance(step, Compute):
                    values |= set(step.keep)
                    if step.segment is not None:
                        segments.add(step.segment)
                else:
                    segments -= set(step.free_segments)
                values -= set(step.free)
                history[-1].append((frozenset(values), frozenset(segments)))
        return history

    def peak_cache(self, bytes_of: int | Sequence[int]) -> int:
        """Largest sum of kept bytes at any moment of the pass.

        bytes_of: bytes of one kept value, one number for all or one per entry of `Layout.values`. A
        segment's tensors are each as large as its first member's value.
        """
        count = len(self.layout.values)
        sizes = [int(bytes_of)] * count if isinstance(bytes_of, int) else [int(b) for b in bytes_of]
        if len(sizes) != count:
            raise ValueError(f"`bytes_of` needs {count} numbers, one per kept value, not {len(sizes)}")
        return max(
            sum(sizes[v] for v in values) + sum(one.tensors * sizes[one.start] for one in segments)
            for history in self.kept_after()
            for values, segments in history or [((), ())]
        )

    def summary(self, bytes_of: int | Sequence[int] | None = None) -> str:
        """A table: per row what is computed, combined and alive after it; then the totals."""
        lines = ["row  computed  stretches  values read  sums read  kept after"]
        for row, (steps, history) in enumerate(zip(self.steps, self.kept_after(), strict=True)):
            combines = [step for step in steps if isinstance(step, Combine)]
            values, segments = history[-1]
            lines.append(
                f"{row:3d}  {int(self.computes[row].sum()):8d}  {len(combines):9d}"
                f"  {sum(len(step.values) for step in combines):11d}"
                f"  {sum(one.tensors for step in combines for one in step.segments):9d}"
                f"  {len(values) + sum(one.tensors for one in segments):10d}"
            )
        total = len(self.layout) * self.rows
        lines.append(f"{self.computed} of {total} component computations ({self.computed / total:.1%})")
        peak = self.peak_cache(1 if bytes_of is None else bytes_of)
        lines.append(f"peak cache {peak} tensors" if bytes_of is None else f"peak cache {peak / 1e6:.2f} MB")
        return "\n".join(lines)


def lower(schedule: Schedule, *, gates: Sequence[str | None] | None = None, whole: bool = False) -> Plan:
    """Lower a schedule, in its canonical form, to a plan.

    gates: per component the name of the gate it shares with others, "" for a component without a gate, None
    for one whose gate is its own. With it, segments are kept as sums where that moves less memory; without it
    every value is kept by itself, which is what the reference mode runs. Only for layouts in which every
    value is added to the output stream.

    whole: compute, keep and add all values of a component or none, as modules do that yield them together; a
    part that nobody reads is then kept too.
    """
    schedule = schedule.canonical()
    layout = schedule.layout
    if gates is not None and (len(gates) != len(layout) or not layout.always_matters):
        raise ValueError("`gates` needs one entry per component of a layout whose values are all added")
    reads = _Reads(layout, schedule.bits, whole)
    segment_of = _segments(reads, gates) if gates is not None else {}
    by_row: list[dict[int, Segment]] = [{} for _ in range(schedule.rows)]
    for segment in set(segment_of.values()):
        for row in range(segment.row + 1, segment.until):
            by_row[row][segment.start] = segment

    rows: list[tuple[Step, ...]] = []
    for row in range(schedule.rows):
        steps: list[Step] = []
        stretch: list[int] = []  # positions in layout.values
        for index in range(len(layout)):
            if not reads.computes[row, index]:
                stretch += [v for v in layout.values_of[index] if reads.added[row, v]]
                continue
            if stretch:
                steps.append(_combine(stretch, row, by_row[row], reads))
                stretch = []
            wanted = tuple(v for v in layout.values_of[index] if reads.needed[row, v])
            segment = segment_of.get((row, index))
            keep = (
                () if segment is not None else tuple(v for v in wanted if reads.last[row, v] > (row, index))
            )
            free = tuple(v for v in reads.inputs(wanted) if reads.last_of_present(row, v) == (row, index))
            apart = (len(keep) < len(wanted) and bool(keep)) or len({reads.last[row, v] for v in keep}) > 1
            steps.append(Compute(index, wanted, keep, apart, segment, free))
        if stretch:
            steps.append(_combine(stretch, row, by_row[row], reads))
        rows.append(tuple(steps))
    reads.computes.flags.writeable = False
    return Plan(schedule=schedule, steps=tuple(rows), computes=reads.computes)


class _Reads:
    """Who reads what, by one walk backwards over the schedule.

    `computes` [R, C]; `needed` [R, V]: the row computes the value and somebody reads it; `added` [R, V]: the
    row adds the value to a stream that matters from there on; `last[row, v]`: the last (row, component) that
    reads the value computed in `row`.
    """

    def __init__(self, layout: Layout, bits: np.ndarray, whole: bool = False) -> None:
        streams = {value.adds_to for value in layout.values if value.adds_to is not None}
        at_the_end = streams if whole else {layout.output}
        rows, count = len(bits), len(layout.values)
        self.layout = layout
        self.computes = np.zeros((rows, len(layout)), dtype=bool)
        self.needed = np.zeros((rows, count), dtype=bool)
        self.added = np.zeros((rows, count), dtype=bool)
        self.last: dict[tuple[int, int], tuple[int, int]] = {}
        reader: list[tuple[int, int] | None] = [None] * count  # last reader of the value as it stands here
        for row in reversed(range(rows)):
            live = set(at_the_end)
            for index in reversed(range(len(layout))):
                own = layout.values_of[index]
                for v in own:
                    if layout.values[v].adds_to in live:
                        self.added[row, v] = True
                        reader[v] = reader[v] or (row, index)
                if not bits[row, index]:
                    continue
                wanted = [v for v in own if reader[v] is not None]
                self.computes[row, index] = bool(wanted)
                for v in wanted:
                    self.needed[row, v] = True
                    self.last[row, v] = reader[v]
                    reader[v] = None
                for v in wanted:
                    live.update(layout.values[v].reads_streams)
                    for source in layout.values[v].reads_values:
                        reader[source] = reader[source] or (row, index)
        # The value that stands at a row was computed in the last row up to it that needed it.
        standing = np.where(self.needed, np.arange(rows)[:, None], -1)
        self.standing = np.maximum.accumulate(standing, axis=0)
        # The next row after this one that computes a value; R if none does.
        self.until = np.full((rows, count), rows)
        for row in reversed(range(rows - 1)):
            self.until[row] = np.where(self.needed[row + 1], row + 1, self.until[row + 1])

    def inputs(self, wanted: Sequence[int]) -> list[int]:
        """Kept values that the computation of these values reads."""
        return list(dict.fromkeys(source for v in wanted for source in self.layout.values[v].reads_values))

    def last_of_present(self, row: int, v: int) -> tuple[int, int]:
        """The last (row, component) that reads the value v as it stands in a row."""
        return self.last[int(self.standing[row, v]), v]


def _combine(stretch: list[int], row: int, segments: dict[int, Segment], reads: _Reads) -> Combine:
    """One operation for a stretch of skipped components of a row."""
    values: list[int] = []
    whole: list[Segment] = []
    covered = -1
    for v in stretch:
        if v <= covered:
            continue
        segment = segments.get(v)
        if segment is not None:
            whole.append(segment)
            covered = segment.stop - 1
        else:
            values.append(v)
    free = tuple(
        v for v in values if reads.last_of_present(row, v) == (row, reads.layout.values[v].component)
    )
    ended = tuple(segment for segment in whole if row == segment.until - 1)
    return Combine(tuple(values), tuple(whole), free, ended)


def _segments(reads: _Reads, gates: Sequence[str | None]) -> dict[tuple[int, int], Segment]:
    """(row, component) -> the segment it is kept in, where sums move less memory than values.

    In a layout whose values are all added, value and component are one: their positions are equal.
    """
    chosen: dict[tuple[int, int], Segment] = {}
    rows, components = reads.computes.shape
    for row in range(rows):
        start = 0
        while start < components:
            until = int(reads.until[row, start])
            stop = start
            while (
                stop < components
                and reads.computes[row, stop]
                and gates[stop] is not None
                and reads.until[row, stop] == until
            ):
                stop += 1
            if stop == start:
                start += 1
                continue
            named = tuple(dict.fromkeys(gate for gate in gates[start:stop] if gate))
            segment = Segment(row=row, start=start, stop=stop, until=until, gates=named)
            if _sums_pay(segment):
                chosen.update({(row, index): segment for index in range(start, stop)})
            start = stop
    return chosen


def _sums_pay(segment: Segment) -> bool:
    """Whether a segment moves less memory as sums than value by value."""
    members = segment.stop - segment.start
    reads = segment.until - segment.row - 1
    # Building: every gated member is added to its sum while it is hot, then one difference of the hidden
    # states.
    build = HOT * (members + 1)
    return build + reads * segment.tensors < reads * members

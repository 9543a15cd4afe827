"""What a layout is: a model family's components in order, and what each of them reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Component:
    """One cacheable module of a model.

    `block` is the key of its block in a schedule file, `name` its name inside the block, `index` its column
    in a schedule's bits (block-major).
    """

    block: str
    name: str
    index: int


@dataclass(frozen=True)
class Value:
    """One tensor that a component keeps.

    A component of FLUX's two-stream blocks keeps two, its image output and its text output; both are computed
    when its bit says so. The streams are the hidden states that run through the blocks. Within a row the
    components act in the order of the layout, and each acts in two moves: its values are computed from what
    they read (if the bit says so), then, in every row, they are added to their streams with the gate of that
    row.

    Attributes:
        component: the column of the component that computes it.
        reads_streams: the streams it is computed from. What a stream holds differs in every row (the latents
            and the modulation by the time do), so a value that reads a stream is new whenever it is computed.
        reads_values: the kept values it is computed from, as positions in `Layout.values`.
        adds_to: the stream it is added to in every row, or None for a value that only other values read.
    """

    component: int
    reads_streams: tuple[str, ...] = ()
    reads_values: tuple[int, ...] = ()
    adds_to: str | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """A model family's ordered components. Two layouts are equal if their names are.

    Attributes:
        family: "pixart" or "flux".
        name: the family and its depth, such as "pixart-28" or "flux-19-38".
        components: the components, block-major, in the order in which they act.
        values: what they keep, in the order in which it is computed.
        output: the stream that the final layer of every row reads.
        gated: the component that T-GATE replaces by its kept mean from the gate on, or None where T-GATE is
            unknown.
    """

    family: str
    name: str
    components: tuple[Component, ...]
    values: tuple[Value, ...]
    output: str
    gated: str | None = None

    def __len__(self) -> int:
        """The number of components, C."""
        return len(self.components)

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Layout) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Layout({self.name!r})"

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The keys of the blocks, in order."""
        return tuple(dict.fromkeys(component.block for component in self.components))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The distinct names of components, in order of first appearance."""
        return tuple(dict.fromkeys(component.name for component in self.components))

    @property
    def times_name(self) -> str:
        """How schedules and samplers of the family call the times of rows: "timesteps" or "sigmas"."""
        return "sigmas" if self.family == "flux" else "timesteps"

    @cached_property
    def by_place(self) -> dict[tuple[str, str], int]:
        """(block, name) -> column."""
        return {(component.block, component.name): component.index for component in self.components}

    @cached_property
    def by_block(self) -> dict[str, tuple[Component, ...]]:
        """Block key -> its components in order."""
        grouped: dict[str, list[Component]] = {block: [] for block in self.blocks}
        for component in self.components:
            grouped[component.block].append(component)
        return {block: tuple(members) for block, members in grouped.items()}

    @cached_property
    def values_of(self) -> tuple[tuple[int, ...], ...]:
        """For every component, the positions in `values` of what it keeps."""
        grouped: list[list[int]] = [[] for _ in self.components]
        for position, value in enumerate(self.values):
            grouped[value.component].append(position)
        return tuple(tuple(members) for members in grouped)

    @cached_property
    def always_matters(self) -> bool:
        """True if no recompute can be dead or redundant.

        Every value goes into the output stream, of streams only.
        """
        return all(value.adds_to == self.output and not value.reads_values for value in self.values)

    def columns(self, names: str | Sequence[str]) -> tuple[int, ...]:
        """The columns of all components with one of these names."""
        wanted = {names} if isinstance(names, str) else set(names)
        return tuple(component.index for component in self.components if component.name in wanted)

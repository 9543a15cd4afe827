"""The canonical form of a schedule's bits: what is really computed, and nothing that changes no image.

Neutral bits, by what the layout says each component reads (the contract C2):

- row 0: nothing has been computed yet, so everything is, whatever the bits say. Canonical: true;
- from T-GATE's gate on, the component it replaces: false;
- a recompute whose value nothing reads before the next one or the end: false;
- a recompute whose inputs did not change since the last: false.
"""

from __future__ import annotations

import numpy as np

from ecad.schedule.layouts.base import Layout


def effective_bits(layout: Layout, bits: np.ndarray, gate_step: int | None = None) -> np.ndarray:
    """What is computed if the bits are followed as they are, dead and redundant work included.

    Args:
        bits: [R, C] booleans.
        gate_step: T-GATE's gate row, or None.

    Returns:
        [R, C] booleans, a copy.
    """
    effective = bits.copy()
    effective[0] = True
    if gate_step is not None and layout.gated is not None:
        effective[gate_step:, layout.columns(layout.gated)] = False
    return effective


def canonical_bits(layout: Layout, bits: np.ndarray, gate_step: int | None = None) -> np.ndarray:
    """The canonical form of `bits` [R, C]; a copy.

    Dead work goes first: it can hide redundant work, and removing redundant work makes none dead.

    Cost: layouts like PixArt's O(R C); FLUX 19-38 with 20 rows about 5 ms.
    """
    canonical = effective_bits(layout, bits, gate_step)
    if not layout.always_matters:
        _drop_dead(layout, canonical)
        _drop_redundant(layout, canonical)
    return canonical


def _drop_dead(layout: Layout, bits: np.ndarray) -> None:
    """Clear, in place, every recompute whose value is not read: liveness, backwards over rows and components.

    `wanted[v]` says whether value v, as it stands at the present point, is read by something that matters
    later; `live` holds the streams that matter from the present point of the row to its end.
    """
    wanted = [False] * len(layout.values)
    for row in range(len(bits) - 1, -1, -1):
        live = {layout.output}
        computed = bits[row].tolist()
        for column in range(len(layout) - 1, -1, -1):
            own = layout.values_of[column]
            # Backwards, so the addition to the stream comes before the computation.
            for v in own:
                if layout.values[v].adds_to in live:
                    wanted[v] = True
            if not computed[column]:
                continue
            needed = [v for v in own if wanted[v]]
            if not needed and row > 0:
                bits[row, column] = False
            for v in own:
                wanted[v] = False  # before this point the cache holds an older value
            for v in needed:
                live.update(layout.values[v].reads_streams)
                for read in layout.values[v].reads_values:
                    wanted[read] = True


def _drop_redundant(layout: Layout, bits: np.ndarray) -> None:
    """Clear, in place, every recompute that reads kept values only, none of them new since it last ran."""
    pure = {
        column: {layout.values[r].component for v in own for r in layout.values[v].reads_values}
        for column, own in enumerate(layout.values_of)
        if not any(layout.values[v].reads_streams for v in own)
    }
    for column, sources in pure.items():
        changed = np.logical_or.reduce([bits[:, source] for source in sources])
        stale = True  # an input changed since the component last ran
        for row in range(len(bits)):
            stale = stale or bool(changed[row])
            if bits[row, column]:
                bits[row, column] = stale
                stale = False

"""Crossover, mutation and the like for row genomes: edits that mean something to a schedule.

They are pymoo operators, called by pymoo with the search's own rng (`random_state`). One bit of 1,615 changes
a schedule by 0.06 %, less than the noise of a dozen images; so most edits here move whole rows or rectangles.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation

from ecad.search.genome import RowGenome
from ecad.search.settings import SearchSettings


class RowCrossover(Crossover):
    """Two parents exchange whole rows (existence with bits): a stretch of time, or a few single rows."""

    def __init__(self, genome: RowGenome, *, prob: float):
        super().__init__(2, 2, prob=prob)
        self._genome = genome

    def _do(self, problem, X, *args, random_state=None, **kwargs):  # X: bool [2, matings, n]
        children = X.copy()
        later = self._genome.rows - 1
        for mating in range(X.shape[1]):
            if random_state.random() < 0.5:
                first, last = np.sort(random_state.choice(later + 1, size=2, replace=False))
                taken = np.arange(first, last)
            else:
                taken = random_state.choice(
                    later, size=random_state.integers(1, min(4, later) + 1), replace=False
                )
            for child, donor in ((0, 1), (1, 0)):
                exists, bits = self._genome.parts(children[child, mating])
                donor_exists, donor_bits = self._genome.parts(X[donor, mating])
                exists[taken], bits[taken] = donor_exists[taken], donor_bits[taken]
                self._genome.normalise(children[child, mating])
        return children


class ScheduleMutation(Mutation):
    """A mutated child gets each kind of edit with that kind's own rate, and a few flips of single bits."""

    def __init__(self, genome: RowGenome, settings: SearchSettings):
        super().__init__(prob=settings.child_rate)
        self._genome = genome
        self._edits: tuple[tuple[float, Callable], ...] = (
            (settings.row_rate, toggle_row),
            (settings.shift_rate, shift_row),
            (settings.block_rate, switch_rectangle),
            (settings.copy_rate, copy_row),
        )
        self._bit_rate = settings.bit_rate

    def _do(self, problem, X, *args, random_state=None, **kwargs):  # X: bool [children, n]
        mutated = X.copy()
        blocks = _blocks(self._genome)
        for child in mutated:
            exists, bits = self._genome.parts(child)
            for rate, edit in self._edits:
                if random_state.random() < rate:
                    edit(exists, bits, blocks, random_state)
            free = exists[:, None] & np.ones_like(bits)
            rate = 1.0 / max(1, free.sum()) if self._bit_rate is None else self._bit_rate
            bits ^= free & (random_state.random(bits.shape) < rate)
            self._genome.normalise(child)
        return mutated


def _blocks(genome: RowGenome) -> list[list[tuple[int, str]]]:
    """Per block, in order: (component index, component name)."""
    blocks: dict[str, list[tuple[int, str]]] = {}
    for index, component in enumerate(genome.layout.components):
        blocks.setdefault(component.block, []).append((index, component.name))
    return list(blocks.values())


# The edits. Each changes exists [R - 1] and bits [R - 1, C] in place.


def toggle_row(exists: np.ndarray, bits: np.ndarray, blocks: list, rng: np.random.Generator) -> None:
    """A row goes, or one comes: computing everything, or with the bits of the last row before it."""
    row = int(rng.integers(len(exists)))
    if exists[row]:
        if exists.sum() > 1:
            exists[row] = False
        return
    before = np.flatnonzero(exists[:row])
    bits[row] = bits[before[-1]] if len(before) and rng.random() < 0.5 else True
    exists[row] = True


def shift_row(exists: np.ndarray, bits: np.ndarray, blocks: list, rng: np.random.Generator) -> None:
    """A row moves by one place of the grid, where that place is free."""
    step = 1 if rng.random() < 0.5 else -1
    rows = [row for row in np.flatnonzero(exists) if 0 <= row + step < len(exists) and not exists[row + step]]
    if rows:
        row = rows[int(rng.integers(len(rows)))]
        exists[row + step], bits[row + step] = True, bits[row]
        exists[row] = False


def switch_rectangle(exists: np.ndarray, bits: np.ndarray, blocks: list, rng: np.random.Generator) -> None:
    """Neighbouring blocks in one to three rows, one component or all: to what most of them are not."""
    rows = np.flatnonzero(exists)
    start = int(rng.integers(len(rows)))
    rows = rows[start : start + int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))]
    if rng.random() < 0.25:
        first, last = 0, len(blocks)
    else:
        first = int(rng.integers(len(blocks)))
        last = min(len(blocks), first + int(rng.geometric(1.0 / max(2.0, len(blocks) / 4))))
    names = sorted({name for block in blocks[first:last] for _, name in block})
    choice = int(rng.integers(len(names) + 1))
    columns = [
        index
        for block in blocks[first:last]
        for index, name in block
        if choice == len(names) or name == names[choice]
    ]
    cells = np.ix_(rows, columns)
    bits[cells] = bits[cells].mean() < 0.5


def copy_row(exists: np.ndarray, bits: np.ndarray, blocks: list, rng: np.random.Generator) -> None:
    """A row takes the bits of another one."""
    rows = np.flatnonzero(exists)
    if len(rows) >= 2:
        target, source = rng.choice(rows, size=2, replace=False)
        bits[target] = bits[source]


class SameKey(DuplicateElimination):
    """Two genomes are duplicates if their canonical schedules are one: neutral bits make no individual.

    Args:
        key: genome bool [n] -> the canonical schedule's key.
    """

    def __init__(self, key: Callable[[np.ndarray], str]):
        super().__init__()
        self._key = key

    def _do(self, pop, other, is_duplicate):
        known = set() if other is None else {self._key(one.X) for one in other}
        for i, one in enumerate(pop):
            key = self._key(one.X)
            is_duplicate[i] = key in known
            if other is None:
                known.add(key)
        return is_duplicate


class NotWorthwhile(SameKey):
    """For children: drops what any generation has tried, and before it is computed what costs too much or
    too little to be worth it.

    Args:
        tried: keys of every schedule told so far; the population may have dropped it since.
        cost: genome bool [n] -> its share of the uncached MACs.
    """

    def __init__(
        self,
        key: Callable[[np.ndarray], str],
        tried: Container[str],
        cost: Callable[[np.ndarray], float],
        min_cost: float,
        max_cost: float,
    ):
        super().__init__(key)
        self._tried, self._cost, self._range = tried, cost, (min_cost, max_cost)

    def _do(self, pop, other, is_duplicate):
        is_duplicate = super()._do(pop, other, is_duplicate)
        low, high = self._range
        for i, one in enumerate(pop):
            if not is_duplicate[i]:
                is_duplicate[i] = self._key(one.X) in self._tried or not low <= self._cost(one.X) <= high
        return is_duplicate

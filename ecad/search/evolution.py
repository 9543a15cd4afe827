"""NSGA-II by ask and tell (pymoo), with a state that is plain JSON and resumes bit for bit.

Traps of pymoo 0.6.2 that this file answers: `NSGA2` overwrites `termination=`, so `NoTermination` goes to
`setup`; `ask` may return fewer children than wanted, or None; operators without `random_state` would be
unseeded, and `ConstrRankAndCrowding` is so inside, so the default survival stays; the order of the population
and the crowding of the survivors are part of the state (recomputed, they lead elsewhere).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2, binary_tournament
from pymoo.core.duplicate import DefaultDuplicateElimination
from pymoo.core.mating import Mating
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.operators.crossover.pntx import PointCrossover
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.selection.tournament import TournamentSelection

from ecad.search.genome import Genome, RowGenome
from ecad.search.operators import NotWorthwhile, RowCrossover, SameKey, ScheduleMutation
from ecad.search.settings import SearchSettings


class Evolution:
    """One population and its rng.

    Args:
        seeds: genomes bool [S, n] of the first generation; it may be larger or smaller than the population.
        key: genome -> key of its canonical schedule.
        cost: genome -> its share of the uncached MACs.
    """

    def __init__(
        self,
        genome: Genome,
        settings: SearchSettings,
        seeds: np.ndarray,
        key: Callable[[np.ndarray], str],
        cost: Callable[[np.ndarray], float],
    ):
        self._length, self._key = genome.length, key
        self._tried: set[str] = set()  # keys of every schedule told so far
        self._told: list[str] = []  # those of the last generation
        if settings.preset == "paper":
            crossover = PointCrossover(n_points=4, prob=settings.crossover_rate)
            mutation = BitflipMutation(prob=settings.child_rate, prob_var=settings.bit_rate)
            self._duplicates = unwanted = DefaultDuplicateElimination()
        else:
            assert isinstance(genome, RowGenome)
            crossover = RowCrossover(genome, prob=settings.crossover_rate)
            mutation = ScheduleMutation(genome, settings)
            self._duplicates = SameKey(key)
            low, high = settings.min_cost or 0.0, settings.max_cost or math.inf
            unwanted = NotWorthwhile(key, self._tried, cost, low, high)
        selection = TournamentSelection(func_comp=binary_tournament)
        self._algorithm = NSGA2(
            pop_size=settings.population,
            sampling=seeds,
            mating=Mating(selection, crossover, mutation, eliminate_duplicates=unwanted),
            eliminate_duplicates=self._duplicates,
        )
        problem = Problem(n_var=genome.length, n_obj=2, xl=0, xu=1, vtype=bool)
        self._algorithm.setup(problem, termination=NoTermination(), seed=settings.seed)
        self._asked: Population | None = None

    def ask(self) -> np.ndarray:
        """The next genomes to evaluate, bool [k, n]: seeds first, then children; k is 0 if there are none."""
        self._asked = self._algorithm.ask()
        if self._asked is None or len(self._asked) == 0:
            return np.zeros((0, self._length), dtype=bool)
        return self._asked.get("X").astype(bool)

    def tell(self, objectives: np.ndarray, outsiders: np.ndarray, outsiders_objectives: np.ndarray) -> None:
        """Take objectives [k, 2] of what was asked, in its order, and outsiders bool [m, n] with theirs."""
        self._asked.set("F", np.asarray(objectives, dtype=np.float64))
        infills = self._asked
        if len(outsiders):
            extra = Population.new("X", outsiders)
            extra.set("F", np.asarray(outsiders_objectives, dtype=np.float64))
            population = self._algorithm.pop if self._algorithm.is_initialized else Population.create()
            extra = self._duplicates.do(extra, population, infills)
            infills = Population.merge(infills, extra)
        self._algorithm.tell(infills=infills)
        self._told = [self._key(one.X) for one in infills]
        self._tried.update(self._told)
        self._asked = None

    def state(self) -> dict[str, Any]:
        """Everything the next `ask` depends on; floats in hexadecimal: exact, infinity included."""
        population = self._algorithm.pop
        return {
            "population": [np.packbits(x).tobytes() for x in population.get("X").astype(bool)],
            "objectives": [[float(value).hex() for value in one.F] for one in population],
            "rank": [int(one.get("rank")) for one in population],
            "crowding": [float(one.get("crowding")).hex() for one in population],
            "rng": self._algorithm.random_state.bit_generator.state,
            "iteration": int(self._algorithm.n_iter),
            "told": self._told,
        }

    def restore(self, state: dict[str, Any], tried: Iterable[str]) -> None:
        """Continue where `state` was taken; `tried` is the "told" of this and all earlier states."""
        self._told = list(state["told"])
        self._tried.clear()
        self._tried.update(tried)
        genomes = [
            np.unpackbits(np.frombuffer(packed, np.uint8), count=self._length).astype(bool)
            for packed in state["population"]
        ]
        population = Population.new("X", np.array(genomes))
        population.set(
            "F", np.array([[float.fromhex(value) for value in pair] for pair in state["objectives"]])
        )
        for one, rank, crowding in zip(population, state["rank"], state["crowding"], strict=True):
            one.set("rank", rank)
            one.set("crowding", float.fromhex(crowding))
        algorithm = self._algorithm
        algorithm.pop = population
        algorithm.random_state.bit_generator.state = state["rng"]
        algorithm.n_iter = state["iteration"]
        algorithm.is_initialized = True

    def front(self) -> Sequence[Sequence[float]]:
        """Objectives of the present population."""
        return self._algorithm.pop.get("F").tolist()

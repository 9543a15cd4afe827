"""Genomes and their operators: what the search varies stays a schedule, and the rates are what they say."""

from __future__ import annotations

import numpy as np
import pytest
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.mutation.bitflip import BitflipMutation

from ecad.schedule import Schedule, heuristics, layout
from ecad.search import SearchError
from ecad.search.genome import RawGenome, RowGenome
from ecad.search.operators import (
    RowCrossover,
    SameKey,
    ScheduleMutation,
    copy_row,
    shift_row,
    switch_rectangle,
    toggle_row,
)
from ecad.search.seeds import seed_schedules

GRID = tuple(range(999, 0, -50))  # 20 times


@pytest.fixture
def genome():
    return RowGenome(layout("pixart-4"), GRID)


def random_genomes(genome, count, seed=0):
    rng = np.random.default_rng(seed)
    return np.array([genome.normalise(rng.random(genome.length) < rng.random()) for _ in range(count)])


def test_every_schedule_of_the_library_survives_the_way_to_a_genome_and_back(genome):
    library = heuristics.library(genome.layout, 20, GRID)
    assert len(library) > 100
    for schedule in library:
        assert genome.decode(genome.encode(schedule)) == schedule


def test_every_genome_is_a_schedule_with_its_own_genome(genome):
    for one in random_genomes(genome, 200):
        schedule = genome.decode(one)
        np.testing.assert_array_equal(genome.encode(schedule), one)
        assert 2 <= schedule.rows <= 20
        if schedule.rows < 20:
            assert schedule.timesteps[0] == GRID[0] and set(schedule.timesteps) < set(GRID)
        else:
            assert schedule.timesteps is None


def test_only_free_bits_are_in_a_row_genome():
    genome = RowGenome(layout("storybook"), GRID)
    assert genome.length == 19 + 19 * 84
    assert RawGenome(layout("storybook"), 20).length == 1680


def test_a_genome_without_later_rows_still_decodes_to_two_rows(genome):
    assert genome.decode(np.zeros(genome.length, dtype=bool)).rows == 2


def test_a_schedule_off_the_grid_is_refused_with_one_sentence(genome):
    plain = heuristics.uncached(genome.layout, 8)
    for schedule, words in (
        (plain, "sampler's 20 timesteps"),
        (plain.replace(timesteps=range(998, 990, -1)), "sampler's 20 timesteps"),
        (Schedule(genome.layout, plain.bits[:3], timesteps=GRID[1:4]), "the first of them included"),
        (heuristics.uncached(layout("pixart-5"), 20), "is for pixart-5"),
    ):
        with pytest.raises(SearchError, match=words):
            genome.encode(schedule)
    raw = RawGenome(genome.layout, 20)
    with pytest.raises(SearchError, match="has 8"):
        raw.encode(plain)
    with pytest.raises(SearchError, match="brings others"):
        raw.encode(heuristics.uncached(genome.layout, 20).replace(timesteps=range(998, 978, -1)))


def test_a_raw_genome_keeps_neutral_bits(genome):
    raw = RawGenome(genome.layout, 20)
    bits = np.zeros((20, 12), dtype=bool)
    np.testing.assert_array_equal(raw.encode(raw.decode(bits.reshape(-1))), bits.reshape(-1))


def test_the_papers_mutation_flips_as_many_bits_as_the_original():
    n, children = 1680, 20_000
    problem = Problem(n_var=n, n_obj=2, xl=0, xu=1, vtype=bool)
    rng = np.random.default_rng(1)
    flips = 0
    for _ in range(children // 1000):
        parents = rng.random((1000, n)) < 0.5
        off = BitflipMutation(prob=0.05, prob_var=None).do(
            problem, Population.new("X", parents.copy()), random_state=rng
        )
        flips += int((off.get("X").astype(bool) != parents).sum())
    assert flips / children == pytest.approx(0.05, abs=0.01)


def mutate(genome, toy, X, seed=0, **rates):
    settings = toy.toy_settings(**rates)
    problem = Problem(n_var=genome.length, n_obj=2, xl=0, xu=1, vtype=bool)
    off = ScheduleMutation(genome, settings).do(
        problem, Population.new("X", X.copy()), random_state=np.random.default_rng(seed)
    )
    return off.get("X").astype(bool)


def test_our_mutation_changes_the_share_of_children_that_child_rate_says(genome, toy):
    X = np.repeat(genome.encode(heuristics.fora(genome.layout, 20, 2))[None], 2000, axis=0)
    edits = {"row_rate": 1.0, "shift_rate": 0.0, "block_rate": 0.0, "copy_rate": 0.0, "bit_rate": 0.0}
    changed = (mutate(genome, toy, X, child_rate=0.3, **edits) != X).any(axis=1).mean()
    assert changed == pytest.approx(0.3, abs=0.04)
    assert not (mutate(genome, toy, X, child_rate=1.0, **{**edits, "row_rate": 0.0}) != X).any()
    changed = (mutate(genome, toy, X, child_rate=1.0, **{**edits, "row_rate": 0.4}) != X).any(axis=1).mean()
    assert changed == pytest.approx(0.4, abs=0.04)


def test_bit_rate_is_the_chance_of_each_free_bit(genome, toy):
    X = np.repeat(genome.encode(heuristics.uncached(genome.layout, 20))[None], 500, axis=0)
    edits = {"row_rate": 0.0, "shift_rate": 0.0, "block_rate": 0.0, "copy_rate": 0.0, "child_rate": 1.0}
    flipped = (mutate(genome, toy, X, bit_rate=0.02, **edits) != X)[:, 19:].mean()
    assert flipped == pytest.approx(0.02, abs=0.002)
    one = (mutate(genome, toy, X, bit_rate=None, **edits) != X).sum(axis=1).mean()
    assert one == pytest.approx(1.0, abs=0.15)


def test_mutants_and_children_are_normal_genomes(genome, toy):
    X = random_genomes(genome, 100)
    for one in mutate(genome, toy, X, child_rate=1.0):
        np.testing.assert_array_equal(genome.normalise(one.copy()), one)
    problem = Problem(n_var=genome.length, n_obj=2, xl=0, xu=1, vtype=bool)
    pairs = np.arange(100).reshape(50, 2)
    off = RowCrossover(genome, prob=1.0).do(
        problem, Population.new("X", X), pairs, random_state=np.random.default_rng(2)
    )
    for child, mother, father in zip(
        off.get("X").astype(bool), [*X[0::2], *X[1::2]], [*X[1::2], *X[0::2]], strict=True
    ):
        exists, bits = genome.parts(genome.normalise(child.copy()))
        np.testing.assert_array_equal(genome.normalise(child.copy()), child)
        for row in range(19):  # every row comes whole from one parent
            sources = [genome.parts(parent) for parent in (mother, father)]
            assert any(exists[row] == e[row] and (bits[row] == b[row]).all() for e, b in sources) or (
                exists.sum() == 1
            )


def test_each_edit_does_what_its_name_says(genome):
    rng = np.random.default_rng(5)
    blocks = [[(3 * i + j, name) for j, name in enumerate(("attn1", "attn2", "ff"))] for i in range(4)]
    start = genome.encode(heuristics.fewer_steps(genome.layout, 8, grid=GRID, every=2))
    for _ in range(200):
        for edit, rows_change in ((toggle_row, 1), (shift_row, 0), (switch_rectangle, 0), (copy_row, 0)):
            child = start.copy()
            exists, bits = genome.parts(child)
            before, old = exists.copy(), bits.copy()
            edit(exists, bits, blocks, rng)
            assert abs(int(exists.sum()) - int(before.sum())) == rows_change
            if edit in (switch_rectangle, copy_row):
                assert (exists == before).all()
            if edit is switch_rectangle:
                rows, columns = np.nonzero(bits != old)
                assert len(rows) > 0 and before[rows].all()
                assert len(set(bits[rows, columns])) == 1


def test_genomes_that_differ_in_neutral_bits_only_are_duplicates():
    flux = layout("flux-1-1")
    sigmas = tuple(1 - i / 6 for i in range(6))
    genome = RowGenome(flux, sigmas, kind="sigmas")
    a = genome.encode(heuristics.fora(flux, 6, 2))
    rng = np.random.default_rng(0)
    for _ in range(200):  # find a neutral bit
        i = int(rng.integers(5, genome.length))
        b = a.copy()
        b[i] = ~b[i]
        if genome.decode(b).key == genome.decode(a).key:
            break
    else:
        pytest.fail("this layout has no neutral bit")
    same = SameKey(lambda x: genome.decode(x.astype(bool)).key)
    kept = same.do(Population.new("X", np.array([a, b])))
    assert len(kept) == 1
    assert len(same.do(Population.new("X", np.array([b])), Population.new("X", np.array([a])))) == 0


@pytest.mark.parametrize("count", [3, 12, 40, 60])
def test_the_seeds_begin_with_the_line_of_fewer_steps(genome, toy, count):
    seeds = seed_schedules(genome.layout, 20, GRID, toy.toy_settings(seed_count=count))
    assert len(seeds) == count == len({seed.key for seed in seeds})
    assert seeds[0].name == "uncached" and all(seed.name for seed in seeds)
    lines = [seed for seed in seeds if seed.bits.all()]
    assert len(lines) >= min(19, count)
    if count >= 40:
        names = {f"steps-{n}" for n in range(2, 20)} | {f"steps-{n}-late" for n in range(3, 14)}
        assert names | {"fora-2", "fora-3"} <= {seed.name for seed in seeds}


def test_the_papers_seeds_stand_on_the_samplers_own_times(genome, toy):
    seeds = seed_schedules(genome.layout, 20, GRID, toy.toy_settings(preset="paper", seed_count=72))
    assert all(seed.timesteps is None and seed.rows == 20 for seed in seeds) and len(seeds) > 20

"""MACs: `paper` equals the figures that the original's files store, to the integer.

`full` follows from its rules.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecad.schedule import Schedule, ScheduleError, heuristics, layout
from ecad.schedule.costs import cost_table
from ecad.schedule.layouts import FluxDimensions, PixArtDimensions, local_dimensions
from ecad.schedule.layouts.pixart import STORYBOOK
from ecad.schedule.times import dpm_solver_timesteps

PIPELINE = Path(__file__).parents[2] / "assets" / "storybook" / "pipeline"

# Stored totals of the original's files (the schedules follow from rules), by model, side and rule.
FORA = {
    ("pixart-alpha", 256): {
        2: 2_871_882_547_200,
        3: 2_019_308_470_272,
        4: 1_450_925_752_320,
        5: 1_166_734_393_344,
        6: 1_166_734_393_344,
        7: 882_543_034_368,
        9: 882_543_034_368,
        10: 598_351_675_392,
        19: 598_351_675_392,
        20: 314_160_316_416,
    },
    ("pixart-sigma", 256): {
        2: 2_871_882_547_200,
        3: 2_019_308_470_272,
        7: 882_543_034_368,
        20: 314_160_316_416,
    },
    ("flux-dev", 256): {
        2: 99_542_189_998_080,
        3: 69_797_393_989_632,
        4: 49_967_529_984_000,
        5: 40_052_597_981_184,
        7: 30_137_665_978_368,
        10: 20_222_733_975_552,
        20: 10_307_801_972_736,
    },
    ("flux-dev", 1024): {3: 416_880_412_065_792},
}
CROSS_AND_SELF = {
    2: 4_393_911_582_720,
    3: 3_997_946_216_448,
    4: 3_733_969_305_600,
    5: 3_601_980_850_176,
    7: 3_469_992_394_752,
    10: 3_338_003_939_328,
    20: 3_206_015_483_904,
}
TGATE = {  # (side, gate, interval)
    (256, 10, 1): 4_005_912_084_480,
    (256, 10, 3): 3_625_404_825_600,
    (256, 10, 5): 3_473_201_922_048,
    (256, 15, 1): 4_859_854_110_720,
    (256, 15, 3): 4_174_941_044_736,
    (256, 15, 5): 4_022_738_141_184,
    (1024, 9, 1): 58_634_348_101_632,
    (1024, 10, 5): 52_565_030_535_168,
    (1024, 11, 3): 56_236_698_796_032,
    (1024, 14, 5): 58_728_340_979_712,
    (1024, 15, 1): 73_358_618_296_320,
    (1024, 16, 5): 62_418_807_816_192,
}
# One uncached row, one row that computes nothing.
ROWS = {
    ("pixart-alpha", 256): (285_689_806_848, 1_498_447_872),
    ("pixart-alpha", 1024): (4_281_442_172_928, 1_924_595_712),
    ("pixart-sigma", 256): (285_689_806_848, 1_498_447_872),
    ("flux-dev", 256): (9_934_575_501_312, 19_643_498_496),
    ("flux-dev", 1024): (59_512_255_414_272, 22_663_397_376),
}


@pytest.mark.parametrize(("model", "side"), ROWS)
def test_paper_rows_equal_the_stored_figures(model, side):
    table = cost_table(model, height=side, convention="paper")
    schedule = heuristics.fora(table.layout, 2, 2)
    assert table.macs(schedule).by_row == ROWS[model, side]


@pytest.mark.parametrize(("model", "side"), FORA)
def test_paper_totals_of_fora_equal_the_stored_figures(model, side):
    table = cost_table(model, height=side, convention="paper")
    counted = {n: table.macs(heuristics.fora(table.layout, 20, n)).total for n in FORA[model, side]}
    assert counted == FORA[model, side]


def test_paper_totals_of_cross_and_self_equal_the_stored_figures():
    table = cost_table("PixArtAlphaImageGenerator", convention="paper")
    counted = {n: table.macs(heuristics.cross_and_self(table.layout, 20, n)).total for n in CROSS_AND_SELF}
    assert counted == CROSS_AND_SELF


@pytest.mark.parametrize(("side", "gate", "interval"), TGATE)
def test_paper_totals_of_tgate_count_one_half_from_the_gate_on(side, gate, interval):
    table = cost_table("pixart-alpha", height=side, convention="paper")
    schedule = heuristics.tgate(table.layout, 20, gate, interval, 2, averaged=True)
    assert table.macs(schedule).total == TGATE[side, gate, interval]


def test_paper_totals_of_uncached_flux_at_1024_equal_the_stored_figures():
    table = cost_table("flux-dev", height=1024, convention="paper")
    stored = {8: 476_098_043_314_176, 20: 1_190_245_108_285_440, 50: 2_975_612_770_713_600}
    assert {rows: table.macs(heuristics.uncached(table.layout, rows)).total for rows in stored} == stored


def test_the_hand_derivation_of_pixart_256():
    table = cost_table("pixart-alpha", convention="paper")
    assert table.component[:3].tolist() == [2_717_908_992, 1_995_964_416, 5_435_817_984]
    assert table.component.sum() == 284_191_358_976


def test_sigma_reads_300_tokens_in_full_and_120_in_paper():
    alpha, sigma = (cost_table(model, convention="full") for model in ("pixart-alpha", "pixart-sigma"))
    assert sigma.once / alpha.once == pytest.approx(300 / 120)
    products = 2 * 2 * 256 * (300 - 120) * 1152  # two halves, QK^T and AV
    assert sigma.component[1] - alpha.component[1] == products


@pytest.mark.parametrize("model", ["pixart-alpha", "flux-dev"])
def test_first_row_bits_cost_nothing_in_either_convention(model):
    of = layout(model)
    schedule = heuristics.fora(of, 6, 3)
    bits = schedule.bits.copy()
    bits[0] = False
    for convention in ("paper", "full"):
        table = cost_table(model, convention=convention)
        assert table.macs(Schedule(of, bits)) == table.macs(schedule)


def test_dead_recomputes_cost_in_paper_and_not_in_full():
    of = layout("flux-dev")
    schedule = heuristics.fora(of, 4, 4)
    bits = schedule.bits.copy()
    dead = of.by_place["single_7", "single_attn"]
    bits[2, dead] = True
    wasteful = Schedule(of, bits)
    paper, full = (cost_table("flux-dev", convention=convention) for convention in ("paper", "full"))
    assert paper.macs(wasteful).total - paper.macs(schedule).total == paper.component[dead] == 43_486_543_872
    assert full.macs(wasteful) == full.macs(schedule)


@pytest.mark.parametrize("model", ["storybook", "pixart-alpha", "flux-dev", "flux-schnell"])
def test_full_is_once_plus_rows_and_counts_attention_products(model):
    table = cost_table(model)
    macs = table.macs(heuristics.uncached(table.layout, 5))
    assert macs.total == macs.once + sum(macs.by_row) == table.uncached(5).total
    assert macs.once > 0
    assert len(set(macs.by_row)) == 1


def test_full_flux_counts_one_image_and_paper_two():
    full, paper = (cost_table("flux-dev", convention=convention) for convention in ("full", "paper"))
    assert full.component[1] * 2 == paper.component[1]  # full_ff has no attention product
    products = 2 * (256 + 512) ** 2 * 3072
    assert full.component[0] - paper.component[0] // 2 == products
    uncached = heuristics.uncached(full.layout, 1)
    # A single row costs in full what it costs in paper for one image, but for the attention products.
    assert full.macs(uncached).total - paper.macs(uncached).total // 2 == (19 + 38) * products


def test_the_products_missing_in_paper_are_the_published_ones():
    """12,419,334,144 per uncached PixArt 256 row."""
    full, paper = (cost_table("pixart-alpha", convention=convention) for convention in ("full", "paper"))
    keys_values = 2 * 2 * 1152**2 * 120  # counted once per pass in full
    difference = int(full.component.sum() - paper.component.sum()) + 28 * keys_values
    assert difference == 12_419_334_144


def test_full_tgate_halves_what_is_left_after_the_gate():
    table = cost_table("pixart-alpha")
    of = table.layout
    schedule = heuristics.tgate(of, 4, 2, 1, averaged=True)
    rows = table.macs(schedule).by_row
    ordinary = table.macs(heuristics.tgate(of, 4, 2, 1)).by_row
    modulation = 256 * 1152 + 7 * 1152**2  # of the row's time, whatever the number of halves
    assert rows[:2] == ordinary[:2]
    assert rows[2] - modulation == (ordinary[2] - modulation) // 2


def test_cache_values_add_up_to_the_published_sizes():
    """99 MB per image for PixArt 256 in 16 bits, 1.26 GB and 7.5 GB for FLUX."""
    two_bytes = {("pixart-alpha", 256): 99.1e6, ("flux-dev", 256): 1.255e9, ("flux-dev", 1024): 7.53e9}
    for (model, side), size in two_bytes.items():
        assert 2 * int(cost_table(model, height=side).cache_values.sum()) == pytest.approx(size, rel=2e-3)


def test_guidance_off_halves_the_halves():
    with_guidance, without = PixArtDimensions(), PixArtDimensions(halves=1)
    two, one = cost_table(with_guidance), cost_table(without)
    assert np.array_equal(two.component, 2 * one.component)
    assert np.array_equal(two.cache_values, 2 * one.cache_values)


def test_depth_and_size_can_be_given():
    assert cost_table("storybook", num_blocks=4).layout.name == "pixart-4"
    assert cost_table("flux-dev", num_blocks=(1, 2)).layout.name == "flux-1-2"
    assert cost_table(FluxDimensions(num_blocks=1, num_single_blocks=2)).layout.name == "flux-1-2"
    wide = cost_table("pixart-alpha", height=256, width=512)
    assert wide.component[2] == 2 * cost_table("pixart-alpha").component[2]


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        ("pixart", {}, "known are storybook, pixart-alpha"),
        ("pixart-alpha", {"convention": "mine"}, "paper or full"),
        ("pixart-alpha", {"height": 250}, "multiple of 16"),
        ("flux-dev", {"num_blocks": 3}, "full, single"),
        ("storybook", {"num_blocks": (3, 4)}, "one number"),
    ],
)
def test_wrong_questions_are_refused(model, changes, says):
    with pytest.raises(ScheduleError, match=says):
        cost_table(model, **changes)


def test_a_schedule_for_another_layout_is_refused():
    with pytest.raises(ScheduleError, match=r"flux-19-38; expected one for pixart-28"):
        cost_table("storybook").macs(heuristics.uncached(layout("flux-dev"), 2))


def test_totals_are_python_integers_beyond_64_bits():
    """MACs of long schedules of large models must not wrap."""
    table = cost_table("flux-dev", height=4096)
    macs = table.macs(heuristics.uncached(table.layout, 1000))
    assert macs.total == 1000 * macs.by_row[0] + macs.once
    assert type(macs.total) is int


def test_times_do_not_change_costs():
    of = layout("storybook")
    fewer = heuristics.fewer_steps(of, 8, grid=dpm_solver_timesteps(20))
    table = cost_table("storybook")
    assert table.macs(fewer) == table.macs(heuristics.uncached(of, 8))


def test_a_model_at_another_size_has_a_name_of_its_own():
    assert cost_table("pixart-alpha-1024").fixed == cost_table("pixart-alpha", height=1024).fixed
    assert cost_table("pixart-alpha-1024", convention="paper").uncached(1).total == 4_281_442_172_928


def test_storybook_is_costed_as_the_model_we_ship():
    if not (PIPELINE / "transformer" / "config.json").is_file():
        pytest.skip("assets/storybook/pipeline is not there")
    assert local_dimensions(PIPELINE, text_tokens=STORYBOOK.text_tokens) == STORYBOOK

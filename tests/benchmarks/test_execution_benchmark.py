"""The benchmark runs, its peers are what they claim to be, and its MACs are those really spent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if str(Path(__file__).parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parent))  # the benchmark is a script with modules beside it

import benchmark_models  # noqa: E402
import execution  # noqa: E402
import flux_caches  # noqa: E402
from benchmark_cases import ALL_TRUE, STOCK  # noqa: E402
from benchmark_tables import verdicts  # noqa: E402
from component_counter import NO_FOLDING, ComponentCounter, computed_bits, macs_of  # noqa: E402
from executors import FirstBlock, ModuleHooks, StepMask, Stock  # noqa: E402
from random_schedules import mean_stretch, random_schedule  # noqa: E402

from ecad.execution.families import open_model  # noqa: E402
from ecad.schedule import heuristics  # noqa: E402
from ecad.schedule.costs import cost_table  # noqa: E402

SEEDS = [0, 1]


def subject_of(config, layers):
    small = benchmark_models.resized(benchmark_models.CONFIGS[config], layers, 32)
    return benchmark_models.random(config, small, device="cpu", threads=1)


@pytest.fixture(scope="module")
def pixart():
    return subject_of("small", [2])


@pytest.fixture(scope="module")
def flux():
    return subject_of("flux-small", [1, 2])


def latents_of(subject, model, schedule):
    generator = subject.generator
    before, generator.model = generator.model, model
    generator._plans.clear()
    try:
        return generator.denoise(subject.embeddings(len(SEEDS)), SEEDS, schedule)
    finally:
        generator.model = before
        generator._plans.clear()


def stock_of(subject):
    return Stock(subject.generator.transformer, subject.generator.layout)


def bits_of(subject, model, schedule):
    return computed_bits(subject.generator, model, schedule, subject.embeddings(len(SEEDS)), SEEDS)


def test_a_trained_models_run_has_every_case_in_the_table_and_the_json(tiny_pixart_path, tmp_path, capsys):
    path = tmp_path / "out.json"
    given = ["--model", str(tiny_pixart_path), "--device", "cpu", "--batch", "1", "2", "--samples", "1"]
    execution.main([*given, "--error-images", "1", "--peers", "reference", "--json", str(path)])
    written = json.loads(path.read_text(encoding="utf-8"))
    alone, both = written["tables"]
    expected = {STOCK, ALL_TRUE, "reference, all computed"}
    expected |= {f"ours, fora-{n}" for n in (2, 3, 4, 5)} | {f"module hooks, fora-{n}" for n in (2, 3, 5)}
    expected |= {f"step mask, {word}, every {n}" for n in (2, 3, 4, 5) for word in ("copy", "Taylor")}
    expected |= {f"{who}, steps-{n}" for who in ("ours", "stock") for n in (10, 7, 5, 4)}
    expected |= {f"ours, steps-{n}-late" for n in (10, 7, 5, 4)}
    found = set(both["results"])
    assert expected <= found
    assert found - expected and all("first block" in name for name in found - expected)
    assert [table["about"]["batch"] for table in (alone, both)] == [1, 2]
    printed = capsys.readouterr().out
    for name, one in both["results"].items():
        assert one["ms_per_image"] > 0 and len(one["seconds"]) == 1 and name in printed
        assert alone["results"][name]["error"] is None
    assert both["results"]["reference, all computed"]["error"] == 0
    assert both["results"][ALL_TRUE]["error"] < 1e-4
    assert both["levels"] and "levels" not in alone
    same = both["results"]["ours, fora-3"], both["results"]["module hooks, fora-3"]
    assert same[0]["error"] == pytest.approx(same[1]["error"], rel=1e-3)
    assert same[0]["macs"] == same[1]["macs"]


def test_flux_with_random_weights_meets_diffusers_own_caches(capsys):
    given = [
        "--config",
        "flux-small",
        "--layers",
        "1",
        "2",
        "--width",
        "32",
        "--device",
        "cpu",
        "--batch",
        "1",
    ]
    written = execution.main([*given, "--samples", "1", "--only", "diffusers", "ours, fora"])
    results = written["tables"][0]["results"]
    kinds = {
        name.removeprefix("diffusers ").split(",")[0] for name in results if name.startswith("diffusers")
    }
    assert kinds == {"TaylorSeer", "TaylorSeer lite", "MagCache", "PAB", "FirstBlockCache"}
    assert all(one["error"] is None for one in results.values())
    for peer, n in (("TaylorSeer, every 2", 2), ("TaylorSeer lite, every 6", 5), ("MagCache, every 5", 5)):
        assert results[f"diffusers {peer}"]["macs"] == results[f"ours, fora-{n}"]["macs"]
    attention_alone = results["diffusers PAB, every 5"]["macs_ratio"]
    assert 1 < attention_alone < results["ours, fora-5"]["macs_ratio"]
    assert "Random weights" in capsys.readouterr().out


@pytest.mark.parametrize("peer", ["hooks", "copy", "Taylor", "first block"])
def test_a_peer_that_computes_always_is_the_stock_model_on_pixart(pixart, peer, distance):
    generator = pixart.generator
    uncached = heuristics.uncached(generator.layout, generator.rows)
    stock = stock_of(pixart)
    model = {
        "hooks": lambda: ModuleHooks(generator.transformer, generator.layout),
        "copy": lambda: StepMask(generator.transformer, generator.layout, 0),
        "Taylor": lambda: StepMask(generator.transformer, generator.layout, 1),
        "first block": lambda: FirstBlock(generator.model, -1.0),
    }[peer]()
    expected, found = (latents_of(pixart, one, uncached) for one in (stock, model))
    if peer == "first block":  # our components, equal to rounding
        assert distance(found, expected) < 1e-4
        assert model.bits.all()
    else:
        assert torch.equal(found, expected)
        assert bits_of(pixart, model, uncached).all()


@pytest.mark.parametrize("peer", ["TaylorSeer", "TaylorSeer lite", "MagCache", "PAB", "FirstBlockCache"])
def test_a_cache_of_diffusers_that_computes_always_is_the_stock_model(flux, peer):
    generator = flux.generator
    rows = generator.rows
    uncached = heuristics.uncached(generator.layout, rows)
    config = {
        "TaylorSeer": flux_caches.taylor(1, torch.float32),
        "TaylorSeer lite": flux_caches.taylor(1, torch.float32, lite=True),
        "MagCache": flux_caches.mag(1, rows),
        "PAB": flux_caches.broadcast(1),
        "FirstBlockCache": flux_caches.first_block(-1.0),
    }[peer]
    model = flux_caches.DiffusersCache(generator.transformer, generator.layout, config)
    expected = latents_of(flux, stock_of(flux), uncached)
    for _ in range(2):  # and a second pass sees nothing of the first
        assert torch.equal(latents_of(flux, model, uncached), expected)
    assert bits_of(flux, model, uncached).all()


@pytest.mark.parametrize("family", ["pixart", "flux"])
def test_module_hooks_compute_a_random_schedules_own_bits_and_ours_makes_the_same_images(
    family, request, distance
):
    subject = request.getfixturevalue(family)
    generator = subject.generator
    layout, rows = generator.layout, generator.rows
    bits = np.random.default_rng(0).random((rows, len(layout))) < 0.4
    bits[0] = True
    schedule = heuristics.uncached(layout, rows).replace(bits=bits, name="random")
    hooks = ModuleHooks(generator.transformer, layout)
    assert (bits_of(subject, hooks, schedule) == bits).all()
    found = latents_of(subject, generator.model, schedule), latents_of(subject, hooks, schedule)
    assert distance(*found) < 1e-4


@pytest.mark.parametrize("n", [2, 3, 5])
def test_counted_macs_of_fora_are_the_tables(pixart, n):
    generator = pixart.generator
    layout, table = generator.layout, generator.cost_table("full")
    schedule = heuristics.fora(layout, generator.rows, n)
    expected = table.macs(schedule).total
    transformer = generator.transformer
    models = [generator.model, ModuleHooks(transformer, layout), StepMask(transformer, layout, 0)]
    for model in models:
        assert macs_of(bits_of(pixart, model, schedule), table) == expected


@pytest.mark.parametrize("family", ["pixart", "flux"])
def test_the_watch_sees_our_packed_weights_too_and_what_it_counts_is_what_ran(family, request):
    subject = request.getfixturevalue(family)
    generator = subject.generator
    layout, rows = generator.layout, generator.rows
    linear = {}
    for schedule in (heuristics.uncached(layout, rows), heuristics.fora(layout, rows, 3)):
        counter = ComponentCounter(generator.transformer, layout, rows)
        with mock.patch.object(*NO_FOLDING), counter:
            generator.denoise(subject.embeddings(2), SEEDS, schedule, on_row=counter.on_row)
        assert (counter.bits == generator.model.lower(schedule).computes).all()
        linear[schedule.name] = counter.linear
    # The products of attention left out: what is left of a component is linear, and the prompt's part is in both.
    size = generator.dimensions
    if family == "pixart":
        halves, d, n = size.halves, size.dim, size.image_tokens
        once_all = halves * size.num_blocks * (4 + 2 + 8) * d * d * n
        expected = 2 * once_all * (20 - 7)
    else:
        d, n, t = size.dim, size.image_tokens, size.text_tokens
        s = n + t
        # In the last single block the text's half of queries (which lie in one product with keys and values) is
        # computed, its output is not; the last full blocks' text is read by the single blocks.
        single = size.num_single_blocks * (3 + 4 + 5) * d * d * s - (4 + 5) * d * d * t
        expected = 2 * (20 - 7) * (size.num_blocks * (4 * d * d * s + 8 * d * d * s) + single)
    assert linear["uncached"] - linear["fora-3"] == expected


def test_a_first_block_threshold_beyond_any_change_computes_one_row_whole(pixart):
    generator = pixart.generator
    uncached = heuristics.uncached(generator.layout, generator.rows)
    model = FirstBlock(generator.model, 1e9)
    bits = bits_of(pixart, model, uncached)
    assert bits[0].all() and bits[:, :3].all() and not bits[1:, 3:].any()
    counter = ComponentCounter(generator.transformer, generator.layout, generator.rows)
    generator.model, fast = model, generator.model
    try:
        with mock.patch.object(*NO_FOLDING), counter:
            generator.denoise(pixart.embeddings(2), SEEDS, uncached, on_row=counter.on_row)
    finally:
        generator.model = fast
    assert (counter.bits == bits).all()


def test_every_cache_of_diffusers_has_modules_of_its_own_over_the_same_weights(flux):
    transformer = flux.generator.transformer
    tree = flux_caches.tree_of_its_own(transformer)
    assert all(a is b for a, b in zip(transformer.parameters(), tree.parameters(), strict=True))
    assert not set(map(id, transformer.modules())) & set(map(id, tree.modules()))


@pytest.mark.parametrize("model", ["storybook", "flux-dev"])
@pytest.mark.parametrize("stretch", [12, 6])
def test_random_schedules_cost_a_fifth_with_stretches_of_the_length_they_name(model, stretch):
    table = cost_table(model)
    schedule = random_schedule(table.layout, 20, table, ratio=5, stretch=stretch)
    assert 4.9 <= table.uncached(20).total / table.macs(schedule).total <= 5.1
    assert mean_stretch(schedule.canonical().bits) == pytest.approx(stretch, abs=0.1)
    assert random_schedule(table.layout, 20, table, ratio=5, stretch=stretch) == schedule


def test_mean_stretch_counts_runs_within_rows():
    bits = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=bool)
    assert mean_stretch(bits) == pytest.approx((2 + 1 + 2) / 3)


def test_the_threshold_next_to_each_cost_level_is_found():
    found = flux_caches.thresholds_for([2, 3, 5], lambda threshold: 1 + 6 * threshold / (1 + threshold))
    for level, threshold in found.items():
        assert 1 + 6 * threshold / (1 + threshold) == pytest.approx(level, rel=0.05)


def test_a_peer_is_beaten_only_by_what_is_as_good_and_faster():
    def one(kind, ms, ratio, error, own_grid=True):
        return {"kind": kind, "ms_per_image": ms, "macs_ratio": ratio, "error": error, "own_grid": own_grid}

    results = {
        STOCK: one("baseline", 100, 1, 0),
        ALL_TRUE: one("baseline", 90, 1, 0),
        "ours, fora-2": one("ours", 45, 2, 0.10),
        "ours, steps-10": one("ours", 40, 2, 0.05, own_grid=False),
        "good peer": one("peer", 42, 2.1, 0.05),
        "perfect peer": one("peer", 50, 2.1, 0.01),
        "cheap peer": one("peer", 30, 3.1, 0.5),
    }
    by_peer = {entry["peer"]: entry for entry in verdicts(results)}
    assert by_peer["good peer"]["level"] == 2 and by_peer["cheap peer"]["level"] == 3
    assert by_peer["good peer"]["any"]["by"] == "ours, steps-10" and by_peer["good peer"]["any"]["faster"]
    assert by_peer["good peer"]["caching"]["by"] == ALL_TRUE and not by_peer["good peer"]["caching"]["faster"]
    assert not by_peer["perfect peer"]["any"]["faster"]
    assert not by_peer["cheap peer"]["any"]["faster"]  # as good as it and more, but none as fast
    assert "any" not in by_peer["ours, steps-10"] and not by_peer["ours, steps-10"]["caching"]["faster"]


def test_cache_dits_masks_compute_the_first_block_and_the_named_rows(pixart):
    pytest.importorskip("cache_dit")
    from cache_dit_masks import CacheDitMask

    generator = pixart.generator
    layout, rows = generator.layout, generator.rows
    uncached, fora = heuristics.uncached(layout, rows), heuristics.fora(layout, rows, 5)
    always = CacheDitMask(generator.transformer, layout, uncached, 0)
    expected = latents_of(pixart, stock_of(pixart), uncached)
    assert torch.equal(latents_of(pixart, always, uncached), expected)
    bits = bits_of(pixart, CacheDitMask(generator.transformer, layout, fora, 0), fora)
    assert bits[:, :3].all() and (bits[:, 3:] == fora.bits[:, 3:]).all()


def test_the_reference_mode_is_a_model_like_any_other(pixart):
    generator = pixart.generator
    uncached = heuristics.uncached(generator.layout, generator.rows)
    reference = open_model(generator.transformer, "reference")
    assert bits_of(pixart, reference, uncached).all()

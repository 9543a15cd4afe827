"""Compiled components compute the same, and each kind of component is compiled once, not once per block.

With the backend `aot_eager`, which needs no C++ compiler: what is traced, shared and guarded is the same.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from ecad.execution import ExecutionError, apply_schedule
from ecad.models.kernels import GROUPS
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

ROWS = 4
BACKEND = "aot_eager"


@pytest.fixture
def graphs():
    """graphs(): how many distinct graphs were compiled since the test began."""
    torch._dynamo.reset()
    counters.clear()
    yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def deep_pixart(tiny_pixart_28_path):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_28_path)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def irregular(layout):
    """Row 1 reuses everything, and later rows recompute neighbours at different times: a long list of kept values."""
    bits = np.random.default_rng(0).random((ROWS + 1, len(layout))) < 0.5
    bits[1] = False
    return Schedule(layout, bits)


def compare(pipe, schedules, latents, distance, **call):
    for schedule in schedules:
        results = []
        for compile in (False, BACKEND):
            with apply_schedule(pipe, schedule, compile=compile):
                results.append(latents(pipe, **call, **schedule.call()))
        assert distance(results[1], results[0]) < 1e-4, schedule.name


def test_pixarts_28_blocks_share_a_graph_for_each_kind_of_component(deep_pixart, latents, distance, graphs):
    layout = pixart_layout(28)
    schedule = irregular(layout)
    with apply_schedule(deep_pixart, schedule, compile=BACKEND):
        first = latents(deep_pixart, **schedule.call())
        assert graphs() == 3 + len(GROUPS)
        assert torch.equal(latents(deep_pixart, **schedule.call()), first)
        latents(deep_pixart, seed=5, **schedule.call())
        assert graphs() == 3 + len(GROUPS)  # another call compiles nothing
    compare(deep_pixart, [schedule, heuristics.fora(layout, ROWS, 2)], latents, distance)


def test_other_sizes_and_batches_compile_a_bounded_number_of_graphs(plain_pixart, latents, distance, graphs):
    layout = pixart_layout(4)
    schedule = heuristics.fora(layout, ROWS, 2)
    with apply_schedule(plain_pixart, schedule, compile=BACKEND):
        for count in range(1, 6):
            latents(plain_pixart, ["a tree"] * count, seed=list(range(count)), **schedule.call())
        compiled = graphs()
        for count in (6, 7):
            latents(plain_pixart, ["a tree"] * count, seed=list(range(count)), **schedule.call())
        assert graphs() == compiled


def test_fluxs_blocks_share_graphs(flux, latents, distance, random_schedules, graphs):
    layout, size = flux_layout(2, 3), {"height": 64, "width": 64}
    everything = heuristics.uncached(layout, ROWS)
    with apply_schedule(flux, everything, compile=BACKEND):
        latents(flux, **size, **everything.call())
    # Per kind one: modulate, full_attn, full_ff, full_ff_context, single_attn, single_proj_mlp, single_proj_out; and
    # the last block's three once more, whose text part nobody reads.
    assert graphs() == 7 + 3
    compare(flux, [everything, *random_schedules(layout, ROWS, 3, seed=3)], latents, distance, **size)


def test_a_module_in_place_of_plain_weights_runs_as_it_is(tiny_pixart_path, latents, distance, graphs):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    for block in pipe.transformer.transformer_blocks:
        block.attn1.to_out[0].register_forward_hook(lambda module, inputs, output: output * 0.5)
    schedule = heuristics.fora(pixart_layout(4), ROWS, 2)
    compare(pipe, [schedule], latents, distance)
    assert graphs() == 2  # cross-attention and feed-forward


def test_the_reference_mode_is_never_compiled(flux):
    schedule = heuristics.uncached(flux_layout(2, 3), ROWS)
    with pytest.raises(ExecutionError, match="only the fast mode is compiled"):
        apply_schedule(flux, schedule, mode="reference", compile=True)


def test_an_image_generator_says_that_it_is_compiled(tiny_pixart_path, graphs):
    from ecad import load_image_generator

    plain = load_image_generator(tiny_pixart_path, rows=2, height=64, width=64)
    compiled = load_image_generator(tiny_pixart_path, rows=2, height=64, width=64, compile=BACKEND)
    one, other = (g.generate(["a tree"], [1]).astype(int) for g in (plain, compiled))
    assert np.abs(one - other).max() <= 1 and graphs() == 3
    assert plain.fingerprint()["mode"] == "fast" and compiled.fingerprint()["mode"] == "fast, compiled"

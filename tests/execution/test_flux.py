"""FLUX through the plan: the stock pipeline bit for bit, the paper's semantics, and what only FLUX has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecad.execution import ExecutionError, apply_schedule, lower
from ecad.execution.cache_size import value_bytes
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import FluxDimensions, flux_layout, pixart_layout

LAYOUT = flux_layout(2, 3)
ROWS = 5
SIZE = {"height": 64, "width": 64}
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def run(latents):
    """Final latents of the tiny pipeline under a schedule, or of the stock call."""

    def call(pipe, schedule=None, mode="fast", **settings):
        settings = {**SIZE, **settings}
        if schedule is None:
            return latents(pipe, **{"num_inference_steps": ROWS, **settings})
        with apply_schedule(pipe, schedule, mode=mode):
            return latents(pipe, **schedule.call(), **settings)

    return call


def test_computing_everything_equals_the_stock_pipeline_bit_for_bit(flux, run, distance):
    stock = run(flux)
    schedule = heuristics.uncached(LAYOUT, ROWS)
    assert torch.equal(run(flux, schedule, "reference"), stock)
    assert distance(run(flux, schedule, "fast"), stock) < TOLERANCE
    assert torch.equal(run(flux), stock)


def test_reuse_equals_wrapped_modules(flux, run, oracle, random_schedules, distance):
    library = heuristics.library(LAYOUT, ROWS, list(np.linspace(1, 1 / ROWS, ROWS)))
    for schedule in [*library, *random_schedules(LAYOUT, ROWS, 50)]:
        if schedule.rows < 2:
            continue
        expected = oracle(flux, schedule, **SIZE)
        assert distance(run(flux, schedule, "reference"), expected) < 1e-5, schedule.name
        assert distance(run(flux, schedule, "fast"), expected) < TOLERANCE, schedule.name


def test_one_wrong_bit_is_seen(flux, run, distance):
    """Any single wrong bit does at least five times what the tolerance of the fast mode allows."""
    right = run(flux)
    for column in range(len(LAYOUT)):
        bits = np.ones((ROWS, len(LAYOUT)), dtype=bool)
        bits[2, column] = False
        if Schedule(LAYOUT, bits).canonical().bits.all():
            continue
        wrong = run(flux, Schedule(LAYOUT, bits), "reference")
        assert distance(wrong, right) > 5e-4, LAYOUT.components[column]


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_each_kind_of_call_has_its_own_cache(flux, run, oracle, distance, random_schedules, mode):
    """With a negative prompt and true guidance FLUX calls its transformer twice a step."""
    guided = {"negative_prompt": "a blue car", "true_cfg_scale": 3.0}
    assert torch.equal(
        run(flux, heuristics.uncached(LAYOUT, ROWS), "reference", **guided), run(flux, **guided)
    )
    for schedule in random_schedules(LAYOUT, ROWS, 4, seed=5):
        expected = oracle(flux, schedule, kinds=2, **SIZE, **guided)
        assert distance(run(flux, schedule, mode, **guided), expected) < TOLERANCE


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_batches_sizes_and_aborted_calls_leave_nothing_behind(flux, latents, mode):
    schedule = heuristics.fora(LAYOUT, ROWS, 3)

    def stop(pipe, step, time, tensors):
        if step == 2:
            raise InterruptedError
        return tensors

    with apply_schedule(flux, schedule, mode=mode):
        first = latents(flux, **SIZE, **schedule.call())
        with pytest.raises(InterruptedError):
            latents(flux, "a blue car", callback_on_step_end=stop, **SIZE, **schedule.call())
        latents(flux, ["a tree", "a boat"], seed=[1, 2], **SIZE, **schedule.call())
        latents(flux, "a tree", height=32, width=96, **schedule.call())
        assert torch.equal(latents(flux, **SIZE, **schedule.call()), first)


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_a_batch_gives_each_image_what_it_gets_alone(flux, latents, distance, random_schedules, mode):
    (schedule,) = random_schedules(LAYOUT, ROWS, 1, seed=9)
    with apply_schedule(flux, schedule, mode=mode):
        both = latents(flux, ["a tree", "a boat at night"], seed=[1, 2], **SIZE, **schedule.call())
        alone = latents(flux, "a boat at night", seed=2, **SIZE, **schedule.call())
    assert distance(both[1], alone[0]) < TOLERANCE


def test_a_schedule_on_its_own_sigmas_runs_on_them(flux, run, oracle, distance):
    schedule = heuristics.fora(LAYOUT, 4, 2).replace(sigmas=(1.0, 0.8, 0.5, 0.1))
    expected = oracle(flux, schedule, **SIZE)
    assert distance(run(flux, schedule, "fast"), expected) < TOLERANCE
    assert distance(run(flux, heuristics.fora(LAYOUT, 4, 2), "fast"), expected) > 0.01
    with apply_schedule(flux, schedule), pytest.raises(ExecutionError, match="stands at the times"):
        run(flux, num_inference_steps=4)


def test_modulations_made_in_chunks_are_the_same(flux, run, monkeypatch, distance):
    from ecad.models import flux_fast

    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    whole = run(flux, schedule)
    monkeypatch.setattr(flux_fast, "MODULATION_BYTES", 1)
    assert distance(run(flux, schedule), whole) < 1e-5


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_peak_cache_is_what_the_plan_predicts(
    flux, run, random_schedules, alternating_ends, mode, monkeypatch
):
    from ecad.execution import passes

    peak = 0
    stock = passes.Pass._step

    def watch(self, step):
        nonlocal peak
        stock(self, step)
        storages = {
            value.untyped_storage().data_ptr(): value.untyped_storage() for value in self.values.values()
        }
        peak = max(peak, sum(storage.nbytes() for storage in storages.values()))

    monkeypatch.setattr(passes.Pass, "_step", watch)
    dimensions = FluxDimensions.from_config(
        flux.transformer.config, **SIZE, pixels_per_token=16, text_tokens=24
    )
    sizes = value_bytes(dimensions, 4)  # float32
    assert sum(sizes) == (24 + 16) * 32 * (2 * 2 + 3 * 6) * 4  # text and image tokens, width, components
    for schedule in [
        alternating_ends(LAYOUT, 12),
        heuristics.fora(LAYOUT, ROWS, 3),
        *random_schedules(LAYOUT, ROWS, 8, seed=2),
    ]:
        peak = 0
        with apply_schedule(flux, schedule, mode=mode) as applied:
            run(flux, num_inference_steps=schedule.rows)
        assert peak == pytest.approx(applied.plan.peak_cache(sizes), rel=0.05), schedule.name


def test_the_fast_plan_drops_what_nobody_reads(flux):
    """The last single block's text tokens reach no image: its text half is never wanted when all is
    computed.
    """
    plan = lower(heuristics.uncached(LAYOUT, ROWS))
    last = plan.steps[0][-1]
    assert last.wanted == LAYOUT.values_of[len(LAYOUT) - 1][:1]


def test_wrong_use_is_refused_with_one_sentence(flux, run):
    from diffusers import FlowMatchHeunDiscreteScheduler

    with pytest.raises(ExecutionError, match=r"pixart-4.*flux-2-3"):
        apply_schedule(flux, heuristics.uncached(pixart_layout(4), ROWS))
    stock = flux.scheduler
    flux.scheduler = FlowMatchHeunDiscreteScheduler.from_config(stock.config)
    try:
        with pytest.raises(ExecutionError, match="calls the model 2 times a step"):
            apply_schedule(flux, heuristics.uncached(LAYOUT, ROWS))
    finally:
        flux.scheduler = stock
    with apply_schedule(flux, heuristics.uncached(LAYOUT, ROWS)):
        with pytest.raises(ExecutionError, match="5 rows, but the pipeline was called with 3 steps"):
            run(flux, num_inference_steps=3)
        with pytest.raises(ExecutionError, match="joint_attention_kwargs ip_hidden_states"):
            run(flux, joint_attention_kwargs={"ip_hidden_states": []})


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_the_pipelines_own_arguments_mean_what_they_mean_without_a_schedule(flux, run, distance, mode):
    """Several images of a prompt, a callback that changes the latents, given latents, finished pictures."""
    steps = []

    def darker(pipe, step, time, tensors):
        steps.append(step)
        return {"latents": tensors["latents"] * (0.5 if step == 1 else 1)}

    noise = torch.randn((2, 16, 16), generator=torch.Generator().manual_seed(4))
    calls = [
        {"num_images_per_prompt": 2, "seed": [1, 2]},
        {"callback_on_step_end": darker},
        {"num_images_per_prompt": 2, "seed": [1, 2], "latents": noise},
        {"guidance_scale": 1.0},
    ]
    schedule = heuristics.uncached(LAYOUT, ROWS)
    for call in calls:
        stock, ours = run(flux, **call), run(flux, schedule, mode, **call)
        assert torch.equal(ours, stock) if mode == "reference" else distance(ours, stock) < TOLERANCE, call
    assert steps == [*range(ROWS)] * 2
    assert distance(run(flux, schedule, mode, callback_on_step_end=darker), run(flux)) > 0.01

    def picture():
        rng = torch.Generator().manual_seed(1)
        call = {**SIZE, "num_inference_steps": ROWS, "max_sequence_length": 24}
        return flux("a tree", generator=rng, **call).images[0]

    stock = np.asarray(picture(), dtype=int)
    with apply_schedule(flux, schedule, mode=mode):
        assert np.abs(np.asarray(picture(), dtype=int) - stock).max() <= (mode == "fast")


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_the_order_of_a_batch_changes_nothing(flux, latents, random_schedules, mode):
    (schedule,) = random_schedules(LAYOUT, ROWS, 1, seed=9)
    prompts, seeds, order = ["a tree", "a boat at night", "a red house"], [1, 2, 3], [2, 0, 1]
    with apply_schedule(flux, schedule, mode=mode):
        batch = latents(flux, prompts, seed=seeds, **SIZE, **schedule.call())
        other = latents(
            flux, [prompts[i] for i in order], seed=[seeds[i] for i in order], **SIZE, **schedule.call()
        )
    assert torch.equal(other, batch[order])

"""PixArt through the plan: the stock pipeline's latents bit for bit, and the paper's semantics."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ecad.execution import ExecutionError, apply_schedule
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

LAYOUT = pixart_layout(4)
ROWS = 5


@pytest.fixture(scope="module", params=["pixart", "sigma"])
def pipe(request):
    return request.getfixturevalue(request.param)


def test_computing_everything_equals_the_stock_pipeline_bit_for_bit(pipe, latents):
    stock = latents(pipe, num_inference_steps=ROWS)
    schedule = heuristics.uncached(LAYOUT, ROWS)
    with apply_schedule(pipe, schedule, mode="reference"):
        assert torch.equal(latents(pipe, **schedule.call()), stock)
    assert torch.equal(latents(pipe, num_inference_steps=ROWS), stock)


def test_reuse_equals_wrapped_modules_bit_for_bit(pipe, latents, oracle, random_schedules):
    for schedule in [heuristics.fora(LAYOUT, ROWS, 2), *random_schedules(LAYOUT, ROWS, 6)]:
        expected = oracle(pipe, schedule)
        with apply_schedule(pipe, schedule, mode="reference"):
            assert torch.equal(latents(pipe, **schedule.call()), expected), schedule.name


def test_one_wrong_bit_is_seen(pixart, latents, distance):
    """Any single wrong bit does at least five times what the tolerance of the fast mode allows."""
    right = latents(pixart, num_inference_steps=ROWS)
    for column in range(len(LAYOUT)):
        bits = np.ones((ROWS, len(LAYOUT)), dtype=bool)
        bits[2, column] = False
        with apply_schedule(pixart, Schedule(LAYOUT, bits), mode="reference"):
            assert distance(latents(pixart, num_inference_steps=ROWS), right) > 5e-4, LAYOUT.components[
                column
            ]


def test_row_zero_is_computed_whatever_its_bits_say(pixart, latents):
    bits = np.ones((ROWS, len(LAYOUT)), dtype=bool)
    bits[0] = False
    with apply_schedule(pixart, Schedule(LAYOUT, bits), mode="reference"):
        neutral = latents(pixart, num_inference_steps=ROWS)
    assert torch.equal(neutral, latents(pixart, num_inference_steps=ROWS))


def test_fora_3_computes_exactly_the_components_it_says(tiny_pixart_28_path, latents):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_28_path)
    pipe.set_progress_bar_config(disable=True)
    calls = []
    handles = [
        getattr(block, name).register_forward_hook(lambda *_: calls.append(1))
        for block in pipe.transformer.transformer_blocks
        for name in ("attn1", "attn2", "ff")
    ]
    schedule = heuristics.fora(pixart_layout(28), 20, 3)
    with apply_schedule(pipe, schedule, mode="reference") as applied:
        latents(pipe, **schedule.call())
    assert len(calls) == 7 * 84 == applied.plan.computed
    for handle in handles:
        handle.remove()


def test_a_schedule_on_its_own_timesteps_runs_on_them(pixart, latents, oracle):
    times = (999, 700, 300, 20)
    schedule = heuristics.fora(LAYOUT, 4, 2).replace(timesteps=times)
    with apply_schedule(pixart, schedule, mode="reference"):
        ours = latents(pixart, **schedule.call())
        with pytest.raises(ExecutionError, match="999, 700, 300, 20"):
            latents(pixart, num_inference_steps=4)
    assert torch.equal(ours, oracle(pixart, schedule))


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_no_call_sees_what_an_earlier_one_left(pixart, latents, distance, mode):
    schedule = heuristics.fora(LAYOUT, ROWS, 3)

    class Stop(Exception):
        pass

    def stop(step, time, _):
        if step == 2:
            raise Stop

    with apply_schedule(pixart, schedule, mode=mode):
        first = latents(pixart, **schedule.call())
        with pytest.raises(Stop):
            latents(pixart, "a blue car", callback=stop, **schedule.call())
        latents(pixart, ["a tree", "a boat"], seed=[1, 2], **schedule.call())  # another batch
        small = {"height": 128, "width": 192, "use_resolution_binning": False}
        other_size = latents(pixart, "a tree", **small, **schedule.call())
        unguided = latents(pixart, "a tree", guidance_scale=1.0, **schedule.call())
        assert torch.equal(latents(pixart, **schedule.call()), first)
    with apply_schedule(pixart, schedule, mode="reference"):
        assert distance(other_size, latents(pixart, "a tree", **small, **schedule.call())) < 1e-3
        assert distance(unguided, latents(pixart, "a tree", guidance_scale=1.0, **schedule.call())) < 1e-3


def test_wrong_use_is_refused_with_one_sentence(pixart, latents):
    from diffusers import HeunDiscreteScheduler

    for layout in (pixart_layout(28), flux_layout(2, 3)):
        with pytest.raises(ExecutionError, match=f"{layout.name}.*pixart-4"):
            apply_schedule(pixart, heuristics.uncached(layout, ROWS))
    schedule = heuristics.uncached(LAYOUT, ROWS)
    with pytest.raises(ExecutionError, match="one of reference, fast"):
        apply_schedule(pixart, schedule, mode="quick")
    with apply_schedule(pixart, schedule):
        with pytest.raises(ExecutionError, match="5 rows, but the pipeline was called with 7 steps"):
            latents(pixart, num_inference_steps=7)
        with pytest.raises(ExecutionError, match="already runs a schedule"):
            apply_schedule(pixart, schedule)
    stock = pixart.scheduler
    pixart.scheduler = HeunDiscreteScheduler.from_config(stock.config)
    try:
        with pytest.raises(ExecutionError, match="2 times a step"):
            apply_schedule(pixart, schedule)
    finally:
        pixart.scheduler = stock
    with pytest.raises(ExecutionError, match="has no transformer"):
        apply_schedule(object(), schedule)


def test_a_pipeline_that_shares_the_transformer_but_not_the_sampler_is_refused(pixart, latents):
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline

    other = PixArtAlphaPipeline(
        **{**pixart.components, "scheduler": DPMSolverMultistepScheduler.from_config(pixart.scheduler.config)}
    )
    other.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    pixart.scheduler.set_timesteps(ROWS)
    with apply_schedule(pixart, schedule), pytest.raises(ExecutionError, match="shares its transformer"):
        latents(other, **schedule.call())


@pytest.mark.parametrize("apply_first", [True, False])
@pytest.mark.parametrize("remove_first", [True, False])
def test_offloading_hooks_and_a_schedule_come_and_go_in_either_order(
    tiny_pixart_path, latents, apply_first, remove_first
):
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
    from diffusers import DiffusionPipeline

    class Counts(ModelHook):
        seen = 0

        def pre_forward(self, module, *args, **kwargs):
            self.seen += 1
            return args, kwargs

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    with apply_schedule(pipe, schedule):
        expected = latents(pipe, **schedule.call())
    stock = latents(pipe, **schedule.call())
    hook = Counts()
    if apply_first:
        applied = apply_schedule(pipe, schedule)
        add_hook_to_module(pipe.transformer, hook)
    else:
        add_hook_to_module(pipe.transformer, hook)
        applied = apply_schedule(pipe, schedule)
    assert torch.equal(latents(pipe, **schedule.call()), expected)
    assert hook.seen == ROWS
    if remove_first:
        remove_hook_from_module(pipe.transformer)
        assert torch.equal(latents(pipe, **schedule.call()), expected)
        applied.remove()
    else:
        applied.remove()
        assert torch.equal(latents(pipe, **schedule.call()), stock)
        remove_hook_from_module(pipe.transformer)
    assert torch.equal(latents(pipe, **schedule.call()), stock)
    assert "_ecad_schedule" not in vars(pipe.transformer)


@contextmanager
def tgate_oracle(pipe, schedule):
    """True T-GATE on the stock modules, apart from `ecad.execution`: the negative half alone from the
    gate on.
    """
    transformer, kept, calls, gate = pipe.transformer, {}, [-1], schedule.gate_step
    stock = type(transformer).forward

    def forward(latents, **inputs):
        calls[0] += 1
        half = len(latents) // 2
        if calls[0] < gate:
            return stock(transformer, latents, **inputs)
        cut = {k: v[:half] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        return (torch.cat([stock(transformer, latents[:half], **cut)[0]] * 2),)

    def wrap(module, column, name):
        def call(*args, **kwargs):
            row = calls[0]
            if name == "attn2" and row >= gate:
                return kept[column].chunk(2)[0] / 2 + kept[column].chunk(2)[1] / 2
            if schedule.bits[row, column] or row == 0:
                kept[column] = type(module).forward(module, *args, **kwargs)
            return kept[column]

        module.forward = call

    modules = [
        (getattr(block, name), 3 * i + j, name)
        for i, block in enumerate(transformer.transformer_blocks)
        for j, name in enumerate(("attn1", "attn2", "ff"))
    ]
    for one in modules:
        wrap(*one)
    transformer.forward = forward
    try:
        yield
    finally:
        del transformer.forward
        for module, _, _ in modules:
            del module.forward


def test_true_tgate_drops_guidance_at_its_gate(pixart, latents, distance):
    schedule = heuristics.tgate(LAYOUT, 7, 4, 2, averaged=True)
    with tgate_oracle(pixart, schedule):
        expected = latents(pixart, **schedule.call())
    for mode in ("reference", "fast"):
        with apply_schedule(pixart, schedule, mode=mode):
            assert distance(latents(pixart, **schedule.call()), expected) < 1e-4
    plain = heuristics.tgate(LAYOUT, 7, 4, 2)
    with apply_schedule(pixart, plain):
        assert distance(latents(pixart, **plain.call()), expected) > 0.01
    with apply_schedule(pixart, schedule), pytest.raises(ExecutionError, match="guidance scale above 1"):
        latents(pixart, guidance_scale=1.0, **schedule.call())


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_the_pipelines_own_arguments_mean_what_they_mean_without_a_schedule(
    pixart64, latents, distance, mode
):
    """Several images of a prompt, a callback, given latents, no guidance. In float64, where only a wrong one shows."""
    steps = []
    noise = torch.randn((2, 4, 32, 32), generator=torch.Generator().manual_seed(4)).double()
    calls = [
        {"num_images_per_prompt": 2, "seed": [1, 2]},
        {"callback": lambda step, time, now: steps.append(step), "callback_steps": 2},
        {"num_images_per_prompt": 2, "seed": [1, 2], "latents": noise},
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.5, "negative_prompt": "a blue car"},
        {"negative_prompt": "a blue car"},
    ]
    schedule = heuristics.uncached(LAYOUT, ROWS)
    for call in calls:
        stock = latents(pixart64, num_inference_steps=ROWS, **call)
        with apply_schedule(pixart64, schedule, mode=mode):
            ours = latents(pixart64, **schedule.call(), **call)
        assert torch.equal(ours, stock) if mode == "reference" else distance(ours, stock) < 1e-8, call
    assert steps == [0, 2, 4] * 2

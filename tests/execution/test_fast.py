"""The fast mode computes what the reference mode computes, to float tolerance, and keeps no more than the
plan says.
"""

from __future__ import annotations

import pytest
import torch

from ecad.execution import ExecutionError, apply_schedule, lower
from ecad.execution.families import open_model
from ecad.schedule import heuristics
from ecad.schedule.layouts import pixart_layout

LAYOUT = pixart_layout(4)
ROWS = 6
TOLERANCE = 1e-4


def run(pipe, schedule, mode, latents, **call):
    with apply_schedule(pipe, schedule, mode=mode):
        return latents(pipe, **schedule.call(), **call)


def every_schedule(random_schedules):
    """All heuristics, and 50 random ones."""
    library = heuristics.library(LAYOUT, ROWS, [999 - 150 * i for i in range(ROWS)])
    return [one for one in library if one.rows > 1] + random_schedules(LAYOUT, ROWS, 50, seed=1)


def test_fast_equals_reference_and_both_equal_the_oracle(
    pixart64, latents, oracle, distance, random_schedules
):
    """In float64, where only a wrong computation shows."""
    for schedule in every_schedule(random_schedules):
        expected = oracle(pixart64, schedule)
        assert torch.equal(run(pixart64, schedule, "reference", latents), expected), schedule.name
        assert distance(run(pixart64, schedule, "fast", latents), expected) < 1e-8, schedule.name


def test_fast_equals_reference_in_float32(plain_pixart, latents, distance, random_schedules):
    for schedule in every_schedule(random_schedules):
        reference = run(plain_pixart, schedule, "reference", latents)
        assert distance(run(plain_pixart, schedule, "fast", latents), reference) < TOLERANCE, schedule.name


def test_sigma_too(sigma, latents, oracle, distance, random_schedules):
    for schedule in random_schedules(LAYOUT, ROWS, 4, seed=1):
        expected = oracle(sigma, schedule)
        assert torch.equal(run(sigma, schedule, "reference", latents), expected), schedule.name
        assert distance(run(sigma, schedule, "fast", latents), expected) < 1e-3, schedule.name


def test_rows_that_compute_nothing_call_no_component(pixart, latents):
    """FORA's empty rows are one combine: the sums of one segment over all components."""
    from ecad.execution.plan import Combine

    schedule = heuristics.fora(LAYOUT, ROWS, 3)
    with apply_schedule(pixart, schedule, mode="fast") as applied:
        for row in (1, 2, 4, 5):
            (step,) = applied.plan.steps[row]
            assert isinstance(step, Combine) and not step.values
            assert [(one.start, one.stop) for one in step.segments] == [(0, len(LAYOUT))]


def live_bytes(*kept):
    """Bytes of the storages that these tensors, and those in their containers, keep alive, each once."""
    storages, todo = {}, list(kept)
    while todo:
        one = todo.pop()
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, dict):
            todo += one.values()
        elif isinstance(one, list | tuple):
            todo += one
    return sum(storages.values())


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_peak_cache_is_what_the_plan_predicts(pixart, latents, random_schedules, mode, monkeypatch):
    from ecad.execution import passes

    peak = 0
    stock = passes.Pass._step

    def watch(self, step):
        nonlocal peak
        stock(self, step)
        building = getattr(self.components, "sums", {}), getattr(self.components, "before", None)
        open_now = building if getattr(self.components, "open", None) is not None else ()
        peak = max(peak, live_bytes(self.values.held(), self.segments, open_now))

    monkeypatch.setattr(passes.Pass, "_step", watch)
    one_value = 2 * 64 * 16 * 4  # both guidance halves, 64 tokens of width 16, float32
    for schedule in [heuristics.fora(LAYOUT, ROWS, 3), *random_schedules(LAYOUT, ROWS, 8, seed=2)]:
        peak = 0
        with apply_schedule(pixart, schedule, mode=mode) as applied:
            latents(pixart, **schedule.call())
        assert peak == pytest.approx(applied.plan.peak_cache(one_value), rel=0.05), schedule.name


def test_nothing_is_kept_when_nothing_is_reused(pixart, latents):
    plan = lower(heuristics.uncached(LAYOUT, ROWS))
    assert plan.peak_cache(1) == 0


def test_packed_weights_follow_the_modules_own(tiny_pixart_path, latents, distance):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    blocks = pipe.transformer.transformer_blocks

    def scale_in_place():
        with torch.no_grad():
            blocks[1].attn1.to_k.weight.mul_(-1.5)

    def scale_data():  # as a LoRA is fused
        blocks[1].attn1.to_v.weight.data += 0.3

    def replace_weight():
        blocks[2].attn1.to_q.weight = torch.nn.Parameter(torch.randn(16, 16) / 4)

    def replace_module():
        blocks[3].attn2.to_v = torch.nn.Linear(16, 16)

    def wrap_module():
        blocks[0].attn1.to_v = torch.nn.Sequential(blocks[0].attn1.to_v, torch.nn.Linear(16, 16))

    def hook_module():
        blocks[0].attn1.to_q.register_forward_hook(lambda module, inputs, output: output * 0.5)

    seen = []
    with apply_schedule(pipe, schedule, mode="fast"):
        seen.append(latents(pipe, **schedule.call()))
        for change in (scale_in_place, scale_data, replace_weight, replace_module, wrap_module, hook_module):
            change()
            seen.append(latents(pipe, **schedule.call()))
            assert not torch.equal(seen[-1], seen[-2]), change.__name__
    assert distance(seen[-1], run(pipe, schedule, "reference", latents)) < TOLERANCE


def test_packing_leaves_the_weights_as_they_are_and_holds_none_twice(tiny_pixart_path):
    from diffusers import PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel.from_pretrained(tiny_pixart_path, subfolder="transformer")
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    size = live_bytes(*transformer.parameters())
    model = open_model(transformer, "fast")
    assert all(torch.equal(before[name], value) for name, value in transformer.state_dict().items())
    assert (
        live_bytes(*transformer.parameters(), *(t for pack in model.pack._packed.values() for t in pack))
        == size
    )


def test_a_packed_transformer_is_saved_and_copied_like_any_other(tiny_pixart_path, tmp_path):
    import copy

    from diffusers import PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel.from_pretrained(tiny_pixart_path, subfolder="transformer")
    open_model(transformer, "fast")
    transformer.save_pretrained(tmp_path)
    loaded = PixArtTransformer2DModel.from_pretrained(tmp_path).state_dict()
    copied = copy.deepcopy(transformer).to(torch.float64).state_dict()
    for name, value in transformer.state_dict().items():
        assert torch.equal(loaded[name], value) and torch.equal(copied[name], value.double())


def test_several_images_of_a_prompt(pixart, latents):
    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    with apply_schedule(pixart, schedule):
        two = latents(pixart, seed=[1, 2], num_images_per_prompt=2, **schedule.call())
        same = latents(pixart, ["a red house", "a red house"], seed=[1, 2], **schedule.call())
    assert torch.equal(two, same)


def test_an_attention_the_fast_mode_does_not_know_is_refused(tiny_pixart_path, latents):
    from diffusers import DiffusionPipeline
    from diffusers.models.attention_processor import AttnProcessor

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(LAYOUT, ROWS, 2)
    with apply_schedule(pipe, schedule, mode="fast"):
        pipe.transformer.transformer_blocks[1].attn1.set_processor(AttnProcessor())
        with pytest.raises(
            ExecutionError, match=r"block 1: its attention .AttnProcessor.*use mode=.reference."
        ):
            latents(pipe, **schedule.call())
    with pytest.raises(ExecutionError, match="block 1"):
        apply_schedule(pipe, schedule, mode="fast")
    run(pipe, schedule, "reference", latents)

"""LoRAs on FLUX: loaded, scaled, fused or unloaded while a schedule is in force, each is seen by the next call."""

from __future__ import annotations

import pytest
import torch

from ecad.execution import apply_schedule
from ecad.schedule import heuristics
from ecad.schedule.layouts import flux_layout

peft = pytest.importorskip("peft", reason="install peft to test LoRAs")

LAYOUT = flux_layout(2, 3)
ROWS = 4
TOLERANCE = 1e-4
SCHEDULE = heuristics.fora(LAYOUT, ROWS, 2)


@pytest.fixture
def pipe(tiny_flux_path):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_flux_path)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def run(pipe, latents):
    return lambda **more: latents(pipe, height=64, width=64, **SCHEDULE.call(), **more)


@pytest.fixture
def lora_path(tiny_flux_path, tmp_path):
    """A saved LoRA that changes pictures."""
    from diffusers import FluxPipeline, FluxTransformer2DModel
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel.from_pretrained(tiny_flux_path, subfolder="transformer")
    targets = ["to_q", "to_k", "proj_mlp", "proj_out"]
    transformer.add_adapter(peft.LoraConfig(r=2, init_lora_weights=False, target_modules=targets))
    FluxPipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(transformer))
    return tmp_path


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_every_change_of_a_lora_is_seen_while_a_schedule_is_in_force(pipe, run, lora_path, distance, mode):
    def reused():
        """The truth for the present weights: a schedule applied anew, module by module."""
        applied.remove()
        with apply_schedule(pipe, SCHEDULE, mode="reference"):
            return run()

    changes = {
        "load": lambda: pipe.load_lora_weights(lora_path, adapter_name="one"),
        "scale": lambda: pipe.set_adapters(["one"], [0.5]),
        "fuse": lambda: pipe.fuse_lora(lora_scale=2.0),
        "unfuse": pipe.unfuse_lora,
        "disable": pipe.disable_lora,
        "unload": pipe.unload_lora_weights,
    }
    applied = apply_schedule(pipe, SCHEDULE, mode=mode)
    plain = before = run()
    for name, change in changes.items():
        change()
        seen = run()
        assert distance(seen, reused()) < TOLERANCE, name
        if name not in ("unfuse", "unload"):  # whose LoRA counts as much, or as little, as before
            assert distance(seen, before) > 0.01, name
        before = seen
        applied = apply_schedule(pipe, SCHEDULE, mode=mode)
    applied.remove()
    assert distance(before, plain) < TOLERANCE


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_a_scale_for_one_call_counts_for_that_call(pipe, run, lora_path, distance, mode):
    pipe.load_lora_weights(lora_path)
    with apply_schedule(pipe, SCHEDULE, mode=mode):
        whole = run()
        half = run(joint_attention_kwargs={"scale": 0.5})
        assert distance(half, whole) > 0.01
        assert torch.equal(run(), whole)
    with apply_schedule(pipe, SCHEDULE, mode="reference"):
        assert distance(half, run(joint_attention_kwargs={"scale": 0.5})) < TOLERANCE

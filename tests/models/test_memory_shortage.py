"""A GPU that runs out of memory: one sentence says what to lower, and the next pass works as if nothing had been."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from ecad import apply_schedule, load_image_generator
from ecad.execution import ExecutionError
from ecad.schedule import heuristics


class Full:
    """Makes a real module's n-th call fail as torch does on a GPU without room, and lets all others pass."""

    def __init__(self, module, call):
        self.left = call
        self.handle = module.register_forward_pre_hook(self)

    def __call__(self, *_):
        self.left -= 1
        if self.left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.fixture
def generator(tiny_pixart_path):
    return load_image_generator(tiny_pixart_path, rows=4, height=64, width=64)


def caught(call, sentence):
    with pytest.raises(ExecutionError, match=sentence) as failed:
        call()
    assert isinstance(failed.value.__cause__, torch.OutOfMemoryError)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("place", ["denoising", "decoding", "encoding"])
def test_any_stage_of_an_image_says_what_to_lower_and_leaves_nothing_behind(generator, place):
    block = generator.transformer.transformer_blocks[2]
    module, call = {
        "denoising": (block.attn1.to_out[0], 3),  # in the third row that computes it
        "decoding": (generator.pipe.vae.decoder.conv_out, 1),
        "encoding": (generator.pipe.text_encoder, 1),
    }[place]
    schedule = heuristics.fora(generator.layout, 4, 1)
    full = Full(module, call)
    sentence = {"encoding": "half precision"}.get(place, r"--batch-size.* \(--height, --width\), now 64 x 64")
    caught(lambda: generator.generate(["a tree"], [1], schedule), f"the GPU ran out of memory; .*{sentence}")
    again = generator.generate(["a tree"], [1], schedule)
    full.handle.remove()
    assert np.abs(generator.generate(["a tree"], [1], schedule).astype(int) - again).max() <= 1


def test_loading_says_what_to_change(tiny_pixart_path, monkeypatch):
    from diffusers import PixArtTransformer2DModel

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(PixArtTransformer2DModel, "to", no_room)
    caught(lambda: load_image_generator(tiny_pixart_path), "half precision .*text_encoder=.offload.")


@pytest.mark.parametrize("mode", ["reference", "fast"])
def test_a_pipeline_under_a_schedule_lets_go_of_the_pass_and_works_on(tiny_pixart_path, mode):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    schedule = heuristics.fora(load_image_generator(tiny_pixart_path).layout, 4, 2)

    def run():
        return pipe(
            "a tree",
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
            max_sequence_length=24,
            **schedule.call(),
        ).images

    kept = []
    with apply_schedule(pipe, schedule, mode=mode) as applied:
        expected = run()
        block = pipe.transformer.transformer_blocks[3]
        full = Full(block.attn2.to_out[0], 2)  # row 2: row 0's values are kept
        stock = type(applied)._begin

        def begin(self, *inputs):
            made = stock(self, *inputs)
            kept.append(weakref.ref(made))
            return made

        applied._begin = begin.__get__(applied)
        caught(run, r"num_images_per_prompt.* \(height, width\).* half precision")
        gc.collect()
        assert len(kept) == 1 and kept[0]() is None
        again = run()
        full.handle.remove()
        assert (again - expected).abs().max() / expected.std() < 1e-4
    assert torch.isfinite(run()).all()

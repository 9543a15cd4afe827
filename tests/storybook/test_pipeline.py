"""The shipped pipeline is a stock one: a plain from_pretrained and a plain call work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import PixArtAlphaPipeline
from PIL import Image

from ecad.storybook.autoencoder import held_out_psnr
from ecad.storybook.pipeline import PIPELINE_FOLDER
from ecad.storybook.sheet import contact_sheet


@pytest.fixture(scope="module")
def pipe():
    pipe = PixArtAlphaPipeline.from_pretrained(PIPELINE_FOLDER)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_stock_call_gives_an_image(pipe):
    image = pipe("a red house in snow at night", num_inference_steps=2).images[0]
    assert image.size == (256, 256)
    assert np.asarray(image).std() > 5


def test_it_has_the_shape_of_pixart_alphas_schedules(pipe):
    assert len(pipe.transformer.transformer_blocks) == 28
    assert pipe.transformer.config.norm_type == "ada_norm_single"
    side = pipe.transformer.config.sample_size // pipe.transformer.config.patch_size
    assert side * side == 64


def test_it_is_loaded_as_float32(pipe):
    for part in (pipe.transformer, pipe.text_encoder, pipe.vae):
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_it_is_small_and_free_of_pickles():
    files = [file for file in PIPELINE_FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 30e6
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_its_autoencoder_keeps_held_out_pictures(pipe):
    assert held_out_psnr(pipe.vae, count=6) > 28


def test_a_contact_sheet_has_a_cell_for_each_picture():
    sheet = contact_sheet(np.zeros((5, 32, 32, 3), np.uint8), ["a red house in snow"] * 5, columns=3)
    dark = np.asarray(sheet.convert("L")) == 0
    assert isinstance(sheet, Image.Image) and dark.sum() == 5 * 32 * 32

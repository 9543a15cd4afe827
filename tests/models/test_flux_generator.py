"""The FLUX image generator: the stock pipeline's pictures, and schedules of its own layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ecad import load_image_generator
from ecad.models import ModelSettings
from ecad.schedule import heuristics
from ecad.schedule.layouts import flux_layout

SETTINGS = ModelSettings(
    "tiny-flux", "", rows=4, height=64, width=64, text_tokens=24, guidance_scale=3.5, clean_caption=False
)


@pytest.fixture(scope="module")
def generator(tiny_flux_path):
    return load_image_generator(tiny_flux_path, settings=replace(SETTINGS, source=str(tiny_flux_path)))


def test_an_uncached_image_is_the_stock_pipelines(generator, tiny_flux_path):
    reference = load_image_generator(tiny_flux_path, settings=generator.settings, mode="reference")
    stock = reference.pipe(
        "a red house",
        num_inference_steps=4,
        height=64,
        width=64,
        guidance_scale=3.5,
        max_sequence_length=24,
        generator=torch.Generator().manual_seed(7),
    ).images[0]
    ours = reference.generate(["a red house"], [7])
    assert ours.shape == (1, 64, 64, 3) and np.array_equal(ours[0], np.asarray(stock))
    assert np.abs(generator.generate(["a red house"], [7]).astype(int) - ours).max() <= 1


def test_batches_and_schedules(generator):
    assert generator.layout == flux_layout(2, 3)
    assert generator.timesteps == (1.0, 0.75, 0.5, 0.25)
    schedule = heuristics.fora(generator.layout, 4, 2)
    embeddings = generator.encode(["a tree", "a boat at night"])
    both = generator.denoise(embeddings, [1, 2], schedule)
    alone = generator.denoise(embeddings[1:], [2], schedule)
    assert (both[1] - alone[0]).abs().max() / both.std() < 1e-4
    table = generator.cost_table()
    assert table.macs(schedule).total < table.uncached(4).total

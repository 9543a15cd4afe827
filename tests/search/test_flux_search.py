"""The search on FLUX: rows stand at sigmas instead of timesteps."""

from __future__ import annotations

import pytest

import ecad
from ecad.models import load_image_generator
from ecad.search import Search, SearchSettings, make_evaluator, open_run


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_search_on_flux_finds_schedules_on_its_sigmas(tiny_flux_path, tmp_path, preset):
    generator = load_image_generator(tiny_flux_path, device="cpu", threads=1)
    settings = SearchSettings.of(
        preset,
        prompts=["a red house"],
        model=str(tiny_flux_path),
        reward="ssim",
        population=4,
        generations=2,
        seed_count=8,
        seeds_per_prompt=1,
        batch=1,
        min_cost=None,
        max_cost=None,
    )
    evaluator = make_evaluator(generator, ecad.metric("ssim"), settings)
    with open_run(tmp_path / "flux.sqlite", evaluator, settings) as store:
        search = Search(evaluator, store)
        search.start()
        search.wait()
        found = [one.schedule for one in store.evaluations()]
    assert len(found) > 8 and all(one.timesteps is None for one in found)
    on_sigmas = [one for one in found if one.sigmas is not None]
    if preset == "paper":
        assert not on_sigmas, "the paper's search keeps the sampler's own times"
    else:
        assert on_sigmas and all(set(one.sigmas) <= set(generator.timesteps) for one in on_sigmas)

"""Loading: settings that override the model's own, weights from two places, and errors that say what to do."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ecad import load_image_generator
from ecad.execution import ExecutionError
from ecad.models import SETTINGS, ModelSettings
from ecad.models.settings import ALIASES
from ecad.schedule import heuristics

ROWS = 3


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine without access to the hub and with nothing downloaded."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "storybook"] + list(ALIASES))
def test_a_model_of_the_hub_without_access_says_what_to_download_and_where(offline, name):
    settings = SETTINGS[ALIASES.get(name, name)]
    with pytest.raises(ExecutionError) as caught:
        load_image_generator(name)
    said = str(caught.value)
    assert f"{settings.name} needs the weights of https://huggingface.co/{settings.source}" in said
    assert f"hf download {settings.source}" in said and "give the folder" in said
    assert settings.transformer is None or f"hf download {settings.transformer}`" in said
    assert "\n" not in said and caught.value.__cause__ is not None


def test_settings_take_the_place_of_the_models_own(tiny_pixart_path):
    generator = load_image_generator(
        tiny_pixart_path, rows=ROWS, height=64, width=96, guidance_scale=1.5, text_encoder="keep"
    )
    assert (generator.rows, generator.height, generator.width) == (ROWS, 64, 96)
    assert generator.guidance_scale == 1.5 and len(generator.timesteps) == ROWS
    assert generator.generate(["a tree"], [1]).shape == (1, 64, 96, 3)
    assert generator.fingerprint()["size"] == [64, 96]
    assert (
        generator.cost_table().uncached(1).total
        < load_image_generator(tiny_pixart_path).cost_table().uncached(1).total
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"height": 250}, "height must be a multiple of 32 pixels for pixart, not 250; the nearest is 256"),
        ({"width": 16}, "width must be a multiple of 32 pixels for pixart, not 16; the nearest is 32"),
        ({"rows": 0}, "number of steps must be 1 to 1000, not 0"),
        ({"guidance_scale": -1.0}, "guidance scale must be a number of at least 0, not -1"),
        ({"guidance_scale": float("nan")}, "not nan"),
        ({"text_encoder": "gone"}, "`text_encoder` is one of offload, keep, none, not 'gone'"),
    ],
)
def test_settings_that_the_model_cannot_run_with_are_refused(tiny_pixart_path, settings, sentence):
    with pytest.raises(ExecutionError, match=sentence):
        load_image_generator(tiny_pixart_path, **settings)


def test_flux_without_guidance_takes_no_guidance_scale(tiny_flux_path, tmp_path):
    from diffusers import FluxTransformer2DModel

    config = FluxTransformer2DModel.load_config(tiny_flux_path, subfolder="transformer")
    FluxTransformer2DModel.from_config({**config, "guidance_embeds": False}).save_pretrained(
        tmp_path / "transformer"
    )
    schnell = ModelSettings("schnell", str(tiny_flux_path), str(tmp_path), rows=2, height=64, width=64)
    assert load_image_generator("schnell", settings=schnell).takes_guidance is False
    with pytest.raises(ExecutionError, match="schnell was made without guidance"):
        load_image_generator("schnell", settings=schnell, guidance_scale=3.0)
    with pytest.raises(ExecutionError, match="multiple of 16 pixels for schnell, not 72"):
        load_image_generator("schnell", settings=schnell, width=72)


def test_a_transformer_may_lie_apart_from_its_pipeline(tiny_pixart_path, tiny_sigma_path, tmp_path):
    """As PixArt's makers publish the smaller sizes: only the transformer's folder."""
    from diffusers import PixArtTransformer2DModel

    other = PixArtTransformer2DModel.from_pretrained(tiny_pixart_path, subfolder="transformer")
    torch.nn.init.normal_(other.proj_out.weight, std=0.3)
    other.save_pretrained(tmp_path / "apart" / "transformer")
    whole = tmp_path / "whole"
    shutil.copytree(tiny_pixart_path, whole)
    shutil.rmtree(whole / "transformer")
    shutil.copytree(tmp_path / "apart" / "transformer", whole / "transformer")

    def load(source, transformer=None):
        return load_image_generator(
            "any", settings=ModelSettings("any", str(source), transformer, rows=ROWS, text_tokens=24)
        )

    apart, merged = load(tiny_pixart_path, str(tmp_path / "apart")), load(whole)
    assert np.array_equal(apart.generate(["a tree"], [1]), merged.generate(["a tree"], [1]))
    assert apart.fingerprint() == merged.fingerprint() != load(tiny_pixart_path).fingerprint()


def moves_of(modules, monkeypatch):
    """Devices that text encoders are moved to from now on, in order."""
    moves = []
    for module in modules:
        stock = module.to
        monkeypatch.setattr(module, "to", lambda device, stock=stock: moves.append(device) or stock(device))
    return moves


@pytest.mark.parametrize("family", ["pixart", "flux"])
def test_text_encoders_are_on_the_device_only_while_prompts_are_encoded(family, request, monkeypatch):
    """`cpu:0` is the CPU by another name, so the moves really happen and cost nothing."""
    path = request.getfixturevalue(f"tiny_{family}_path")
    home, device = torch.device("cpu"), torch.device("cpu:0")
    small = {"height": 64, "width": 64, "rows": 2}
    expected = load_image_generator(path, device="cpu", **small).generate(["a tree"], [1])
    generator = load_image_generator(path, device="cpu:0", text_encoder="offload", **small)
    modules = generator.text_encoders.modules
    assert len(modules) == {"pixart": 1, "flux": 2}[family]
    moves = moves_of(modules, monkeypatch)
    assert np.array_equal(generator.generate(["a tree"], [1]), expected)
    assert moves == [device] * len(modules) + [home] * len(modules)
    with pytest.raises(RuntimeError), generator.text_encoders.at_hand():
        raise RuntimeError
    assert moves[-1] == home

    for where, policy in (("cpu:0", "keep"), ("cpu", "offload")):
        staying = load_image_generator(path, device=where, text_encoder=policy, **small)
        moves = moves_of(staying.text_encoders.modules, monkeypatch)
        staying.encode(["a tree"])
        assert not moves


def test_prompts_known_already_need_no_text_encoder(tiny_pixart_path):
    generator = load_image_generator(tiny_pixart_path, rows=2, height=64, width=64)
    calls = []
    generator.pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    first = generator.generate(["a tree", "a red house", "a tree"], [1, 2, 3])
    assert len(calls) == 3  # two prompts and the empty one
    again = generator.generate(
        ["a tree", "a red house", "a tree"], [1, 2, 3], heuristics.fora(generator.layout, 2, 1)
    )
    assert len(calls) == 3 and np.array_equal(first, again)
    for number in range(40):  # what is remembered is bounded, and the empty prompt always is
        generator.encode([f"a tree {number}"])
    assert len(calls) == 43 and len(generator._encoded) <= 33


def test_a_model_without_its_text_encoder_takes_embeddings_alone(tiny_pixart_path):
    with_one = load_image_generator(tiny_pixart_path, rows=2)
    without = load_image_generator(tiny_pixart_path, rows=2, text_encoder="none")
    assert without.pipe.text_encoder is None and without.pipe.tokenizer is None
    embeddings = with_one.encode(["a tree"])
    assert torch.equal(without.denoise(embeddings, [1]), with_one.denoise(embeddings, [1]))
    with pytest.raises(ExecutionError, match="loaded without its text encoder"):
        without.encode(["a tree"])

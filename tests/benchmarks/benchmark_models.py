"""What is timed: a trained model, or a configuration with random weights made on the device itself."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, FluxTransformer2DModel, PixArtTransformer2DModel

from ecad import load_image_generator
from ecad.execution.families import open_model
from ecad.models import ModelSettings
from ecad.models.base import quietly
from ecad.models.flux_generator import FluxEmbeddings
from ecad.models.pixart_generator import PixArtEmbeddings

PROMPTS = ("a red house left of a blue tree in snow at night", "a yellow boat at sea at sunset")
PROMPT_TOKENS = (20, 12)  # a short prompt's, of the many that PixArt pads to


@dataclass(frozen=True)
class Config:
    """A configuration with random weights: the stock class's arguments, and how its pipeline calls it."""

    family: str
    transformer: dict[str, Any]
    size: int = 256
    text_tokens: int = 120
    guidance_scale: float = 4.5
    rows: int = 20


def _pixart(layers: int, heads: int, head: int, captions: int, sample: int, patch: int) -> dict[str, Any]:
    return {
        "num_attention_heads": heads, "attention_head_dim": head, "in_channels": 4, "out_channels": 8,
        "num_layers": layers, "cross_attention_dim": heads * head, "sample_size": sample, "patch_size": patch,
        "caption_channels": captions, "norm_type": "ada_norm_single", "norm_elementwise_affine": False,
        "attention_bias": True,
    }  # fmt: skip


def _flux(
    layers: int, single: int, heads: int, rope: tuple[int, ...], text: int, pooled: int
) -> dict[str, Any]:
    return {
        "patch_size": 1, "in_channels": 64, "num_layers": layers, "num_single_layers": single,
        "attention_head_dim": sum(rope), "num_attention_heads": heads, "joint_attention_dim": text,
        "pooled_projection_dim": pooled, "guidance_embeds": True, "axes_dims_rope": rope,
    }  # fmt: skip


# pixart-alpha and flux-dev: the published config.json of PixArt-XL-2-256x256 (1024-MS) and FLUX.1-dev.
CONFIGS = {
    "small": Config("pixart", _pixart(28, 4, 32, 128, 32, 4), text_tokens=24),  # Storybook's size
    "pixart-alpha": Config("pixart", _pixart(28, 16, 72, 4096, 32, 2)),
    "flux-small": Config("flux", _flux(4, 8, 4, (8, 12, 12), 128, 64), text_tokens=64, guidance_scale=5.0),
    "flux-dev": Config(
        "flux", _flux(19, 38, 24, (16, 56, 56), 4096, 768), text_tokens=512, guidance_scale=5.0
    ),
}


@dataclass
class Subject:
    """A model under test. `trained`: whether an error of its images says anything."""

    generator: Any
    trained: bool

    def embeddings(self, batch: int) -> Any:
        """Embeddings of `batch` images: the two prompts in turn."""
        if self.trained:
            return self.generator.encode([PROMPTS[i % 2] for i in range(batch)])
        return _random_embeddings(self.generator, batch)

    def about(self) -> dict[str, Any]:
        """The generator's fingerprint; random weights have no digest."""
        found = self.generator.fingerprint()
        return found if self.trained else {**found, "weights": "random"}


def trained(name: str, **options: Any) -> Subject:
    """A model by name or folder. options: device, dtype, threads."""
    return Subject(load_image_generator(name, **options), trained=True)


def resized(config: Config, layers: list[int] | None = None, width: int | None = None) -> Config:
    """The configuration with another depth ([blocks], or FLUX's [full, single]) or width.

    Raises ValueError for a width that is no multiple of its heads'.
    """
    given = dict(config.transformer)
    if layers:
        given["num_layers"] = layers[0]
        if config.family == "flux":
            given["num_single_layers"] = layers[-1]
    if width is not None:
        if width % given["attention_head_dim"]:
            raise ValueError(f"--width must be a multiple of {given['attention_head_dim']}, not {width}")
        given["num_attention_heads"] = width // given["attention_head_dim"]
        if config.family == "pixart":
            given["cross_attention_dim"] = width
    return replace(config, transformer=given)


def random(name: str, config: Config, size: int | None = None, **options: Any) -> Subject:
    """An image generator of this configuration at this size, its weights drawn on the device.

    A tiny pipeline is saved and loaded as any other; then the large transformer takes the tiny one's place, and
    no weight of it ever lies on a disk.
    """
    size = size or config.size
    with quietly(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline"
        save = getattr(_fixtures(), f"save_tiny_{config.family}")
        save(path, **({"blocks": 1} if config.family == "pixart" else {"double": 1, "single": 1}))
        settings = ModelSettings(
            name, str(path), rows=config.rows, guidance_scale=config.guidance_scale, height=size, width=size,
            text_tokens=config.text_tokens,
        )  # fmt: skip
        generator = load_image_generator(path, settings=settings, **options)
        generator.fingerprint()  # it remembers the digest; the folder is gone afterwards
    given = dict(config.transformer)
    if config.family == "pixart":
        given["sample_size"] *= 1 if size <= 512 else 1024 // 256  # 128 means size conditions as well
        # Random weights take noise for an image at the first time, a hundred times too large, unless they are
        # taken to predict the velocity.
        generator.pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            generator.pipe.scheduler.config, prediction_type="v_prediction"
        )
    with quietly():
        transformer = _drawn(config.family, given, generator.device, generator.dtype)
    generator.transformer = generator.pipe.transformer = transformer
    generator.model = open_model(transformer, generator.mode)
    generator.layout = generator.model.layout
    return Subject(generator, trained=False)


def _drawn(family: str, given: dict[str, Any], device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """The stock class with random weights, made in this dtype on this device."""
    kind = PixArtTransformer2DModel if family == "pixart" else FluxTransformer2DModel
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            transformer = kind(**given)
    finally:
        torch.set_default_dtype(before)
    return transformer.to(device=device, dtype=dtype).eval()


def _random_embeddings(generator: Any, batch: int) -> Any:
    config, tokens = generator.transformer.config, generator.settings.text_tokens
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng).to(generator.device, generator.dtype)

    if hasattr(config, "joint_attention_dim"):
        return FluxEmbeddings(
            draw(batch, tokens, config.joint_attention_dim), draw(batch, config.pooled_projection_dim)
        )
    lengths = torch.tensor([min(PROMPT_TOKENS[i % 2], tokens) for i in range(batch)])
    mask = (torch.arange(tokens) < lengths[:, None]).to(generator.device, torch.int64)
    text = draw(batch, tokens, config.caption_channels)
    empty_mask = (torch.arange(tokens) < 1)[None].to(mask)  # the empty prompt is its end token alone
    return PixArtEmbeddings(text, mask, draw(1, tokens, config.caption_channels), empty_mask)


def _fixtures() -> Any:
    """The tests' own makers of small pipelines."""
    path = Path(__file__).resolve().parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("benchmark_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

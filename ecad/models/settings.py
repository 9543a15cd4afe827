"""The models there are by name: where their weights lie, and how their makers run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecad.schedule.layouts.pixart import STORYBOOK_TEXT_TOKENS

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class ModelSettings:
    """How a model is run. Sizes are pixels; `text_tokens` is what its prompts are padded to.

    source: a folder, or a model id of the Hugging Face hub. transformer: where its transformer lies, if not in
    `source`. dtype: of the weights on a GPU; a CPU uses float32. text_encoder: "offload" has it on the device
    only while prompts are encoded, "keep" for good, "none" not at all (prompts then come as embeddings).
    """

    name: str
    source: str
    transformer: str | None = None
    rows: int = 20
    guidance_scale: float = 4.5
    height: int | None = None  # None: the size the transformer was trained at
    width: int | None = None
    text_tokens: int = 120
    dtype: str = "float16"
    clean_caption: bool = True
    text_encoder: str = "offload"


# PixArt's makers publish the transformers of the smaller sizes; the rest of their pipelines is that of 1024 pixels.
_ALPHA, _SIGMA = "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
_DEV, _SCHNELL = "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"


def _flux_dev(name: str, side: int) -> ModelSettings:
    """The paper's guidance; the maker's own example uses 3.5."""
    return ModelSettings(
        name, _DEV, text_tokens=512, guidance_scale=5.0, height=side, width=side, dtype="bfloat16"
    )


def _flux_schnell(name: str, side: int) -> ModelSettings:
    """Distilled to four rows without guidance."""
    return ModelSettings(
        name,
        _SCHNELL,
        rows=4,
        text_tokens=256,
        guidance_scale=0.0,
        height=side,
        width=side,
        dtype="bfloat16",
    )


_ALL = [
    # Storybook's captions are short and plain: nothing to clean.
    ModelSettings("storybook", str(ASSETS / "storybook" / "pipeline"), dtype="float32",
                  text_tokens=STORYBOOK_TEXT_TOKENS, clean_caption=False, text_encoder="keep"),
    ModelSettings("pixart-alpha", _ALPHA, "PixArt-alpha/PixArt-XL-2-256x256"),
    ModelSettings("pixart-alpha-512", _ALPHA, "PixArt-alpha/PixArt-XL-2-512x512"),
    ModelSettings("pixart-alpha-1024", _ALPHA),
    ModelSettings("pixart-sigma", _SIGMA, "PixArt-alpha/PixArt-Sigma-XL-2-256x256", text_tokens=300),
    ModelSettings("pixart-sigma-512", _SIGMA, "PixArt-alpha/PixArt-Sigma-XL-2-512-MS", text_tokens=300),
    ModelSettings("pixart-sigma-1024", _SIGMA, text_tokens=300),
    _flux_dev("flux-dev", 256),
    _flux_dev("flux-dev-1024", 1024),
    _flux_schnell("flux-schnell", 256),
    _flux_schnell("flux-schnell-1024", 1024),
]  # fmt: skip
SETTINGS: dict[str, ModelSettings] = {settings.name: settings for settings in _ALL}

# The names of the original software's generator classes.
ALIASES = {
    "PixArtAlphaImageGenerator": "pixart-alpha",
    "PixArtSigmaImageGenerator": "pixart-sigma",
    "FluxImageGenerator": "flux-dev",
}


def known_names() -> list[str]:
    """Names that `load_image_generator` takes beside local folders."""
    return list(SETTINGS)

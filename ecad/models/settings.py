"""The models there are by name: where their weights lie, and how their makers run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecad.schedule.layouts.pixart import STORYBOOK_TEXT_TOKENS

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class ModelSettings:
    """How a model is run. Sizes are pixels; `text_tokens` is what its prompts are padded to.

    source: a folder, or a model id of the Hugging Face hub. dtype: of the weights on a GPU; a CPU uses
    float32.
    """

    name: str
    source: str
    rows: int = 20
    guidance_scale: float = 4.5
    height: int | None = None  # None: the size the transformer was trained at
    width: int | None = None
    text_tokens: int = 120
    dtype: str = "float16"
    clean_caption: bool = True


_ALL = [
    # Storybook's captions are short and plain: nothing to clean.
    ModelSettings("storybook", str(ASSETS / "storybook" / "pipeline"), dtype="float32",
                  text_tokens=STORYBOOK_TEXT_TOKENS, clean_caption=False),
    ModelSettings("pixart-alpha", "PixArt-alpha/PixArt-XL-2-256x256"),
    ModelSettings("pixart-alpha-512", "PixArt-alpha/PixArt-XL-2-512x512"),
    ModelSettings("pixart-alpha-1024", "PixArt-alpha/PixArt-XL-2-1024-MS"),
    ModelSettings("pixart-sigma", "PixArt-alpha/PixArt-Sigma-XL-2-256x256", text_tokens=300),
    ModelSettings("pixart-sigma-512", "PixArt-alpha/PixArt-Sigma-XL-2-512-MS", text_tokens=300),
    ModelSettings("pixart-sigma-1024", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", text_tokens=300),
    # The paper's guidance; the maker's own example uses 3.5.
    ModelSettings("flux-dev", "black-forest-labs/FLUX.1-dev", text_tokens=512, guidance_scale=5.0,
                  height=256, width=256, dtype="bfloat16"),
    ModelSettings("flux-dev-1024", "black-forest-labs/FLUX.1-dev", text_tokens=512, guidance_scale=5.0,
                  height=1024, width=1024, dtype="bfloat16"),
    ModelSettings("flux-schnell", "black-forest-labs/FLUX.1-schnell", rows=4, text_tokens=256,
                  guidance_scale=0.0, height=256, width=256, dtype="bfloat16"),
    ModelSettings("flux-schnell-1024", "black-forest-labs/FLUX.1-schnell", rows=4, text_tokens=256,
                  guidance_scale=0.0, height=1024, width=1024, dtype="bfloat16"),
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

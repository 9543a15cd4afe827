"""The models there are by name: where their weights lie, and how their makers run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
    # Storybook's captions are short and plain: nothing to clean, 24 tokens hold the longest.
    ModelSettings("storybook", str(ASSETS / "storybook" / "pipeline"), text_tokens=24, dtype="float32",
                  clean_caption=False, guidance_scale=3.0),
    ModelSettings("pixart-alpha", "PixArt-alpha/PixArt-XL-2-256x256"),
    ModelSettings("pixart-alpha-512", "PixArt-alpha/PixArt-XL-2-512x512"),
    ModelSettings("pixart-alpha-1024", "PixArt-alpha/PixArt-XL-2-1024-MS"),
    ModelSettings("pixart-sigma", "PixArt-alpha/PixArt-Sigma-XL-2-256x256", text_tokens=300),
    ModelSettings("pixart-sigma-512", "PixArt-alpha/PixArt-Sigma-XL-2-512-MS", text_tokens=300),
    ModelSettings("pixart-sigma-1024", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", text_tokens=300),
]  # fmt: skip
SETTINGS: dict[str, ModelSettings] = {settings.name: settings for settings in _ALL}

# The names of the original software's generator classes.
ALIASES = {
    "PixArtAlphaImageGenerator": "pixart-alpha",
    "PixArtSigmaImageGenerator": "pixart-sigma",
}


def known_names() -> list[str]:
    """Names that `load_image_generator` takes beside local folders."""
    return list(SETTINGS)

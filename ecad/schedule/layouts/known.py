"""The models we know by name, their layouts and sizes, and a local model's own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Layout
from ecad.schedule.layouts.flux import FluxDimensions, flux_dev, flux_layout, flux_schnell
from ecad.schedule.layouts.pixart import (
    STORYBOOK,
    PixArtDimensions,
    pixart_alpha,
    pixart_layout,
    pixart_sigma,
)

Dimensions = PixArtDimensions | FluxDimensions


@dataclass(frozen=True)
class KnownModel:
    """A published model: its dimensions at (height, width), the size it is costed at unless told, rows."""

    at: Callable[[int, int], Dimensions]
    side: int = 256  # the size the paper searched at
    rows: int = 20


MODELS = {
    "storybook": KnownModel(lambda height, width: replace(STORYBOOK, height=height, width=width)),
    "pixart-alpha": KnownModel(pixart_alpha),
    "pixart-alpha-512": KnownModel(pixart_alpha, side=512),
    "pixart-alpha-1024": KnownModel(pixart_alpha, side=1024),
    "pixart-sigma": KnownModel(pixart_sigma),
    "pixart-sigma-512": KnownModel(pixart_sigma, side=512),
    "pixart-sigma-1024": KnownModel(pixart_sigma, side=1024),
    "flux-dev": KnownModel(flux_dev),
    "flux-dev-1024": KnownModel(flux_dev, side=1024),
    "flux-schnell": KnownModel(flux_schnell, rows=4),
    "flux-schnell-1024": KnownModel(flux_schnell, side=1024, rows=4),
}

# The original's class names.
ALIASES = {
    "pixartalphaimagegenerator": "pixart-alpha",
    "pixartsigmaimagegenerator": "pixart-sigma",
    "fluximagegenerator": "flux-dev",
}

_LAYOUT_NAME = re.compile(r"pixart-(\d{1,4})|flux-(\d{1,4})-(\d{1,4})")


def model_name(name: str) -> str:
    """Our name of a model that is known by this name or by the original's (`PixArtAlphaImageGenerator`, ...).

    Raises:
        ScheduleError: no such model; the sentence lists those there are.
    """
    plain = ALIASES.get(name.lower(), name.lower())
    if plain not in MODELS:
        raise ScheduleError(f"There is no model named {name!r}; known are {', '.join(MODELS)}.")
    return plain


def default_rows(name: str) -> int:
    """How many steps a model is usually run with."""
    return MODELS[model_name(name)].rows


def dimensions(name: str, *, height: int | None = None, width: int | None = None) -> Dimensions:
    """The dimensions of a known model at a size (square if only one side is given).

    Raises:
        ScheduleError: no such model.
    """
    model = MODELS[model_name(name)]
    return model.at(height or width or model.side, width or height or model.side)


def layout(name: str) -> Layout:
    """The layout of a known model, or the layout of this name ("pixart-28", "flux-19-38").

    >>> layout("storybook").name, len(layout("flux-dev"))
    ('pixart-28', 171)

    Raises:
        ScheduleError: neither a model nor a layout has this name.
    """
    match = _LAYOUT_NAME.fullmatch(name)
    if match and match[1]:
        return pixart_layout(int(match[1]))
    if match:
        return flux_layout(int(match[2]), int(match[3]))
    return dimensions(name).layout


def local_dimensions(folder: str | os.PathLike[str], **settings: Any) -> Dimensions:
    """The dimensions of a pipeline or transformer saved by diffusers, read from its JSON files alone.

    `settings` override fields (height, width, text_tokens, ...).

    Raises:
        ScheduleError: the folder holds no PixArt or FLUX transformer.
    """
    root = Path(folder)
    path = next(
        (p for p in (root / "transformer" / "config.json", root / "config.json") if p.is_file()), None
    )
    if path is None:
        raise ScheduleError(f"{root} holds no model: expected transformer/config.json as diffusers saves it.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config.get("_class_name")
        settings = _latent_scale(root) | settings
        if kind == "PixArtTransformer2DModel":
            return PixArtDimensions.from_config(config, **settings)
        if kind == "FluxTransformer2DModel":
            return FluxDimensions.from_config(config, **_for_flux(settings))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScheduleError(
            f"{path} is not a transformer's configuration ({type(error).__name__}: {error})."
        ) from error
    raise ScheduleError(
        f"{path} is for {kind!r}; expected PixArtTransformer2DModel or FluxTransformer2DModel."
    )


def _latent_scale(root: Path) -> dict[str, Any]:
    """The pixels per latent of a saved pipeline's autoencoder, if it has one that says."""
    path = root / "vae" / "config.json"
    if not path.is_file():
        return {}
    config = json.loads(path.read_text(encoding="utf-8"))
    channels = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return {"pixels_per_latent": 2 ** (len(channels) - 1)} if channels else {}


def _for_flux(settings: dict[str, Any]) -> dict[str, Any]:
    """FLUX packs two by two latents into a token."""
    scale = settings.pop("pixels_per_latent", None)
    return settings if scale is None else {"pixels_per_token": 2 * scale} | settings

"""The models we know by name, their layouts and sizes, and a local model's own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
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

# Name -> (dimensions at a size, the size the paper searched at).
MODELS: dict[str, tuple[Callable[[int, int], Dimensions], int]] = {
    "storybook": (lambda height, width: replace(STORYBOOK, height=height, width=width), 256),
    "pixart-alpha": (pixart_alpha, 256),
    "pixart-sigma": (pixart_sigma, 256),
    "flux-dev": (flux_dev, 256),
    "flux-schnell": (flux_schnell, 256),
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


def default_size(name: str) -> int:
    """The side in pixels at which a model is costed when no size is given."""
    return MODELS[model_name(name)][1]


def dimensions(name: str, *, height: int | None = None, width: int | None = None) -> Dimensions:
    """The dimensions of a known model at a size (square if only one side is given).

    Raises:
        ScheduleError: no such model.
    """
    make, side = MODELS[model_name(name)]
    return make(height or width or side, width or height or side)


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
        if kind == "PixArtTransformer2DModel":
            return PixArtDimensions.from_config(config, **settings)
        if kind == "FluxTransformer2DModel":
            return FluxDimensions.from_config(config, **settings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScheduleError(
            f"{path} is not a transformer's configuration ({type(error).__name__}: {error})."
        ) from error
    raise ScheduleError(
        f"{path} is for {kind!r}; expected PixArtTransformer2DModel or FluxTransformer2DModel."
    )

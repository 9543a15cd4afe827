"""Models: how each family loads, and its components as functions of tensors.

>>> from ecad import load_image_generator
>>> generator = load_image_generator("storybook")                                   # doctest: +SKIP
>>> images = generator.generate(["a red house on grass by day"], [7])               # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from ecad.models.protocol import PROMPT_LIMIT, Embeddings, ImageGenerator
from ecad.models.settings import SETTINGS, ModelSettings, known_names

__all__ = [
    "PROMPT_LIMIT",
    "SETTINGS",
    "Embeddings",
    "ImageGenerator",
    "ModelSettings",
    "known_names",
    "load_image_generator",
]


def load_image_generator(name_or_path: Any, **options: Any) -> Any:
    """Load a model by its name ("storybook", "pixart-alpha", ...) or from a local diffusers folder.

    Options: `device`, `dtype`, `threads`, `mode` ("fast", the default, or "reference"), `compile`, `settings` or
    single ones of them (`rows`, `height`, `width`, `guidance_scale`, `text_encoder`); see
    `ecad.models.load.load_image_generator`, which this calls so that importing the package loads no torch.
    """
    from ecad.models.load import load_image_generator as load

    return load(name_or_path, **options)

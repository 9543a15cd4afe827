"""What a metric is, and the checks of its arguments that all metrics share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


class MetricError(ValueError):
    """A metric was asked for or called wrongly; the message is one sentence for the user."""

    user_facing = True


@runtime_checkable
class Metric(Protocol):
    """A score per image, from the image alone or with its prompt or a reference image.

    `needs` names what `score` must be given besides the images: any of "prompts" and "references". A score of
    an image never depends on the images beside it (to float tolerance): a caller may cut batches as it likes.
    """

    @property
    def name(self) -> str:
        """The name the metric has in run files and on the page."""

    @property
    def higher_is_better(self) -> bool:
        """True for a quality, False for a distance."""

    @property
    def needs(self) -> frozenset[str]:
        """Subset of {"prompts", "references"}."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able: everything that decides a score (settings, library versions, digest of the weights)."""

    def score(
        self,
        images: np.ndarray,
        *,
        prompts: Sequence[str] | None = None,
        references: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores float64 [B] of images uint8 [B, H, W, 3]; see `needs` for the other two."""


def check_images(images: Any, *, what: str = "images") -> np.ndarray:
    """`images` if they are uint8 [B, H, W, 3], else a `MetricError` that says what they are."""
    if not isinstance(images, np.ndarray):
        raise MetricError(f"{what} must be a numpy array uint8 [B, H, W, 3], not {type(images).__name__}")
    if images.dtype != np.uint8:
        raise MetricError(f"{what} must hold uint8 values 0 to 255, not {images.dtype}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise MetricError(f"{what} must have the shape [B, H, W, 3], not {list(images.shape)}")
    return images


def check_references(images: np.ndarray, references: Any, *, metric: str) -> np.ndarray:
    """`references` if there is one of the same size for each of `images`, else a `MetricError`."""
    if references is None:
        raise MetricError(f"metric {metric!r} compares with reference images: pass references=...")
    check_images(references, what="references")
    if references.shape != images.shape:
        raise MetricError(
            f"metric {metric!r} needs references of the images' shape {list(images.shape)},"
            f" not {list(references.shape)}"
        )
    return references


def check_prompts(images: np.ndarray, prompts: Any, *, metric: str) -> list[str]:
    """`prompts` as a list if there is one text for each of `images`, else a `MetricError`."""
    if prompts is None:
        raise MetricError(f"metric {metric!r} judges an image by its prompt: pass prompts=...")
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise MetricError(f"metric {metric!r} needs a list of prompts, one text per image")
    prompts = list(prompts)
    if len(prompts) != len(images):
        raise MetricError(f"metric {metric!r} got {len(images)} images but {len(prompts)} prompts")
    return prompts

"""What the fidelity metrics share: each image is compared with its own reference, alone."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ecad.metrics.protocol import check_images, check_references


class Fidelity(ABC):
    """A metric of (image, reference) pairs; the reference is usually the uncached image of the same noise."""

    name: str
    higher_is_better: bool
    needs = frozenset({"references"})
    library: str
    """The package that computes it; its version is part of the fingerprint."""

    def fingerprint(self) -> dict[str, Any]:
        version = importlib.metadata.version(self.library)
        return {"metric": self.name, "library": f"{self.library} {version}", **self.settings()}

    def settings(self) -> dict[str, Any]:
        """The choices that decide a score, for the fingerprint."""
        return {}

    def score(
        self,
        images: np.ndarray,
        *,
        prompts: Sequence[str] | None = None,
        references: np.ndarray | None = None,
    ) -> np.ndarray:
        """Scores float64 [B] of images against references, both uint8 [B, H, W, 3]; prompts are ignored."""
        images = check_images(images)
        references = check_references(images, references, metric=self.name)
        pairs = zip(images, references, strict=True)
        return np.array([self.compare(image, reference) for image, reference in pairs], dtype=np.float64)

    @abstractmethod
    def compare(self, image: np.ndarray, reference: np.ndarray) -> float:
        """The score of one image uint8 [H, W, 3] against its reference of the same shape."""

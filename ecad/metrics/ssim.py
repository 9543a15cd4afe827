"""SSIM: structural similarity to the reference image, 1 for identical images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecad.metrics.fidelity import Fidelity
from ecad.metrics.protocol import MetricError

SIGMA = 1.5
WINDOW = 11
"""Width of the Gaussian window in pixels: the images must be at least this large."""


class SSIM(Fidelity):
    """Mean structural similarity with the settings of its paper, per colour channel, then averaged.

    Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment: From Error Visibility to Structural
    Similarity" (2004): an 11 x 11 Gaussian window of sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03.
    """

    name = "ssim"
    higher_is_better = True
    library = "scikit-image"

    def settings(self) -> dict[str, Any]:
        return {"sigma": SIGMA, "window": WINDOW}

    def compare(self, image: np.ndarray, reference: np.ndarray) -> float:
        from skimage.metrics import structural_similarity

        if min(image.shape[:2]) < WINDOW:
            height, width = image.shape[:2]
            raise MetricError(
                f"metric 'ssim' needs images of at least {WINDOW} x {WINDOW} px, not {width} x {height}"
            )
        return float(
            structural_similarity(
                reference,
                image,
                channel_axis=2,
                data_range=255,
                gaussian_weights=True,
                sigma=SIGMA,
                use_sample_covariance=False,
            )
        )

"""PSNR: peak signal to noise ratio to the reference image, in decibels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecad.metrics.fidelity import Fidelity

CAP = 100.0
"""Highest PSNR reported, dB. Identical images have an infinite one, which JSON cannot hold and no mean
survives. A single value off by one level in a 256 px image gives 101 dB, so nothing that anyone could see is lost."""


class PSNR(Fidelity):
    """10 log10(255² / mean squared error) over all values, at most `CAP`: identical images score 100 dB."""

    name = "psnr"
    higher_is_better = True
    library = "scikit-image"

    def settings(self) -> dict[str, Any]:
        return {"cap": CAP}

    def compare(self, image: np.ndarray, reference: np.ndarray) -> float:
        from skimage.metrics import peak_signal_noise_ratio

        if np.array_equal(image, reference):  # spares the library's division by zero
            return CAP
        return min(CAP, float(peak_signal_noise_ratio(reference, image, data_range=255)))

"""FLIP: a perceptual distance to the reference image without trained weights, 0 for identical images."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecad.metrics.fidelity import Fidelity

PIXELS_PER_DEGREE = 67.0
"""How large a pixel looks: FLIP's default, a 4K screen of 0.7 m width at 0.7 m distance."""


class FLIP(Fidelity):
    """Mean of the LDR-FLIP error map, 0 (same) to 1: what one notices who flips between the two images.

    Andersson, Nilsson, Akenine-Möller, Oskarsson, Åström, Fairchild: "FLIP: A Difference Evaluator for
    Alternating Images" (2020), by its authors' own package. It looks at colour and at edges after a model of
    human contrast sensitivity.
    """

    name = "flip"
    higher_is_better = False
    library = "flip-evaluator"

    def settings(self) -> dict[str, Any]:
        return {"pixels_per_degree": PIXELS_PER_DEGREE}

    def compare(self, image: np.ndarray, reference: np.ndarray) -> float:
        import flip_evaluator

        error_map, _, _ = flip_evaluator.evaluate(
            reference.astype(np.float32) / 255,
            image.astype(np.float32) / 255,
            "LDR",
            applyMagma=False,
            computeMeanError=False,  # the mean is taken here, in float64
            parameters={"ppd": PIXELS_PER_DEGREE},
        )
        return float(np.asarray(error_map).mean(dtype=np.float64))

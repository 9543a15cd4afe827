"""Image quality: one protocol (`Metric`), one file per metric that any model can use.

>>> import numpy as np
>>> from ecad import metric
>>> image = np.zeros((1, 32, 32, 3), np.uint8)
>>> float(metric("psnr").score(image, references=image)[0])
100.0
"""

from __future__ import annotations

from ecad.metrics.protocol import Metric, MetricError, check_images, check_prompts
from ecad.metrics.registry import metric, metric_names

__all__ = ["Metric", "MetricError", "check_images", "check_prompts", "metric", "metric_names"]

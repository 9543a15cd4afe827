"""Metrics by name, for the command line and settings files."""

from __future__ import annotations

import importlib

from ecad.metrics.protocol import Metric, MetricError

_METRICS: dict[str, tuple[str, str]] = {
    "flip": ("ecad.metrics.flip", "FLIP"),
    "psnr": ("ecad.metrics.psnr", "PSNR"),
    "ssim": ("ecad.metrics.ssim", "SSIM"),
}


def metric_names() -> tuple[str, ...]:
    """The names `metric` knows: metrics that any model can use."""
    return tuple(sorted(_METRICS))


def metric(name: str) -> Metric:
    """The metric of that name; a `MetricError` lists the known ones if there is none.

    A model's own judges (Storybook's reward and facts) are loaded by their own packages: `ecad.load_judge()`.
    """
    try:
        module, attribute = _METRICS[name]
    except (KeyError, TypeError):
        raise MetricError(f"no metric is called {name!r}: there are {', '.join(metric_names())}") from None
    return getattr(importlib.import_module(module), attribute)()

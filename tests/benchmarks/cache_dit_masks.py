"""cache-dit's static step masks, where that library is installed (it is no dependency: `--peers cache-dit`).

A mask names the rows that are computed; in all others the first block runs and what the other blocks added is
taken from before, copied or forecast.
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch
from executors import Stock
from flux_caches import tree_of_its_own

from ecad.schedule import Layout, Schedule


class CacheDitMask(Stock):
    """The stock transformer under cache-dit with a static mask: the rows in which the schedule computes anything.

    order 0 copies, order 1 forecasts (its TaylorSeer calibrator).
    """

    def __init__(self, transformer: torch.nn.Module, layout: Layout, schedule: Schedule, order: int) -> None:
        super().__init__(tree_of_its_own(transformer), layout)
        self.rows = schedule.rows
        mask = schedule.bits.any(axis=1)
        mask[0] = True
        library = _library()
        given: dict[str, Any] = {}
        if order:
            given["calibrator_config"] = library.TaylorSeerCalibratorConfig(taylorseer_order=order)
        config = library.DBCacheConfig(
            Fn_compute_blocks=1,  # the fewest that it takes
            Bn_compute_blocks=0,
            max_warmup_steps=0,
            num_inference_steps=self.rows,
            steps_computation_mask=[int(computed) for computed in mask],
            steps_computation_policy="static",
            enable_separate_cfg=False,  # both guidance halves in one call
        )
        library.enable_cache(self.transformer, cache_config=config, **given)
        self.refresh = library.refresh_context

    def begin(self, schedule: Schedule) -> None:
        self.forget()

    def forget(self) -> None:
        self.refresh(self.transformer, num_inference_steps=self.rows)


def _library() -> Any:
    """cache-dit, without its remarks.

    Raises ImportError with what to install.
    """
    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import cache_dit
    except ImportError as error:
        raise ImportError(
            "--peers cache-dit needs the package cache-dit (pip install cache-dit), which is not a dependency"
        ) from error
    for name, logger in logging.root.manager.loggerDict.items():
        if name.lower().startswith("cache") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.ERROR)
    return cache_dit

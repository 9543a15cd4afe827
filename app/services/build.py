"""Everything behind the page, made once at start and passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecad import data_folder, load_image_generator

from .calibrating import DeviceCalibration
from .images import RenderCache, Renderer
from .judging import FIDELITY, Judging
from .prompts import Prompts
from .runs import Runs
from .schedules import Schedules
from .worker import DeviceWorker

SHIPPED_RUN = Path(__file__).resolve().parents[2] / "assets" / "storybook" / "run.sqlite"


@dataclass
class Services:
    """The parts of one page; `close` ends their threads and files."""

    generator: Any
    worker: DeviceWorker
    schedules: Schedules
    renderer: Renderer
    runs: Runs
    prompts: Prompts
    calibration: DeviceCalibration

    def close(self) -> None:
        self.calibration.close()
        self.runs.close()
        self.worker.close()


def default_threads() -> int:
    """Torch threads of the device's worker: one core is left to the page, which would starve otherwise."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def build(model: str = "storybook", run: str | None = None, data_dir: str | None = None) -> Services:
    """Load the model, its judge and the run to show.

    Args:
        model: a name or a folder, as `load_image_generator` takes it.
        run: name or path of the run shown first; None takes the shipped one.
        data_dir: where renders and runs are kept; see `ecad.data_folder`.

    Errors a user can cause carry `user_facing = True` and say in one sentence what is wrong.
    """
    folder = data_folder(data_dir)
    worker = DeviceWorker()
    generator = worker.run(lambda job: load_image_generator(model, threads=default_threads()))
    storybook = generator.name == "storybook"
    judging = worker.run(lambda job: Judging(storybook))
    prompts = Prompts(storybook)
    cache = RenderCache(folder / "renders")
    renderer = Renderer(generator, worker, cache, judging.fidelity, judging.read_facts)
    shipped = SHIPPED_RUN if storybook and SHIPPED_RUN.is_file() else None
    runs = Runs(
        generator,
        worker,
        metrics=judging.metrics,
        of_runs=judging.of_runs,
        prompts=prompts.of_run,
        data_dir=folder,
        shipped=shipped,
        asked=run,
    )
    calibration = DeviceCalibration(generator, worker, folder)
    schedules = Schedules(generator, lambda: calibration.found)
    return Services(generator, worker, schedules, renderer, runs, prompts, calibration)


__all__ = ["FIDELITY", "SHIPPED_RUN", "Services", "build", "default_threads"]

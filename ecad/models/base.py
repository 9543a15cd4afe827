"""What all image generators have in common: loading, noise, the denoising loop, decoding, the fingerprint.

A generator does what its stock pipeline's call does, apart from one deliberate difference: the initial noise
of an image depends on its seed and size only, whatever batch it is in.
"""

from __future__ import annotations

import copy
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as hf_logging

from ecad.execution import ExecutionError, Pass, Plan
from ecad.execution.families import check_schedule, open_model
from ecad.execution.memory import out_of_memory_explained
from ecad.execution.times import check_scheduler
from ecad.models.protocol import OnRow, check_prompt
from ecad.models.settings import ModelSettings
from ecad.schedule import Schedule, heuristics
from ecad.schedule.costs import CostTable, cost_table

KEPT_PLANS = 16
LOWER = "lower the number of images at once (--batch-size), or the size"
# One row of a sampler: model inputs from latents and time, and noise from the model's output.
Inputs = Callable[[torch.Tensor, torch.Tensor], dict[str, Any]]
Noise = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def quietly() -> Iterator[None]:
    """Load without the libraries' bars and remarks on stderr, where errors belong; what is wrong still raises."""
    before = [
        (one, one.is_progress_bar_enabled(), one.get_verbosity()) for one in (diffusers_logging, hf_logging)
    ]
    for one, _, _ in before:
        one.disable_progress_bar()
        one.set_verbosity_error()
    try:
        yield
    finally:
        for one, bar, verbosity in before:
            one.set_verbosity(verbosity)
            if bar:
                one.enable_progress_bar()


class BaseGenerator(ABC):
    """An `ImageGenerator` over a saved diffusers pipeline; a family says what its pipeline does
    differently.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: ModelSettings,
        device: torch.device,
        dtype: torch.dtype,
        threads: int | None = None,
        mode: str = "fast",
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self.name = settings.name
        self.device, self.dtype, self.mode = device, dtype, mode
        self._threads = threads
        self._pin_threads()
        with quietly():
            self.pipe = diffusers.DiffusionPipeline.from_pretrained(
                folder, dtype=dtype, local_files_only=True
            )
        self.pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.transformer = self.pipe.transformer.eval()
        self.model = open_model(self.transformer, mode)
        self.layout = self.model.layout
        check_scheduler(self.pipe.scheduler)
        self.rows = settings.rows
        self.guidance_scale = settings.guidance_scale
        side = self._side()
        self.height, self.width = settings.height or side, settings.width or side
        self.timesteps = self._grid()
        self._fingerprint: dict[str, Any] | None = None
        self._plans: dict[str, Plan] = {}  # by schedule key, the latest last

    @abstractmethod
    def _side(self) -> int:
        """Pixels of a side, where the settings name no size."""

    @abstractmethod
    def _grid(self) -> tuple[float, ...]:
        """The sampler's own times for `rows` rows, as a schedule names them."""

    @property
    @abstractmethod
    def dimensions(self) -> Any:
        """The numbers its costs follow from."""

    @abstractmethod
    def _encode(self, prompts: list[str]) -> Any:
        """The embeddings of checked prompts."""

    @abstractmethod
    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial noise of images with these seeds, as the sampler's latents."""

    @abstractmethod
    def _sampling(
        self, embeddings: Any, schedule: Schedule, scheduler: Any, latents: torch.Tensor
    ) -> tuple[torch.Tensor, Inputs, Noise]:
        """Put `scheduler` on the schedule's times: (timesteps [R], inputs of a row, noise of a row)."""

    @abstractmethod
    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Final latents -> what the autoencoder decodes, [B, c, h, w]."""

    @property
    def threads(self) -> int:
        """CPU threads that its passes use."""
        return self._threads or torch.get_num_threads()

    def _pin_threads(self) -> None:
        # torch's setting belongs to the calling thread: whoever runs a pass sets it for itself.
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)

    def fingerprint(self) -> dict[str, Any]:
        """What decides an image's bits apart from prompt, seed and batch size; fit for JSON.

        The digest is SHA-256 over the weight files and the sampler's settings, in the order of their names.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            files = [*self.folder.rglob("*.safetensors"), *self.folder.glob("scheduler/*.json")]
            for file in sorted(files, key=lambda one: one.relative_to(self.folder).as_posix()):
                digest.update(file.relative_to(self.folder).as_posix().encode())
                with file.open("rb") as stream:
                    for chunk in iter(lambda s=stream: s.read(1 << 20), b""):
                        digest.update(chunk)
            self._fingerprint = {"model": self.name, "weights": digest.hexdigest()}
        return {
            **self._fingerprint,
            "layout": self.layout.name,
            "size": [self.height, self.width],
            "guidance_scale": self.guidance_scale,
            "mode": self.mode,
            "device": self.device.type
            if self.device.type == "cpu"
            else torch.cuda.get_device_name(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "threads": self.threads,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        }

    def cost_table(self, convention: str = "full") -> CostTable:
        """The MACs of this very model at its size."""
        return cost_table(self.dimensions, convention=convention)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Any:
        """Encode prompts one by one, so that an embedding depends on no neighbour; equal prompts once.

        Raises ExecutionError for an empty prompt or one beyond `PROMPT_LIMIT` characters.
        """
        if not prompts:
            raise ExecutionError("there is no prompt to encode")
        for prompt in prompts:
            check_prompt(prompt)
        self._pin_threads()
        return self._encode(list(prompts))

    def _draw(self, seeds: Sequence[int], shape: tuple[int, ...]) -> torch.Tensor:
        """Noise [B, *shape]: each image's drawn alone, on the CPU, in float32, then cast and moved."""
        drawn = []
        for seed in seeds:
            try:
                rng = torch.Generator().manual_seed(int(seed))
            except (TypeError, ValueError, RuntimeError) as error:
                raise ExecutionError(f"the seed is a whole number below 2**64, not {seed!r}") from error
            drawn.append(torch.randn((1, *shape), generator=rng))
        return torch.cat(drawn).to(device=self.device, dtype=self.dtype)

    def denoise(
        self,
        embeddings: Any,
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> torch.Tensor:
        """One pass: final latents of encoded prompts and as many seeds.

        Raises ExecutionError for a schedule of another layout or whose times this sampler cannot take.
        """
        return self.denoise_timed(embeddings, seeds, schedule, on_row=on_row)[0]

    @torch.no_grad()
    def denoise_timed(
        self,
        embeddings: Any,
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> tuple[torch.Tensor, float]:
        """`denoise`, and the seconds of its loop without the time that `on_row` took."""
        if len(embeddings) != len(seeds):
            raise ExecutionError(
                f"there are {len(embeddings)} prompts but {len(seeds)} seeds; give one seed for each"
            )
        if schedule is None:
            schedule = heuristics.uncached(self.layout, self.rows)
        check_schedule(schedule, self.layout)
        self._pin_threads()
        latents = self.noise(seeds)
        scheduler = copy.deepcopy(self.pipe.scheduler)
        timesteps, inputs_of, noise_of = self._sampling(embeddings, schedule, scheduler, latents)
        scheduler.set_begin_index(0)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        plan = self._plan(schedule)

        self._synchronise()
        started, elsewhere = time.perf_counter(), 0.0
        one_pass = Pass(plan, self.model.components(plan, timesteps))
        for row, t in enumerate(timesteps):
            if on_row is not None:
                self._synchronise()
                paused = time.perf_counter()
                on_row(row, plan.rows)
                self._pin_threads()
                elsewhere += time.perf_counter() - paused
            inputs = inputs_of(latents, t)
            with out_of_memory_explained(LOWER):
                noise = noise_of(self.model.run(one_pass, row, inputs))
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        self._synchronise()
        return latents, time.perf_counter() - started - elsewhere

    def _plan(self, schedule: Schedule) -> Plan:
        """The plan of a schedule; an evaluation runs the same schedule on many batches, so the last few are kept."""
        plan = self._plans.pop(schedule.key, None) or self.model.lower(schedule)
        self._plans[schedule.key] = plan
        while len(self._plans) > KEPT_PLANS:
            del self._plans[next(iter(self._plans))]
        return plan

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents -> uint8 [B, H, W, 3], as the stock pipeline makes its pictures."""
        self._pin_threads()
        with out_of_memory_explained(LOWER):
            images = self.pipe.vae.decode(self._unscaled(latents), return_dict=False)[0]
        images = self.pipe.image_processor.postprocess(images, output_type="np")
        return (images * 255).round().astype(np.uint8)

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> np.ndarray:
        """Images of prompts and seeds, uint8 [B, H, W, 3]."""
        return self.generate_timed(prompts, seeds, schedule, on_row=on_row)[0]

    def generate_timed(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> tuple[np.ndarray, float]:
        """`generate`, and the seconds of the denoising loop alone, `on_row`'s own time left out."""
        latents, seconds = self.denoise_timed(self.encode(prompts), seeds, schedule, on_row=on_row)
        return self.decode(latents), seconds

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
from ecad.execution.cache_size import value_bytes
from ecad.execution.families import check_schedule, open_model
from ecad.execution.memory import out_of_memory_explained
from ecad.execution.times import check_scheduler
from ecad.models.protocol import OnRow, check_prompt
from ecad.models.settings import ModelSettings
from ecad.models.text_encoders import TextEncoders, left_out
from ecad.schedule import Schedule, heuristics
from ecad.schedule.costs import CostTable, cost_table

KEPT_PLANS = 16
KEPT_PROMPTS = 32  # an encoded prompt takes 4 MB in FLUX, 1 MB in PixArt
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
        compile: bool | str = False,
        transformer_folder: Path | None = None,
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self._transformer_folder = transformer_folder  # where it is not the pipeline's own
        self.name = settings.name
        self.device, self.dtype, self.mode = device, dtype, mode
        self._threads = threads
        self._pin_threads()
        with quietly():
            self.pipe = self._load()
        with out_of_memory_explained(
            'load the model in half precision (dtype "float16" or "bfloat16") and with text_encoder="offload"'
        ):
            self.text_encoders = TextEncoders(self.pipe, device, settings.text_encoder)
            self.pipe.transformer.to(device)
            self.pipe.vae.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.transformer = self.pipe.transformer.eval()
        self.model = open_model(self.transformer, mode, compile)
        self.compile = compile
        self.layout = self.model.layout
        check_scheduler(self.pipe.scheduler)
        self.rows = settings.rows
        self.guidance_scale = settings.guidance_scale
        side = self._side()
        self.height, self.width = settings.height or side, settings.width or side
        self._check_size()
        self.timesteps = self._grid()
        self._fingerprint: dict[str, Any] | None = None
        self._plans: dict[str, Plan] = {}  # by schedule key, the latest last
        self._encoded: dict[str, tuple[torch.Tensor, ...]] = {}  # by prompt, the latest last

    def _load(self) -> Any:
        """The saved pipeline, on the CPU."""
        given: dict[str, Any] = {}
        if self.settings.text_encoder == "none":
            given |= left_out(self.folder)
        if self._transformer_folder is not None:
            given["transformer"] = self._transformer_class.from_pretrained(
                self._transformer_folder, subfolder="transformer", dtype=self.dtype, local_files_only=True
            )
        return diffusers.DiffusionPipeline.from_pretrained(
            self.folder, dtype=self.dtype, local_files_only=True, **given
        )

    takes_guidance: bool  # whether its guidance scale changes anything
    _transformer_class: Any  # of the family, for a transformer that lies apart from its pipeline
    _always_encoded: tuple[str, ...] = ()  # prompts that every image needs beside its own

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

    @property
    @abstractmethod
    def token_side(self) -> int:
        """Pixels of an image token's side: height and width are multiples of it."""

    @abstractmethod
    def _encode_one(self, prompt: str) -> tuple[torch.Tensor, ...]:
        """What the text encoders make of a checked prompt, each tensor [1, ...]."""

    @abstractmethod
    def _joined(self, encoded: list[tuple[torch.Tensor, ...]], always: list[tuple[torch.Tensor, ...]]) -> Any:
        """The embeddings of encoded prompts, in this order; `always` are those of `_always_encoded`."""

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

    def _check_size(self) -> None:
        side = self.token_side
        for name, given in (("height", self.height), ("width", self.width)):
            if given < side or given % side:
                nearest = max(side, round(given / side) * side)
                raise ExecutionError(
                    f"the {name} must be a multiple of {side} pixels for {self.name}, not {given}; the nearest is"
                    f" {nearest}"
                )

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
            named = {file.relative_to(self.folder).as_posix(): file for file in files}
            if self._transformer_folder is not None:
                named = {name: file for name, file in named.items() if not name.startswith("transformer/")}
                for file in self._transformer_folder.glob("transformer/*.safetensors"):
                    named[f"transformer/{file.name}"] = file
            for name, file in sorted(named.items()):
                digest.update(name.encode())
                with file.open("rb") as stream:
                    for chunk in iter(lambda s=stream: s.read(1 << 20), b""):
                        digest.update(chunk)
            self._fingerprint = {"model": self.name, "weights": digest.hexdigest()}
        return {
            **self._fingerprint,
            "layout": self.layout.name,
            "size": [self.height, self.width],
            "guidance_scale": self.guidance_scale,
            "mode": f"{self.mode}, compiled" if self.compile else self.mode,
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

    def cache_bytes(self, schedule: Schedule) -> int:
        """Peak bytes that one image's pass keeps for later rows under a schedule."""
        check_schedule(schedule, self.layout)
        return self._plan(schedule).peak_cache(value_bytes(self.dimensions, self.dtype.itemsize))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Any:
        """Encode prompts one by one, so that an embedding depends on no neighbour; equal prompts once.

        What was encoded last is remembered, and no text encoder is needed for it again.

        Raises ExecutionError for an empty prompt or one beyond `PROMPT_LIMIT` characters.
        """
        if not prompts:
            raise ExecutionError("there is no prompt to encode")
        for prompt in prompts:
            check_prompt(prompt)
        self._pin_threads()
        needed = dict.fromkeys([*self._always_encoded, *prompts])
        missing = [prompt for prompt in needed if prompt not in self._encoded]
        encoded = {prompt: self._encoded.pop(prompt) for prompt in needed if prompt in self._encoded}
        if missing:
            with (
                out_of_memory_explained(
                    'load the model in half precision (dtype "float16" or "bfloat16"), or encode the prompts on'
                    " another machine and pass their embeddings"
                ),
                self.text_encoders.at_hand(),
            ):
                encoded |= {prompt: self._encode_one(prompt) for prompt in missing}
        embeddings = self._joined(
            *([encoded[one] for one in asked] for asked in (prompts, self._always_encoded))
        )
        self._encoded |= encoded
        for prompt in list(self._encoded)[: -KEPT_PROMPTS or None]:
            if prompt not in self._always_encoded:
                del self._encoded[prompt]
        return embeddings

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
        with out_of_memory_explained(self._to_lower()):
            one_pass = Pass(plan, self.model.components(plan, timesteps))
        for row, t in enumerate(timesteps):
            if on_row is not None:
                self._synchronise()
                paused = time.perf_counter()
                on_row(row, plan.rows)
                self._pin_threads()
                elsewhere += time.perf_counter() - paused
            with out_of_memory_explained(self._to_lower()):
                noise = noise_of(self.model.run(one_pass, row, inputs_of(latents, t)))
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

    def _to_lower(self) -> str:
        """Which settings to lower where memory is short."""
        half = ', or use half precision (dtype "bfloat16")' if self.dtype == torch.float32 else ""
        return (
            "lower the number of images at once (--batch-size) or their size (--height, --width), now"
            f" {self.width} x {self.height}{half}"
        )

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents -> uint8 [B, H, W, 3], as the stock pipeline makes its pictures."""
        self._pin_threads()
        with out_of_memory_explained(self._to_lower()):
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

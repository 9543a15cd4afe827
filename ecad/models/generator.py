"""The PixArt image generator: prompts to images with a denoising loop of its own.

It does what the stock pipeline's call does, apart from one deliberate difference: the initial noise of an
image depends on its seed and size only (DESIGN C4), whatever batch it is in.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from ecad.execution import ExecutionError, Pass
from ecad.execution.families import check_schedule
from ecad.execution.times import check_scheduler, own_grid, set_times
from ecad.models.pixart import PixArtModel
from ecad.models.protocol import OnRow, check_prompt
from ecad.models.settings import ModelSettings
from ecad.schedule import Schedule, heuristics
from ecad.schedule.costs import CostTable, cost_table
from ecad.schedule.layouts import PixArtDimensions


@dataclass(frozen=True)
class PixArtEmbeddings:
    """Encoded prompts [n, T, channels] with their masks [n, T], and the empty prompt's [1, T, ...] for
    guidance.
    """

    text: torch.Tensor
    mask: torch.Tensor
    empty_text: torch.Tensor
    empty_mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, part: slice) -> PixArtEmbeddings:
        return PixArtEmbeddings(self.text[part], self.mask[part], self.empty_text, self.empty_mask)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Load quietly: diffusers and transformers draw their bars on stderr, where errors belong."""
    noisy = [one for one in (diffusers_logging, transformers_logging) if one.is_progress_bar_enabled()]
    for one in noisy:
        one.disable_progress_bar()
    try:
        yield
    finally:
        for one in noisy:
            one.enable_progress_bar()


class PixArtGenerator:
    """An `ImageGenerator` over a saved PixArtAlphaPipeline or PixArtSigmaPipeline."""

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
        with no_progress_bars():
            self.pipe = diffusers.DiffusionPipeline.from_pretrained(
                folder, dtype=dtype, local_files_only=True
            )
        self.pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.transformer = self.pipe.transformer.eval()
        self.model = PixArtModel(self.transformer, mode)
        self.layout = self.model.layout
        check_scheduler(self.pipe.scheduler)
        self.rows = settings.rows
        self.guidance_scale = settings.guidance_scale
        side = self.transformer.config.sample_size * self.pipe.vae_scale_factor
        self.height, self.width = settings.height or side, settings.width or side
        self.timesteps = own_grid(self.pipe.scheduler, self.rows)
        self._fingerprint: dict[str, Any] | None = None
        self._empty: tuple[torch.Tensor, torch.Tensor] | None = None

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

    @property
    def dimensions(self) -> PixArtDimensions:
        """The numbers its costs follow from."""
        return PixArtDimensions.from_config(
            self.transformer.config,
            height=self.height,
            width=self.width,
            pixels_per_latent=self.pipe.vae_scale_factor,
            text_tokens=self.settings.text_tokens,
            halves=2 if self.guidance_scale > 1 else 1,
        )

    def cost_table(self, convention: str = "full") -> CostTable:
        """The MACs of this very model at its size."""
        return cost_table(self.dimensions, convention=convention)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> PixArtEmbeddings:
        """Encode prompts one by one, so that an embedding depends on no neighbour; equal prompts once.

        Raises ExecutionError for an empty prompt or one beyond `PROMPT_LIMIT` characters.
        """
        if not prompts:
            raise ExecutionError("there is no prompt to encode")
        for prompt in prompts:
            check_prompt(prompt)
        self._pin_threads()
        encoded = {prompt: self._encode_one(prompt) for prompt in dict.fromkeys(prompts)}
        if self._empty is None:
            self._empty = self._encode_one("")
        texts, masks = zip(*(encoded[prompt] for prompt in prompts), strict=True)
        return PixArtEmbeddings(torch.cat(texts), torch.cat(masks), *self._empty)

    def _encode_one(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        text, mask, _, _ = self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=self.settings.clean_caption and bool(prompt),
            max_sequence_length=self.settings.text_tokens,
        )
        return text, mask

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial noise [B, c, h, w] of images with these seeds: each drawn alone, on the CPU, in float32."""
        scale = self.pipe.vae_scale_factor
        shape = (1, self.transformer.config.in_channels, self.height // scale, self.width // scale)
        drawn = []
        for seed in seeds:
            try:
                rng = torch.Generator().manual_seed(int(seed))
            except (TypeError, ValueError, RuntimeError) as error:
                raise ExecutionError(f"the seed is a whole number below 2**64, not {seed!r}") from error
            drawn.append(torch.randn(shape, generator=rng))
        return torch.cat(drawn).to(device=self.device, dtype=self.dtype)

    def denoise(
        self,
        embeddings: PixArtEmbeddings,
        seeds: Sequence[int],
        schedule: Schedule | None = None,
        *,
        on_row: OnRow | None = None,
    ) -> torch.Tensor:
        """One pass: final latents [B, c, h, w] of encoded prompts and as many seeds.

        Raises ExecutionError for a schedule of another layout or whose times this sampler cannot take.
        """
        return self.denoise_timed(embeddings, seeds, schedule, on_row=on_row)[0]

    @torch.no_grad()
    def denoise_timed(
        self,
        embeddings: PixArtEmbeddings,
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
        scheduler = copy.deepcopy(self.pipe.scheduler)
        timesteps = set_times(scheduler, schedule, self.device)
        scheduler.set_begin_index(0)
        latents = self.noise(seeds) * scheduler.init_noise_sigma

        guided = self.guidance_scale > 1
        batch = len(seeds)
        text, mask = embeddings.text, embeddings.mask
        if guided:  # [negatives, positives], as the stock pipeline batches them
            text = torch.cat([embeddings.empty_text.expand(batch, -1, -1), text])
            mask = torch.cat([embeddings.empty_mask.expand(batch, -1), mask])
        conditions = self._size_conditions(len(text))

        self._synchronise()
        started, elsewhere = time.perf_counter(), 0.0
        one_pass = Pass(plan := self.model.lower(schedule), self.model.components(plan, timesteps))
        for row, t in enumerate(timesteps):
            if on_row is not None:
                self._synchronise()
                paused = time.perf_counter()
                on_row(row, plan.rows)
                self._pin_threads()
                elsewhere += time.perf_counter() - paused
            inputs = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, t)
            noise = one_pass(
                row,
                hidden_states=inputs,
                encoder_hidden_states=text,
                timestep=t[None].expand(len(inputs)),
                added_cond_kwargs=conditions,
                encoder_attention_mask=mask,
            )
            if guided:
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + self.guidance_scale * (conditional - unconditional)
            if noise.shape[1] // 2 == latents.shape[1]:  # the learned variance is not used
                noise = noise.chunk(2, dim=1)[0]
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        self._synchronise()
        return latents, time.perf_counter() - started - elsewhere

    def _size_conditions(self, batch: int) -> dict[str, torch.Tensor | None]:
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        resolution = torch.tensor([self.height, self.width]).repeat(batch, 1)
        ratio = torch.tensor([float(self.height / self.width)]).repeat(batch, 1)
        return {
            "resolution": resolution.to(dtype=self.dtype, device=self.device),
            "aspect_ratio": ratio.to(dtype=self.dtype, device=self.device),
        }

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents -> uint8 [B, H, W, 3], as the stock pipeline makes its pictures."""
        self._pin_threads()
        vae = self.pipe.vae
        images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
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

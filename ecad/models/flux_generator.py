"""The FLUX image generator: what FluxPipeline does in a call, without a negative prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from ecad.models.base import BaseGenerator, Inputs, Noise
from ecad.models.flux import set_sigmas
from ecad.schedule import Schedule
from ecad.schedule.layouts import FluxDimensions
from ecad.schedule.times import flow_sigmas


@dataclass(frozen=True)
class FluxEmbeddings:
    """Encoded prompts: T5's tokens [n, T, channels] and CLIP's pooled vectors [n, channels]."""

    text: torch.Tensor
    pooled: torch.Tensor

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, part: slice | list[int]) -> FluxEmbeddings:
        return FluxEmbeddings(self.text[part], self.pooled[part])


class FluxGenerator(BaseGenerator):
    """An `ImageGenerator` over a saved FluxPipeline. `timesteps` are unshifted sigmas, as its schedules
    name them.
    """

    _transformer_class = FluxTransformer2DModel

    @property
    def takes_guidance(self) -> bool:
        """Whether its guidance scale is an input of the model."""
        return bool(self.transformer.config.guidance_embeds)

    def _side(self) -> int:
        return self.pipe.default_sample_size * self.pipe.vae_scale_factor

    def _grid(self) -> tuple[float, ...]:
        return flow_sigmas(self.rows)

    @property
    def dimensions(self) -> FluxDimensions:
        """The numbers its costs follow from."""
        return FluxDimensions.from_config(
            self.transformer.config,
            height=self.height,
            width=self.width,
            pixels_per_token=self.token_side,
            text_tokens=self.settings.text_tokens,
        )

    @property
    def token_side(self) -> int:
        """Pixels of an image token's side: height and width are multiples of it."""
        return 2 * self.pipe.vae_scale_factor

    def _encode_one(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        text, pooled, _ = self.pipe.encode_prompt(
            prompt, prompt_2=None, device=self.device, max_sequence_length=self.settings.text_tokens
        )
        return text, pooled

    def _joined(
        self, encoded: list[tuple[torch.Tensor, ...]], always: list[tuple[torch.Tensor, ...]]
    ) -> FluxEmbeddings:
        texts, pooled = zip(*encoded, strict=True)
        return FluxEmbeddings(torch.cat(texts), torch.cat(pooled))

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial noise [B, tokens, channels] of images with these seeds, two by two latents packed to a
        token.
        """
        channels = self.transformer.config.in_channels // 4
        height, width = self._latent_size()
        drawn = self._draw(seeds, (channels, height, width))
        return self.pipe._pack_latents(drawn, len(drawn), channels, height, width)

    def _latent_size(self) -> tuple[int, int]:
        return 2 * (self.height // self.token_side), 2 * (self.width // self.token_side)

    def _sampling(
        self, embeddings: FluxEmbeddings, schedule: Schedule, scheduler: Any, latents: torch.Tensor
    ) -> tuple[torch.Tensor, Inputs, Noise]:
        height, width = self._latent_size()
        batch = len(latents)
        image_ids = self.pipe._prepare_latent_image_ids(
            batch, height // 2, width // 2, self.device, latents.dtype
        )
        text_ids = torch.zeros(embeddings.text.shape[1], 3).to(
            device=self.device, dtype=embeddings.text.dtype
        )
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full([1], self.guidance_scale, device=self.device, dtype=torch.float32).expand(
                batch
            )

        def inputs_of(latents: torch.Tensor, t: torch.Tensor) -> dict[str, Any]:
            return {
                "hidden_states": latents,
                "timestep": t.expand(batch).to(latents.dtype) / 1000,
                "guidance": guidance,
                "pooled_projections": embeddings.pooled,
                "encoder_hidden_states": embeddings.text,
                "txt_ids": text_ids,
                "img_ids": image_ids,
            }

        return (
            set_sigmas(scheduler, schedule, latents.shape[1], self.device),
            inputs_of,
            lambda output: output,
        )

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.pipe.vae.config
        latents = self.pipe._unpack_latents(latents, self.height, self.width, self.pipe.vae_scale_factor)
        return latents / config.scaling_factor + config.shift_factor

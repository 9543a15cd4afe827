"""The PixArt image generator: what PixArtAlphaPipeline and PixArtSigmaPipeline do in a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel

from ecad.execution.times import own_grid, set_times
from ecad.models.base import BaseGenerator, Inputs, Noise
from ecad.schedule import Schedule
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

    def __getitem__(self, part: slice | list[int]) -> PixArtEmbeddings:
        return PixArtEmbeddings(self.text[part], self.mask[part], self.empty_text, self.empty_mask)


class PixArtGenerator(BaseGenerator):
    """An `ImageGenerator` over a saved PixArtAlphaPipeline or PixArtSigmaPipeline."""

    _transformer_class = PixArtTransformer2DModel
    _always_encoded = ("",)  # guidance steers away from the empty prompt

    takes_guidance = True

    def _side(self) -> int:
        return self.transformer.config.sample_size * self.pipe.vae_scale_factor

    def _grid(self) -> tuple[int, ...]:
        return own_grid(self.pipe.scheduler, self.rows)

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

    @property
    def token_side(self) -> int:
        """Pixels of an image token's side: height and width are multiples of it."""
        return self.pipe.vae_scale_factor * self.transformer.config.patch_size

    def _encode_one(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        text, mask, _, _ = self.pipe.encode_prompt(
            prompt,
            do_classifier_free_guidance=False,
            device=self.device,
            clean_caption=self.settings.clean_caption and bool(prompt),
            max_sequence_length=self.settings.text_tokens,
        )
        return text, mask

    def _joined(
        self, encoded: list[tuple[torch.Tensor, ...]], always: list[tuple[torch.Tensor, ...]]
    ) -> PixArtEmbeddings:
        texts, masks = zip(*encoded, strict=True)
        return PixArtEmbeddings(torch.cat(texts), torch.cat(masks), *always[0])

    def noise(self, seeds: Sequence[int]) -> torch.Tensor:
        """Initial noise [B, c, h, w] of images with these seeds."""
        scale = self.pipe.vae_scale_factor
        shape = (self.transformer.config.in_channels, self.height // scale, self.width // scale)
        return self._draw(seeds, shape)

    def _sampling(
        self, embeddings: PixArtEmbeddings, schedule: Schedule, scheduler: Any, latents: torch.Tensor
    ) -> tuple[torch.Tensor, Inputs, Noise]:
        guided = self.guidance_scale > 1
        batch = len(latents)
        text, mask = embeddings.text, embeddings.mask
        if guided:  # [negatives, positives], as the stock pipeline batches them
            text = torch.cat([embeddings.empty_text.expand(batch, -1, -1), text])
            mask = torch.cat([embeddings.empty_mask.expand(batch, -1), mask])
        conditions = self._size_conditions(len(text))

        def inputs_of(latents: torch.Tensor, t: torch.Tensor) -> dict[str, Any]:
            given = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, t)
            return {
                "hidden_states": given,
                "encoder_hidden_states": text,
                "timestep": t[None].expand(len(given)),
                "added_cond_kwargs": conditions,
                "encoder_attention_mask": mask,
            }

        def noise_of(output: torch.Tensor) -> torch.Tensor:
            if guided:
                unconditional, conditional = output.chunk(2)
                output = unconditional + self.guidance_scale * (conditional - unconditional)
            if output.shape[1] // 2 == latents.shape[1]:  # the learned variance is not used
                output = output.chunk(2, dim=1)[0]
            return output

        return set_times(scheduler, schedule, self.device), inputs_of, noise_of

    def _size_conditions(self, batch: int) -> dict[str, torch.Tensor | None]:
        if not self.transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        resolution = torch.tensor([self.height, self.width]).repeat(batch, 1)
        ratio = torch.tensor([float(self.height / self.width)]).repeat(batch, 1)
        return {
            "resolution": resolution.to(dtype=self.dtype, device=self.device),
            "aspect_ratio": ratio.to(dtype=self.dtype, device=self.device),
        }

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.pipe.vae.config.scaling_factor

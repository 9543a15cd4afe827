"""PixArt's components, module by module: bit for bit what diffusers computes, but skipping what the plan
skips.

The arithmetic follows `PixArtTransformer2DModel.forward` and `BasicTransformerBlock.forward` of diffusers
0.42.1 (`norm_type="ada_norm_single"`): the same modules called in the same order on the same tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import _chunked_feed_forward

from ecad.execution import ExecutionError
from ecad.execution.plan import Compute

NAMES = ("attn1", "attn2", "ff")
# Rows of a block's modulation: shift, scale and gate of self-attention, then of the feed-forward.
SHIFT_MSA, SCALE_MSA, GATE_MSA, SHIFT_MLP, SCALE_MLP, GATE_MLP = range(6)


def mask_bias(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A mask [B, T] (1 keep, 0 discard) as the bias [B, 1, T] that diffusers adds to the scores; a bias
    stays one.
    """
    if mask is not None and mask.ndim == 2:
        return ((1 - mask.to(dtype)) * -10000.0).unsqueeze(1)
    return mask


class PixArtReference:
    """The `Components` of one pass of a `PixArtTransformer2DModel`, by its own modules.

    Streams: `hidden` [B, N, D]; B holds both guidance halves where guidance is used.
    """

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.transformer = transformer

    def begin(
        self,
        row: int,
        *,
        hidden_states: torch.Tensor,  # [B, c, h, w]
        encoder_hidden_states: torch.Tensor | None = None,  # [B, T, channels]
        timestep: torch.Tensor | None = None,  # [B]
        added_cond_kwargs: dict[str, Any] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> None:
        model = self.transformer
        if model.use_additional_conditions and added_cond_kwargs is None:
            raise ExecutionError(
                "this PixArt model was trained with size conditions and needs `added_cond_kwargs`"
            )
        dtype = hidden_states.dtype
        self.attention_mask = mask_bias(attention_mask, dtype)
        self.text_mask = mask_bias(encoder_attention_mask, dtype)
        self.attention_kwargs = cross_attention_kwargs or {}
        self.batch = hidden_states.shape[0]
        patch = model.config.patch_size
        self.grid = hidden_states.shape[-2] // patch, hidden_states.shape[-1] // patch
        self.hidden = model.pos_embed(hidden_states)  # [B, N, D]
        self.modulation, self.embedded_time = model.adaln_single(
            timestep, added_cond_kwargs, batch_size=self.batch, hidden_dtype=self.hidden.dtype
        )  # [B, 6 D], [B, D]
        if model.caption_projection is not None:
            text = model.caption_projection(encoder_hidden_states)
            encoder_hidden_states = text.view(self.batch, -1, self.hidden.shape[-1])
        self.text = encoder_hidden_states  # [B, T, D]
        self.block_index = -1

    def _block(self, index: int) -> tuple[torch.nn.Module, str]:
        number, kind = divmod(index, len(NAMES))
        block = self.transformer.transformer_blocks[number]
        if number != self.block_index:
            self.block_index = number
            table = block.scale_shift_table[None] + self.modulation.reshape(self.batch, 6, -1)
            self.table = table.chunk(6, dim=1)  # six of [B, 1, D]
        return block, NAMES[kind]

    def compute(self, step: Compute, values: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        block, name = self._block(step.index)
        if name == "attn1":
            normed = block.norm1(self.hidden)
            normed = normed * (1 + self.table[SCALE_MSA]) + self.table[SHIFT_MSA]
            value = block.attn1(
                normed,
                encoder_hidden_states=None,
                attention_mask=self.attention_mask,
                **self.attention_kwargs,
            )
        elif name == "attn2":  # PixArt has no norm before its cross-attention
            value = block.attn2(
                self.hidden,
                encoder_hidden_states=self.text,
                attention_mask=self.text_mask,
                **self.attention_kwargs,
            )
        else:
            normed = block.norm2(self.hidden)
            normed = normed * (1 + self.table[SCALE_MLP]) + self.table[SHIFT_MLP]
            if block._chunk_size is not None:
                value = _chunked_feed_forward(block.ff, normed, block._chunk_dim, block._chunk_size)
            else:
                value = block.ff(normed)
        self._add(name, value)
        return {step.index: value}

    def _add(self, name: str, value: torch.Tensor) -> None:
        if name == "attn1":
            value = self.table[GATE_MSA] * value
        elif name == "ff":
            value = self.table[GATE_MLP] * value
        self.hidden = value + self.hidden

    def combine(self, values: list[tuple[int, torch.Tensor]], segments: list) -> None:
        for index, value in values:
            _, name = self._block(index)
            self._add(name, value)

    def open_segment(self, segment: Any) -> None:
        raise AssertionError("the reference mode keeps values, never sums")

    close_segment = open_segment

    def finish(self) -> torch.Tensor:
        """The model's output [B, out_channels, h, w]."""
        model = self.transformer
        table = model.scale_shift_table[None] + self.embedded_time[:, None].to(model.scale_shift_table.device)
        shift, scale = table.chunk(2, dim=1)  # [B, 1, D] each
        hidden = model.norm_out(self.hidden)
        hidden = hidden * (1 + scale.to(hidden.device)) + shift.to(hidden.device)
        hidden = model.proj_out(hidden).squeeze(1)
        del self.hidden
        return unpatchify(hidden, self.grid, model.config.patch_size, model.out_channels)


def unpatchify(tokens: torch.Tensor, grid: tuple[int, int], patch: int, channels: int) -> torch.Tensor:
    """[B, N, patch * patch * channels] -> [B, channels, rows * patch, columns * patch], grid = (rows,
    columns).
    """
    rows, columns = grid
    tokens = tokens.reshape(-1, rows, columns, patch, patch, channels)
    tokens = torch.einsum("nhwpqc->nchpwq", tokens)
    return tokens.reshape(-1, channels, rows * patch, columns * patch)

"""FLUX's components, module by module: bit for bit what diffusers computes, but skipping what the plan skips.

The arithmetic follows `FluxTransformer2DModel.forward` and its two kinds of blocks in diffusers 0.42.1: the
same modules called in the same order on the same tensors. The text tokens lie before the image tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from ecad.execution import ExecutionError
from ecad.execution.plan import Compute
from ecad.schedule import Layout

HALF_LIMIT = 65504  # diffusers clips float16 streams to the largest finite number


def check_inputs(
    transformer: torch.nn.Module,
    joint_attention_kwargs: dict[str, Any] | None,
    controlnet_block_samples: Any,
    controlnet_single_block_samples: Any,
) -> dict[str, Any]:
    """The attention's keyword arguments; ExecutionError for additions to FLUX that a schedule does not
    cover.
    """
    if controlnet_block_samples is not None or controlnet_single_block_samples is not None:
        raise ExecutionError("a schedule does not run together with a ControlNet on FLUX")
    given = dict(joint_attention_kwargs or {})
    given.pop("scale", None)  # of a LoRA; applied around the whole call
    if given:
        raise ExecutionError(
            f"a schedule does not run with joint_attention_kwargs {', '.join(sorted(given))} on FLUX"
        )
    return given


def ids_2d(ids: torch.Tensor) -> torch.Tensor:
    """Position ids [tokens, 3]; diffusers still takes them with a batch axis."""
    return ids[0] if ids.ndim == 3 else ids


class FluxReference:
    """The `Components` of one pass of one kind of call of a `FluxTransformer2DModel`, by its own modules.

    Streams: `image` [B, N, D] and `text` [B, T, D] in the two-stream blocks, then `joint` [B, T + N, D]. A
    component's two values are the image tokens' and the text tokens' part of what it yields.
    """

    def __init__(self, transformer: torch.nn.Module, layout: Layout) -> None:
        self.transformer = transformer
        self.layout = layout
        self.first_single = 3 * len(transformer.transformer_blocks)

    def begin(
        self,
        row: int,
        *,
        hidden_states: torch.Tensor,  # [B, N, channels]
        encoder_hidden_states: torch.Tensor,  # [B, T, channels]
        pooled_projections: torch.Tensor,  # [B, channels]
        timestep: torch.Tensor,  # [B], 0 ... 1
        img_ids: torch.Tensor,
        txt_ids: torch.Tensor,
        guidance: torch.Tensor | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        controlnet_block_samples: Any = None,
        controlnet_single_block_samples: Any = None,
        controlnet_blocks_repeat: bool = False,
    ) -> None:
        model = self.transformer
        check_inputs(model, joint_attention_kwargs, controlnet_block_samples, controlnet_single_block_samples)
        self.image = model.x_embedder(hidden_states)
        time = timestep.to(self.image.dtype) * 1000
        if guidance is None:
            self.time = model.time_text_embed(time, pooled_projections)  # [B, D]
        else:
            guidance = guidance.to(self.image.dtype) * 1000
            self.time = model.time_text_embed(time, guidance, pooled_projections)
        self.text = model.context_embedder(encoder_hidden_states)
        self.joint: torch.Tensor | None = None
        self.tokens = self.text.shape[1]
        self.rotary = model.pos_embed(torch.cat((ids_2d(txt_ids), ids_2d(img_ids)), dim=0))
        self.block_index = -1

    def _block(self, index: int) -> torch.nn.Module:
        """The component's block, its modulation at hand; entering the single blocks joins the streams."""
        number = index // 3
        model = self.transformer
        full = len(model.transformer_blocks)
        if number < full:
            block = model.transformer_blocks[number]
        else:
            block = model.single_transformer_blocks[number - full]
            if self.joint is None:
                self.joint = torch.cat([self.text, self.image], dim=1)
        if number != self.block_index:
            self.block_index = number
            if number < full:
                norms = block.norm1, block.norm1_context
                self.image_table, self.text_table = (
                    norm.linear(norm.silu(self.time)).chunk(6, dim=1) for norm in norms
                )
            else:
                self.shift, self.scale, self.gate = block.norm.linear(block.norm.silu(self.time)).chunk(
                    3, dim=1
                )
                self.normed: torch.Tensor | None = None
        return block

    def compute(self, step: Compute, values: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        block = self._block(step.index)
        name = self.layout.components[step.index].name
        own = self.layout.values_of[step.index]
        if name == "full_attn":
            yielded = block.attn(
                hidden_states=_modulated(
                    block.norm1.norm, self.image, self.image_table[1], self.image_table[0]
                ),
                encoder_hidden_states=_modulated(
                    block.norm1_context.norm, self.text, self.text_table[1], self.text_table[0]
                ),
                image_rotary_emb=self.rotary,
            )
        elif name == "full_ff":
            yielded = (
                block.ff(_modulated(block.norm2, self.image, self.image_table[4], self.image_table[3])),
            )
        elif name == "full_ff_context":
            normed = _modulated(block.norm2_context, self.text, self.text_table[4], self.text_table[3])
            yielded = (block.ff_context(normed),)
        elif name == "single_proj_out":
            attention, mlp = (
                self._whole(values, self.layout.values_of[step.index - offset]) for offset in (2, 1)
            )
            joined = block.proj_out(torch.cat([attention, block.act_mlp(mlp)], dim=2))
            self._add_joint(joined)
            return self._halves(own, joined)
        else:
            if self.normed is None:
                self.normed = _modulated(block.norm.norm, self.joint, self.scale, self.shift)
            if name == "single_attn":
                joined = block.attn(hidden_states=self.normed, image_rotary_emb=self.rotary)
            else:
                joined = block.proj_mlp(self.normed)
            return self._halves(own, joined)
        result = dict(zip(own, yielded, strict=True))
        self.combine(list(result.items()), [])
        return result

    def _halves(self, own: tuple[int, ...], joined: torch.Tensor) -> dict[int, torch.Tensor]:
        """Image and text tokens' part, each with memory of its own, since they may be given up apart."""
        return {own[0]: joined[:, self.tokens :].clone(), own[1]: joined[:, : self.tokens].clone()}

    def _whole(self, values: dict[int, torch.Tensor], own: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([values[own[1]], values[own[0]]], dim=1)

    def _add_joint(self, joined: torch.Tensor) -> None:
        self.joint = self.joint + self.gate.unsqueeze(1) * joined
        if self.joint.dtype == torch.float16:
            self.joint = self.joint.clip(-HALF_LIMIT, HALF_LIMIT)

    def combine(self, values: list[tuple[int, torch.Tensor]], segments: list) -> None:
        halves: dict[int, dict[str, torch.Tensor]] = {}
        for v, value in values:
            about = self.layout.values[v]
            halves.setdefault(about.component, {})[about.adds_to] = value
        for index, parts in halves.items():
            self._block(index)
            if index >= self.first_single:
                self._add_joint(torch.cat([parts["text"], parts["image"]], dim=1))
                continue
            row = 2 if index % 3 == 0 else 5  # the attention's gate, or the feed-forward's
            if "image" in parts:
                self.image = self.image + self.image_table[row].unsqueeze(1) * parts["image"]
            if "text" in parts:
                self.text = self.text + self.text_table[row].unsqueeze(1) * parts["text"]
                if index % 3 == 2 and self.text.dtype == torch.float16:
                    self.text = self.text.clip(-HALF_LIMIT, HALF_LIMIT)

    def open_segment(self, segment: Any) -> None:
        raise AssertionError("FLUX's gates are each block's own: values are kept, never sums")

    close_segment = open_segment

    def finish(self) -> torch.Tensor:
        """The model's output [B, N, channels]."""
        model = self.transformer
        image = self.image if self.joint is None else self.joint[:, self.tokens :]
        del self.image, self.text, self.joint
        return model.proj_out(model.norm_out(image, self.time))


def _modulated(
    norm: torch.nn.Module, stream: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """norm(stream) * (1 + scale) + shift; stream [B, tokens, D], scale and shift [B, D]."""
    return norm(stream) * (1 + scale[:, None]) + shift[:, None]

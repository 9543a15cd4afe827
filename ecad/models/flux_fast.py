"""FLUX's components as few large operations: the fast mode.

The same mathematics as `flux_reference`, arranged for speed:

- the prompt's embedding into the model's width, and the rotary tables, once a pass;
- all blocks' modulations for many rows at once: one reading of their weights instead of one a row;
- query, key and value in one product with packed weights, for the image and for the text tokens;
- text and image tokens lie in one tensor from the start, so that no block joins or parts them;
- a half that nobody reads (the text tokens of the last attention, and everything that only leads to it) is
  neither computed nor kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from ecad.execution import ExecutionError
from ecad.execution.plan import Compute
from ecad.models.flux_kernels import Queries, Vectors, modulate
from ecad.models.flux_reference import HALF_LIMIT, check_inputs, ids_2d
from ecad.models.kernels import Kernels
from ecad.models.packing import Packer, Projection, function_of, norm_of
from ecad.schedule import Layout

# Modulations of a chunk of rows take this much memory at most, if a chunk of one row does not take more.
MODULATION_BYTES = 1 << 30
# Rows of a two-stream block's modulation.
SHIFT_MSA, SCALE_MSA, GATE_MSA, SHIFT_MLP, SCALE_MLP, GATE_MLP = range(6)


@dataclass(frozen=True)
class Stream:
    """The products of one stream (image or text) of a two-stream block."""

    queries: Queries
    out: Projection
    up: Projection
    down: Projection


@dataclass(frozen=True)
class Weights:
    """Products of all blocks: per two-stream block its image and its text stream; per single block three."""

    full: list[tuple[Stream, Stream]]
    single: list[tuple[Queries, Projection, Projection]]


def flux_weights(transformer: torch.nn.Module, pack: Packer) -> Weights:
    """The present weights; read anew for every pass, so that no change of them is missed.

    Raises ExecutionError for modules whose arithmetic the fast mode does not know.
    """
    full, single = [], []
    for i, block in enumerate(transformer.transformer_blocks):
        attention = _checked(block.attn, f"block {i}")
        for net in (block.ff.net, block.ff_context.net):
            if type(net[0]) is not GELU or net[0].approximate != "tanh":
                raise _unsupported(f"block {i}", f"its feed-forward is a {type(net[0]).__name__}")
        image = Stream(
            Queries(
                pack((i, "image"), [attention.to_q, attention.to_k, attention.to_v]),
                norm_of(attention.norm_q),
                norm_of(attention.norm_k),
            ),
            function_of(attention.to_out[0]),
            function_of(block.ff.net[0].proj),
            function_of(block.ff.net[2]),
        )
        text = Stream(
            Queries(
                pack((i, "text"), [attention.add_q_proj, attention.add_k_proj, attention.add_v_proj]),
                norm_of(attention.norm_added_q),
                norm_of(attention.norm_added_k),
            ),
            function_of(attention.to_add_out),
            function_of(block.ff_context.net[0].proj),
            function_of(block.ff_context.net[2]),
        )
        full.append((image, text))
    for i, block in enumerate(transformer.single_transformer_blocks):
        attention = _checked(block.attn, f"single block {i}")
        if getattr(block.act_mlp, "approximate", None) != "tanh":
            raise _unsupported(f"single block {i}", f"its activation is a {type(block.act_mlp).__name__}")
        joint = Queries(
            pack((i, "single"), [attention.to_q, attention.to_k, attention.to_v]),
            norm_of(attention.norm_q),
            norm_of(attention.norm_k),
        )
        single.append((joint, function_of(block.proj_mlp), function_of(block.proj_out)))
    return Weights(full, single)


def _checked(attention: torch.nn.Module, place: str) -> torch.nn.Module:
    processor = attention.processor
    if type(processor) is not FluxAttnProcessor or attention.fused_projections:
        raise _unsupported(place, f"its attention ({type(processor).__name__}) is not the published one")
    return attention


def _unsupported(place: str, what: str) -> ExecutionError:
    return ExecutionError(f'the fast mode cannot run this transformer: {place}: {what}; use mode="reference"')


class Addition(NamedTuple):
    """stream += gate * value. stream: "image", "text" or "joint"; clipped: in float16 to the finite numbers."""

    stream: str
    gate: torch.Tensor
    value: torch.Tensor
    clipped: bool


class FluxFast:
    """The `Components` of one pass of one kind of call in the fast mode.

    Stream: `joint` [B, T + N, D], text tokens first, changed in place; `text` and `image` are its parts.
    """

    def __init__(
        self,
        transformer: torch.nn.Module,
        layout: Layout,
        pack: Packer,
        timesteps: torch.Tensor,
        kernels: Kernels,
    ) -> None:
        self.transformer = transformer
        self.kernels = kernels
        self.heads = transformer.config.num_attention_heads
        self.layout = layout
        self.weights = flux_weights(transformer, pack)
        self.timesteps = timesteps  # [R], 0 ... 1000
        self.full = len(self.weights.full)
        self.tables_from = self.tables_to = 0  # rows whose modulations are at hand

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
        image = model.x_embedder(hidden_states)
        if row == 0:
            self.prompt = model.context_embedder(encoder_hidden_states)  # [B, T, D]
            self.tokens = self.prompt.shape[1]
            self.rotary = model.pos_embed(torch.cat((ids_2d(txt_ids), ids_2d(img_ids)), dim=0))
            batch, count, dim = image.shape
            self.joint = image.new_empty(batch, self.tokens + count, dim)
            self.text, self.image = self.joint[:, : self.tokens], self.joint[:, self.tokens :]
            self.half = image.dtype == torch.float16
        elif image.shape != self.image.shape:
            raise ExecutionError(f"the size or batch changed between rows {row - 1} and {row} of a pass")
        self.text.copy_(self.prompt)
        self.image.copy_(image)
        if row >= self.tables_to:
            self._modulate(row, timestep.dtype, guidance, pooled_projections)
        self.at = row - self.tables_from
        self.normed: tuple[int, torch.Tensor] | None = None

    def _modulate(
        self, row: int, dtype: torch.dtype, guidance: torch.Tensor | None, pooled: torch.Tensor
    ) -> None:
        """Modulations of the next rows: per block [rows, B, 6 or 3, D], with 1 + scale where a scale is
        meant.
        """
        model = self.transformer
        batch, _, dim = self.image.shape
        vectors = 12 * self.full + 3 * len(self.weights.single) + 2
        fits = MODULATION_BYTES // (vectors * batch * dim * self.joint.element_size())
        self.tables_from, self.tables_to = row, min(len(self.timesteps), row + max(1, fits))
        # The pipeline hands over time / 1000 in the latents' dtype, and the model multiplies it back in its
        # own: in half precision the two roundings are seen in the gates, so they are repeated here.
        times = self.timesteps[row : self.tables_to].to(self.joint.device, dtype) / 1000
        times = (times.to(self.joint.dtype) * 1000).repeat_interleave(batch)
        count = self.tables_to - row
        pooled = pooled.repeat(count, 1)
        if guidance is None:
            time = model.time_text_embed(times, pooled)  # [rows * B, D]
        else:
            guidance = (guidance.to(self.joint.dtype) * 1000).repeat(count)
            time = model.time_text_embed(times, guidance, pooled)
        time = F.silu(time)

        def table(linear: torch.nn.Module, number: int, scales: tuple[int, ...]) -> torch.Tensor:
            made = linear(time).view(count, batch, number, 1, dim)
            made[:, :, scales] += 1
            return made

        both = SCALE_MSA, SCALE_MLP
        self.full_tables = [
            (table(block.norm1.linear, 6, both), table(block.norm1_context.linear, 6, both))
            for block in model.transformer_blocks
        ]
        self.single_tables = [table(block.norm.linear, 3, (1,)) for block in model.single_transformer_blocks]
        self.final = table(model.norm_out.linear, 2, (0,))

    def _vector(self, table: torch.Tensor, which: int) -> torch.Tensor:
        """One modulation of this row, [B, 1, D]."""
        return table[self.at, :, which]

    def _vectors(self, table: torch.Tensor, scale: int, shift: int) -> Vectors:
        return self._vector(table, scale), self._vector(table, shift)

    def compute(self, step: Compute, values: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        number, kind = divmod(step.index, 3)
        if number >= self.full:
            return self._single(number - self.full, kind, step, values)
        image, text = self.weights.full[number]
        image_table, text_table = self.full_tables[number]
        own = self.layout.values_of[step.index]
        if kind == 0:
            yielded = self.kernels.full_attention(
                self.image,
                self.text,
                self._vectors(image_table, SCALE_MSA, SHIFT_MSA),
                self._vectors(text_table, SCALE_MSA, SHIFT_MSA),
                image.queries,
                text.queries,
                image.out,
                text.out if own[1] in step.wanted else None,
                self.rotary,
                self.heads,
            )
            result = {v: value for v, value in zip(own, yielded, strict=True) if value is not None}
        else:
            weights, stream, table = (
                (image, self.image, image_table) if kind == 1 else (text, self.text, text_table)
            )
            vectors = self._vectors(table, SCALE_MLP, SHIFT_MLP)
            ff = self.kernels.feed_forward if kind == 1 else self.kernels.feed_forward_text
            result = {own[0]: ff(stream, *vectors, weights.up, weights.down)}
        for v, value in result.items():
            self._add(self._addition(v, value))
        return result

    def _single(
        self, number: int, kind: int, step: Compute, values: dict[int, torch.Tensor]
    ) -> dict[int, torch.Tensor]:
        joint, mlp, out = self.weights.single[number]
        own = self.layout.values_of[step.index]
        both = own[1] in step.wanted
        if kind == 2:
            parts = [
                self._gathered(values, self.layout.values_of[step.index - offset], both) for offset in (2, 1)
            ]
            result = self.kernels.single_out(*parts, out)
            gate = self._vector(self.single_tables[number], 2)
            (self.joint if both else self.image).addcmul_(gate, result)
            self._clip(self.joint)
        else:
            if self.normed is None or self.normed[0] != number:
                self.normed = (
                    number,
                    self.kernels.modulate(self.joint, *self._vectors(self.single_tables[number], 1, 0)),
                )
            normed = self.normed[1]
            if kind == 0:
                first = 0 if both else self.tokens
                result = self.kernels.single_attention(normed, joint, self.rotary, self.heads, first)
            else:
                result = self.kernels.single_mlp(normed if both else normed[:, self.tokens :], mlp)
        if not both:
            return {own[0]: result}
        halves = {own[0]: result[:, self.tokens :], own[1]: result[:, : self.tokens]}
        # A view keeps its whole storage alive: halves that are not given up together get memory of their own.
        return {v: half.clone() for v, half in halves.items()} if step.apart else halves

    def _gathered(self, values: dict[int, torch.Tensor], own: tuple[int, ...], both: bool) -> torch.Tensor:
        """A single block's kept value: of all tokens, or of the image's."""
        image = values[own[0]]
        if not both:
            return image
        text = values[own[1]]
        whole = rejoined(text, image)
        return torch.cat([text, image], dim=1) if whole is None else whole

    def _addition(self, v: int, value: torch.Tensor) -> Addition:
        """What adding a value to its stream with the gate of this row takes."""
        about = self.layout.values[v]
        number, kind = divmod(about.component, 3)
        if number >= self.full:
            gate = self._vector(self.single_tables[number - self.full], 2)
            return Addition(about.adds_to, gate, value, clipped=True)
        table = self.full_tables[number][0 if about.adds_to == "image" else 1]
        gate = self._vector(table, GATE_MSA if kind == 0 else GATE_MLP)
        return Addition(about.adds_to, gate, value, clipped=kind == 2)

    def _add(self, addition: Addition) -> None:
        stream = getattr(self, addition.stream)
        stream.addcmul_(addition.gate, addition.value)
        if addition.clipped:
            self._clip(stream)

    def _clip(self, stream: torch.Tensor) -> None:
        if self.half:
            stream.clamp_(-HALF_LIMIT, HALF_LIMIT)

    def _additions(self, values: list[tuple[int, torch.Tensor]]) -> Iterator[Addition]:
        """A stretch's additions; halves that still lie together count as one."""
        at = 0
        while at < len(values):
            v, value = values[at]
            about = self.layout.values[v]
            number = about.component // 3 - self.full
            together = number >= 0 and about.adds_to == "image" and values[at + 1 : at + 2]
            if together and together[0][0] == v + 1:
                whole = rejoined(together[0][1], value)
                if whole is not None:
                    gate = self._vector(self.single_tables[number], 2)
                    yield Addition("joint", gate, whole, clipped=True)
                    at += 2
                    continue
            yield self._addition(v, value)
            at += 1

    def combine(self, values: list[tuple[int, torch.Tensor]], segments: list) -> None:
        if not self.kernels.compiled or self.half:  # float16 is clipped after each addition
            for addition in self._additions(values):
                self._add(addition)
            return
        groups: dict[tuple, list[Addition]] = {}  # alike in memory, so that they share a compiled graph
        for one in self._additions(values):
            alike = one.stream, one.gate.stride(), one.value.stride()
            groups.setdefault(alike, []).append(one)
        for alike, group in groups.items():
            gates, added = [one.gate for one in group], [one.value for one in group]
            self.kernels.add_all(str(alike), getattr(self, alike[0]), gates, added)

    def open_segment(self, segment: Any) -> None:
        raise AssertionError("FLUX's gates are each block's own: values are kept, never sums")

    close_segment = open_segment

    def finish(self) -> torch.Tensor:
        """The model's output [B, N, channels]."""
        return self.transformer.proj_out(modulate(self.image, *self._vectors(self.final, 0, 1)))


def rejoined(text: torch.Tensor, image: torch.Tensor) -> torch.Tensor | None:
    """The tensor [B, T + N, D] that these [B, T, D] and [B, N, D] were cut from, or None if they lie
    apart.
    """
    batch, tokens, dim = text.shape
    joined = (
        text.untyped_storage().data_ptr() == image.untyped_storage().data_ptr()
        and text.stride() == image.stride()
        and image.storage_offset() == text.storage_offset() + tokens * text.stride(1)
    )
    if not joined:
        return None
    return text.as_strided((batch, tokens + image.shape[1], dim), text.stride(), text.storage_offset())

"""PixArt's components as few large operations: the fast mode.

The same mathematics as `pixart_reference`, arranged for speed:

- what depends on the prompt alone is computed once a pass: the caption projection, every block's text keys and values,
  on a CPU with cross-attention's own products folded into them; padding tokens that a mask discards are cut off (their
  weight in the softmax is exactly zero);
- what depends on the time alone is computed for all rows at once, before the loop;
- norm and modulation are one operation (a layer norm whose weight is `1 + scale` and whose bias is `shift`);
- self-attention's three projections are one product with packed weights;
- a stretch of skipped components costs one multiply-add a kept value, or a few for a whole segment kept as
sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from diffusers.models.attention_processor import AttnProcessor2_0

from ecad.execution import ExecutionError
from ecad.execution.kept import KeptValues
from ecad.execution.plan import Compute, Plan, Segment
from ecad.models.folded_text import FoldedText, fold_text, folding_pays, sharing
from ecad.models.kernels import Kernels
from ecad.models.packing import Linear, Packer, Projection, function_of
from ecad.models.pixart_reference import (
    GATE_MLP,
    GATE_MSA,
    NAMES,
    SCALE_MLP,
    SCALE_MSA,
    SHIFT_MLP,
    SHIFT_MSA,
    mask_bias,
    unpatchify,
)

# Per component name the gate that it shares with its like in every block; attn2 has none.
GATES = {"attn1": "msa", "attn2": "", "ff": "mlp"}
GATE_ROW = {"msa": GATE_MSA, "mlp": GATE_MLP}
# Per component of a block where its gate lies among the block's six vectors; None: it has none.
GATE_OF = [GATE_ROW.get(GATES[name]) for name in NAMES]


@dataclass(frozen=True)
class BlockWeights:
    """One block's products. Widths: D -> 3 D, D, D, 2 D, D, 4 D and 4 D -> D."""

    qkv: Projection
    out: Projection
    q_text: Projection
    kv_text: Projection
    out_text: Projection
    up: Projection
    down: Projection
    eps: float


def block_weights(transformer: torch.nn.Module, pack: Packer) -> list[BlockWeights]:
    """The present weights, block by block; read anew for every pass, so that no change of them is missed.

    Raises ExecutionError for modules whose arithmetic the fast mode does not know.
    """
    found = []
    for number, block in enumerate(transformer.transformer_blocks):
        image, text, net = block.attn1, block.attn2, block.ff.net
        for attention in (image, text):
            _check_attention(attention, number)
        if type(net[0]) is not GELU or net[0].approximate != "tanh":
            raise _unsupported(number, f"its feed-forward ({type(net[0]).__name__}) is not the published one")
        found.append(
            BlockWeights(
                qkv=pack((number, "attn1"), [image.to_q, image.to_k, image.to_v]),
                out=function_of(image.to_out[0]),
                q_text=function_of(text.to_q),
                kv_text=pack((number, "attn2"), [text.to_k, text.to_v]),
                out_text=function_of(text.to_out[0]),
                up=function_of(net[0].proj),
                down=function_of(net[2]),
                eps=block.norm1.eps,
            )
        )
    return found


def _unsupported(block: int, what: str) -> ExecutionError:
    return ExecutionError(
        f'the fast mode cannot run this transformer: block {block}: {what}; use mode="reference"'
    )


def _check_attention(attention: torch.nn.Module, block: int) -> None:
    plain = (
        type(attention.processor) is AttnProcessor2_0
        and attention.group_norm is None
        and attention.spatial_norm is None
        and attention.norm_q is None
        and attention.norm_k is None
        and not attention.norm_cross
        and not attention.residual_connection
        and attention.rescale_output_factor == 1.0
        and not attention.fused_projections
    )
    if not plain:
        raise _unsupported(
            block, f"its attention ({type(attention.processor).__name__}) is not the published one"
        )


class PixArtFast:
    """The `Components` of one pass in the fast mode. Stream: `hidden` [B, N, D], changed in place."""

    def __init__(
        self,
        transformer: torch.nn.Module,
        pack: Packer,
        plan: Plan,
        timesteps: torch.Tensor,
        kernels: Kernels,
    ) -> None:
        self.transformer = transformer
        self.kernels = kernels
        self.weights = block_weights(transformer, pack)
        self.heads = transformer.config.num_attention_heads
        self.plan = plan
        self.timesteps = timesteps
        self.open: Segment | None = None

    def begin(
        self,
        row: int,
        *,
        hidden_states: torch.Tensor,  # [B, c, h, w]
        encoder_hidden_states: torch.Tensor,  # [B, T, channels]
        timestep: torch.Tensor | None = None,
        added_cond_kwargs: dict[str, Any] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
    ) -> None:
        model = self.transformer
        if attention_mask is not None or cross_attention_kwargs:
            raise ExecutionError(
                'the fast mode takes no `attention_mask` or `cross_attention_kwargs`; use mode="reference"'
            )
        shape = hidden_states.shape
        if row == 0:
            self.shape = shape
            self.batches = shape[0], shape[0] // 2  # T-GATE drops one guidance half
            patch = model.config.patch_size
            self.grid = shape[-2] // patch, shape[-1] // patch
            # Rooms, folded texts and a comparison of the halves were measured on a CPU only.
            self.eager_cpu = hidden_states.device.type == "cpu" and not self.kernels.compiled
            self._prepare_patches(hidden_states)
        elif shape[1:] != self.shape[1:] or shape[0] not in self.batches:
            raise ExecutionError(f"the size or batch changed between rows {row - 1} and {row} of a pass")
        self.hidden = self._embed(hidden_states)  # [B, N, D]
        if row == 0:
            self._prepare_times(added_cond_kwargs)
            self._prepare_text(encoder_hidden_states, encoder_attention_mask)
        self.row = row
        self._vectors: tuple[torch.Tensor, ...] | None = None

    @property
    def vectors(self) -> tuple[torch.Tensor, ...]:
        """This row's modulations, six vectors [D] a block: 1 + scale where a scale is meant. Empty rows need none."""
        if self._vectors is None:
            self._vectors = self.tables[self.row].unbind(0)
        return self._vectors

    def _prepare_patches(self, latents: torch.Tensor) -> None:
        """The patch embedding as a product: its kernel [D, c * p * p], and bias plus positions [N, D].

        A convolution whose stride is its kernel is a product over patches; of zeros it leaves bias and positions.
        """
        embed = self.transformer.pos_embed
        kernel = embed.proj.weight
        if tuple(embed.proj.stride) != tuple(kernel.shape[2:]) or embed.layer_norm:
            raise _unsupported(0, "its patch embedding is not the published one")
        self.kernel = kernel.flatten(1)
        self.positions = embed(torch.zeros_like(latents[:1]))[0].clone()

    def _embed(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, c, h, w] -> tokens [B, N, D]."""
        batch, half = len(latents), len(latents) // 2
        if not self.eager_cpu or batch % 2 or not torch.equal(latents[:half], latents[half:]):
            return F.linear(self._patches(latents), self.kernel) + self.positions
        # Guidance gives both halves the same latents.
        product = F.linear(self._patches(latents[:half]), self.kernel)
        tokens = product.new_empty(batch, *product.shape[1:])
        torch.add(product, self.positions, out=tokens[:half])
        tokens[half:] = tokens[:half]
        return tokens

    def _patches(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, c, h, w] -> what each token sees of them, [B, N, c * p * p]."""
        batch, channels, height, width = latents.shape
        rows, columns = self.grid
        patches = latents.view(batch, channels, rows, height // rows, columns, width // columns)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)

    def _prepare_times(self, added_cond_kwargs: dict[str, Any] | None) -> None:
        """Modulations of all rows: `tables` [R, 6 L, D], `gates` [R, 6, D] without the blocks' own, `final`
        [R, 2, D].

        They depend on the time alone (and on the image's size, which a batch shares), so one product serves
        all rows.
        """
        model, times = self.transformer, self.timesteps.to(self.hidden.device)
        rows, dim = len(times), self.hidden.shape[-1]
        conditions = None
        if model.use_additional_conditions:
            if added_cond_kwargs is None:
                raise ExecutionError(
                    "this PixArt model was trained with size conditions and needs `added_cond_kwargs`"
                )
            conditions = {}
            for name, given in added_cond_kwargs.items():
                if not bool((given == given[:1]).all()):
                    raise ExecutionError(f"the fast mode needs the same `{name}` for the whole batch")
                conditions[name] = given[:1].expand(rows, -1)
        shared, embedded = model.adaln_single(
            times, conditions, batch_size=rows, hidden_dtype=self.hidden.dtype
        )
        self.gates = shared.view(rows, 6, dim)
        own = torch.stack([block.scale_shift_table for block in model.transformer_blocks])  # [L, 6, D]
        tables = own + self.gates[:, None]  # [R, L, 6, D]
        tables[:, :, (SCALE_MSA, SCALE_MLP)] += 1
        self.tables = tables.view(rows, -1, dim)
        self.final = model.scale_shift_table + embedded[:, None]  # shift, scale
        self.final[:, 1] += 1

    def _prepare_text(self, text: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Every block's text: keys and values [B, heads, T, D / heads] with the mask as a bias or None, or folded."""
        model = self.transformer
        text, mask, fold = self._trimmed(text, mask)
        if fold:
            shared = sharing(text, mask)
            text, mask = text[shared.rows], None if mask is None else mask[shared.rows]
        bias = mask_bias(mask, self.hidden.dtype)  # [B, 1, T]
        self.text_bias = None if bias is None else bias[:, None]  # [B, 1, 1, T]
        if model.caption_projection is not None:
            text = model.caption_projection(text)
        batch, length, dim = text.shape
        self.texts: list[tuple[torch.Tensor, torch.Tensor] | FoldedText] = []
        for weights in self.weights:
            keys_values = weights.kv_text(text)
            keys_values = keys_values.view(batch, length, 2, self.heads, dim // self.heads).permute(
                2, 0, 3, 1, 4
            )
            key, value = keys_values.unbind(0)
            if fold:
                products = weights.q_text, weights.out_text
                self.texts.append(fold_text(key, value, self.text_bias, *products, shared.turns))
            else:
                self.texts.append((key, value))

    def _trimmed(
        self, text: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
        """Text [B, T, channels] and mask without the tokens that no image attends to; and whether to fold it."""
        if mask is None:
            return text, None, self._folding_pays(*text.shape[:2])
        kept = mask.bool()
        # A row without any token would attend to all of them.
        if mask.ndim != 2 or not bool(kept.any(dim=1).all()):
            return text, mask, False
        length = int(kept.any(dim=0).nonzero().max()) + 1
        fold = self._folding_pays(len(text), length)
        if not fold:
            # The attention kernels want aligned rows of the mask: 8 on a GPU; on a CPU 16 keys take a quarter of
            # the time of 14.
            aligned = 8 if text.is_cuda else 16
            length = -(-length // aligned) * aligned
        missing = max(0, length - mask.shape[1])
        text = F.pad(text[:, :length], (0, 0, 0, missing))
        mask = F.pad(mask[:, :length], (0, missing))
        return text, None if bool(mask.bool().all()) else mask, fold

    def _folding_pays(self, batch: int, length: int) -> bool:
        """Whether texts of this length are folded. In half precision the folded products would be rounded once more
        than the model's own, so there they are not.
        """
        _, tokens, dim = self.hidden.shape
        return (
            self.eager_cpu
            and self.hidden.dtype in (torch.float32, torch.float64)
            and all(type(one.q_text) is type(one.out_text) is Linear for one in self.weights)
            and folding_pays(
                tokens=tokens,
                dim=dim,
                heads=self.heads,
                length=length,
                blocks=len(self.weights),
                uses=int(self.plan.computes[:, 1 :: len(NAMES)].sum()),
                batch=batch,
                item_bytes=self.hidden.element_size(),
            )
        )

    def _gate(self, index: int) -> torch.Tensor | None:
        """A component's gate in this row, [D]; None for attn2, which has none."""
        number, kind = divmod(index, len(NAMES))
        at = GATE_OF[kind]
        return None if at is None else self.vectors[6 * number + at]

    def compute(self, step: Compute, values: KeptValues) -> dict[int, torch.Tensor]:
        number, kind = divmod(step.index, len(NAMES))
        weights, vectors, hidden = self.weights[number], self.vectors, self.hidden
        at = 6 * number
        room = values.room(hidden) if step.keep and self.eager_cpu else None
        if kind == 0:
            output = self.kernels.self_attention(
                hidden,
                vectors[at + SCALE_MSA],
                vectors[at + SHIFT_MSA],
                weights.qkv,
                weights.out,
                self.heads,
                weights.eps,
                room,
            )
        elif kind == 1:
            text = self.texts[number]
            if isinstance(text, FoldedText):
                output = self.kernels.folded_cross_attention(hidden, text, self.heads, room)
            else:
                products = weights.q_text, weights.out_text
                output = self.kernels.cross_attention(
                    hidden, *text, self.text_bias, *products, self.heads, room
                )
        else:
            output = self.kernels.feed_forward(
                hidden,
                vectors[at + SCALE_MLP],
                vectors[at + SHIFT_MLP],
                weights.up,
                weights.down,
                weights.eps,
                room,
            )
        gate = self._gate(step.index)
        if self.open is None:
            _add(hidden, output, gate)
            return {step.index: output}
        self._add_to_segment(GATES[NAMES[kind]], output, gate)
        return {}

    def _add_to_segment(self, name: str, output: torch.Tensor, gate: torch.Tensor | None) -> None:
        if self.delta is not None:  # half precision
            _add(self.hidden, output, gate)
            _add(self.delta, output, gate)
        elif self.hidden is self.before:  # the first member leaves the hidden states before it untouched
            if gate is None:
                self.hidden = self.before + output
            else:
                self.hidden = torch.addcmul(self.before, gate, output)
        else:
            _add(self.hidden, output, gate)
        if name:
            if name in self.sums:
                self.sums[name] += output
            else:
                self.sums[name] = output

    def open_segment(self, segment: Segment) -> None:
        """Begin to sum. In float32 what the segment adds is the hidden states' difference, which costs one
        subtraction. In half precision that would hold the rounding of every member's addition and add it again in
        every row that reuses the segment, so there it is summed by itself, in float32, until it is complete.
        """
        self.open, self.before, self.sums = segment, self.hidden, {}
        half = self.hidden.dtype != torch.float32 and self.hidden.dtype != torch.float64
        self.delta = torch.zeros_like(self.hidden, dtype=torch.float32) if half else None

    def close_segment(self, segment: Segment) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The segment's tensors: what it added in its own row, and its values' sum per shared gate."""
        if self.delta is not None:
            delta = self.delta.to(self.hidden.dtype)
        else:
            delta = torch.sub(self.hidden, self.before, out=self.before)
        kept = (delta, self.sums)
        del self.before, self.sums, self.delta
        self.open = None
        return kept

    def combine(
        self,
        values: list[tuple[int, torch.Tensor]],
        segments: list[tuple[Segment, tuple[torch.Tensor, dict[str, torch.Tensor]]]],
    ) -> None:
        if self.kernels.compiled:
            self._combine_grouped(values, segments)
            return
        hidden = self.hidden
        for index, value in values:
            _add(hidden, value, self._gate(index))
        for segment, (delta, sums) in segments:
            hidden += delta
            for name, total in sums.items():
                gate = GATE_ROW[name]
                hidden.addcmul_(self.gates[self.row, gate] - self.gates[segment.row, gate], total)

    def _combine_grouped(self, values: list, segments: list) -> None:
        """The same with every tensor under a gate, ones where it has none, so that groups of them are alike."""
        ones = torch.ones_like(self.vectors[0])
        pairs = []
        for index, value in values:
            gate = self._gate(index)
            # A view each time: torch compiles anew for every pattern of arguments that are the same object.
            pairs.append((ones.view_as(ones) if gate is None else gate, value))
        for segment, (delta, sums) in segments:
            pairs.append((ones.view_as(ones), delta))
            for name, total in sums.items():
                gate = GATE_ROW[name]
                pairs.append((self.gates[self.row, gate] - self.gates[segment.row, gate], total))
        self.kernels.add_all("hidden", self.hidden, *zip(*pairs, strict=True))

    def finish(self) -> torch.Tensor:
        """The model's output [B, out_channels, h, w]."""
        model = self.transformer
        shift, scale = self.final[self.row]
        hidden = F.layer_norm(self.hidden, self.hidden.shape[-1:], scale, shift, model.norm_out.eps)
        del self.hidden
        return unpatchify(model.proj_out(hidden), self.grid, model.config.patch_size, model.out_channels)


def _add(hidden: torch.Tensor, output: torch.Tensor, gate: torch.Tensor | None) -> None:
    """hidden += gate * output, in place."""
    if gate is None:
        hidden += output
    else:
        hidden.addcmul_(gate, output)

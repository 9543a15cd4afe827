"""PixArt's components as pure functions: what each block computes, given its weights and its row's vectors.

hidden [B, N, D]; scale (1 included), shift [D]; `bias`, keys and values as attention takes them; `room`: memory for the
result, or None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ecad.models.activations import gelu_of
from ecad.models.packing import Linear, Projection, write


def self_attention(
    hidden: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    qkv: Projection,
    out: Projection,
    heads: int,
    eps: float,
    room: torch.Tensor | None,
) -> torch.Tensor:
    """Norm, modulation and attention of the image tokens among themselves, [B, N, D]."""
    batch, tokens, dim = hidden.shape
    normed = F.layer_norm(hidden, (dim,), scale, shift, eps)
    parts = qkv(normed).view(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    mixed = F.scaled_dot_product_attention(query, key, value)
    return write(out, mixed.transpose(1, 2).flatten(2), room)


def cross_attention(
    hidden: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    query: Projection,
    out: Projection,
    heads: int,
    room: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of the image tokens to the text, [B, N, D]; PixArt has no norm before it."""
    batch, tokens, dim = hidden.shape
    asked = query(hidden).view(batch, tokens, heads, dim // heads).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(asked, key, value, attn_mask=bias)
    return write(out, mixed.transpose(1, 2).flatten(2), room)


class FoldedText(NamedTuple):
    """Texts with the products around a block's cross-attention folded into them, U of them for B images in turn.

    keys, values [U, heads * T, D]; bias [U, heads * T, 1], mask included; out_bias [D] or None.
    """

    keys: torch.Tensor
    bias: torch.Tensor
    values: torch.Tensor
    out_bias: torch.Tensor | None


class Sharing(NamedTuple):
    """Who has which text: guidance gives all negatives one, many seeds of a prompt another.

    rows: of a batch, one for each distinct text; turns: the distinct texts (positions in `rows`) in the batch's order,
    each for as many neighbours as all of them can be taken together: [n, n, n, n, a, a, b, b] is [n, n, a, b].
    """

    rows: list[int]
    turns: list[int]


def sharing(*given: torch.Tensor | None) -> Sharing:
    """The sharing of a batch, from tensors [B, ...] that are equal where the text is; None stands for no difference."""
    tensors = [one for one in given if one is not None]
    rows: list[int] = []
    texts: list[int] = []
    for row in range(len(tensors[0])):
        same = (
            n for n, first in enumerate(rows) if all(torch.equal(one[row], one[first]) for one in tensors)
        )
        texts.append(next(same, len(rows)))
        if texts[-1] == len(rows):
            rows.append(row)
    changes = [i for i in range(1, len(texts)) if texts[i] != texts[i - 1]]
    return Sharing(rows, texts[:: math.gcd(*changes, len(texts))])


def fold_text(
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    query: Linear,
    out: Linear,
    turns: Sequence[int],
) -> FoldedText:
    """What `folded_cross_attention` takes. key, value [texts, heads, T, d]; bias [texts, 1, 1, T] or None; turns: the
    U positions of texts in the batch's order.

    A head's scores are (x Wq' + bq) k' = x (k Wq)' + bq k', and what it yields is (p v) Wo' = p (v Wo'): both products
    with D x D weights are done once with the T tokens of the text instead of in every row with the N of the image.
    """
    texts, heads, length, width = key.shape
    dim = heads * width

    def folded(part: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """part [U, heads, T, d], weight [heads, d, D] -> [U, heads * T, D]."""
        products = torch.bmm(part.transpose(0, 1).reshape(heads, texts * length, width), weight)
        return products.view(heads, texts, length, dim).transpose(0, 1).reshape(texts, heads * length, dim)

    key = key * width**-0.5
    scores = key.new_zeros(texts, heads, length)
    if query.bias is not None:
        scores = (key @ query.bias.view(heads, width, 1)).squeeze(-1)
    if bias is not None:
        scores = scores + bias[:, 0]
    made = (
        folded(key, query.weight.view(heads, width, dim)),
        scores.reshape(texts, heads * length, 1),
        folded(value, out.weight.t().view(heads, width, dim)),
    )
    if list(turns) != list(range(texts)):
        made = tuple(one[turns] for one in made)
    return FoldedText(*made, out.bias)


# Scores this far below the largest count as this far: exp would yield numbers below the smallest normal one, with which
# a processor calculates fifty times slower, and against the largest one's 1 they are nothing, in float64 too.
LOWEST_SCORE = -80.0


def folded_cross_attention(
    hidden: torch.Tensor, text: FoldedText, heads: int, room: torch.Tensor | None
) -> torch.Tensor:
    """`cross_attention`, [B, N, D], with the query's and the output's product folded into the text.

    Images with one text are as one image of all their tokens. Scores lie as [U, heads, T, tokens], so that the softmax
    over a handful of T is done for many image tokens at once.
    """
    texts, _, dim = text.keys.shape
    images = hidden.view(texts, -1, dim)
    scores = torch.baddbmm(text.bias, text.keys, images.transpose(1, 2))
    by_head = scores.view(texts, heads, -1, images.shape[1])
    by_head.sub_(by_head.amax(2, keepdim=True)).clamp_(min=LOWEST_SCORE).exp_()
    by_head.div_(by_head.sum(2, keepdim=True))
    mixed = torch.empty_like(hidden) if room is None else room
    torch.bmm(scores.transpose(1, 2), text.values, out=mixed.view(images.shape))
    return mixed if text.out_bias is None else mixed.add_(text.out_bias)


def feed_forward(
    hidden: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    up: Projection,
    down: Projection,
    eps: float,
    room: torch.Tensor | None,
) -> torch.Tensor:
    """Norm, modulation and the feed-forward, [B, N, D]."""
    normed = F.layer_norm(hidden, hidden.shape[-1:], scale, shift, eps)
    return write(down, gelu_of(up, normed), room)

"""Cross-attention to a short text with its two products folded into the text.

A head's scores are (x Wq' + bq) k' = x (k Wq)' + bq k', and what it yields is (p v) Wo' = p (v Wo'). So both products
with D x D weights can be done once a pass with the T tokens of the text instead of in every row with the N of the
image; the products left are with heads * T numbers instead of D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ecad.models.packing import Linear

# Folded texts of a pass take this much memory at most.
FOLDED_BYTES = 1 << 30
# Scores this far below the largest count as this far: exp would yield numbers below the smallest normal one, with which
# a processor calculates fifty times slower, and against the largest one's 1 they are nothing, in float64 too.
LOWEST_SCORE = -80.0


def folding_pays(
    *, tokens: int, dim: int, heads: int, length: int, blocks: int, uses: int, batch: int, item_bytes: int
) -> bool:
    """Whether folding texts of `length` tokens saves work in a pass that computes cross-attention `uses` times.

    tokens: of an image; blocks: of the model, each of which has folded texts for the whole batch, bounded in memory.
    Counted in multiply-adds, those of the folding threefold, since its products are small.
    """
    numbers = (
        2 * heads * length * dim
    )  # keys and values of a text; and multiply-adds with them of an image token
    if batch * blocks * numbers * item_bytes > FOLDED_BYTES:
        return False
    saved = tokens * (2 * dim * dim + 2 * length * dim - numbers)
    return uses * saved > 3 * blocks * 2 * length * dim * dim


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
    """What `folded_cross_attention` takes.

    key, value: [texts, heads, T, d]. bias: [texts, 1, 1, T] or None. turns: U positions of texts, in the batch's order.
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


def folded_cross_attention(
    hidden: torch.Tensor, text: FoldedText, heads: int, room: torch.Tensor | None
) -> torch.Tensor:
    """Attention of the image tokens to the text, [B, N, D]: query, attention and output product at once.

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

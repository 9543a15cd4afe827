"""FLUX's components as pure functions: what each block computes, given its weights and its row's vectors.

Streams [B, tokens, D]; scale (1 included), shift [B, 1, D]; rotary (cos, sin), each [T + N, d], text tokens first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb

from ecad.models.activations import gelu_of
from ecad.models.packing import Projection

Rotary = tuple[torch.Tensor, torch.Tensor]
Vectors = tuple[torch.Tensor, torch.Tensor]  # scale, shift


class Queries(NamedTuple):
    """What makes query, key and value of a stream: a packed product D -> 3 D, and two norms over a head."""

    qkv: Projection
    norm_q: Projection
    norm_k: Projection


def modulate(
    stream: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float = 1e-6
) -> torch.Tensor:
    """Layer norm, times `scale`, plus `shift`."""
    dim = stream.shape[-1]
    if len(stream) == 1:
        return F.layer_norm(stream, (dim,), scale[0, 0], shift[0, 0], eps)
    return torch.addcmul(shift, F.layer_norm(stream, (dim,), eps=eps), scale)


def full_attention(
    image: torch.Tensor,
    text: torch.Tensor,
    image_vectors: Vectors,
    text_vectors: Vectors,
    image_queries: Queries,
    text_queries: Queries,
    image_out: Projection,
    text_out: Projection | None,
    rotary: Rotary,
    heads: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A two-stream block's attention, image and text part [B, N, D], [B, T, D].

    text_out: None where nobody wants the text part; its queries are not made then.
    """
    query, key, value = _queries(image_queries, modulate(image, *image_vectors), heads)
    text_query, text_key, text_value = _queries(text_queries, modulate(text, *text_vectors), heads)
    if text_out is not None:
        query = torch.cat([text_query, query], dim=1)
    mixed = _attend(query, torch.cat([text_key, key], dim=1), torch.cat([text_value, value], dim=1), rotary)
    yielded = image_out(mixed[:, -image.shape[1] :])
    return yielded, None if text_out is None else text_out(mixed[:, : text.shape[1]])


def feed_forward(
    stream: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, up: Projection, down: Projection
) -> torch.Tensor:
    """A two-stream block's feed-forward of one stream."""
    return down(gelu_of(up, modulate(stream, scale, shift)))


def feed_forward_text(
    stream: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, up: Projection, down: Projection
) -> torch.Tensor:
    """The same of the text, apart so that each has a compiled graph for its number of tokens."""
    return feed_forward(stream, scale, shift, up, down)


def single_attention(
    normed: torch.Tensor, queries: Queries, rotary: Rotary, heads: int, first: int
) -> torch.Tensor:
    """A single block's attention of the tokens from `first` on over all of them, [B, T + N - first, D]."""
    query, key, value = _queries(queries, normed, heads)
    return _attend(query[:, first:], key, value, rotary)


def single_mlp(normed: torch.Tensor, mlp: Projection) -> torch.Tensor:
    """A single block's feed-forward up to its activation, [B, tokens, 4 D]: what `single_out` takes up."""
    return gelu_of(mlp, normed)


def single_out(attention: torch.Tensor, mlp: torch.Tensor, out: Projection) -> torch.Tensor:
    """A single block's output from its attention [B, tokens, D] and its feed-forward [B, tokens, 4 D]."""
    return out(torch.cat([attention, mlp], dim=2))


def _queries(
    made: Queries, normed: torch.Tensor, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key, value, each [B, tokens, heads, d]; query and key normed."""
    query, key, value = made.qkv(normed).unflatten(-1, (3, heads, -1)).unbind(2)
    return made.norm_q(query), made.norm_k(key), value


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Rotary attention of the last tokens' queries over all tokens, heads merged."""
    cos, sin = rotary
    last = query.shape[1]
    query = apply_rotary_emb(query, (cos[-last:], sin[-last:]), sequence_dim=1)
    key = apply_rotary_emb(key, rotary, sequence_dim=1)
    mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    return mixed.transpose(1, 2).flatten(2)

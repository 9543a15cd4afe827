"""PixArt's components as pure functions: what each block computes, given its weights and its row's vectors.

hidden [B, N, D]; scale (1 included), shift [D]; `bias`, keys and values as attention takes them; `room`: memory for the
result, or None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ecad.models.activations import gelu_of
from ecad.models.packing import Projection, write


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

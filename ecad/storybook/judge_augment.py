"""Small damage for training pictures, of the kind that generated ones show: the judge must see through it."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def augment(pictures: np.ndarray, rng: np.random.Generator) -> Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, S, S] in about -1 to 1, each picture damaged in its own way.

    Moved and scaled a little always; colours shifted a little always; JPEG, blur, blotches and noise
    sometimes.
    """
    count = len(pictures)
    x = torch.from_numpy(_jpeg(pictures, rng)).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = _move(x, rng)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, _amounts(rng, count, 0.7, chance=0.4))
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (count, 3, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.06, 0.06, (count, 3, 1, 1)).astype(np.float32))
    x = x * gain + shift
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    blotches = F.interpolate(torch.randn(count, 3, 8, 8, generator=generator), x.shape[2:], mode="bilinear")
    x = x + blotches * _amounts(rng, count, 0.12, chance=0.4)
    x = x + torch.randn(x.shape, generator=generator) * _amounts(rng, count, 0.1, chance=0.4)
    return x.contiguous(memory_format=torch.channels_last)


def plain(pictures: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, S, S] in -1 to 1, undamaged."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def _amounts(rng: np.random.Generator, count: int, largest: float, *, chance: float) -> Tensor:
    """Float [B, 1, 1, 1]: 0 for most pictures, uniform up to `largest` for a share of `chance`."""
    amounts = rng.uniform(0, largest, count) * (rng.random(count) < chance)
    return torch.from_numpy(amounts.astype(np.float32))[:, None, None, None]


def _jpeg(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy in which one picture in eight went through JPEG of quality 55 to 95."""
    pictures = pictures.copy()
    for i in np.flatnonzero(rng.random(len(pictures)) < 1 / 8):
        stream = io.BytesIO()
        Image.fromarray(pictures[i]).save(stream, "JPEG", quality=int(rng.integers(55, 96)))
        pictures[i] = np.asarray(Image.open(stream))
    return pictures


def _move(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Scale by 0.92 to 1.08 and move by up to 5 % of the side; the edge pixels are drawn out."""
    count = len(x)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = rng.uniform(0.92, 1.08, count)
    theta[:, :, 2] = rng.uniform(-0.1, 0.1, (count, 2))  # the grid spans -1 to 1
    grid = F.affine_grid(torch.from_numpy(theta), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)

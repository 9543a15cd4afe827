"""Storybook's autoencoder: a small diffusers AutoencoderTiny, 256 x 256 pixels to 32 x 32 x 8 latents and back.

It is trained on random crops, since it is convolutional, with a little noise on the latents so that the decoder
forgives what the image generator gets slightly wrong. AutoencoderTiny has no norms and no variational part. That
matters here: AutoencoderKL's group norms take out a picture's own mean and contrast, and after 15 minutes of the same
training (1,550 steps of 8 crops, 0.42 s a step on one core) it still had washed-out colours and 22 dB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from ecad.storybook.course import Budget, Course, rng_of
from ecad.storybook.world import render, sample_scene

LATENT_CHANNELS = 8
FACTOR = 8
NOISE = 0.04  # standard deviation of the noise on latents in training; the latents' own is 1
SETTLED = 0.7  # from this share of a training on, the latents' mean and deviation stay as they are


def make_autoencoder(
    width: int = 64,
    encoder_blocks: tuple[int, ...] = (0, 1, 3, 5),
    decoder_blocks: tuple[int, ...] = (6, 3, 1, 0),
) -> AutoencoderTiny:
    """An untrained autoencoder with reduction ``2 ** (len(encoder_blocks) - 1)``.

    Its blocks lie at the low resolutions: one block at 256 px costs as much time as sixty-four at 32 px.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * len(encoder_blocks),
        decoder_block_out_channels=(width,) * len(decoder_blocks),
        num_encoder_blocks=encoder_blocks,
        num_decoder_blocks=decoder_blocks,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )


class Pictures:
    """A pool of rendered pictures, uint8 [count, size, size, 3], and random crops of them."""

    def __init__(self, count: int, seed: int, size: int = 256) -> None:
        rng = np.random.default_rng((seed, 1))
        self.pool = np.empty((count, size, size, 3), np.uint8)
        for k in range(count):
            self.pool[k] = np.asarray(render(sample_scene(rng), rng, size))

    def crops(self, rng: np.random.Generator, batch: int, side: int) -> torch.Tensor:
        """A batch of square crops, float [batch, 3, side, side] in -1 ... 1, channels last."""
        span = self.pool.shape[1] - side + 1
        picks = zip(
            rng.integers(len(self.pool), size=batch), *rng.integers(span, size=(2, batch)), strict=True
        )
        cut = np.stack([self.pool[k, y : y + side, x : x + side] for k, y, x in picks])
        return to_tensor(cut)


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] to float [B, 3, H, W] in -1 ... 1 (channels last in memory)."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Reconstruction(torch.nn.Module):
    """The training objective: pictures and latent noise in, loss out.

    ``norm`` keeps each latent channel at mean 0 and deviation 1; at the end it is folded into the encoder.
    """

    def __init__(self, net: AutoencoderTiny, norm: torch.nn.BatchNorm2d) -> None:
        super().__init__()
        self.net, self.norm = net, norm

    def forward(self, pictures: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        latents = self.norm(self.net.encoder(pictures).float())
        again = self.net.decoder(latents + noise).float()
        error = again - pictures
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def train_autoencoder(
    folder: Path,
    budget: Budget,
    *,
    seed: int = 0,
    batch: int = 16,
    side: int = 128,
    pictures: int = 3000,
    peak: float = 1.2e-3,
    net: AutoencoderTiny | None = None,
    decoder_only: bool = False,
) -> AutoencoderTiny:
    """Train, with checkpoints in ``folder``; returns the net, its latents normalised.

    ``decoder_only`` goes on with the decoder of a given net and leaves its latents as they are.
    """
    torch.manual_seed(seed)
    net = net if net is not None else make_autoencoder()
    net.to(memory_format=torch.channels_last).train()
    norm = (
        torch.nn.Identity()
        if decoder_only
        else torch.nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)
    )
    net.encoder.requires_grad_(not decoder_only)
    pool = Pictures(pictures, seed)
    objective = Reconstruction(net, norm)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    optimizer.param_groups[0]["peak"] = peak
    course = Course({"autoencoder": net, "norm": norm}, [optimizer])
    checkpoint = folder / ("decoder.safetensors" if decoder_only else "autoencoder.safetensors")
    if checkpoint.exists():
        course.resume(checkpoint)

    def loss_of(step: int) -> torch.Tensor:
        rng = rng_of(seed, step)
        norm.train(budget.progress(course.step, course.seconds) < SETTLED)
        x = pool.crops(rng, batch, side)
        shape = (batch, LATENT_CHANNELS, side // FACTOR, side // FACTOR)
        noise = NOISE * torch.from_numpy(rng.standard_normal(shape, np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            return objective(x, noise)

    course.run(loss_of, budget, checkpoint)
    net.eval().requires_grad_(True)
    if not decoder_only:
        fold_normalisation(net, norm.running_mean, (norm.running_var + norm.eps).sqrt())
    return net


@torch.no_grad()
def encode(net: AutoencoderTiny, pictures: np.ndarray, batch: int = 8) -> torch.Tensor:
    """Latents of uint8 [B, H, W, 3] pictures: float [B, 8, H / 8, W / 8]."""
    parts = []
    for start in range(0, len(pictures), batch):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(net.encode(to_tensor(pictures[start : start + batch])).latents.float())
    return torch.cat(parts)


@torch.no_grad()
def fold_normalisation(net: AutoencoderTiny, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Shift and scale each latent channel ([4] each) inside the encoder's last convolution.

    Pipelines know one scalar scaling factor only, so what is done per channel must be part of the net; the scaling
    factor stays 1. The decoder was trained on normalised latents already.
    """
    last = net.encoder.layers[-1]
    last.weight /= std[:, None, None, None]
    last.bias.copy_((last.bias - mean) / std)


@torch.no_grad()
def held_out_psnr(net: AutoencoderTiny, count: int = 64, seed: int = 5) -> float:
    """Mean PSNR in dB of whole held-out pictures, encoded and decoded in float32."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(count):
        x = to_tensor(np.asarray(render(sample_scene(rng, held_out=True), rng))[None])
        again = net.decode(net.encode(x).latents).sample.clamp(-1, 1)
        values.append(10 * np.log10(4 / float(F.mse_loss(again, x))))
    return float(np.mean(values))

"""How Storybook's transformer and text encoder are trained: latents of many scenes, then denoising them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import T5EncoderModel, T5Tokenizer

from ecad.storybook.autoencoder import encode
from ecad.storybook.course import Budget, Course, load_tree, rng_of, save_tree
from ecad.storybook.muon import StackedMuon
from ecad.storybook.text import UNKNOWN, tokens
from ecad.storybook.transformer import TRAIN_TIMES, noise_levels
from ecad.storybook.world import one_article, render, sample_scene, training_caption

NO_CAPTION = 0.1  # share of training captions that are empty, for guidance
MUON_FACTOR = 4.5  # Muon's learning rate over AdamW's: its updates are small in so narrow a net
LOWEST_LEVEL = 0.2  # noise levels below this weigh no more than it
UNKNOWN_WORD = 0.005  # share of words replaced by an unknown one
SHARD = 1000  # pictures in one file of latents
SHARD_NAME = "latents-{:03d}.safetensors"
CAPTIONS_PER_PICTURE = 3  # wordings kept of each picture: place and sky said or not


@dataclass(frozen=True)
class LatentSet:
    """Encoded training pictures: ``latents`` float16 [N, 4, h, w]; ``ids`` and ``masks`` int16 [N, K, T]."""

    latents: torch.Tensor
    ids: torch.Tensor
    masks: torch.Tensor


def make_latents(folder: Path, vae: AutoencoderTiny, tokenizer: T5Tokenizer, count: int, seed: int) -> None:
    """Encode ``count`` pictures of scenes that are not held out, in files of SHARD pictures; keeps what is there."""
    for shard in range(-(-count // SHARD)):
        if not (folder / SHARD_NAME.format(shard)).exists():
            make_shard(folder, vae, tokenizer, shard, min(SHARD, count - shard * SHARD), seed)
            print(f"encoded {min(count, (shard + 1) * SHARD)} of {count} pictures", flush=True)


def make_shard(
    folder: Path, vae: AutoencoderTiny, tokenizer: T5Tokenizer, shard: int, count: int, seed: int
) -> None:
    """Encode one file of pictures; its scenes follow from the seed and its number."""
    rng = np.random.default_rng((seed, 2, shard))
    latents, ids, masks = [], [], []
    for start in range(0, count, 8):
        scenes = [sample_scene(rng) for _ in range(min(8, count - start))]
        latents.append(encode(vae, np.stack([np.asarray(render(scene, rng)) for scene in scenes])).half())
        captions = [_wording(scene, rng) for scene in scenes for _ in range(CAPTIONS_PER_PICTURE)]
        for kept, new in zip((ids, masks), tokens(tokenizer, captions), strict=True):
            kept.append(new.view(len(scenes), CAPTIONS_PER_PICTURE, -1).short())
    tree = {"latents": torch.cat(latents), "ids": torch.cat(ids), "masks": torch.cat(masks)}
    save_tree(folder / SHARD_NAME.format(shard), tree)


def load_latents(folder: Path) -> LatentSet:
    """All pictures encoded so far in a folder."""
    shards = [load_tree(path) for path in sorted(folder.glob("latents-*.safetensors"))]
    if not shards:
        raise FileNotFoundError(f"there are no encoded pictures in {folder}")
    return LatentSet(**{name: torch.cat([shard[name] for shard in shards]) for name in shards[0]})


def _wording(scene, rng: np.random.Generator) -> str:
    words = one_article(training_caption(scene, rng)).split(" ")
    return " ".join(UNKNOWN if rng.random() < UNKNOWN_WORD else word for word in words)


class Denoiser(torch.nn.Module):
    """Text encoder and transformer as they work together: noisy latents, caption and time to the prediction."""

    def __init__(self, transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel) -> None:
        super().__init__()
        self.transformer, self.text_encoder = transformer, text_encoder

    def forward(self, noisy, ids, mask, times) -> torch.Tensor:
        states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.transformer(
            noisy,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            timestep=times,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]


def draw_times(rng: np.random.Generator, batch: int) -> torch.Tensor:
    """Training times int64 [batch]: three in four around the middle noise levels, the others anywhere.

    One per equal share of the batch (stratified), so the mix of noise levels hardly differs between steps.
    """
    share = (rng.permutation(batch) + rng.random(batch)) / batch
    middle = 1 / (1 + np.exp(-(0.35 + 1.1 * _normal_quantile(share))))
    where = np.where(rng.random(batch) < 0.75, middle, share)
    return torch.from_numpy(np.minimum((where * TRAIN_TIMES).astype(np.int64), TRAIN_TIMES - 1))


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    share = torch.from_numpy(np.clip(share, 1e-6, 1 - 1e-6))
    return (2**0.5 * torch.erfinv(2 * share - 1)).numpy()


class DenoisingLoss:
    """The objective of one step on a random batch of a latent set.

    The net predicts the clean latents. A token has 128 latent values, as many as the net is wide, and clean ones lie
    near a surface of far fewer dimensions while noise fills them all: a narrow net can say the one and not the other
    (T. Li, K. He, "Back to Basics: Let Denoising Generative Models Denoise", 2025). The error is weighted as one of
    velocity would be, 1 / noise level squared, with the level bounded below.
    """

    def __init__(
        self, denoiser: Denoiser, data: LatentSet, empty: torch.Tensor, seed: int, batch: int
    ) -> None:
        self.denoiser, self.data, self.empty, self.seed, self.batch = denoiser, data, empty, seed, batch
        self.signal, self.noise = noise_levels()

    def __call__(self, step: int) -> torch.Tensor:
        rng, data = rng_of(self.seed, step), self.data
        picks = torch.from_numpy(rng.integers(len(data.latents), size=self.batch))
        wording = torch.from_numpy(rng.integers(data.ids.shape[1], size=self.batch))
        clean = data.latents[picks].float()
        ids, mask = data.ids[picks, wording].long(), data.masks[picks, wording].long()
        silent = torch.from_numpy(rng.random(self.batch) < NO_CAPTION)
        ids[silent] = self.empty
        mask[silent] = torch.cat([torch.ones(1), torch.zeros(mask.shape[1] - 1)]).long()
        times = draw_times(rng, self.batch)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        signal, level = self.signal[times].view(-1, 1, 1, 1), self.noise[times].view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            guess = self.denoiser(signal * clean + level * noise, ids, mask, times)
        return ((guess.float() - clean) / level.clamp(min=LOWEST_LEVEL)).square().mean()


def quicken(transformer: PixArtTransformer2DModel) -> None:
    """Same maths, faster backward on CPUs: for training only, nothing of it is saved.

    PyTorch's fused attention takes five times longer backward than plain products (bf16, 64 tokens), and the tanh in
    GELU longer than the exponential it can be written with.
    """
    transformer.set_attn_processor(AttnProcessor())
    for block in transformer.transformer_blocks:
        block.ff.net[0].gelu = _gelu


def _gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU in the tanh form: 0.5 (1 + tanh y) is the sigmoid of 2 y."""
    return x * torch.sigmoid(1.5957691216 * x * (1 + 0.044715 * x * x))


def make_optimizers(denoiser: Denoiser, peak: float, muon: bool = True) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the transformer's blocks (if asked), AdamW for everything else."""
    inside = [
        p for p in denoiser.transformer.transformer_blocks.parameters() if p.ndim == 2 and min(p.shape) > 8
    ]
    if not muon:
        inside = []
    chosen = {id(p) for p in inside}
    others = [p for p in denoiser.parameters() if p.requires_grad and id(p) not in chosen]
    adam = torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    optimizers = [adam, StackedMuon(inside, weight_decay=0.02)] if muon else [adam]
    for optimizer, factor in zip(optimizers, (1, MUON_FACTOR), strict=False):
        optimizer.param_groups[0]["peak"] = factor * peak
    return optimizers


def train_denoiser(
    transformer: PixArtTransformer2DModel,
    text_encoder: T5EncoderModel,
    tokenizer: T5Tokenizer,
    data: LatentSet,
    budget: Budget,
    checkpoint: Path | None = None,
    *,
    seed: int = 0,
    batch: int = 64,
    peak: float = 2e-3,
    muon: bool = True,
    compile: bool = True,
    decay: float = 0.997,
    at_checkpoint: Callable[[Denoiser], LatentSet | None] | None = None,
) -> Denoiser:
    """Train, going on from ``checkpoint`` if it is there; returns the moving average of the two nets.

    ``at_checkpoint(average)`` is called after each checkpoint; a latent set that it returns replaces the data.
    """
    denoiser = Denoiser(transformer, text_encoder).train()
    average = copy.deepcopy(denoiser).requires_grad_(False).eval()
    course = Course(
        {"denoiser": denoiser},
        make_optimizers(denoiser, peak, muon),
        averages={"denoiser": average},
        decay=decay,
    )
    if checkpoint is not None and checkpoint.exists():
        course.resume(checkpoint)
    quicken(transformer)
    if compile:
        for block in transformer.transformer_blocks:
            block.compile()
    loss_of = DenoisingLoss(denoiser, data, tokens(tokenizer, [""])[0][0], seed, batch)

    def hook() -> None:
        loss_of.data = (at_checkpoint(average) if at_checkpoint is not None else None) or loss_of.data

    course.run(loss_of, budget, checkpoint, at_checkpoint=hook)
    return average

"""The steps from nothing to a Storybook pipeline: autoencoder, latents, transformer, export.

All of them keep their state in one work folder and go on from it when they are called again::

    work/autoencoder.safetensors   checkpoint of the autoencoder's training
    work/vae/                      the finished autoencoder (diffusers)
    work/latents/                  encoded training pictures
    work/denoiser.safetensors      checkpoint of the transformer's and text encoder's training
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from ecad.storybook.autoencoder import held_out_psnr, train_autoencoder
from ecad.storybook.course import Budget, load_tree
from ecad.storybook.denoising import Denoiser, LatentSet, load_latents, make_latents, train_denoiser
from ecad.storybook.pipeline import PIPELINE_FOLDER, export_pipeline
from ecad.storybook.text import make_text_encoder, make_tokenizer, with_synonyms
from ecad.storybook.transformer import make_transformer


class BuildError(ValueError):
    """A step was asked for before the one it needs."""

    user_facing = True


def build_autoencoder(work: Path, budget: Budget, seed: int = 0, decoder_only: bool = False) -> float:
    """Train the autoencoder (or only go on with its decoder) and save it; returns its PSNR on held-out pictures."""
    net = finished_autoencoder(work) if decoder_only else None
    net = train_autoencoder(work, budget, seed=seed, net=net, decoder_only=decoder_only)
    net.save_pretrained(work / "vae")
    return held_out_psnr(net)


def finished_autoencoder(work: Path) -> AutoencoderTiny:
    if not (work / "vae" / "config.json").exists():
        raise BuildError(
            f"there is no trained autoencoder in {work}: run `python -m ecad storybook autoencoder` first"
        )
    return AutoencoderTiny.from_pretrained(work / "vae").to(memory_format=torch.channels_last).eval()


def build_transformer(
    work: Path, budget: Budget, *, pictures: int = 16000, batch: int = 64, seed: int = 0, compile: bool = True
) -> None:
    """Encode the training pictures, then train; the pipeline in the assets is written by `export`."""
    tokenizer = make_tokenizer()
    make_latents(work / "latents", finished_autoencoder(work), tokenizer, pictures, seed)
    torch.manual_seed(seed)
    transformer, text_encoder = make_transformer(), make_text_encoder(tokenizer)

    def newly_encoded(average: Denoiser) -> LatentSet:
        return load_latents(work / "latents")

    train_denoiser(
        transformer,
        text_encoder,
        tokenizer,
        load_latents(work / "latents"),
        budget,
        work / "denoiser.safetensors",
        seed=seed,
        batch=batch,
        compile=compile,
        at_checkpoint=newly_encoded,
    )


def export(work: Path, target: Path = PIPELINE_FOLDER, averaged: bool = True) -> int:
    """Write the pipeline from the latest checkpoint; returns the number of steps it had.

    The weights are the moving average, or the latest ones: better while a training still learns fast.
    """
    checkpoint = work / "denoiser.safetensors"
    if not checkpoint.exists():
        raise BuildError(
            f"there is no trained transformer in {work}: run `python -m ecad storybook transformer` first"
        )
    tokenizer = make_tokenizer()
    denoiser = Denoiser(make_transformer(), make_text_encoder(tokenizer))
    tree = load_tree(checkpoint)
    denoiser.load_state_dict(tree["averages" if averaged else "nets"]["denoiser"])
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer, text_encoder = with_synonyms(tokenizer, denoiser.text_encoder)
    export_pipeline(target, denoiser.transformer, text_encoder, tokenizer, finished_autoencoder(work))
    return tree["step"]

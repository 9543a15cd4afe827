"""Storybook's parts put together as a stock PixArtAlphaPipeline directory, and where that lies."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, PixArtAlphaPipeline, PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import T5EncoderModel, T5Tokenizer

from ecad.storybook.transformer import make_scheduler

PIPELINE_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "storybook" / "pipeline"


def export_pipeline(
    folder: Path,
    transformer: PixArtTransformer2DModel,
    text_encoder: T5EncoderModel,
    tokenizer: T5Tokenizer,
    vae: AutoencoderTiny,
) -> None:
    """Write the pipeline's directory, replacing what was there at once.

    A plain ``PixArtAlphaPipeline.from_pretrained(folder)`` then works on a CPU without any argument: transformer and
    autoencoder are stored in float16 and loaded as float32; the text encoder is stored in float32, since a float16
    T5 would stay what it is.
    """
    transformer = copy.deepcopy(transformer).eval()
    transformer.set_attn_processor(AttnProcessor2_0())
    pipe = PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=copy.deepcopy(text_encoder).float().eval(),
        vae=copy.deepcopy(vae).to(torch.float16).eval(),
        transformer=transformer.to(torch.float16),
        scheduler=make_scheduler(),
    )
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipe.save_pretrained(new)
    for file in new.rglob("*"):  # diffusers writes weights for the owner only
        file.chmod(0o755 if file.is_dir() else 0o644)
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)

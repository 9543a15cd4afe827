"""Small saved pipelines of the stock diffusers classes: random weights, the real file format."""

from __future__ import annotations

from pathlib import Path

import pytest


def _t5(torch, width: int):
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    words = "a red blue green house tree car boat left of on grass in snow at night".split()  # noqa: SIM905
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    vocab += [("▁" + word, -2.0) for word in words] + [(chr(c), -8.0) for c in range(97, 123)] + [("▁", -7.0)]
    tokenizer = T5Tokenizer(vocab=vocab, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        pad_token_id=0,
    )
    return tokenizer, T5EncoderModel(config)


def _vae(shift: bool = False):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        mid_block_add_attention=False,
        scaling_factor=0.5,
        shift_factor=0.1 if shift else None,
    )


def save_tiny_pixart(folder: Path, *, blocks: int = 4, sigma: bool = False, seed: int = 0) -> Path:
    """Save a random PixArt pipeline: `blocks` blocks of width 16, 256 px, 64 image tokens."""
    import torch
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    torch.manual_seed(seed)
    tokenizer, text_encoder = _t5(torch, 16)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,  # learned sigma, as the published weights have it
        num_layers=blocks,
        cross_attention_dim=16,
        sample_size=32,
        patch_size=4,
        caption_channels=16,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        attention_bias=True,
        use_additional_conditions=False,
    )
    for block in transformer.transformer_blocks:  # as large as in a trained model, so that a wrong gate shows
        torch.nn.init.normal_(block.scale_shift_table, std=0.3)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.2)
    scheduler = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule="linear")
    pipeline = (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=_vae(),
        transformer=transformer,
        scheduler=scheduler,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_tiny_flux(
    folder: Path, *, double: int = 2, single: int = 3, guidance: bool = True, seed: int = 0
) -> Path:
    """Save a random FLUX pipeline: `double` two-stream and `single` one-stream blocks of width 32."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    tokenizer_2, text_encoder_2 = _t5(torch, 16)
    vocab_folder = folder / "vocab"
    vocab_folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(97, 123)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    import json

    (vocab_folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (vocab_folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(vocab_folder, model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=16,
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
            pad_token_id=len(tokens) - 1,
        )
    )
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(shift=True),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pixart_path(tmp_path_factory) -> Path:
    """A saved 4-block PixArt-alpha pipeline."""
    return save_tiny_pixart(tmp_path_factory.mktemp("tiny") / "pixart")


@pytest.fixture(scope="session")
def tiny_pixart_28_path(tmp_path_factory) -> Path:
    """A saved 28-block PixArt-alpha pipeline, the shape of the published schedules."""
    return save_tiny_pixart(tmp_path_factory.mktemp("tiny") / "pixart28", blocks=28)


@pytest.fixture(scope="session")
def tiny_sigma_path(tmp_path_factory) -> Path:
    """A saved 4-block PixArt-Sigma pipeline."""
    return save_tiny_pixart(tmp_path_factory.mktemp("tiny") / "sigma", sigma=True)


@pytest.fixture(scope="session")
def tiny_flux_path(tmp_path_factory) -> Path:
    """A saved FLUX pipeline with 2 two-stream and 3 one-stream blocks."""
    return save_tiny_flux(tmp_path_factory.mktemp("tiny") / "flux")

"""Storybook's diffusion transformer (a PixArtTransformer2DModel as deep as PixArt-alpha) and its noise."""

from __future__ import annotations

import torch
from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

BLOCKS, WIDTH, HEAD = 28, 128, 32
LATENT_SIDE, LATENT_CHANNELS, PATCH = 32, 8, 4
TRAIN_TIMES = 1000
BETA_START, BETA_END = 1e-4, 2e-2
PREDICTION = "sample"  # the net says what the clean latents are: see denoising.DenoisingLoss


def make_transformer(
    blocks: int = BLOCKS, width: int = WIDTH, head: int = HEAD, text_width: int = WIDTH
) -> PixArtTransformer2DModel:
    """An untrained transformer; its output starts at zero (as diffusion transformers are usually begun)."""
    net = PixArtTransformer2DModel(
        num_attention_heads=width // head,
        attention_head_dim=head,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=blocks,
        cross_attention_dim=width,
        sample_size=LATENT_SIDE,
        patch_size=PATCH,
        caption_channels=text_width,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        attention_bias=True,
        num_embeds_ada_norm=TRAIN_TIMES,
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2 and "scale_shift_table" not in name:
                torch.nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                parameter.zero_()
        for block in net.transformer_blocks:
            block.attn2.to_out[0].weight.zero_()
        net.proj_out.weight.zero_()
    return net


def make_scheduler() -> DPMSolverMultistepScheduler:
    """The sampler the pipeline is saved with: DPM-Solver++ of second order on linear betas."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_TIMES,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        prediction_type=PREDICTION,
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


def noise_levels() -> tuple[torch.Tensor, torch.Tensor]:
    """How much of signal and of noise there is at each training time: float [TRAIN_TIMES] each."""
    betas = torch.linspace(BETA_START, BETA_END, TRAIN_TIMES, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, 0)
    return kept.sqrt().float(), (1 - kept).sqrt().float()

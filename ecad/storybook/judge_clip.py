"""The judge's CLIP: its open_clip configuration, and a loader that refuses random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 24, "head_width": 48},
        # The built-in tokenizer fixes the vocabulary; rows of words that the world has not are zero.
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 48, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {
        "size": 64,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


def load_clip(folder: Path) -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Tensor]]:
    """The model, its picture transform (PIL -> [3, H, W]) and its tokenizer (texts -> [B, T]) from `folder`.

    open_clip builds a model with random weights, and only logs a warning, where it finds none; so every
    tensor of the loaded model is compared with the file. Raises ValueError where one differs or is missing.
    """
    import open_clip
    from safetensors.torch import load_file

    name = f"local-dir:{folder.resolve()}"
    model, transform = open_clip.create_model_from_pretrained(name, device="cpu", precision="fp32")
    stored = load_file(folder / WEIGHTS_FILE)
    loaded = model.state_dict()
    wrong = [
        key
        for key in loaded
        if key not in stored or not torch.equal(loaded[key], stored[key].to(loaded[key]))
    ]
    if wrong:
        raise ValueError(f"open_clip did not load the weights in {folder}: {wrong[0]} differs from the file")
    return model.eval(), transform, open_clip.get_tokenizer(name)


def save_clip(state: dict[str, Tensor], folder: Path) -> None:
    """Write the model's tensors (float16) and `CONFIG` as an open_clip `local-dir:` folder."""
    from safetensors.torch import save_file

    weights = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in state.items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(CONFIG, indent=2) + "\n")


def build(vocabulary: int) -> nn.Module:
    """An untrained model of `CONFIG`, with that many text tokens instead of the tokenizer's 49408."""
    from open_clip.model import CLIP

    config: dict[str, Any] = CONFIG["model_cfg"]
    return CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=config["vision_cfg"],
        text_cfg={**config["text_cfg"], "vocab_size": vocabulary},
    )

"""Loading an image generator by name or folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ecad.execution import ExecutionError
from ecad.execution.families import check_mode
from ecad.models.flux_generator import FluxGenerator
from ecad.models.pixart_generator import PixArtGenerator
from ecad.models.settings import ALIASES, SETTINGS, ModelSettings, known_names

# Class of a saved pipeline -> its image generator, and its makers' settings where a folder names none.
PIPELINES = {
    "FluxPipeline": (FluxGenerator, {"text_tokens": 512, "guidance_scale": 3.5, "dtype": "bfloat16"}),
    "PixArtAlphaPipeline": (PixArtGenerator, {"text_tokens": 120}),
    "PixArtSigmaPipeline": (PixArtGenerator, {"text_tokens": 300}),
}


def load_image_generator(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    threads: int | None = None,
    mode: str = "fast",
    settings: ModelSettings | None = None,
) -> Any:
    """Load a model.

    Args:
        name_or_path: a name of `ecad.models.known_names()`, or the folder of a pipeline saved by
        `save_pretrained`.
        device: where it runs; None takes a GPU if there is one.
        dtype: of its weights; None takes float32 on a CPU and the model's own on a GPU.
        threads: CPU threads that its passes use; None leaves torch's setting.
        mode: how passes execute: "fast", or "reference" (the model's own modules one by one).
        settings: rows, size, guidance and text length, where the model's own are not wanted.

    Returns:
        An `ImageGenerator`.

    Raises:
        ExecutionError: no such model or folder, an unsupported pipeline class, no access to the hub.
    """
    check_mode(mode)
    given = str(name_or_path)
    name = ALIASES.get(given, given)
    if settings is None and name in SETTINGS:
        settings = SETTINGS[name]
    folder = _folder(settings.source if settings is not None else given, name)
    class_name = _class_name(folder)
    if class_name not in PIPELINES:
        raise ExecutionError(f"{folder} holds a {class_name}; supported are {', '.join(sorted(PIPELINES))}")
    kind, defaults = PIPELINES[class_name]
    if settings is None:
        settings = replace(ModelSettings(name=folder.name, source=str(folder)), **defaults)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    asked = dtype
    if dtype is None:
        dtype = settings.dtype if device.type == "cuda" else "float32"
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ExecutionError(f"`dtype` is float32, float16 or bfloat16, not {asked!r}")
    return kind(folder, settings=settings, device=device, dtype=dtype, threads=threads, mode=mode)


def _folder(source: str, name: str) -> Path:
    """The local folder of a model: `source` itself, or the hub's download of it."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if name == "storybook":
        raise ExecutionError(
            f"Storybook's weights are not at {folder}; clone the repository whole, or train them with"
            " `python -m ecad storybook`"
        )
    if name not in SETTINGS:
        raise ExecutionError(
            f"there is no model {source!r}: give the folder of a saved diffusers pipeline, or one of"
            f" {', '.join(known_names())}"
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:
        raise ExecutionError(
            f"{name} needs the weights of https://huggingface.co/{source} and they could not be fetched"
            f" ({type(error).__name__}); download that repository where there is access, and pass the folder"
            " instead of the name"
        ) from error


def _class_name(folder: Path) -> str:
    index = folder / "model_index.json"
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError) as error:
        raise ExecutionError(
            f"{folder} is not a saved diffusers pipeline: it has no readable model_index.json"
        ) from error

"""Loading an image generator by name or folder."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ecad.execution import ExecutionError
from ecad.execution.families import check_mode
from ecad.execution.heap import keep_freed_memory
from ecad.models.flux_generator import FluxGenerator
from ecad.models.pixart_generator import PixArtGenerator
from ecad.models.settings import ALIASES, SETTINGS, ModelSettings, known_names
from ecad.models.text_encoders import check_policy
from ecad.schedule.schedule import MAX_ROWS

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
    compile: bool | str = False,
    settings: ModelSettings | None = None,
    rows: int | None = None,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    text_encoder: str | None = None,
) -> Any:
    """Load a model. On a CPU the process keeps up to 1 GiB of freed memory from then on (`ecad.execution.heap`).

    Args:
        name_or_path: a name of `ecad.models.known_names()`, or the folder of a pipeline saved by
        `save_pretrained`.
        device: where it runs; None takes a GPU if there is one.
        dtype: of its weights; None takes float32 on a CPU and the model's own on a GPU.
        threads: CPU threads that its passes use; None leaves torch's setting.
        mode: how passes execute: "fast", or "reference" (the model's own modules one by one).
        compile: let torch compile the fast mode's components, once for all blocks; a text names its backend. Off,
            because on a CPU it gains nothing and on a GPU it is not measured yet. The first passes compile (a
            minute or so), and so does the first of another size.
        settings: how the model is run, in place of its own settings.
        rows, height, width, guidance_scale, text_encoder: these alone in place of the model's own (see
            `ModelSettings`). Sizes are pixels.

    Returns:
        An `ImageGenerator`.

    Raises:
        ExecutionError: no such model or folder, an unsupported pipeline class, no access to the hub, a setting
            that this model cannot run with.
    """
    check_mode(mode)
    given = str(name_or_path)
    name = ALIASES.get(given, given)
    if settings is None and name in SETTINGS:
        settings = SETTINGS[name]
    source = settings.source if settings is not None else given
    apart = settings.transformer if settings is not None else None
    without = [pattern for pattern, left in (("transformer/*", apart), ("text_encoder*/*", text_encoder == "none"))
               if left]  # fmt: skip
    folder = _folder(source, name, without)
    transformer_folder = None if apart is None else _folder(apart, name, [], only="transformer/*")
    class_name = _class_name(folder)
    if class_name not in PIPELINES:
        raise ExecutionError(f"{folder} holds a {class_name}; supported are {', '.join(sorted(PIPELINES))}")
    kind, defaults = PIPELINES[class_name]
    if settings is None:
        settings = replace(ModelSettings(name=folder.name, source=str(folder)), **defaults)
    changes = {"rows": rows, "height": height, "width": width, "guidance_scale": guidance_scale,
               "text_encoder": text_encoder}  # fmt: skip
    settings = replace(settings, **{key: value for key, value in changes.items() if value is not None})
    check_settings(settings)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    asked = dtype
    if dtype is None:
        dtype = settings.dtype if device.type == "cuda" else "float32"
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ExecutionError(f"`dtype` is float32, float16 or bfloat16, not {asked!r}")
    if device.type == "cpu":
        keep_freed_memory()
    generator = kind(
        folder,
        settings=settings,
        device=device,
        dtype=dtype,
        threads=threads,
        mode=mode,
        compile=compile,
        transformer_folder=transformer_folder,
    )
    if guidance_scale is not None and not generator.takes_guidance:
        raise ExecutionError(f"{generator.name} was made without guidance and takes no guidance scale")
    return generator


def check_settings(settings: ModelSettings) -> None:
    """Raise ExecutionError for settings that no model runs with."""
    check_policy(settings.text_encoder)
    if not 1 <= settings.rows <= MAX_ROWS:
        raise ExecutionError(f"the number of steps must be 1 to {MAX_ROWS}, not {settings.rows}")
    if not math.isfinite(settings.guidance_scale) or settings.guidance_scale < 0:
        raise ExecutionError(
            f"the guidance scale must be a number of at least 0, not {settings.guidance_scale:g}"
        )


def _folder(source: str, name: str, without: list[str], only: str | None = None) -> Path:
    """The local folder of a model: `source` itself, or the hub's download of it.

    without: patterns of files that are not needed; only: of the files that are.
    """
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

    kinds = ["*.json", "*.txt", "*.model", "*.safetensors"]
    patterns = kinds if only is None else [only.replace("*", kind) for kind in kinds]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns, ignore_patterns=without or None))
    except Exception as error:
        raise ExecutionError(
            f"{name} needs the weights of https://huggingface.co/{source}, which could not be fetched"
            f" ({type(error).__name__}): `{_download(SETTINGS[name])}` puts them into the hub's cache where there is"
            " access (for some after accepting the licence on that page and `hf auth login`), or give the folder of"
            " a pipeline saved by `save_pretrained` instead of the name"
        ) from error


def _download(settings: ModelSettings) -> str:
    """The shell command that downloads a model."""
    sources = [settings.source, *([settings.transformer] if settings.transformer is not None else [])]
    return " && ".join(f"hf download {source}" for source in sources)


def _class_name(folder: Path) -> str:
    index = folder / "model_index.json"
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError) as error:
        raise ExecutionError(
            f"{folder} is not a saved diffusers pipeline: it has no readable model_index.json"
        ) from error

"""Encoded prompts in files, so that images can be made and timed without a text encoder.

Two kinds of file are read. Ours, `.safetensors`, holds any number of prompts: the tensors below and a header
with `format` and, if they were given, the prompts. The original's, `.pt`, holds one prompt as a dictionary of
tensors; it is read with `weights_only=True`, so nothing in it can run. A folder stands for all its files
below it, in the order of their names.

    PixArt  prompt_embeds [n, T, D], prompt_attention_mask [n, T],
            negative_prompt_embeds [1, T, D], negative_prompt_attention_mask [1, T]   (the empty prompt)
    FLUX    prompt_embeds [n, T, D], pooled_prompt_embeds [n, P]

In a `.pt` the first axis is missing. T is the length that the model's prompts are padded to, D the width of
its text encoder's output.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ecad.execution import ExecutionError
from ecad.schedule.files import write_atomically

FORMAT = "ecad-embeddings-1"
SUFFIXES = (".safetensors", ".pt")

# Tensor in a file -> (attribute of the embeddings, axes besides the prompts'), by family.
_PIXART = {
    "prompt_embeds": ("text", "TD"),
    "prompt_attention_mask": ("mask", "T"),
    "negative_prompt_embeds": ("empty_text", "TD"),
    "negative_prompt_attention_mask": ("empty_mask", "T"),
}
_FLUX = {"prompt_embeds": ("text", "TD"), "pooled_prompt_embeds": ("pooled", "P")}
_LAYOUTS = {"pixart": _PIXART, "flux": _FLUX}


def save_embeddings(path: str | Path, embeddings: Any, *, prompts: list[str] | None = None) -> Path:
    """Write what an image generator's `encode` returned to a `.safetensors` file, in one step.

    prompts: the texts, one per prompt; noted in the file's header.

    Raises:
        ExecutionError: another suffix, another number of texts, or embeddings of an unknown kind.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ExecutionError(f"{path} must end in .safetensors to hold embeddings")
    if prompts is not None and len(prompts) != len(embeddings):
        raise ExecutionError(f"there are {len(embeddings)} embeddings but {len(prompts)} prompts to note")
    fitting = [
        tensors
        for tensors in _LAYOUTS.values()
        if all(hasattr(embeddings, attribute) for attribute, _ in tensors.values())
    ]
    if not fitting:
        raise ExecutionError(f"{type(embeddings).__name__} is not of a family whose embeddings have files")
    held = {
        name: getattr(embeddings, attribute).detach().cpu().contiguous().clone()
        for name, (attribute, _) in fitting[0].items()
    }
    header = {"format": FORMAT}
    if prompts is not None:
        header["prompts"] = json.dumps(prompts)
    write_atomically(path, safetensors.torch.save(held, metadata=header))
    return path


def load_embeddings(path: str | Path, generator: Any) -> Any:
    """The embeddings in a file or folder, as the image generator's `encode` would return them.

    Raises:
        ExecutionError: nothing there, not embeddings, of another family, or of another shape than the model
            takes; the sentence names the file and what is expected.
    """
    family = generator.layout.family
    if family not in _LAYOUTS:
        raise ExecutionError(f"embeddings cannot be read from files for {generator.name}; give prompts")
    expected = _expected(generator, family)
    parts = [_checked(file, _read(file)[0], family, expected) for file in embedding_files(path)]
    together: dict[str, torch.Tensor] = {}
    for name, (attribute, _) in _LAYOUTS[family].items():
        tensors = [part[name] for part in parts]
        if name.startswith("negative_"):
            if any(not torch.equal(one, tensors[0]) for one in tensors[1:]):
                raise ExecutionError(
                    f"the files in {path} hold different encodings of the empty prompt ({name}); make them anew"
                    " with one model"
                )
            tensors = tensors[:1]
        dtype = torch.int64 if "mask" in name else generator.dtype
        together[attribute] = torch.cat(tensors).to(device=generator.device, dtype=dtype)
    return _kind(family)(**together)


def embedding_names(path: str | Path) -> list[str]:
    """What to call each prompt of a file or folder, in its order: its text where noted, else its file's name.

    Raises ExecutionError as `load_embeddings` does for files that cannot be read.
    """
    names: list[str] = []
    for file in embedding_files(path):
        tensors, header = _read(file)
        count = len(tensors["prompt_embeds"]) if "prompt_embeds" in tensors else 0
        noted = json.loads(header["prompts"]) if "prompts" in header else None
        if noted is not None and len(noted) == count:
            names += [str(one) for one in noted]
        else:
            names += [file.stem] if count == 1 else [f"{file.stem} {number}" for number in range(count)]
    return names


def embedding_files(path: str | Path) -> list[Path]:
    """The files that `path` stands for: itself, or all embedding files below it, by name."""
    path = Path(path).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not found:
            raise ExecutionError(f"there is no file of embeddings ({' or '.join(SUFFIXES)}) in {path}")
        return found
    if not path.is_file():
        raise ExecutionError(f"there is no file of embeddings {path}")
    if path.suffix not in SUFFIXES:
        raise ExecutionError(f"{path} is not a file of embeddings; expected {' or '.join(SUFFIXES)}")
    return [path]


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """(tensors with the prompts' axis first, header) of a file."""
    try:
        if file.suffix == ".pt":
            held = torch.load(file, weights_only=True, map_location="cpu")
            if not isinstance(held, dict):
                raise ExecutionError(f"{file} holds no dictionary of tensors, so no embeddings")
            return {k: v[None] for k, v in held.items() if isinstance(v, torch.Tensor)}, {}
        with safetensors.safe_open(file, framework="pt", device="cpu") as opened:
            header = dict(opened.metadata() or {})
            if header.get("format") != FORMAT:
                raise ExecutionError(
                    f"{file} is not a file of embeddings: its format is {header.get('format')!r}, expected"
                    f" {FORMAT!r}"
                )
            return {name: opened.get_tensor(name) for name in opened.keys()}, header  # noqa: SIM118
    except ExecutionError:
        raise
    except Exception as error:  # torch's reader meets a damaged file with whatever it stumbles over
        said = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ExecutionError(f"{file} cannot be read as embeddings: {said}") from error


def _checked(
    file: Path, tensors: dict[str, torch.Tensor], family: str, expected: dict[str, int]
) -> dict[str, torch.Tensor]:
    """A file's tensors, each of the expected shape and finite."""
    missing = [name for name in _LAYOUTS[family] if name not in tensors]
    if missing:
        held = ", ".join(sorted(tensors)) or "no tensor"
        raise ExecutionError(f"{file} has no {missing[0]}, which {family} embeddings need; it holds {held}")
    found: dict[str, torch.Tensor] = {}
    count = None
    for name, (_, axes) in _LAYOUTS[family].items():
        tensor = tensors[name]
        if count is None:
            count = len(tensor) if tensor.ndim else 0
        first = 1 if name.startswith("negative_") else count
        shape = (first, *(expected[axis] for axis in axes))
        if not count or tuple(tensor.shape) != shape:
            raise ExecutionError(
                f"{file}: {name} has the shape {_by(tensor.shape)}, but this model needs"
                f" {_by(('prompts' if not count else first, *shape[1:]))}"
                f" (length {expected['T']}, width {expected['D']})"
            )
        if not torch.isfinite(tensor.to(torch.float32)).all():
            raise ExecutionError(f"{file}: {name} holds numbers that are not finite")
        found[name] = tensor
    return found


def _by(shape: Any) -> str:
    return " x ".join(str(side) for side in shape) or "of one number"


def _expected(generator: Any, family: str) -> dict[str, int]:
    """Axis letter -> length, of the model's own embeddings."""
    config = generator.transformer.config
    if family == "flux":
        widths = {"D": config.joint_attention_dim, "P": config.pooled_projection_dim}
    else:
        widths = {"D": config.caption_channels}
    return {"T": generator.settings.text_tokens, **widths}


def _kind(family: str) -> type:
    if family == "flux":
        from ecad.models.flux_generator import FluxEmbeddings

        return FluxEmbeddings
    from ecad.models.pixart_generator import PixArtEmbeddings

    return PixArtEmbeddings

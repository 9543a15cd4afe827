"""The attribute reader: a small convolutional net that says which facts a picture shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecad.storybook.world import COLOURS, OBJECTS, PLACES, SKIES, Scene, Thing

READER_WEIGHTS_FILE = "reader.safetensors"

HEADS = {
    "count": 2,
    "left_object": len(OBJECTS),
    "left_colour": len(COLOURS),
    "right_object": len(OBJECTS),
    "right_colour": len(COLOURS),
    "place": len(PLACES),
    "sky": len(SKIES),
}
"""What is read, in the order of `judge_pool.numbers`, each with its number of classes."""


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions; `stride` 2 halves the side."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Reader(nn.Module):
    """Picture -> logits of every head. The last features keep 4 x 4 positions, to tell left from right."""

    def __init__(self, size: int = 64, widths: tuple[int, ...] = (32, 64, 96, 128), hidden: int = 256):
        super().__init__()
        self.config = {"size": size, "widths": list(widths), "hidden": hidden}
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1)
        ins, outs = widths[:-1], widths[1:]
        self.blocks = nn.Sequential(*(Block(i, o, 2) for i, o in zip(ins, outs, strict=True)))
        side = size // 2 ** len(widths)
        self.hidden = nn.Linear(widths[-1] * side * side, hidden)
        self.heads = nn.Linear(hidden, sum(HEADS.values()))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Pictures [B, 3, size, size] in -1 to 1 -> one tensor of logits [B, classes] per head of `HEADS`."""
        x = self.blocks(torch.relu(self.stem(pictures)))
        x = torch.relu(self.hidden(x.flatten(1)))
        return self.heads(x).split(list(HEADS.values()), dim=1)

    @torch.inference_mode()
    def read(self, pictures: Tensor) -> list[Scene]:
        """The likeliest scene of each picture [B, 3, size, size] in -1 to 1."""
        if not len(pictures):
            return []
        best = torch.stack([logits.argmax(1) for logits in self(pictures)], 1).tolist()
        return [_scene(*row) for row in best]


def _scene(
    second: int,
    left_object: int,
    left_colour: int,
    right_object: int,
    right_colour: int,
    place: int,
    sky: int,
) -> Scene:
    things = [Thing(COLOURS[left_colour], OBJECTS[left_object])]
    if second:
        things.append(Thing(COLOURS[right_colour], OBJECTS[right_object]))
    return Scene(tuple(things), PLACES[place], SKIES[sky])


def save_reader(reader: Reader, folder: Path) -> None:
    """Write reader.safetensors (float16) and reader.json: its sizes and the words its classes stand for."""
    from safetensors.torch import save_file

    weights = {
        name: t.half().contiguous() if t.is_floating_point() else t for name, t in reader.state_dict().items()
    }
    save_file(weights, folder / READER_WEIGHTS_FILE)
    (folder / "reader.json").write_text(json.dumps({**reader.config, "words": _words()}, indent=2) + "\n")


def load_reader(folder: Path) -> Reader:
    """The reader saved in `folder`; ValueError if it was trained on other words than the world has now."""
    from safetensors.torch import load_file

    config: dict[str, Any] = json.loads((folder / "reader.json").read_text())
    if config["words"] != _words():
        raise ValueError("the reader was trained on a world with other words: train the judge again")
    reader = Reader(config["size"], tuple(config["widths"]), config["hidden"])
    reader.load_state_dict(load_file(folder / READER_WEIGHTS_FILE))  # strict; float16 is widened
    return reader.eval()


def _words() -> dict[str, list[str]]:
    return {"objects": list(OBJECTS), "colours": list(COLOURS), "places": list(PLACES), "skies": list(SKIES)}

"""Where a pipeline's text encoders are: on the device while prompts are encoded, there for good, or nowhere.

T5-XXL alone takes 9.5 GB in half precision, more than the transformer it speaks to; denoising needs only what it said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ecad.execution import ExecutionError

POLICIES = ("offload", "keep", "none")
HOME = torch.device("cpu")


def check_policy(policy: str) -> None:
    """Raise ExecutionError for a policy that does not exist."""
    if policy not in POLICIES:
        raise ExecutionError(f"`text_encoder` is one of {', '.join(POLICIES)}, not {policy!r}")


def left_out(folder: Path) -> dict[str, None]:
    """Arguments of `from_pretrained` that load a saved pipeline without its text encoders and tokenizers."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return dict.fromkeys(name for name in index if name.startswith(("text_encoder", "tokenizer")))


class TextEncoders:
    """The text encoders of a loaded pipeline, and the device they are wanted on."""

    def __init__(self, pipe: Any, device: torch.device, policy: str) -> None:
        self.modules = [
            module
            for name, module in pipe.components.items()
            if name.startswith("text_encoder") and isinstance(module, torch.nn.Module)
        ]
        self.device = device
        # On the CPU itself there is nowhere to move them to.
        self.offloads = policy == "offload" and device != HOME
        self._move(HOME if self.offloads else device)

    def _move(self, device: torch.device) -> None:
        for module in self.modules:
            module.to(device)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Have them on the device meanwhile.

        Raises ExecutionError if the pipeline was loaded without them.
        """
        if not self.modules:
            raise ExecutionError(
                "the model was loaded without its text encoder, so it takes embeddings and no prompts;"
                ' load it with text_encoder="offload"'
            )
        if not self.offloads:
            yield
            return
        try:
            self._move(self.device)
            yield
        finally:  # also when there was no room for all of them
            self._move(HOME)

"""A family's computations as pure functions of tensors, as they are or compiled.

Weights come as arguments, so that all blocks share one compiled graph: a model of 28 blocks compiles each kind of
component once. Whole rows are never compiled, since every schedule would have its own.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ecad.models.packing import Linear, Norm

# Kept values are added in groups of these sizes, each group in one pass over memory; what remains one by one.
GROUPS = (16, 4)


class Kernels:
    """Functions by their names, as attributes: `kernels.feed_forward(...)`.

    compile: False calls them as they are; True compiles them with torch's inductor, a text names another backend.
    """

    def __init__(self, *functions: Callable[..., Any], compile: bool | str = False) -> None:
        self.compiled = bool(compile)
        self._backend = "inductor" if compile is True else compile
        for function in functions:
            setattr(self, function.__name__, self._for_plain(function) if compile else function)
        self._groups: dict[tuple[str, int], Callable[..., None]] = {}

    def _compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Torch keeps a bounded number of graphs per code object, and falls back to none beyond: with a code object of
        # its own a function does not share them with another model's.
        own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__,
                                 function.__defaults__)  # fmt: skip
        return torch.compile(own, backend=self._backend)

    def _for_plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled for plain weights; as it is where a module stands in for them (a LoRA, a hook)."""
        compiled = self._compile(function)

        def call(*given: Any) -> Any:
            return (compiled if _all_plain(given) else function)(*given)

        return call

    def add_all(
        self, name: str, stream: torch.Tensor, gates: Sequence[torch.Tensor], values: Sequence[torch.Tensor]
    ) -> None:
        """stream += sum of gate * value, in place; compiled by `GROUPS`, the rest one multiply-add a value.

        name: of the stream; those of one name are laid out alike in memory, and so are their gates and values.
        """
        at = 0
        for size in GROUPS:
            while len(values) - at >= size:
                group = self._groups.get((name, size))
                if group is None:
                    group = self._groups[name, size] = self._compile(_add_group)
                group(stream, list(gates[at : at + size]), list(values[at : at + size]))
                at += size
        for gate, value in zip(gates[at:], values[at:], strict=True):
            stream.addcmul_(gate, value)


def _all_plain(given: Sequence[Any]) -> bool:
    """Whether no module (or function around one) is among the arguments."""
    for one in given:
        if isinstance(one, Linear | Norm | torch.Tensor):
            continue
        if callable(one) or (isinstance(one, tuple) and not _all_plain(one)):
            return False
    return True


def _add_group(stream: torch.Tensor, gates: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    total = stream
    for gate, value in zip(gates, values, strict=True):
        total = torch.addcmul(total, gate, value)
    stream.copy_(total)

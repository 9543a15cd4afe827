"""Linear layers as functions: several that read the same input become one product, without a second copy of
weights.

Packing makes the modules' own parameters views of the packed tensor. Their values do not change, nothing is
held twice, and a change in place (an optimiser, a fused LoRA) is a change of the packed tensor. A parameter
that was replaced or moved is seen by its address, and packed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ecad.execution import ExecutionError

Projection = Callable[[torch.Tensor], torch.Tensor]


class Linear(NamedTuple):
    """A plain linear layer: x [..., in] -> [..., out]."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


def write(projection: Projection, x: torch.Tensor, room: torch.Tensor | None) -> torch.Tensor:
    """projection(x), written into `room` (contiguous) if one is given."""
    if room is None:
        return projection(x)
    if type(projection) is Linear and projection.bias is not None:
        weight, bias = projection
        torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight.t(), out=room.view(-1, room.shape[-1]))
        return room
    return room.copy_(projection(x))


class Norm(NamedTuple):
    """A plain RMS norm over the last axis."""

    weight: torch.Tensor | None
    eps: float | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def norm_of(module: torch.nn.Module) -> Projection:
    """A module's RMS norm; the module itself where it is more than that."""
    plain = type(module) is torch.nn.RMSNorm and len(module.normalized_shape) == 1 and not _altered(module)
    return Norm(module.weight, module.eps) if plain else module


def is_plain(module: torch.nn.Module) -> bool:
    """Whether calling a module is exactly `F.linear`: no subclass (LoRA, quantised), no hook, no forward
    of its own.
    """
    return type(module) is torch.nn.Linear and not _altered(module)


def _altered(module: torch.nn.Module) -> bool:
    """Whether calling a module does more than its class's forward: a hook, or a forward of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def function_of(module: torch.nn.Module) -> Projection:
    """x [..., in] -> [..., out]: the module's product; the module itself where it is more than a plain
    linear layer.
    """
    if not is_plain(module):
        return module
    if module.weight.is_meta:
        raise ExecutionError(
            "the model's weights are not loaded (sequential offloading); use enable_model_cpu_offload instead"
        )
    return Linear(module.weight, module.bias)


class Packer:
    """Packs groups of linear layers, and remembers what it has packed."""

    def __init__(self) -> None:
        self._packed: dict[Hashable, list[torch.Tensor]] = {}

    def __call__(self, key: Hashable, modules: Sequence[torch.nn.Module]) -> Projection:
        """x [..., in] -> [..., sum of out]: the modules' products side by side, in one where they are plain.

        key: names the group; the same for the same modules.
        """
        if not all(is_plain(module) for module in modules) or len({m.bias is None for m in modules}) > 1:
            return lambda x: torch.cat([module(x) for module in modules], dim=-1)
        functions = [function_of(module) for module in modules]
        kinds = ["weight"] if functions[0].bias is None else ["weight", "bias"]
        packed = self._packed.get(key)
        if packed is None or not all(
            _is_view(packed[i], [getattr(module, kind) for module in modules]) for i, kind in enumerate(kinds)
        ):
            packed = self._packed[key] = [
                _pack([getattr(module, kind) for module in modules]) for kind in kinds
            ]
        return Linear(packed[0], packed[1] if len(packed) > 1 else None)

    def release(self) -> None:
        """Hold no weights any more, so that offloading can free the device; the next use packs anew."""
        self._packed.clear()


@torch.no_grad()
def _pack(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts one below the other; each becomes a view of the result."""
    packed = torch.cat([part.detach() for part in parts])
    at = 0
    for part in parts:
        part.data = packed[at : at + len(part)]
        at += len(part)
    return packed


def _is_view(packed: torch.Tensor, parts: list[torch.Tensor]) -> bool:
    """Whether the parts still are the slices of `packed` that `_pack` made them."""
    address = packed.data_ptr()
    for part in parts:
        if part.data_ptr() != address or part.dtype != packed.dtype or part.shape[1:] != packed.shape[1:]:
            return False
        address += part.numel() * part.element_size()
    return address == packed.data_ptr() + packed.numel() * packed.element_size()

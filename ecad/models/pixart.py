"""The PixArt family: how its transformer executes schedules, in both modes."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ecad.execution import ExecutionError, Pass, Plan
from ecad.execution.lowering import Lowering
from ecad.execution.passes import Components
from ecad.execution.times import set_times
from ecad.models.folded_text import folded_cross_attention
from ecad.models.kernels import Kernels
from ecad.models.packing import Packer
from ecad.models.pixart_fast import GATES, PixArtFast, block_weights
from ecad.models.pixart_kernels import cross_attention, feed_forward, self_attention
from ecad.models.pixart_reference import PixArtReference
from ecad.schedule import Schedule
from ecad.schedule.layouts.pixart import pixart_layout


class PixArtModel:
    """A `PixArtTransformer2DModel` that executes schedules (the protocol `ecad.execution.families.Model`)."""

    def __init__(self, transformer: torch.nn.Module, mode: str, compile: bool | str = False) -> None:
        block = transformer.transformer_blocks[0]
        if block.norm_type != "ada_norm_single" or block.attn2 is None or block.only_cross_attention:
            raise ExecutionError(
                "this PixArt transformer's blocks are not of the published kind (ada_norm_single)"
            )
        self.transformer = transformer
        self.mode = mode
        self.layout = pixart_layout(len(transformer.transformer_blocks))
        self.lower = Lowering(gates=GATES if mode == "fast" else None)
        self.pack = Packer()
        self.kernels = Kernels(
            self_attention, cross_attention, folded_cross_attention, feed_forward, compile=compile
        )
        if mode == "fast":
            block_weights(
                transformer, self.pack
            )  # an unsupported module is refused now, not in the first pass

    def components(self, plan: Plan, timesteps: torch.Tensor) -> Components:
        """The components of one new pass."""
        if self.mode == "reference":
            return PixArtReference(self.transformer)
        return PixArtFast(self.transformer, self.pack, plan, timesteps, self.kernels)

    def run(self, one_pass: Pass, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        """One row of a pass.

        Under true T-GATE (`Schedule.gate_step`) guidance is dropped from the gate on, as in the original:
        the model runs on the negative half alone, its cross-attention the mean of both halves as kept before
        the gate. The output is given for both halves, so that any guidance between equals leaves it as it is.
        """
        gate = one_pass.plan.schedule.gate_step
        if gate is None or gate >= one_pass.plan.rows:
            return one_pass(row, **inputs)
        if row >= gate:
            return one_pass(row, **_first_half(inputs)).repeat(2, 1, 1, 1)
        if row == 0:
            latents = inputs["hidden_states"]
            half = len(latents) // 2
            if len(latents) % 2 or not torch.equal(latents[:half], latents[half:]):
                raise ExecutionError(
                    "a T-GATE schedule drops guidance at its gate and needs a guidance scale above 1"
                )
        output = one_pass(row, **inputs)
        if row == gate - 1:
            for column in self.layout.columns(self.layout.gated):
                if column in one_pass.values:
                    first, second = one_pass.values[column].chunk(2)
                    one_pass.values[column] = (first + second) / 2
        return output

    def release(self) -> None:
        """Hold no packed weights between passes, for a transformer that is offloaded."""
        self.pack.release()

    def grid(self, scheduler: Any, schedule: Schedule, inputs: dict[str, Any]) -> torch.Tensor:
        """The timesteps that the scheduler holds when the pipeline is called as the schedule says."""

        return set_times(copy.deepcopy(scheduler), schedule)

    def at_first_time(self, inputs: dict[str, Any], timesteps: torch.Tensor) -> bool:
        """Whether a model call stands at the first of these timesteps."""
        return float(torch.as_tensor(inputs["timestep"]).flatten()[0]) == float(timesteps[0])


def _first_half(inputs: dict[str, Any]) -> dict[str, Any]:
    """A model call's inputs for the first half of its batch."""
    half = len(inputs["hidden_states"]) // 2

    def cut(given: Any) -> Any:
        if isinstance(given, torch.Tensor) and given.ndim and len(given) == 2 * half:
            return given[:half]
        return {name: cut(one) for name, one in given.items()} if isinstance(given, dict) else given

    return {name: cut(given) for name, given in inputs.items()}

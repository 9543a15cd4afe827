"""The FLUX family: how its transformer executes schedules, in both modes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils.peft_utils import apply_lora_scale

from ecad.execution import ExecutionError, Pass, Plan
from ecad.execution.lowering import Lowering
from ecad.execution.passes import Components
from ecad.models.flux_fast import FluxFast, flux_weights
from ecad.models.flux_kernels import (
    feed_forward,
    feed_forward_text,
    full_attention,
    modulate,
    single_attention,
    single_mlp,
    single_out,
)
from ecad.models.flux_reference import FluxReference
from ecad.models.kernels import Kernels
from ecad.models.packing import Packer
from ecad.schedule import Schedule
from ecad.schedule.layouts.flux import flux_layout


class FluxModel:
    """A `FluxTransformer2DModel` that executes schedules (the protocol `ecad.execution.families.Model`)."""

    def __init__(self, transformer: torch.nn.Module, mode: str, compile: bool | str = False) -> None:
        if getattr(transformer, "encoder_hid_proj", None) is not None:
            raise ExecutionError("a schedule does not run together with an IP-Adapter; unload it first")
        self.transformer = transformer
        self.mode = mode
        self.layout = flux_layout(
            len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)
        )
        self.lower = Lowering(whole=mode == "reference")
        self.pack = Packer()
        self.kernels = Kernels(
            modulate,
            full_attention,
            feed_forward,
            feed_forward_text,
            single_attention,
            single_mlp,
            single_out,
            compile=compile,
        )
        if mode == "fast":
            flux_weights(
                transformer, self.pack
            )  # an unsupported module is refused now, not in the first pass

    def components(self, plan: Plan, timesteps: torch.Tensor) -> Components:
        """The components of one new pass of one kind of call."""
        if self.mode == "reference":
            return FluxReference(self.transformer, self.layout)
        return FluxFast(self.transformer, self.layout, self.pack, timesteps, self.kernels)

    def run(self, one_pass: Pass, row: int, inputs: dict[str, Any]) -> torch.Tensor:
        """One row of a pass; a LoRA's scale is in force meanwhile, as in the model's own forward."""
        return _scaled(self.transformer, one_pass, row, **inputs)

    def release(self) -> None:
        """Hold no packed weights between passes, for a transformer that is offloaded."""
        self.pack.release()

    def grid(self, scheduler: Any, schedule: Schedule, inputs: dict[str, Any]) -> torch.Tensor:
        """The timesteps that the scheduler holds when the pipeline is called as the schedule says."""
        scheduler = copy.deepcopy(scheduler)
        return set_sigmas(scheduler, schedule, inputs["hidden_states"].shape[1])

    def at_first_time(self, inputs: dict[str, Any], timesteps: torch.Tensor) -> bool:
        """Whether a model call stands at the first of these timesteps (up to a half-precision rounding)."""
        given = float(inputs["timestep"].flatten()[0]) * 1000
        return abs(given - float(timesteps[0])) <= 0.005 * float(timesteps[0])


@apply_lora_scale("joint_attention_kwargs")
def _scaled(transformer: torch.nn.Module, one_pass: Pass, row: int, **inputs: Any) -> torch.Tensor:
    return one_pass(row, **inputs)


def set_sigmas(scheduler: Any, schedule: Schedule, tokens: int, device: Any = None) -> torch.Tensor:
    """Put a flow-matching scheduler on the schedule's times, as FluxPipeline does; returns its timesteps [R].

    tokens: image tokens, which shift the times.
    """
    if schedule.timesteps is not None:
        raise ExecutionError("the schedule names timesteps, but FLUX's rows stand at sigmas")
    config = scheduler.config
    shift = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    rows = schedule.rows
    sigmas = np.linspace(1.0, 1 / rows, rows) if schedule.sigmas is None else list(schedule.sigmas)
    try:
        if getattr(config, "use_flow_sigmas", False):
            scheduler.set_timesteps(rows, device=device, mu=shift)
        else:
            scheduler.set_timesteps(sigmas=sigmas, device=device, mu=shift)
    except (TypeError, ValueError) as error:
        raise ExecutionError(f"{type(scheduler).__name__} cannot run FLUX's sigmas: {error}") from error
    return scheduler.timesteps

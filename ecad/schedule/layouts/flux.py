"""FLUX.1: the layout, the sizes of the models and what their components cost.

Two streams, image and text tokens. A full block's attention (`full_attn`) reads both and keeps an output for
each; `full_ff` and `full_ff_context` read and feed one each. A single block works on both streams end to end
in one tensor: `single_attn` mixes them, `single_proj_mlp` works token by token, both kept; `single_proj_out`
reads these two *kept* values and nothing else, not even the time, and is added to the streams. The final
layer reads the image tokens only.

Hence the neutral bits of a FLUX schedule: recomputes of `single_attn` or `single_proj_mlp` that
no `single_proj_out` reads before the next one; recomputes of `single_proj_out` between which neither of its
inputs changed; recomputes of `full_ff_context` whose text no later attention reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Component, Layout, Value
from ecad.schedule.layouts.terms import Terms

FULL_COMPONENTS = ("full_attn", "full_ff", "full_ff_context")
SINGLE_COMPONENTS = ("single_attn", "single_proj_mlp", "single_proj_out")
SINGLE_PREFIX = "single_"
TIME_CHANNELS = 256  # width of the sinusoidal time embedding in diffusers


@lru_cache(maxsize=64)
def flux_layout(num_blocks: int = 19, num_single_blocks: int = 38) -> Layout:
    """The layout of a FLUX transformer of this depth; block keys "0", ... then "single_0", ...

    Raises:
        ScheduleError: fewer than one block of either kind.
    """
    if num_blocks < 1 or num_single_blocks < 1:
        raise ScheduleError(
            f"A FLUX layout has at least 1 full and 1 single block, not {num_blocks} and {num_single_blocks}."
        )
    both = ("image", "text")
    components: list[Component] = []
    values: list[Value] = []

    def add(block: str, name: str) -> int:
        components.append(Component(block, name, len(components)))
        return components[-1].index

    for block in range(num_blocks):
        attention = add(str(block), "full_attn")
        values.append(Value(attention, reads_streams=both, adds_to="image"))
        values.append(Value(attention, reads_streams=both, adds_to="text"))
        values.append(Value(add(str(block), "full_ff"), reads_streams=("image",), adds_to="image"))
        values.append(Value(add(str(block), "full_ff_context"), reads_streams=("text",), adds_to="text"))
    for block in range(num_single_blocks):
        key, first = f"{SINGLE_PREFIX}{block}", len(values)
        attention = add(key, "single_attn")
        values += [Value(attention, reads_streams=both)] * 2  # image tokens, text tokens
        mlp = add(key, "single_proj_mlp")
        values += [Value(mlp, reads_streams=(stream,)) for stream in both]
        out = add(key, "single_proj_out")
        values += [Value(out, reads_values=(first + i, first + 2 + i), adds_to=both[i]) for i in range(2)]
    name = f"flux-{num_blocks}-{num_single_blocks}"
    return Layout("flux", name, tuple(components), tuple(values), output="image")


@dataclass(frozen=True, kw_only=True)
class FluxDimensions:
    """The numbers that a FLUX transformer's costs follow from; by default FLUX.1-dev's at 256 px.

    `dim` is the width D, `height` and `width` are pixels, `pixels_per_token` the side of an image token,
    `guidance_embedder` whether the model is distilled with a guidance input (dev is, schnell is not).
    """

    num_blocks: int = 19
    num_single_blocks: int = 38
    dim: int = 3072
    height: int = 256
    width: int = 256
    pixels_per_token: int = 16
    in_channels: int = 64
    text_channels: int = 4096
    pooled_channels: int = 768
    text_tokens: int = 512
    ff_mult: int = 4
    guidance_embedder: bool = True

    @property
    def layout(self) -> Layout:
        """The layout of this depth."""
        return flux_layout(self.num_blocks, self.num_single_blocks)

    @property
    def image_tokens(self) -> int:
        """N, the number of image tokens.

        Raises:
            ScheduleError: the size is no multiple of the pixels per token.
        """
        side = self.pixels_per_token
        if self.height < side or self.width < side or self.height % side or self.width % side:
            raise ScheduleError(
                f"A size must be a multiple of {side} pixels, not {self.height} x {self.width}."
            )
        return (self.height // side) * (self.width // side)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **settings: Any) -> FluxDimensions:
        """From the `config.json` of a diffusers `FluxTransformer2DModel`.

        `settings` override (height, text_tokens, ...).
        """
        given: dict[str, Any] = {
            "num_blocks": int(config["num_layers"]),
            "num_single_blocks": int(config["num_single_layers"]),
            "dim": int(config["num_attention_heads"]) * int(config["attention_head_dim"]),
            "in_channels": int(config["in_channels"]),
            "text_channels": int(config["joint_attention_dim"]),
            "pooled_channels": int(config["pooled_projection_dim"]),
            "guidance_embedder": bool(config.get("guidance_embeds", False)),
        }
        return cls(**(given | settings))

    def terms(self, convention: str) -> Terms:
        """What each component and everything around them costs.

         Linear, D the width, N image and T text tokens, S = N + T: full_attn 4 D^2 S, full_ff 8 D^2 N,
         full_ff_context 8 D^2 T, single_attn 3 D^2 S, single_proj_mlp 4 D^2 S, single_proj_out 5 D^2 S
        . `paper` counts all of it in every row for a batch of two images. `full` counts one
         image, adds the attention products (2 S^2 D), and counts what no time changes (context embedder,
         guidance and pooled-text MLPs) once per pass; every row's modulations are counted whole, for they come
         from one product before the loop.
        """
        d, n, t = self.dim, self.image_tokens, self.text_tokens
        s, wide = n + t, self.ff_mult
        products = 2 * s * s * d if convention == "full" else 0
        component = {
            "full_attn": 4 * d * d * s + products,
            "full_ff": 2 * wide * d * d * n,
            "full_ff_context": 2 * wide * d * d * t,
            "single_attn": 3 * d * d * s + products,
            "single_proj_mlp": wide * d * d * s,
            "single_proj_out": (wide + 1) * d * d * s,
        }
        time = TIME_CHANNELS * d + d * d
        blocks = (self.num_blocks * 2 * 6 + self.num_single_blocks * 3) * d * d
        per_row = 2 * self.in_channels * d * n + time + 2 * d * d + blocks  # x_embedder + proj_out, norm_out
        prompt = self.text_channels * d * t + self.pooled_channels * d + d * d
        prompt += time if self.guidance_embedder else 0
        if convention == "paper":
            batch, fixed, once = 2, per_row + prompt, 0
        else:
            batch, fixed, once = 1, per_row, prompt
        component = {name: batch * macs for name, macs in component.items()}
        cache = {
            "full_attn": s * d,
            "full_ff": n * d,
            "full_ff_context": t * d,
            "single_attn": s * d,
            "single_proj_mlp": s * wide * d,
            "single_proj_out": s * d,
        }
        return Terms(
            layout=self.layout,
            component=component,
            component_gated=component,
            fixed=batch * fixed,
            fixed_gated=batch * fixed,
            once=batch * once,
            cache_values=cache,
        )


def flux_dev(height: int, width: int) -> FluxDimensions:
    """FLUX.1-dev at this size, 512 text tokens."""
    return FluxDimensions(height=height, width=width)


def flux_schnell(height: int, width: int) -> FluxDimensions:
    """FLUX.1-schnell at this size: no guidance input, 256 text tokens."""
    return FluxDimensions(height=height, width=width, guidance_embedder=False, text_tokens=256)

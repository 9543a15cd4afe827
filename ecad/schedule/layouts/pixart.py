"""PixArt-alpha, PixArt-Sigma and Storybook: the layout, the sizes of the models and their costs.

A block (diffusers' `BasicTransformerBlock` with `ada_norm_single`) has three components on one stream of
image tokens. Each reads the stream, normed and modulated by the time (attn2 reads it as it is), and is added
back to it: attn1 and ff times a gate of the present row, attn2 without one. So every recompute is seen in its
own row: besides row 0 no bit of a PixArt schedule is neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ecad.schedule.errors import ScheduleError
from ecad.schedule.layouts.base import Component, Layout, Value
from ecad.schedule.layouts.terms import Terms

COMPONENTS = ("attn1", "attn2", "ff")
TIME_CHANNELS = 256  # width of the sinusoidal time and size embeddings in diffusers
STORYBOOK_TEXT_TOKENS = 24  # the longest caption of the storybook grammar, in tokens of its tokenizer


@lru_cache(maxsize=64)
def pixart_layout(num_blocks: int = 28) -> Layout:
    """The layout of a PixArt transformer of this depth; block keys "0", "1", ...

    Raises:
        ScheduleError: fewer than one block.
    """
    if num_blocks < 1:
        raise ScheduleError(f"A PixArt layout has at least 1 block, not {num_blocks}.")
    components = tuple(
        Component(str(block), name, block * len(COMPONENTS) + offset)
        for block in range(num_blocks)
        for offset, name in enumerate(COMPONENTS)
    )
    values = tuple(Value(c.index, reads_streams=("image",), adds_to="image") for c in components)
    return Layout("pixart", f"pixart-{num_blocks}", components, values, output="image", gated="attn2")


@dataclass(frozen=True, kw_only=True)
class PixArtDimensions:
    """The numbers that a PixArt transformer's costs follow from; by default PixArt-alpha's at 256 px.

    `dim` is the width D, `height` and `width` are pixels, `pixels_per_latent` the autoencoder's reduction,
    `ff_mult` the feed-forward's hidden width over D, `size_conditions` whether the 1024-MS embedders of size
    and aspect ratio are there, `halves` 2 with classifier-free guidance and 1 without, `paper_text_tokens`
    the text length that the original counted if it is not the real one.
    """

    num_blocks: int = 28
    dim: int = 1152
    height: int = 256
    width: int = 256
    pixels_per_latent: int = 8
    patch_size: int = 2
    latent_channels: int = 4
    out_channels: int = 8
    caption_channels: int = 4096
    text_tokens: int = 120
    paper_text_tokens: int | None = None
    ff_mult: int = 4
    size_conditions: bool = False
    halves: int = 2

    @property
    def layout(self) -> Layout:
        """The layout of this depth."""
        return pixart_layout(self.num_blocks)

    @property
    def image_tokens(self) -> int:
        """N, the number of image tokens.

        Raises:
            ScheduleError: the size is no multiple of the pixels per token.
        """
        side = self.pixels_per_latent * self.patch_size
        if self.height < side or self.width < side or self.height % side or self.width % side:
            raise ScheduleError(
                f"A size must be a multiple of {side} pixels, not {self.height} x {self.width}."
            )
        return (self.height // side) * (self.width // side)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **settings: Any) -> PixArtDimensions:
        """From the `config.json` of a diffusers `PixArtTransformer2DModel`.

        `settings` override (height, text_tokens, ...). Without a height and width the model's own sample size
        is taken, eight pixels to a latent.
        """
        sample, scale = int(config["sample_size"]), int(settings.get("pixels_per_latent", 8))
        conditions = config.get("use_additional_conditions")
        given: dict[str, Any] = {
            "num_blocks": int(config["num_layers"]),
            "dim": int(config["num_attention_heads"]) * int(config["attention_head_dim"]),
            "height": sample * scale,
            "width": sample * scale,
            "patch_size": int(config["patch_size"]),
            "latent_channels": int(config["in_channels"]),
            "out_channels": int(config.get("out_channels") or config["in_channels"]),
            "caption_channels": int(config["caption_channels"]),
            # diffusers: None means "yes if the sample size is 128"
            "size_conditions": sample == 128 if conditions is None else bool(conditions),
        }
        return cls(**(given | settings))

    def terms(self, convention: str) -> Terms:
        """What each component and everything around them costs.

        Linear and convolution, D the width, N image and L text tokens, per guidance half: attn1 4 D^2 N,
        attn2 2 D^2 N + 2 D^2 L, ff 8 D^2 N. `paper` counts all of it in every row for both
        halves. `full` adds the attention products (2 N^2 D and 2 N L D) and counts what depends on the prompt
        alone (caption projection, attn2's keys and values) and the size embedders once per pass, the
        modulation by the time once per row whatever the number of halves: both share the row's time.
        """
        if convention == "paper":
            return replace(self, text_tokens=self.paper_text_tokens or self.text_tokens)._paper()
        return self._full()

    def _once_per_half(self) -> tuple[int, int]:
        """MACs of the caption projection, and of the keys and values of one block's attn2."""
        d, length = self.dim, self.text_tokens
        return length * (self.caption_channels * d + d * d), 2 * d * d * length

    def _around(self) -> tuple[int, int, int]:
        """MACs of patch embedding and output projection of one half.

        Of one row's modulation; of the size embedders.
        """
        d, n = self.dim, self.image_tokens
        patch = self.patch_size**2 * d * n * (self.latent_channels + self.out_channels)
        modulation = TIME_CHANNELS * d + d * d + 6 * d * d
        third = d // 3  # two sizes and one aspect ratio, each a third of the width
        sizes = 3 * (TIME_CHANNELS * third + third * third) if self.size_conditions else 0
        return patch, modulation, sizes

    def _paper(self) -> Terms:
        d, n, halves = self.dim, self.image_tokens, self.halves
        caption, keys_values = self._once_per_half()
        patch, modulation, sizes = self._around()
        per_half = {
            "attn1": 4 * d * d * n,
            "attn2": 2 * d * d * n + keys_values,
            "ff": 2 * self.ff_mult * d * d * n,
        }
        fixed = patch + caption + modulation + sizes
        return Terms(
            layout=self.layout,
            component={name: halves * macs for name, macs in per_half.items()},
            component_gated=per_half | {"attn2": 0},
            fixed=halves * fixed,
            fixed_gated=fixed,
            once=0,
            cache_values=self._cache_values(),
        )

    def _full(self) -> Terms:
        d, n, halves = self.dim, self.image_tokens, self.halves
        caption, keys_values = self._once_per_half()
        patch, modulation, sizes = self._around()
        per_half = {
            "attn1": 4 * d * d * n + 2 * n * n * d,
            "attn2": 2 * d * d * n + 2 * n * self.text_tokens * d,
            "ff": 2 * self.ff_mult * d * d * n,
        }
        return Terms(
            layout=self.layout,
            component={name: halves * macs for name, macs in per_half.items()},
            component_gated=per_half | {"attn2": 0},
            fixed=halves * patch + modulation,
            fixed_gated=patch + modulation,
            once=halves * (caption + self.num_blocks * keys_values) + sizes,
            cache_values=self._cache_values(),
        )

    def _cache_values(self) -> dict[str, int]:
        return dict.fromkeys(COMPONENTS, self.halves * self.image_tokens * self.dim)


STORYBOOK = PixArtDimensions(
    num_blocks=28,
    dim=128,
    patch_size=4,
    latent_channels=8,
    out_channels=8,
    caption_channels=128,
    text_tokens=STORYBOOK_TEXT_TOKENS,
)


def pixart_alpha(height: int, width: int) -> PixArtDimensions:
    """PixArt-alpha at this size: up to 512 x 512 without, beyond with the 1024-MS model's size conditions."""
    return PixArtDimensions(height=height, width=width, size_conditions=height * width > 512 * 512)


def pixart_sigma(height: int, width: int) -> PixArtDimensions:
    """PixArt-Sigma at this size. It reads 300 text tokens; the original counted 120."""
    return PixArtDimensions(height=height, width=width, text_tokens=300, paper_text_tokens=120)

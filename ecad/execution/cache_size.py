"""How large kept values are, from a model's numbers alone: what a plan's peak is counted in.

>>> from ecad.execution import lower
>>> from ecad.execution.cache_size import value_bytes
>>> from ecad.schedule import heuristics
>>> from ecad.schedule.layouts import FluxDimensions
>>> flux = FluxDimensions(height=1024, width=1024)
>>> sum(value_bytes(flux)) / 1e9                                                    # everything kept, 16 bit
7.530872832
>>> lower(heuristics.fora(flux.layout, 20, 3)).peak_cache(value_bytes(flux)) / 1e9
2.01326592
"""

from __future__ import annotations

from typing import Any

# Components whose value is wider than the model: the input of the feed-forward's second half.
_WIDE = {"single_proj_mlp"}


def value_bytes(dimensions: Any, item_bytes: int = 2) -> list[int]:
    """Bytes of one image's kept value, per entry of `Layout.values`.

    dimensions: the model's, a `PixArtDimensions` or `FluxDimensions`; both guidance halves count where there are two.
    item_bytes: of a number, 2 in half precision.
    """
    layout = dimensions.layout
    tokens = {"image": dimensions.image_tokens, "text": dimensions.text_tokens}
    halves = getattr(dimensions, "halves", 1)
    sizes = []
    for v, value in enumerate(layout.values):
        first = layout.values_of[value.component][0]
        # A value that no stream takes up directly is one half of its component's: the image's, then the text's.
        stream = value.adds_to if value.adds_to in tokens else ("image", "text")[v - first]
        wide = dimensions.ff_mult if layout.components[value.component].name in _WIDE else 1
        sizes.append(halves * tokens[stream] * dimensions.dim * wide * item_bytes)
    return sizes

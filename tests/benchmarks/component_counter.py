"""What a pass really computes, seen from outside: a component is computed when its product with its weight runs.

Whatever skips work (our plan, a hook, another library's block list) reaches a component only through its linear
layers. So the calls of torch's linear products are watched, and a weight is recognised by its address: our packed
weights begin where the first of their parts does. Not seen is cross-attention whose weights our executor has folded
into the text; whoever watches it turns that off (`NO_FOLDING`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from executors import Stock, modules_of
from torch.overrides import TorchFunctionMode

from ecad.models import folded_text
from ecad.schedule import Layout, Schedule
from ecad.schedule.costs import CostTable

# mock.patch.object(*NO_FOLDING): every product with a weight is done where its component is computed.
NO_FOLDING = folded_text, "FOLDED_BYTES", 0


class ComponentCounter(TorchFunctionMode):
    """Counts within its context. `on_row` is the image generator's callback.

    `bits`: bool [R, C], which components ran in which row. `linear`: MACs of all linear layers together, prompt
    constants included (they run in `once`, before any component of row 0, or again in every row).
    """

    def __init__(self, transformer: torch.nn.Module, layout: Layout, rows: int) -> None:
        super().__init__()
        self.transformer, self.layout = transformer, layout
        self.bits = np.zeros((rows, len(layout)), dtype=bool)
        self.linear = 0
        self.row = 0
        self.columns: dict[int, int] = {}

    def on_row(self, row: int, rows: int) -> None:
        """A row begins."""
        self.row = row
        if row == 0:  # only now: a pass may pack weights, which moves them
            modules = modules_of(self.transformer, self.layout)
            self.columns = {_weight(module).data_ptr(): column for column, module in enumerate(modules)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        weight = None
        if func is F.linear:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
        elif func is torch.addmm:  # (bias, x, weight transposed)
            weight = args[2].t()
        elif func is torch.ops.mkldnn._linear_pointwise:
            weight = args[1]
        if weight is not None:
            self.linear += output.numel() * weight.shape[1]
            column = self.columns.get(weight.data_ptr())
            if column is not None:
                self.bits[self.row, column] = True
        return output


def _weight(module: torch.nn.Module) -> torch.Tensor:
    """The weight that runs exactly when its component does: an attention's queries, the last linear layer else."""
    if hasattr(module, "to_q"):
        return module.to_q.weight
    return [part for part in module.modules() if isinstance(part, torch.nn.Linear)][-1].weight


def macs_of(bits: np.ndarray, table: CostTable) -> int:
    """MACs of one image's pass that computes these components, in the table's convention, nothing left out."""
    return int((bits @ table.component).sum()) + len(bits) * table.fixed + table.once


def computed_bits(
    generator: Any, model: Any, schedule: Schedule, embeddings: Any, seeds: list[int]
) -> np.ndarray:
    """What one pass of this model computes, bool [R, C]; the pass is run where that must be seen.

    Whatever calls stock modules is watched. Our executor computes what its plan says (a test watches that, too),
    and a first-block threshold remembers what it decided.
    """
    if not isinstance(model, Stock) and not hasattr(model, "threshold"):
        return model.lower(schedule).computes
    before, generator.model = generator.model, model
    plans, generator._plans = generator._plans, {}
    counter = ComponentCounter(generator.transformer, generator.layout, schedule.rows)
    try:
        if isinstance(model, Stock):
            with counter:
                generator.denoise(embeddings, seeds, schedule, on_row=counter.on_row)
        else:
            generator.denoise(embeddings, seeds, schedule)
    finally:
        generator.model, generator._plans = before, plans
        model.forget()
    return counter.bits if isinstance(model, Stock) else model.bits

"""Muon for many matrices of few shapes: momentum, made orthogonal by Newton-Schulz, all of one shape at once.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024). The small transformer here has
hundreds of equal little matrices; stacked, their orthogonalisation is a handful of batched products.
"""

from __future__ import annotations

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, from the source


def orthogonalised(stack: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrix to each of [n, rows, columns] (singular values near 1)."""
    a, b, c = COEFFICIENTS
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True).bfloat16() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        mix = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, mix, x, beta=a)
    return (x.mT if tall else x).to(stack.dtype)


class StackedMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for 2-D parameters only."""

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                grads = [p.grad for p in parameters]
                moments = [self._moment(p) for p in parameters]
                torch._foreach_lerp_(moments, grads, 1 - group["momentum"])
                torch._foreach_lerp_(grads, moments, group["momentum"])
                update = orthogonalised(torch.stack(grads))
                # the scale keeps the size of an update like Adam's whatever the shape (Moonlight's rule)
                update *= 0.2 * max(rows, columns) ** 0.5
                if group["weight_decay"]:
                    torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update.unbind()), alpha=-group["lr"])

    def _moment(self, parameter: torch.Tensor) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state["moment"] = torch.zeros_like(parameter)
        return state["moment"]

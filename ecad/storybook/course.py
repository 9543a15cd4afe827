"""What all trainings of Storybook share: a budget, a learning rate over it, a loop that can be killed and resumed.

Every random choice of a step comes from a generator seeded with (seed, step), so a resumed training draws what an
uninterrupted one would have drawn. With a budget in steps the two end with equal weights to the bit; with a budget
in minutes the learning rate follows the clock, and time spent before a kill counts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file


@dataclass(frozen=True)
class Budget:
    """How long a training lasts: a number of steps, or minutes of computing."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("a training's budget is a number of steps or of minutes, one of the two")

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget that is spent, 0 ... 1."""
        spent = step / self.steps if self.steps is not None else seconds / (60 * self.minutes)
        return min(1.0, spent)


def warm_flat_down(progress: float, warm: float = 0.05, down: float = 0.35) -> float:
    """Factor on the learning rate: a short rise, a plateau, then straight down to nothing over the last ``down``."""
    return min(1.0, progress / warm + 1e-3, max(0.0, (1 - progress) / down))


def rng_of(seed: int, step: int) -> np.random.Generator:
    """The randomness of one training step."""
    return np.random.default_rng((seed, step))


class Course:
    """One training: nets, optimizers, an optional moving average of the weights, and how far it has come.

    ``nets`` and ``averages`` map names to modules (averages: the same names or some of them), ``optimizers`` is a
    list whose groups carry their peak learning rate as ``peak``.
    """

    def __init__(
        self,
        nets: dict[str, torch.nn.Module],
        optimizers: list[torch.optim.Optimizer],
        *,
        averages: dict[str, torch.nn.Module] | None = None,
        decay: float = 0.999,
        clip: float = 1.0,
        schedule: Callable[[float], float] = warm_flat_down,
    ) -> None:
        self.nets, self.optimizers, self.averages = nets, optimizers, averages or {}
        self.decay, self.clip, self.schedule = decay, clip, schedule
        self.step, self.seconds = 0, 0.0
        self.parameters = [p for net in nets.values() for p in net.parameters() if p.requires_grad]
        pairs = [
            (a, p)
            for name, average in self.averages.items()
            for a, p in zip(average.parameters(), nets[name].parameters(), strict=True)
        ]
        self._averaged, self._originals = [a.data for a, _ in pairs], [p.data for _, p in pairs]

    def advance(self, loss_of: Callable[[int], torch.Tensor], budget: Budget) -> float:
        """One optimizer step; returns the loss."""
        start = time.perf_counter()
        factor = self.schedule(budget.progress(self.step, self.seconds))
        loss = loss_of(self.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip, foreach=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self._averaged:
            weight = 1 - min(self.decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self._averaged, self._originals, weight)
        self.seconds += time.perf_counter() - start
        return float(loss.detach())

    def run(
        self,
        loss_of: Callable[[int], torch.Tensor],
        budget: Budget,
        checkpoint: Path | None = None,
        *,
        every_minutes: float = 3.0,
        report_every: int = 50,
        at_checkpoint: Callable[[], None] | None = None,
    ) -> None:
        """Train until the budget is spent, saving to ``checkpoint`` now and then and at the end."""
        saved, mean, began, first = time.perf_counter(), None, time.perf_counter(), self.step
        while budget.progress(self.step, self.seconds) < 1:
            loss = self.advance(loss_of, budget)
            mean = loss if mean is None else mean + 0.02 * (loss - mean)
            done = budget.progress(self.step, self.seconds)
            if self.step % report_every == 0:
                pace = (time.perf_counter() - began) / (self.step - first)
                left = self.seconds * (1 - done) / max(done, 1e-9)
                print(
                    f"step {self.step}  loss {mean:.4f}  {pace:.3f} s/step  {done:.1%}  {left / 60:.1f} min left"
                )
                sys.stdout.flush()
            if checkpoint is not None and time.perf_counter() - saved > 60 * every_minutes:
                self.save(checkpoint)
                if at_checkpoint is not None:
                    at_checkpoint()
                saved = time.perf_counter()
        if checkpoint is not None:
            self.save(checkpoint)

    def state(self) -> dict[str, Any]:
        return {
            "nets": {name: net.state_dict() for name, net in self.nets.items()},
            "averages": {name: net.state_dict() for name, net in self.averages.items()},
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }

    def save(self, path: Path) -> None:
        save_tree(path, self.state())

    def resume(self, path: Path) -> None:
        """Take up a saved training of the same nets and optimizers."""
        tree = load_tree(path)
        for name, net in self.nets.items():
            net.load_state_dict(tree["nets"][name])
        for name, net in self.averages.items():
            net.load_state_dict(tree["averages"][name])
        for optimizer, state in zip(self.optimizers, tree["optimizers"], strict=True):
            whole = optimizer.state_dict()
            whole["state"] = {int(key): value for key, value in state.items()}
            optimizer.load_state_dict(whole)
        self.step, self.seconds = tree["step"], tree["seconds"]


def save_tree(path: Path, tree: Any) -> None:
    """Write nested dicts and lists of tensors and JSON values to one safetensors file, atomically."""
    tensors: dict[str, torch.Tensor] = {}
    shape = _take_tensors(tree, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    save_file(tensors, beside, metadata={"tree": json.dumps(shape)})
    beside.replace(path)


def load_tree(path: Path) -> Any:
    """Read what ``save_tree`` wrote."""
    with safe_open(path, framework="pt") as file:
        return _put_tensors(json.loads(file.metadata()["tree"]), file.get_tensor)


def _take_tensors(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, torch.Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node.detach().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": {str(key): _take_tensors(value, tensors) for key, value in node.items()}}
    if isinstance(node, list | tuple):
        return {"list": [_take_tensors(value, tensors) for value in node]}
    return {"value": node}


def _put_tensors(node: Any, get: Callable[[str], torch.Tensor]) -> Any:
    kind, content = next(iter(node.items()))
    if kind == "tensor":
        return get(content)
    if kind == "dict":
        return {key: _put_tensors(value, get) for key, value in content.items()}
    if kind == "list":
        return [_put_tensors(value, get) for value in content]
    return content

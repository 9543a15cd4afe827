"""What searching and comparing share: which captions a schedule is judged on, and by which metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecad.search import SearchError

if TYPE_CHECKING:
    from ecad.metrics.protocol import Metric

STORYBOOK_REWARD = "storybook-reward"


def captions(count: int, *, seed: int, held_out: bool) -> list[str]:
    """`count` different captions of the storybook world, held out from training or not, drawn by `seed`."""
    import numpy as np

    from ecad.storybook.world import caption, sample_scene

    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[caption(sample_scene(rng, held_out=held_out))] = None
    return list(found)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line; empty lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SearchError(f"the prompts' file {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SearchError(f"{path} is not a text file in UTF-8") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise SearchError(f"{path} holds no prompt; write one a line")
    return prompts


def metrics_for(reward: str) -> list[Metric]:
    """The reward first, then what is noted beside it: facts right (with Storybook's reward) and PSNR."""
    from ecad.metrics import metric
    from ecad.metrics.registry import metric_names

    if reward == STORYBOOK_REWARD:
        from ecad.storybook.judge import load_judge

        judge = load_judge()
        return [judge.reward, judge.facts, metric("psnr")]
    if reward not in metric_names():
        known = ", ".join([STORYBOOK_REWARD, *metric_names()])
        raise SearchError(f"there is no reward {reward!r}: there are {known}")
    return [metric(name) for name in dict.fromkeys((reward, "psnr"))]

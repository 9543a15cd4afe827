"""Check the judge on rendered truth that no net was trained on: does it read and rank it rightly?"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecad.storybook.judge import Judge, load_judge
from ecad.storybook.judge_facts import KINDS, kinds_of, with_one_wrong
from ecad.storybook.world import caption, render, sample_scene


def check_on_truth(count: int = 256, seed: int = 0, *, judge: Judge | None = None) -> dict[str, Any]:
    """Judge `count` rendered held-out scenes; JSON-able, shares from 0 to 1.

    `judge_facts_on_truth`: share of all facts of their captions that the reader reads rightly.
    `judge_ranks_truth`: share of the pairs (right caption, the same with one fact changed: one pair for each
    kind of fact in it) in which the right one has the higher reward. Both also by kind, with the counts
    behind them.
    """
    judge = judge or load_judge()
    rng = np.random.default_rng([seed, 4])
    scenes = [sample_scene(rng, held_out=True) for _ in range(count)]
    images = np.stack([np.asarray(render(scene, rng)) for scene in scenes])
    captions = [caption(scene) for scene in scenes]

    facts = [fact for row in judge.read(images, captions) for fact in row or ()]
    right = judge.reward.score(images, prompts=captions)
    pairs = [
        (i, kind, with_one_wrong(scene, kind, rng))
        for i, scene in enumerate(scenes)
        for kind in kinds_of(scene)
    ]
    rows = [i for i, _, _ in pairs]
    wrong = judge.reward.score(images[rows], prompts=[caption(changed) for _, _, changed in pairs])
    ranked = right[rows] > wrong
    return {
        "judge_facts_on_truth": float(np.mean([fact.right for fact in facts])),
        "judge_facts_on_truth_by_kind": _by_kind(
            [fact.kind for fact in facts], [fact.right for fact in facts]
        ),
        "judge_ranks_truth": float(np.mean(ranked)),
        "judge_ranks_truth_by_kind": _by_kind([kind for _, kind, _ in pairs], ranked),
        "judge_pictures_fully_right": float(np.mean(judge.facts.score(images, prompts=captions) == 1)),
        "judge_reward_right": float(right.mean()),
        "judge_reward_one_fact_wrong": float(wrong.mean()),
        "judge_reward_one_fact_wrong_by_kind": _by_kind([kind for _, kind, _ in pairs], wrong),
        "judge_counts": {"pictures": count, "facts": len(facts), "pairs": len(pairs)},
    }


def _by_kind(kinds: list[str], values: Any) -> dict[str, float]:
    values = np.asarray(values, np.float64)
    which = np.array(kinds)
    return {kind: float(values[which == kind].mean()) for kind in KINDS if (which == kind).any()}

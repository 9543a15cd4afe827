"""What to ask of a model: first prompts, examples, random ones, and what no prompt or seed may be."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np

from ecad import PROMPT_LIMIT, storybook_world

from .schedules import PageError

STORYBOOK_EXAMPLES = (
    "a red house left of a blue tree in snow at night",
    "a yellow balloon left of a green boat by the sea at sunset",
    "a purple mushroom on grass on a sunny day",
    "a white rocket left of an orange star on sand under a cloudy sky",
)
PHOTO_EXAMPLES = (
    "a small wooden cabin by a lake at sunrise, mist over the water",
    "portrait of a red fox in the snow, soft light, 85 mm",
    "a bowl of ramen on a dark table, steam, food photography",
    "an isometric drawing of a tiny city on a floating island",
)
LARGEST_SEED = 2**63 - 1


class Prompts:
    """The prompts that fit one model.

    Args:
        storybook: whether the model paints the storybook world, whose captions have a grammar.
    """

    def __init__(self, storybook: bool):
        self.storybook = storybook

    @property
    def examples(self) -> Sequence[str]:
        return STORYBOOK_EXAMPLES if self.storybook else PHOTO_EXAMPLES

    def words(self) -> str:
        """The sentences the model was taught, in Markdown; empty where it takes any text."""
        if not self.storybook:
            return ""
        world = storybook_world
        return (
            "A sentence is *a COLOUR OBJECT*, perhaps *left of a COLOUR OBJECT*, a PLACE and a SKY.\n\n"
            f"**Objects** {', '.join(world.OBJECTS)}\n\n**Colours** {', '.join(world.COLOURS)}\n\n"
            f"**Places** {', '.join(world.PLACE_PHRASES.values())}\n\n"
            f"**Skies** {', '.join(world.SKY_PHRASES.values())}"
        )

    def random(self) -> tuple[str, int]:
        """A prompt and a seed nobody chose."""
        seed = secrets.randbelow(1_000_000)
        if self.storybook:
            return storybook_world.caption(storybook_world.sample_scene(np.random.default_rng(seed))), seed
        return self.examples[seed % len(self.examples)], seed

    def of_run(self, count: int) -> list[str]:
        """`count` prompts for a new run, the same ones every time."""
        if not self.storybook:
            return [self.examples[i % len(self.examples)] for i in range(count)]
        rng = np.random.default_rng(20)
        return [storybook_world.caption(storybook_world.sample_scene(rng)) for _ in range(count)]


def read_prompt(prompt: object) -> str:
    """The prompt without surrounding blanks; `PageError` if there is nothing in it or too much."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    if not text:
        raise PageError("The prompt is empty: write what the image should show, or press Random.")
    if len(text) > PROMPT_LIMIT:
        raise PageError(f"The prompt has {len(text):,} characters; at most {PROMPT_LIMIT:,} are read.")
    return text


def read_seed(seed: object) -> int:
    """The seed as a whole number; `PageError` for anything else."""
    text = str(seed).strip() if seed is not None else ""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= LARGEST_SEED:
        raise PageError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, not {text[:40]!r}.")
    return number

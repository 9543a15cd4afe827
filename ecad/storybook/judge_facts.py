"""The facts of a storybook caption, and which of them a picture shows. No torch, no pictures: facts only.

A caption asks for facts of five kinds: each thing's *object* and *colour*, the *side* (only where there are
two things), the *place* and the *sky* (only where it speaks of them). A *reading* is the scene that the judge
sees in a picture: one or two things from left to right, a place and a sky.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ecad.storybook.world import COLOURS, OBJECTS, PLACES, SKIES, Scene, Thing

KINDS = ("object", "colour", "side", "place", "sky")


@dataclass(frozen=True)
class Fact:
    """One fact that a caption asks for: what it asks, what the picture shows (None: nothing there)."""

    kind: str
    asked: str
    seen: str | None

    @property
    def right(self) -> bool:
        return self.asked == self.seen


def compare(asked: Scene, seen: Scene) -> list[Fact]:
    """The facts of `asked`, each beside what the reading `seen` shows: things, side, place, sky.

    Two asked things are matched to the things seen as they stand or exchanged, whichever shows more of their
    objects and colours; equal matches count as they stand. The side is right if they are matched as they
    stand and something of them is there: a picture of two other things, or of one thing, has no side. One
    asked thing is matched to the thing seen that is most like it; that there may be another is no fact of the
    caption.
    """
    matched = _match(asked.things, seen.things)
    facts = []
    for thing, position in zip(asked.things, matched, strict=True):
        found = seen.things[position] if position is not None else None
        facts.append(Fact("object", thing.object, found.object if found else None))
        facts.append(Fact("colour", thing.colour, found.colour if found else None))
    if len(asked.things) == 2:
        there = any(fact.right for fact in facts) and len(seen.things) == 2
        facts.append(
            Fact("side", "left of", ("left of" if matched == (0, 1) else "right of") if there else None)
        )
    if asked.place is not None:
        facts.append(Fact("place", asked.place, seen.place))
    if asked.sky is not None:
        facts.append(Fact("sky", asked.sky, seen.sky))
    return facts


def _match(asked: tuple[Thing, ...], seen: tuple[Thing, ...]) -> tuple[int | None, ...]:
    """For each asked thing the position of the thing seen that it is matched to, or None."""
    if len(asked) == 1:
        choices = [(position,) for position in range(len(seen))]
    elif len(seen) == 1:
        choices = [(0, None), (None, 0)]
    else:
        choices = [(0, 1), (1, 0)]

    def alike(choice: tuple[int | None, ...]) -> int:
        pairs = [
            (thing, seen[position])
            for thing, position in zip(asked, choice, strict=True)
            if position is not None
        ]
        return sum((a.object == b.object) + (a.colour == b.colour) for a, b in pairs)

    return max(choices, key=alike)  # the first of equals


def share_right(facts: Iterable[Fact]) -> float:
    """The share of right facts, 0 to 1; NaN of no facts."""
    facts = list(facts)
    return sum(fact.right for fact in facts) / len(facts) if facts else float("nan")


def shares_by_kind(facts: Iterable[Fact]) -> dict[str, float | None]:
    """The share of right facts of each kind, in the order of `KINDS`; None for a kind never asked for."""
    facts = list(facts)
    by_kind = {kind: [fact for fact in facts if fact.kind == kind] for kind in KINDS}
    return {kind: share_right(chosen) if chosen else None for kind, chosen in by_kind.items()}


def kinds_of(scene: Scene) -> tuple[str, ...]:
    """The kinds of fact that the scene's caption asks for."""
    present = (True, True, len(scene.things) == 2, scene.place is not None, scene.sky is not None)
    return tuple(kind for kind, there in zip(KINDS, present, strict=True) if there)


def with_one_wrong(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """The scene with one fact of that kind changed; a changed side is the things exchanged."""
    if kind == "side":
        return Scene(scene.things[::-1], scene.place, scene.sky)
    if kind == "place":
        return Scene(scene.things, _another(PLACES, scene.place, rng), scene.sky)
    if kind == "sky":
        return Scene(scene.things, scene.place, _another(SKIES, scene.sky, rng))
    while True:
        things = list(scene.things)
        position = int(rng.integers(len(things)))
        thing = things[position]
        if kind == "object":
            things[position] = Thing(thing.colour, _another(OBJECTS, thing.object, rng))
        else:
            things[position] = Thing(_another(COLOURS, thing.colour, rng), thing.object)
        if len(set(things)) == len(things):  # the world has no two equal things in a scene
            return Scene(tuple(things), scene.place, scene.sky)


def _another(words: tuple[str, ...], word: str, rng: np.random.Generator) -> str:
    others = [other for other in words if other != word]
    return others[int(rng.integers(len(others)))]

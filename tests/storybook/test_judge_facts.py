"""Rules of the facts of a caption, on readings made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ecad.storybook.judge_facts import KINDS, compare, kinds_of, share_right, shares_by_kind, with_one_wrong
from ecad.storybook.world import Scene, caption, sample_scene, scene_of

ASKED = "a red house left of a blue tree in snow at night"


def facts(asked: str, seen: str):
    return compare(scene_of(asked), scene_of(seen))


def wrong(asked: str, seen: str) -> list[str]:
    """Kinds of the facts that are not right, sorted."""
    return sorted(fact.kind for fact in facts(asked, seen) if not fact.right)


def test_a_caption_of_two_things_asks_for_seven_facts():
    assert [fact.kind for fact in facts(ASKED, ASKED)] == [
        "object",
        "colour",
        "object",
        "colour",
        "side",
        "place",
        "sky",
    ]
    assert share_right(facts(ASKED, ASKED)) == 1


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("a red car left of a blue tree in snow at night", ["object"]),
        ("a green house left of a blue tree in snow at night", ["colour"]),
        ("a blue tree left of a red house in snow at night", ["side"]),
        ("a red house left of a blue tree on sand at night", ["place"]),
        ("a red house left of a blue tree in snow at sunset", ["sky"]),
        ("a red car left of a red tree on sand at night", ["colour", "object", "place"]),
    ],
)
def test_one_wrong_fact_is_the_only_wrong_one(seen, expected):
    assert wrong(ASKED, seen) == expected


def test_exchanged_things_are_found_and_only_their_side_is_wrong():
    assert wrong(ASKED, "a blue tree left of a green house in snow at night") == ["colour", "side"]


def test_a_picture_of_one_thing_lacks_the_other_and_has_no_side():
    assert wrong(ASKED, "a blue tree in snow at night") == ["colour", "object", "side"]
    missing = [fact for fact in facts(ASKED, "a blue tree in snow at night") if fact.seen is None]
    assert [fact.asked for fact in missing] == ["house", "red", "left of"]


def test_two_other_things_have_no_side_that_could_be_right():
    assert wrong(ASKED, "a pink car left of a white cup in snow at night") == sorted(
        ["object", "object", "colour", "colour", "side"]
    )


def test_a_tie_between_the_two_matches_goes_to_the_order_as_it_stands():
    # Objects exchanged, colours in place: either match has two of four right; as it stands, so is the side.
    assert wrong(ASKED, "a red tree left of a blue house in snow at night") == ["object", "object"]


def test_equal_kinds_are_told_apart_by_colour():
    asked = "a red cat left of a blue cat"
    assert wrong(asked, "a red cat left of a blue cat on sand at night") == []
    assert wrong(asked, "a blue cat left of a red cat on sand at night") == ["side"]
    assert wrong(asked, "a red cat left of a red cat on sand at night") == ["colour"]


def test_equal_colours_are_told_apart_by_kind():
    asked = "a red cat left of a red cup"
    assert wrong(asked, "a red cup left of a red cat on sand at night") == ["side"]


def test_one_asked_thing_is_found_on_either_side_and_a_second_thing_is_no_fact():
    for seen in ("a red house left of a blue tree at night", "a blue tree left of a red house at night"):
        assert wrong("a red house at night", seen) == []


def test_a_caption_asks_only_for_what_it_says():
    assert [fact.kind for fact in facts("a red house", "a red house in snow at night")] == [
        "object",
        "colour",
    ]
    assert kinds_of(scene_of("a red house at night")) == ("object", "colour", "sky")


def test_shares_by_kind_count_each_fact_once():
    both = facts(ASKED, ASKED) + facts("a red house", "a green house in snow at night")
    shares = shares_by_kind(both)
    assert tuple(shares) == KINDS
    assert shares["object"] == 1
    assert shares["colour"] == pytest.approx(2 / 3)
    assert shares_by_kind(facts("a red house", "a red house in snow at night"))["side"] is None
    assert math.isnan(share_right([]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_fact_makes_exactly_that_fact_wrong(kind):
    rng = np.random.default_rng(1)
    scenes = [scene for scene in (sample_scene(rng) for _ in range(200)) if kind in kinds_of(scene)]
    for scene in scenes:
        changed = with_one_wrong(scene, kind, rng)
        assert isinstance(changed, Scene) and scene_of(caption(changed)) == changed
        assert len(set(changed.things)) == len(changed.things)
        differences = [
            sum(a != b for a, b in zip(scene.things, changed.things, strict=True)),
            scene.place != changed.place,
            scene.sky != changed.sky,
        ]
        if kind == "side":
            assert changed.things == scene.things[::-1] and differences[1:] == [False, False]
        else:
            assert sum(differences) == 1

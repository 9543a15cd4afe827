"""The storybook world: captions say scenes and can be read back; pictures follow from scene and seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ecad.storybook.world import (
    COLOURS,
    OBJECTS,
    PLACES,
    SKIES,
    Scene,
    Thing,
    caption,
    held_out,
    render,
    sample_scene,
    scene_of,
    training_caption,
)


def test_the_world_is_as_large_as_promised():
    assert len(OBJECTS) >= 16 and len(COLOURS) == 10 and len(PLACES) == 4 and len(SKIES) == 4


def test_the_grammars_example_is_spelled_like_this():
    scene = Scene((Thing("red", "house"), Thing("blue", "tree")), "snow", "night")
    assert caption(scene) == "a red house left of a blue tree in snow at night"


@pytest.mark.parametrize("place", [None, *PLACES])
@pytest.mark.parametrize("sky", [None, *SKIES])
def test_every_caption_is_read_back_as_its_scene(place, sky):
    for colour, name in itertools.product(COLOURS, OBJECTS):
        one, other = Thing(colour, name), Thing(COLOURS[0], OBJECTS[-1])
        for things in ((one,), (one, other), (other, one)):
            scene = Scene(things, place, sky)
            assert scene_of(caption(scene)) == scene


def test_spelling_is_forgiven_where_the_meaning_is_plain():
    scene = Scene((Thing("orange", "cat"),), "sea", None)
    assert scene_of("  An orange  cat by the sea. ") == scene
    assert scene_of("a orange cat by the sea") == scene
    assert caption(scene) == "an orange cat by the sea"
    assert held_out("an orange cat by the sea") == held_out("a orange cat by the sea")


@pytest.mark.parametrize(
    "text",
    [
        *("", "house", "a house", "a red", "a red dog", "the red house", "a red house and a blue tree"),
        *("a red house left of", "a red house at night in snow", "a red house in snow in snow"),
        "a red house left of a blue tree left of a pink cat",
    ],
)
def test_what_is_not_of_the_grammar_is_no_scene(text):
    assert scene_of(text) is None


def test_a_picture_follows_from_scene_and_seed():
    scene = sample_scene(np.random.default_rng(1))
    first, again, other = (render(scene, np.random.default_rng(seed), 64) for seed in (7, 7, 8))
    assert first.size == (64, 64) and first.mode == "RGB"
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_fact_shows():
    """Changing any one fact changes the picture, all else (the seed too) being equal."""

    def picture(scene):
        return np.asarray(render(scene, np.random.default_rng(0), 64)).tobytes()

    one, other = Thing("red", "house"), Thing("blue", "tree")
    scenes = [Scene((Thing(colour, name),), "grass", "day") for colour in COLOURS for name in OBJECTS]
    scenes += [Scene(things, "grass", "day") for things in ((one, other), (other, one))]
    scenes += [
        Scene((one, other), place, sky)
        for place in PLACES
        for sky in SKIES
        if (place, sky) != ("grass", "day")
    ]
    assert len({picture(scene) for scene in scenes}) == len(scenes)


def test_a_scene_without_place_cannot_be_drawn():
    with pytest.raises(ValueError, match="place and a sky"):
        render(Scene((Thing("red", "house"),), None, "day"), np.random.default_rng(0))


def test_about_a_tenth_of_the_captions_is_held_out():
    scenes = [
        Scene((Thing(colour, name),), place, sky)
        for colour, name, place, sky in itertools.product(COLOURS, OBJECTS, PLACES, SKIES)
    ]
    share = np.mean([held_out(caption(scene)) for scene in scenes])
    assert 0.08 < share < 0.12


def test_held_out_belongs_to_the_caption_not_to_its_spelling():
    for _, text in zip(range(200), _captions(held_out_ones=True), strict=False):
        assert held_out(text) and held_out(text.upper() + ".")


def test_training_never_sees_a_held_out_caption():
    rng = np.random.default_rng(3)
    for text in itertools.islice(_captions(held_out_ones=False), 500):
        assert not held_out(text)
        assert not held_out(training_caption(scene_of(text), rng, omit=0.5))


def test_training_captions_say_part_of_their_scene_and_nothing_else():
    rng = np.random.default_rng(4)
    shortened = 0
    for _ in range(200):
        scene = sample_scene(rng)
        said = scene_of(training_caption(scene, rng, omit=0.5))
        assert said.things == scene.things
        assert said.place in (None, scene.place) and said.sky in (None, scene.sky)
        shortened += said != scene
    assert 100 < shortened < 190


def _captions(held_out_ones):
    rng = np.random.default_rng(2)
    while True:
        yield caption(sample_scene(rng, held_out=held_out_ones))

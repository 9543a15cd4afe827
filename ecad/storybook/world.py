"""The storybook world: scenes of one or two coloured objects, their captions, and their pictures.

A scene is a handful of facts (which objects, which colours, who is on the left, which place, which sky). Its
caption says these facts in one fixed grammar::

    a red house in snow at night
    a red house left of a blue tree by the sea under a cloudy sky

and its picture is drawn from the same facts, so a picture can be judged against its caption without a human.
Place and sky may be left out of a caption: then it does not speak about them.

Captions are split once and for all by a hash: about a tenth is *held out*, and none of the nets that are
trained on this world (image generator, judge, reader) may ever see one of those.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from ecad.storybook.backdrops import backdrop
from ecad.storybook.easel import HALF_TILE, PALETTE
from ecad.storybook.sprites import DRAWINGS, sprite

OBJECTS: tuple[str, ...] = tuple(DRAWINGS)
COLOURS: tuple[str, ...] = tuple(PALETTE)
PLACES: tuple[str, ...] = ("grass", "snow", "sand", "sea")
SKIES: tuple[str, ...] = ("day", "sunset", "night", "cloudy")

PLACE_PHRASES = {"grass": "on grass", "snow": "in snow", "sand": "on sand", "sea": "by the sea"}
SKY_PHRASES = {
    "day": "on a sunny day",
    "sunset": "at sunset",
    "night": "at night",
    "cloudy": "under a cloudy sky",
}
HELD_OUT_PERCENT = 10
IN_THE_AIR = frozenset({"star", "balloon", "fish", "rocket", "butterfly"})


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    colour: str
    object: str


@dataclass(frozen=True)
class Scene:
    """The facts of one picture: its things from left to right, the place they are at, and the sky above.

    ``place`` and ``sky`` are None where a caption does not speak of them; such a scene cannot be rendered.
    """

    things: tuple[Thing, ...]
    place: str | None = None
    sky: str | None = None


def caption(scene: Scene) -> str:
    """The one sentence that says the scene's facts."""
    words = " left of ".join(
        f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing.colour} {thing.object}"
        for thing in scene.things
    )
    if scene.place is not None:
        words += " " + PLACE_PHRASES[scene.place]
    if scene.sky is not None:
        words += " " + SKY_PHRASES[scene.sky]
    return words


def one_article(text: str) -> str:
    """A text with "a" for every "an": the nets know one article, and captions are held out by this form."""
    return re.sub(r"\ban\b", "a", text)


def scene_of(text: str) -> Scene | None:
    """The scene a caption speaks of, or None if the text is not of the grammar.

    Case, surplus blanks, a final full stop and the wrong article are forgiven.
    """
    rest = one_article(" ".join(text.lower().rstrip(" .").split()))
    sky, rest = _strip_phrase(rest, SKY_PHRASES)
    place, rest = _strip_phrase(rest, PLACE_PHRASES)
    things = [_thing(part) for part in rest.split(" left of ")]
    if not 1 <= len(things) <= 2 or None in things:
        return None
    return Scene(tuple(things), place, sky)


def _strip_phrase(text: str, phrases: dict[str, str]) -> tuple[str | None, str]:
    for name, phrase in phrases.items():
        if text.endswith(" " + phrase):
            return name, text.removesuffix(" " + phrase)
    return None, text


def _thing(text: str) -> Thing | None:
    words = text.split(" ")
    if len(words) == 3 and words[0] == "a" and words[1] in COLOURS and words[2] in OBJECTS:
        return Thing(words[1], words[2])
    return None


def held_out(text: str) -> bool:
    """Whether this caption belongs to the tenth that no net is trained on (by its SHA-256, so for ever)."""
    scene = scene_of(text)
    canonical = caption(scene) if scene is not None else text
    digest = hashlib.sha256(one_article(canonical).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def sample_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """A random full scene whose caption is held out, or is not.

    Two scenes in three have two things, which then differ in colour or kind (or both).
    """
    while True:
        count = 1 if rng.random() < 1 / 3 else 2
        things = tuple(
            Thing(COLOURS[rng.integers(len(COLOURS))], OBJECTS[rng.integers(len(OBJECTS))])
            for _ in range(count)
        )
        place, sky = PLACES[rng.integers(len(PLACES))], SKIES[rng.integers(len(SKIES))]
        if len(set(things)) < count:
            continue
        scene = Scene(things, place, sky)
        if _is_held_out(caption(scene)) == held_out:
            return scene


_is_held_out = held_out  # `sample_scene` has an argument of this name


def training_caption(scene: Scene, rng: np.random.Generator, omit: float = 0.07) -> str:
    """The caption of a scene for training: place and sky are each left out with probability ``omit``.

    A shortened caption is held out or not by its own hash; where it is, the full one is returned.
    """
    place = None if rng.random() < omit else scene.place
    sky = None if rng.random() < omit else scene.sky
    short = caption(Scene(scene.things, place, sky))
    return caption(scene) if held_out(short) else short


def render(scene: Scene, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Draw a scene as an RGB picture of ``size`` x ``size`` pixels, antialiased.

    The rng moves and scales the things by a few per cent and picks one of a few horizons; everything else
    follows from the facts. Raises ValueError for a scene without place or sky.
    """
    if scene.place is None or scene.sky is None:
        raise ValueError("a scene needs a place and a sky to be drawn")
    picture = backdrop(scene.place, scene.sky, int(rng.integers(3)), size).copy()
    centres = (0.5,) if len(scene.things) == 1 else (0.27, 0.73)
    for thing, centre in zip(scene.things, centres, strict=True):
        radius = (0.29 if len(scene.things) == 1 else 0.215) * (0.95 + 0.1 * rng.random())
        x = centre + 0.03 * (rng.random() - 0.5)
        floating = thing.object in IN_THE_AIR
        # things on the ground stand on one line; things in the air hang around one height
        y = (0.45 if floating else 0.86 - radius) + 0.03 * (rng.random() - 0.5)
        if not floating:
            _shadow(picture, x, y + 0.95 * radius, radius, size)
        _paste(picture, sprite(thing.object, thing.colour), x, y, radius, size)
    return picture


def _paste(picture: Image.Image, tile: Image.Image, x: float, y: float, radius: float, size: int) -> None:
    side = max(2, round(2 * HALF_TILE * radius * size))
    small = tile.resize((side, side), Image.Resampling.BOX)
    picture.paste(small, (round(x * size - side / 2), round(y * size - side / 2)), small)


def _shadow(picture: Image.Image, x: float, y: float, radius: float, size: int) -> None:
    width, height = max(2, round(2.1 * radius * size)), max(2, round(0.42 * radius * size))
    mask = _soft_ellipse().resize((width, height), Image.Resampling.BILINEAR)
    picture.paste((25, 25, 45), (round(x * size - width / 2), round(y * size - height / 2)), mask)


@lru_cache(maxsize=1)
def _soft_ellipse() -> Image.Image:
    axis = np.linspace(-1, 1, 128)
    distance = np.hypot(axis[:, None], axis[None, :])
    return Image.fromarray((95 * np.clip(1.25 * (1 - distance), 0, 1)).astype(np.uint8))

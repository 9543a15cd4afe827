"""How the objects of the storybook world are painted: an easel, outlines to fill, and the palette.

A drawing is a list of parts painted one over the other in a square of about -1 ... 1 (y points down). Each
part is a closed outline with a colour, a soft light that falls from the upper left, and a thin darker rim, so
that every colour reads on every ground. Sprites are drawn at about four times the size they are shown at.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 46),
    "orange": (247, 142, 32),
    "yellow": (252, 218, 62),
    "green": (52, 150, 66),
    "blue": (44, 100, 218),
    "purple": (132, 66, 188),
    "pink": (248, 142, 186),
    "white": (246, 246, 248),
    "brown": (132, 84, 48),
    "black": (44, 44, 52),
}
HALF_TILE = 1.15  # half the side of a sprite, in drawing units: room for rims
TILE = 480  # pixels along a sprite's side
RIM = 0.032  # thickness of the rim, in drawing units

Points = list[tuple[float, float]]
Colour = tuple[int, int, int]
WOOD, CREAM, GLASS, DARK = (120, 78, 46), (250, 240, 214), (190, 226, 246), (50, 46, 58)


class Easel:
    """A transparent square to paint on: ``rgb`` float [TILE, TILE, 3], ``alpha`` float [TILE, TILE]."""

    def __init__(self) -> None:
        self.rgb = np.zeros((TILE, TILE, 3), np.float32)
        self.alpha = np.zeros((TILE, TILE), np.float32)

    def part(self, points: Points, colour: Colour, *, rim: float = RIM, light: float = 1.0) -> None:
        """Paint a closed outline: its rim in a darker tone, then its inside, lit from the upper left."""
        pixels = [
            ((x + HALF_TILE) * TILE / (2 * HALF_TILE), (y + HALF_TILE) * TILE / (2 * HALF_TILE))
            for x, y in points
        ]
        inside = Image.new("L", (TILE, TILE))
        ImageDraw.Draw(inside).polygon(pixels, fill=255)
        base = np.asarray(colour, np.float32)
        if rim > 0:
            around = inside.copy()
            width = round(2 * rim * TILE / (2 * HALF_TILE))
            ImageDraw.Draw(around).line([*pixels, pixels[0], pixels[1]], fill=255, width=width, joint="curve")
            self._lay(around, 0.5 * base)
        self._lay(inside, _lit(base, pixels, light))

    def _lay(self, mask: Image.Image, colour: np.ndarray) -> None:
        cover = np.asarray(mask, np.float32)[..., None] / 255
        self.rgb += cover * (colour - self.rgb)
        self.alpha = np.maximum(self.alpha, cover[..., 0])

    def picture(self) -> Image.Image:
        rgba = np.concatenate([self.rgb, 255 * self.alpha[..., None]], axis=-1)
        return Image.fromarray(np.clip(rgba + 0.5, 0, 255).astype(np.uint8), "RGBA")


def _lit(base: np.ndarray, pixels: Points, light: float) -> np.ndarray:
    """A part's colour over the tile [TILE, TILE, 3]: brighter upper left, darker lower right."""
    corners = np.asarray(pixels, np.float32)
    low, high = corners.min(0), corners.max(0)
    axis = np.arange(TILE, dtype=np.float32)
    u = (axis - low[0]) / max(high[0] - low[0], 1)
    v = (axis - low[1]) / max(high[1] - low[1], 1)
    distance = np.hypot(u[None, :] - 0.35, v[:, None] - 0.25)
    tone = light * np.clip(1 - 1.15 * distance, -0.75, 1)[..., None]
    return np.where(tone > 0, base + 0.38 * tone * (255 - base), base * (1 + 0.38 * tone))


# ---------------------------------------------------------------- outlines


def oval(x: float, y: float, w: float, h: float, turn: float = 0.0) -> Points:
    """An ellipse around (x, y) with half axes w and h, turned by ``turn`` radians."""
    ring = [(w * cos(2 * pi * k / 72), h * sin(2 * pi * k / 72)) for k in range(72)]
    return [(x + a * cos(turn) - b * sin(turn), y + a * sin(turn) + b * cos(turn)) for a, b in ring]


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def smooth(points: Points, steps: int = 10) -> Points:
    """A closed Catmull-Rom curve through the points."""
    ring = np.asarray(points, float)
    before, after, beyond = np.roll(ring, 1, 0), np.roll(ring, -1, 0), np.roll(ring, -2, 0)
    curve = []
    for p0, p1, p2, p3 in zip(before, ring, after, beyond, strict=True):
        for t in np.arange(steps) / steps:
            cubic = (3 * p1 - p0 - 3 * p2 + p3) * t**3 + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
            curve.append(tuple(0.5 * (cubic + (p2 - p0) * t + 2 * p1)))
    return curve


def mirror(points: Points) -> Points:
    return [(-x, y) for x, y in points]


def darker(colour: Colour, by: float = 0.7) -> Colour:
    return tuple(round(by * value) for value in colour)


def lighter(colour: Colour, by: float = 0.5) -> Colour:
    return tuple(round(value + by * (255 - value)) for value in colour)


def shine(easel: Easel, x: float, y: float, w: float, h: float, colour: Colour, turn: float = 0.5) -> None:
    easel.part(oval(x, y, w, h, turn), lighter(colour, 0.62), rim=0, light=0)


def eye(easel: Easel, x: float, y: float, size: float = 0.1) -> None:
    easel.part(oval(x, y, size, size * 1.15), (255, 255, 255), rim=0.02, light=0)
    easel.part(oval(x - 0.15 * size, y + 0.1 * size, 0.6 * size, 0.7 * size), (25, 25, 30), rim=0, light=0)

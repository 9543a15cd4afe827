"""The drawings of the storybook world: one per kind of object, recoloured at will."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image

from ecad.storybook.easel import (
    CREAM,
    DARK,
    GLASS,
    PALETTE,
    WOOD,
    Colour,
    Easel,
    box,
    darker,
    eye,
    lighter,
    mirror,
    oval,
    shine,
    smooth,
)


def house(easel: Easel, colour: Colour) -> None:
    easel.part(box(0.38, -0.85, 0.6, -0.3), darker(colour, 0.6))
    easel.part(box(-0.72, -0.15, 0.72, 0.95), colour)
    easel.part([(-1, -0.1), (-0.05, -0.98), (0.05, -0.98), (1, -0.1)], darker(colour, 0.68))
    easel.part(smooth([(-0.2, 0.95), (-0.2, 0.45), (0, 0.3), (0.2, 0.45), (0.2, 0.95)], 6), WOOD)
    for x in (-0.47, 0.47):
        easel.part(box(x - 0.17, 0.12, x + 0.17, 0.46), (255, 238, 160))


def tree(easel: Easel, colour: Colour) -> None:
    easel.part([(-0.13, 0.1), (0.13, 0.1), (0.2, 0.95), (-0.2, 0.95)], WOOD)
    angles = np.linspace(0, 2 * pi, 90, endpoint=False)
    leafy = [0.66 * (1 + 0.16 * abs(sin(4.0 * t))) for t in angles]  # eight leafy bulges
    easel.part([(1.12 * r * sin(t), -0.3 - r * cos(t)) for r, t in zip(leafy, angles, strict=True)], colour)
    shine(easel, -0.3, -0.55, 0.17, 0.1, colour, -0.7)
    shine(easel, -0.5, -0.08, 0.14, 0.08, colour, -0.7)


def car(easel: Easel, colour: Colour) -> None:
    easel.part(smooth([(-0.68, 0.1), (-0.42, -0.42), (0, -0.5), (0.4, -0.42), (0.7, 0.1), (0, 0.2)]), colour)
    easel.part([(-0.5, 0.08), (-0.32, -0.3), (-0.06, -0.34), (-0.06, 0.08)], GLASS)
    easel.part([(0.08, 0.08), (0.08, -0.34), (0.34, -0.3), (0.54, 0.08)], GLASS)
    body = [
        (-0.98, 0.3),
        (-0.85, 0.08),
        (-0.4, 0.04),
        (0.4, 0.04),
        (0.85, 0.1),
        (1, 0.32),
        (0.97, 0.62),
        (0, 0.68),
    ]
    easel.part(smooth([*body, (-0.95, 0.62)]), colour)
    easel.part(oval(0.88, 0.3, 0.09, 0.09), (255, 240, 150))
    for x in (-0.52, 0.52):
        easel.part(oval(x, 0.68, 0.27, 0.27), (48, 48, 56))
        easel.part(oval(x, 0.68, 0.12, 0.12), (205, 208, 214), rim=0)


def boat(easel: Easel, colour: Colour) -> None:
    easel.part(box(-0.05, -0.95, 0.05, 0.4), WOOD)
    easel.part([(0.1, -0.85), (0.78, 0.22), (0.1, 0.22)], CREAM)
    easel.part([(-0.1, -0.65), (-0.1, 0.22), (-0.66, 0.22)], CREAM)
    easel.part(
        smooth([(-1, 0.36), (-0.5, 0.4), (0.5, 0.4), (1, 0.36), (0.66, 0.9), (0, 0.95), (-0.66, 0.9)]), colour
    )
    easel.part(box(-0.78, 0.55, 0.78, 0.66), lighter(colour, 0.55), rim=0, light=0)


def flower(easel: Easel, colour: Colour) -> None:
    easel.part(box(-0.05, 0, 0.05, 0.95), (70, 140, 62))
    easel.part(smooth([(0, 0.85), (0.22, 0.5), (0.6, 0.42), (0.42, 0.72)]), (84, 160, 74))
    easel.part(smooth([(0, 0.85), (-0.22, 0.5), (-0.6, 0.42), (-0.42, 0.72)]), (84, 160, 74))
    for k in range(6):
        angle = k * pi / 3 + pi / 6
        easel.part(oval(0.38 * cos(angle), -0.32 + 0.38 * sin(angle), 0.32, 0.23, angle), colour)
    easel.part(oval(0, -0.32, 0.22, 0.22), (150, 92, 40) if colour == PALETTE["yellow"] else (255, 205, 70))


def star(easel: Easel, colour: Colour) -> None:
    tips = [(k, 1.0 if k % 2 == 0 else 0.5) for k in range(10)]
    easel.part([(r * sin(k * pi / 5), 0.06 - r * cos(k * pi / 5)) for k, r in tips], colour)
    shine(easel, -0.2, -0.26, 0.15, 0.08, colour, -0.6)
    for x in (-0.15, 0.15):
        easel.part(oval(x, 0.06, 0.055, 0.085), darker(colour, 0.3), rim=0, light=0)


def balloon(easel: Easel, colour: Colour) -> None:
    easel.part(
        smooth([(0.02, 0.5), (0.09, 0.68), (-0.02, 0.82), (0.06, 1), (0.02, 1), (-0.07, 0.82), (0.04, 0.68)]),
        DARK,
        rim=0,
    )
    easel.part([(-0.12, 0.56), (0, 0.38), (0.12, 0.56)], darker(colour))
    easel.part(
        smooth(
            [
                (0, -0.98),
                (0.45, -0.85),
                (0.68, -0.4),
                (0.5, 0.12),
                (0, 0.45),
                (-0.5, 0.12),
                (-0.68, -0.4),
                (-0.45, -0.85),
            ]
        ),
        colour,
    )
    shine(easel, -0.3, -0.52, 0.24, 0.11, colour, -1.0)


def fish(easel: Easel, colour: Colour) -> None:
    easel.part(
        smooth([(0.42, 0), (0.7, -0.42), (1, -0.48), (0.86, 0), (1, 0.48), (0.7, 0.42)]), darker(colour)
    )
    easel.part(smooth([(-0.2, -0.36), (0, -0.72), (0.38, -0.6), (0.3, -0.2)]), darker(colour))
    easel.part(
        smooth(
            [
                (-0.98, 0.02),
                (-0.7, -0.34),
                (-0.2, -0.5),
                (0.3, -0.28),
                (0.62, 0),
                (0.3, 0.28),
                (-0.2, 0.5),
                (-0.7, 0.36),
            ]
        ),
        colour,
    )
    easel.part(smooth([(-0.12, 0.05), (0.2, 0.02), (0.26, 0.3), (0.02, 0.24)]), lighter(colour, 0.35))
    eye(easel, -0.58, -0.08, 0.12)


def rocket(easel: Easel, colour: Colour) -> None:
    easel.part(smooth([(-0.2, 0.52), (0.2, 0.52), (0.14, 0.8), (0, 1.02), (-0.14, 0.8)]), (255, 170, 46))
    easel.part(smooth([(-0.09, 0.54), (0.09, 0.54), (0, 0.84)]), (255, 232, 120), rim=0)
    fin = [(0.24, 0.05), (0.56, 0.36), (0.64, 0.76), (0.26, 0.52)]
    easel.part(fin, darker(colour))
    easel.part(mirror(fin), darker(colour))
    easel.part(
        smooth(
            [
                (0, -1),
                (0.26, -0.6),
                (0.36, -0.1),
                (0.28, 0.54),
                (0, 0.58),
                (-0.28, 0.54),
                (-0.36, -0.1),
                (-0.26, -0.6),
            ]
        ),
        colour,
    )
    easel.part(oval(0, -0.2, 0.18, 0.18), GLASS)


def mushroom(easel: Easel, colour: Colour) -> None:
    easel.part(
        smooth(
            [(-0.2, 0.05), (0.2, 0.05), (0.24, 0.6), (0.36, 0.92), (0, 0.96), (-0.36, 0.92), (-0.24, 0.6)]
        ),
        CREAM,
    )
    easel.part(
        smooth(
            [
                (-0.98, 0.08),
                (-0.78, -0.5),
                (-0.3, -0.86),
                (0.3, -0.86),
                (0.78, -0.5),
                (0.98, 0.08),
                (0.5, 0.2),
                (-0.5, 0.2),
            ]
        ),
        colour,
    )
    dots = darker(colour, 0.78) if colour == PALETTE["white"] else (255, 250, 240)
    for x, y, r in ((-0.5, -0.18, 0.15), (0.02, -0.5, 0.16), (0.52, -0.16, 0.14)):
        easel.part(oval(x, y, r, 0.9 * r), dots, rim=0, light=0.3)


def umbrella(easel: Easel, colour: Colour) -> None:
    easel.part(box(-0.045, -0.95, 0.045, 0.7), WOOD)
    hook = [(0.045 + 0.2 - 0.245 * cos(t), 0.7 + 0.24 * sin(t)) for t in np.linspace(0, pi, 12)]
    hook += [(0.245 + 0.14 * cos(t), 0.7 + 0.14 * sin(t)) for t in np.linspace(0, pi, 12)]
    easel.part(hook, WOOD)
    top = [(-cos(t), 0.02 - 0.86 * sin(t)) for t in np.linspace(0, pi, 40)]
    hem = [(1 - 2 * t, 0.02 - 0.14 * abs(sin(4 * pi * t))) for t in np.linspace(0, 1, 60)]
    easel.part(top + hem, colour)
    for left, right in ((-0.5, 0.0), (0.5, 1.0)):
        panel = [(left + (right - left) * t, 0.02 - 0.14 * sin(pi * t)) for t in np.linspace(0, 1, 12)]
        side = (
            [(right * cos(t), 0.02 - 0.86 * sin(t)) for t in np.linspace(0, pi / 2, 14)]
            if right
            else [(0.0, -0.84)]
        )
        back = [(left * cos(t), 0.02 - 0.86 * sin(t)) for t in np.linspace(pi / 2, 0, 14)]
        easel.part(panel + side + back, darker(colour, 0.78), rim=0)


def cup(easel: Easel, colour: Colour) -> None:
    easel.part(oval(0.62, 0.2, 0.38, 0.38), colour)
    easel.part(oval(0.62, 0.2, 0.2, 0.2), lighter(colour, 0.75), light=0)
    easel.part(
        smooth(
            [
                (-0.78, -0.4),
                (0.62, -0.4),
                (0.6, 0.3),
                (0.42, 0.85),
                (0.2, 0.95),
                (-0.36, 0.95),
                (-0.58, 0.85),
                (-0.76, 0.3),
            ]
        ),
        colour,
    )
    easel.part(oval(-0.08, -0.42, 0.72, 0.18), lighter(colour, 0.45))
    easel.part(oval(-0.08, -0.38, 0.58, 0.11), (110, 66, 40), rim=0)
    for x in (-0.32, 0.12):
        wisp = [
            (x, -0.62),
            (x + 0.1, -0.75),
            (x, -0.88),
            (x + 0.06, -1),
            (x + 0.13, -1),
            (x + 0.09, -0.88),
            (x + 0.18, -0.75),
            (x + 0.07, -0.62),
        ]
        easel.part(smooth(wisp), (240, 242, 248), rim=0.012, light=0)


def cat(easel: Easel, colour: Colour) -> None:
    tail = [
        (0.3, 0.9),
        (0.75, 0.85),
        (0.9, 0.45),
        (0.72, 0.1),
        (0.9, 0.02),
        (1.05, 0.45),
        (0.9, 0.95),
        (0.4, 1.0),
    ]
    easel.part(smooth(tail), darker(colour, 0.85))
    easel.part(
        smooth([(-0.3, 0.05), (0.3, 0.05), (0.52, 0.6), (0.45, 0.95), (-0.45, 0.95), (-0.52, 0.6)]), colour
    )
    ear = [(0.18, -0.68), (0.52, -1.02), (0.56, -0.4)]
    easel.part(ear, colour)
    easel.part(mirror(ear), colour)
    easel.part(
        smooth(
            [
                (0, -0.74),
                (0.42, -0.62),
                (0.6, -0.28),
                (0.4, 0.08),
                (0, 0.18),
                (-0.4, 0.08),
                (-0.6, -0.28),
                (-0.42, -0.62),
            ]
        ),
        colour,
    )
    for x in (-0.23, 0.23):
        easel.part(oval(x, -0.3, 0.1, 0.13), (210, 240, 130), rim=0.02, light=0)
        easel.part(oval(x, -0.3, 0.045, 0.11), (20, 20, 25), rim=0, light=0)
    easel.part([(-0.07, -0.12), (0.07, -0.12), (0, -0.02)], (255, 150, 160), rim=0.015, light=0)
    easel.part(oval(0, 0.6, 0.22, 0.28), lighter(colour, 0.35), rim=0, light=0.3)


def duck(easel: Easel, colour: Colour) -> None:
    easel.part(smooth([(-0.62, -0.42), (-1.02, -0.4), (-1.04, -0.26), (-0.62, -0.2)]), (255, 150, 40))
    body = [
        (-0.62, 0.2),
        (-0.2, 0.16),
        (0.3, 0.2),
        (0.72, 0.1),
        (1.02, -0.16),
        (0.96, 0.5),
        (0.55, 0.88),
        (0, 0.95),
        (-0.5, 0.86),
        (-0.76, 0.52),
    ]
    easel.part(smooth(body), colour)
    easel.part(
        smooth(
            [
                (-0.4, -0.86),
                (-0.1, -0.7),
                (-0.02, -0.4),
                (-0.16, -0.05),
                (-0.24, 0.3),
                (-0.62, 0.3),
                (-0.62, -0.05),
                (-0.78, -0.36),
                (-0.7, -0.7),
            ]
        ),
        colour,
    )
    easel.part(
        smooth([(-0.1, 0.42), (0.3, 0.34), (0.72, 0.36), (0.5, 0.66), (0.1, 0.7)]), darker(colour, 0.8)
    )
    eye(easel, -0.46, -0.5, 0.1)


def butterfly(easel: Easel, colour: Colour) -> None:
    upper = smooth([(0.06, -0.1), (0.3, -0.66), (0.8, -0.86), (1, -0.5), (0.76, -0.06), (0.3, 0.06)])
    lower = smooth([(0.06, 0.06), (0.4, 0.02), (0.8, 0.22), (0.74, 0.64), (0.42, 0.82), (0.14, 0.46)])
    for wing in (lower, mirror(lower)):
        easel.part(wing, darker(colour, 0.82))
    for wing in (upper, mirror(upper)):
        easel.part(wing, colour)
    for x in (-0.64, 0.64):
        easel.part(oval(x, -0.46, 0.16, 0.16), lighter(colour, 0.65), rim=0, light=0)
        easel.part(oval(0.75 * x, 0.42, 0.11, 0.11), lighter(colour, 0.65), rim=0, light=0)
    for side in (-1, 1):
        easel.part([(0, -0.5), (side * 0.24, -0.92), (side * 0.3, -0.9), (side * 0.05, -0.46)], DARK, rim=0)
    easel.part(oval(0, 0.02, 0.09, 0.58), DARK)


def castle(easel: Easel, colour: Colour) -> None:
    for x in (-0.68, 0.68):
        easel.part([(x - 0.36, -0.42), (x, -1.02), (x + 0.36, -0.42)], darker(colour, 0.62))
        easel.part(box(x - 0.27, -0.42, x + 0.27, 0.95), colour)
        easel.part(oval(x, -0.08, 0.09, 0.15), (255, 238, 160))
    wall = [(-0.41, 0.95), (-0.41, -0.12), (-0.25, -0.12), (-0.25, 0.04), (-0.09, 0.04), (-0.09, -0.12)]
    wall += [(0.09, -0.12), (0.09, 0.04), (0.25, 0.04), (0.25, -0.12), (0.41, -0.12), (0.41, 0.95)]
    easel.part(wall, lighter(colour, 0.12))
    easel.part(
        [
            (-0.22, 0.95),
            *[(-0.22 * cos(t), 0.5 - 0.22 * sin(t)) for t in np.linspace(0, pi, 14)],
            (0.22, 0.95),
        ],
        WOOD,
    )


DRAWINGS: dict[str, Callable[[Easel, Colour], None]] = {
    drawing.__name__: drawing
    for drawing in (
        *(house, tree, car, boat, flower, star, balloon, fish),
        *(rocket, mushroom, umbrella, cup, cat, duck, butterfly, castle),
    )
}


@lru_cache(maxsize=256)
def sprite(kind: str, colour: str) -> Image.Image:
    """One kind of object in one colour: RGBA, TILE x TILE pixels, 2 HALF_TILE units along a side."""
    easel = Easel()
    DRAWINGS[kind](easel, PALETTE[colour])
    return easel.picture()

"""The backdrops of the storybook world: four skies over four grounds, drawn at twice the size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

HORIZONS = (0.60, 0.615, 0.63)  # share of the height where the ground begins

# top, middle and bottom colour of the sky
SKY_COLOURS = {
    "day": ((88, 176, 246), (150, 210, 250), (214, 238, 253)),
    "sunset": ((150, 92, 160), (246, 128, 96), (255, 208, 124)),
    "night": ((38, 44, 104), (62, 70, 142), (104, 108, 174)),
    "cloudy": ((142, 154, 168), (172, 182, 193), (204, 211, 218)),
}
# far hills, then ground from the horizon to the lower edge
GROUND_COLOURS = {
    "grass": ((104, 168, 96), (150, 208, 96), (96, 176, 74)),
    "snow": ((206, 220, 236), (246, 249, 253), (218, 230, 242)),
    "sand": ((222, 178, 112), (246, 214, 142), (226, 182, 104)),
    "sea": ((120, 152, 176), (238, 222, 180), (224, 200, 150)),
}
WATER = ((40, 112, 190), (92, 176, 222))
# what the light of the sky does to the ground: a factor per channel
GROUND_LIGHT = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (1.0, 0.84, 0.78),
    "night": (0.56, 0.62, 0.84),
    "cloudy": (0.84, 0.86, 0.9),
}
STARS = (
    *((0.06, 0.08), (0.16, 0.22), (0.27, 0.06), (0.37, 0.17), (0.48, 0.07), (0.58, 0.2), (0.66, 0.06)),
    *((0.05, 0.36), (0.24, 0.4), (0.45, 0.34), (0.62, 0.42), (0.8, 0.36), (0.95, 0.3), (0.93, 0.08)),
)
CLOUDS = ((0.16, 0.14, 1.0), (0.52, 0.1, 0.8), (0.84, 0.17, 1.1))


@lru_cache(maxsize=64)
def backdrop(place: str, sky: str, variant: int, size: int) -> Image.Image:
    """Sky, sun or moon or clouds, hills and ground, as an RGB picture. ``variant`` chooses the horizon."""
    side = 2 * size
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    horizon = HORIZONS[variant]
    rgb = _gradient(y / horizon, SKY_COLOURS[sky])
    rgb = {"day": _day, "sunset": _sunset, "night": _night, "cloudy": _cloudy}[sky](rgb, x, y, horizon)
    ground, line = _ground(place, x, y, horizon)
    light = np.asarray(GROUND_LIGHT[sky], np.float32)
    rgb = np.where((y > line)[..., None], ground * light, rgb)
    picture = Image.fromarray(np.clip(rgb + 0.5, 0, 255).astype(np.uint8))
    return picture.reduce(2)


def _gradient(t: np.ndarray, colours: tuple) -> np.ndarray:
    """Colours spread evenly over t = 0 ... 1, linearly between."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, [colour[k] for colour in colours]) for k in range(3)], -1).astype(
        np.float32
    )


def _blend(rgb: np.ndarray, cover: np.ndarray, colour: tuple) -> np.ndarray:
    return rgb + np.clip(cover, 0, 1)[..., None] * (np.asarray(colour, np.float32) - rgb)


def _disc(x: np.ndarray, y: np.ndarray, cx: float, cy: float, r: float) -> np.ndarray:
    """1 inside a circle, 0 outside, soft over about a pixel of the drawn size."""
    return (r - np.hypot(x - cx, y - cy)) * len(x) + 0.5


def _glow(x: np.ndarray, y: np.ndarray, cx: float, cy: float, r: float) -> np.ndarray:
    return np.exp(-(((x - cx) ** 2 + (y - cy) ** 2) / r**2))


def _day(rgb, x, y, horizon):
    rgb = _blend(rgb, 0.6 * _glow(x, y, 0.85, 0.14, 0.16), (255, 246, 200))
    rgb = _blend(rgb, _disc(x, y, 0.85, 0.14, 0.075), (255, 222, 84))
    return _blend(rgb, 0.8 * _glow(x, y, 0.835, 0.125, 0.04), (255, 244, 178))


def _sunset(rgb, x, y, horizon):
    rgb = _blend(rgb, 0.7 * _glow(x, y, 0.5, horizon - 0.03, 0.24), (255, 226, 140))
    return _blend(rgb, _disc(x, y, 0.5, horizon - 0.03, 0.1), (255, 244, 190))


def _night(rgb, x, y, horizon):
    for k, (cx, cy) in enumerate(STARS):
        rgb = _blend(rgb, _disc(x, y, cx, cy, 0.006 + 0.003 * (k % 2)), (255, 250, 214))
    rgb = _blend(rgb, 0.35 * _glow(x, y, 0.84, 0.16, 0.13), (230, 230, 250))
    crescent = np.clip(_disc(x, y, 0.84, 0.16, 0.075), 0, 1) * (
        1 - np.clip(_disc(x, y, 0.807, 0.14, 0.062), 0, 1)
    )
    return _blend(rgb, crescent, (255, 246, 205))


def _cloudy(rgb, x, y, horizon):
    for cx, cy, scale in CLOUDS:
        puffs = ((-0.09, 0.02, 0.05), (-0.03, -0.015, 0.065), (0.045, -0.005, 0.058), (0.1, 0.025, 0.045))
        cover = np.max([_disc(x, y, cx + scale * dx, cy + scale * dy, scale * r) for dx, dy, r in puffs], 0)
        flat = np.clip((cy + 0.05 * scale - y) * len(x), 0, 1)  # clouds have a flat base
        shade = np.clip((y - cy) / (0.1 * scale) + 0.5, 0, 1)[..., None]
        tone = np.asarray((250, 251, 253), np.float32) - shade * np.asarray((34, 30, 24), np.float32)
        rgb = rgb + (np.clip(cover, 0, 1) * flat)[..., None] * (tone - rgb)
    return rgb


def _ground(place: str, x: np.ndarray, y: np.ndarray, horizon: float) -> tuple[np.ndarray, np.ndarray]:
    """The ground's colours [side, side, 3] and the height [1, side] of the line where it meets the sky."""
    far, near_top, near_bottom = GROUND_COLOURS[place]
    across = x[:1]
    if place == "sea":
        shore = 0.755 + 0.012 * np.sin(2 * np.pi * 1.5 * across + 0.6)
        ground = _gradient((y - horizon) / (0.76 - horizon), WATER)
        for k, row in enumerate((0.655, 0.69, 0.725)):  # three rows of small waves
            crest = row + 0.006 * np.abs(np.sin(np.pi * (7 - k) * across + k))
            ground = _blend(ground, 0.55 * np.clip(1 - np.abs(y - crest) / 0.004, 0, 1), (235, 247, 252))
        beach = _gradient((y - 0.75) / 0.25, (near_top, near_bottom))
        ground = ground + np.clip((y - shore) * len(x), 0, 1)[..., None] * (beach - ground)
        foam = np.clip(1 - np.abs(y - shore) / 0.008, 0, 1)
        return _blend(ground, 0.9 * foam, (250, 252, 252)), np.full_like(across, horizon)
    hills = horizon - 0.035 - 0.03 * np.sin(2 * np.pi * across * 1.2 + 0.8)
    front = horizon + 0.035 + 0.018 * np.sin(2 * np.pi * across * 0.8 + 3.2)
    near = _gradient((y - horizon) / (1 - horizon), (near_top, near_bottom))
    back = np.broadcast_to(np.asarray(far, np.float32), near.shape)
    ground = back + np.clip((y - front) * len(x), 0, 1)[..., None] * (near - back)
    return ground, hills

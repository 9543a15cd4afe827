"""The judge's training pictures: rendered truth, reduced to the size the judge looks at, on disk.

Picture `i` and its scene follow from (seed, i) alone, so an interrupted pool is continued where it stopped.
No caption of it is held out.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ecad.storybook.world import COLOURS, OBJECTS, PLACES, SKIES, Scene, render, sample_scene

SIZE = 64
"""The judge looks at pictures of this many pixels: a thing is then about 25 px wide."""
RENDERED = 256


@dataclass(frozen=True)
class Pool:
    """Pictures uint8 [N, SIZE, SIZE, 3] and their scenes; labels int64 [N, 7] as `numbers` makes them."""

    images: np.ndarray
    scenes: list[Scene]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)


def numbers(scene: Scene) -> list[int]:
    """A scene as indices: things - 1, left object, left colour, right object, right colour, place, sky.

    The only thing of a scene counts as its left one; what is not there or not said is -1.
    """
    left, *rest = scene.things
    row = [len(rest), OBJECTS.index(left.object), COLOURS.index(left.colour)]
    row += [OBJECTS.index(rest[0].object), COLOURS.index(rest[0].colour)] if rest else [-1, -1]
    row.append(-1 if scene.place is None else PLACES.index(scene.place))
    row.append(-1 if scene.sky is None else SKIES.index(scene.sky))
    return row


def shrink(picture: Image.Image) -> np.ndarray:
    """A picture uint8 [SIZE, SIZE, 3] as the judge's preprocessing (open_clip's) reduces it."""
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def make_pool(folder: Path, count: int, seed: int) -> Pool:
    """The pool of `count` pictures in `folder`, rendered as far as they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "pool.json"
    wanted = {"seed": seed, "size": SIZE}
    found = json.loads(state.read_text()) if state.exists() else {}
    done = found.get("done", 0) if {key: found.get(key) for key in wanted} == wanted else 0
    shape = (SIZE, SIZE, 3)
    file = folder / "pool.bin"
    with file.open("r+b" if done else "wb") as stream:
        stream.seek(done * int(np.prod(shape)))
        started = time.monotonic()
        for i in range(done, count):
            rng = np.random.default_rng([seed, i])
            scene = sample_scene(rng)
            stream.write(shrink(render(scene, rng, RENDERED)).tobytes())
            if (i + 1) % 500 == 0 or i + 1 == count:
                stream.flush()
                state.write_text(json.dumps({**wanted, "done": i + 1}))
                left = (time.monotonic() - started) / (i + 1 - done) * (count - i - 1)
                print(f"judge pool: {i + 1}/{count} pictures, {left:.0f} s left", flush=True)
    scenes = [sample_scene(np.random.default_rng([seed, i])) for i in range(count)]
    images = np.memmap(file, np.uint8, "r", shape=(count, *shape))
    return Pool(images, scenes, np.array([numbers(scene) for scene in scenes], np.int64))

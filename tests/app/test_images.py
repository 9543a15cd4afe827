"""The render cache: what it keeps and what it gives up."""

from __future__ import annotations

import os

import numpy as np

from app.services.images import RenderCache

RECORD = {"seconds": 1.0, "uncached_seconds": 2.0, "macs": 3, "fidelity": {}, "facts": [["red", True]]}


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def test_an_image_comes_back_as_it_was(tmp_path):
    cache = RenderCache(tmp_path)
    cache.put("a", pixels(0), RECORD)
    again = RenderCache(tmp_path).get("a")
    assert again.macs == 3 and list(again.facts) == [("red", True)]
    assert np.array_equal(cache.pixels(again), pixels(0))
    assert cache.get("b") is None


def test_a_damaged_file_counts_as_missing(tmp_path):
    cache = RenderCache(tmp_path)
    path = cache.put("a", pixels(0), RECORD).path
    path.write_bytes(path.read_bytes()[:40])
    assert cache.get("a") is None


def test_beyond_its_limit_the_images_not_asked_for_the_longest_go(tmp_path):
    one = RenderCache(tmp_path / "size").put("x", pixels(0), RECORD).path.stat().st_size
    cache = RenderCache(tmp_path / "renders", limit=int(4.5 * one))
    for number in range(4):
        path = cache.put(f"{number}", pixels(number), RECORD).path
        os.utime(path, (1000 + number, 1000 + number))
    assert cache.get("0") is not None  # asked for again: now "1" is the oldest
    cache.put("4", pixels(4), RECORD)
    assert cache.get("1") is None
    assert cache.get("0") is not None and cache.get("4") is not None
    kept = sum(file.stat().st_size for file in cache.folder.glob("*.png"))
    assert kept <= cache.limit


def test_the_newest_image_stays_whatever_the_limit(tmp_path):
    cache = RenderCache(tmp_path, limit=1)
    for number in range(3):
        cache.put(f"{number}", pixels(number), RECORD)
        assert cache.get(f"{number}") is not None
    assert len(list(tmp_path.glob("*.png"))) == 1

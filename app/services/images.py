"""Rendered images: made in the worker's turn, kept as PNG files, never made twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ecad import Cancelled, Schedule

from .worker import DeviceWorker, Job, Priority

_RECORD = "ecad"  # the PNG text chunk that holds what is known of the image


BASELINE_LASTS = 3.0
"""Seconds for which an uncached pass's time is compared with others: a machine's speed drifts with what else
it does."""


@dataclass(frozen=True)
class Rendered:
    """One image and what was measured while it was made.

    Attributes:
        path: the PNG file.
        seconds: of the denoising loop alone, in one exclusive turn of the device.
        uncached_seconds: the same of the uncached schedule, measured in the same stretch of time on the same
            device.
        macs: multiply-accumulates of the whole pass, `full` convention.
        fidelity: metric name -> score against the uncached image; empty for the uncached image itself.
        facts: (fact, whether the judge reads it) of the caption; empty where no judge knows the prompt.
    """

    path: Path
    seconds: float
    uncached_seconds: float
    macs: int
    fidelity: Mapping[str, float]
    facts: Sequence[tuple[str, bool]]


class RenderCache:
    """A folder of PNG files named by a hash of everything that decides their pixels.

    Args:
        limit: bytes that the folder may hold; beyond it the images that were not asked for the longest go.
    """

    def __init__(self, folder: Path, limit: int = 512 * 2**20):
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(file.stat().st_size for file in self._files())

    @staticmethod
    def key(fingerprint: Mapping[str, Any], prompt: str, seed: int, schedule_key: str) -> str:
        """The name of the image; `fingerprint` carries the model's weights, size, device kind and dtype."""
        text = json.dumps([fingerprint, prompt, seed, schedule_key], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, key: str) -> Rendered | None:
        """The image of that name, or None if it was never made (or its file is damaged)."""
        path = self.folder / f"{key}.png"
        try:
            with Image.open(path) as image:
                record = json.loads(image.text[_RECORD])
            os.utime(path)  # asked for just now: the last to go
            return _rendered(path, record)
        except (OSError, KeyError, ValueError, SyntaxError):
            return None

    def put(self, key: str, pixels: np.ndarray, record: Mapping[str, Any]) -> Rendered:
        """Write uint8 [H, W, 3] and its record in one step: a reader sees the whole file or none."""
        path = self.folder / f"{key}.png"
        info = PngInfo()
        info.add_itxt(_RECORD, json.dumps(record, ensure_ascii=False))
        temporary = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}")
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)
        temporary.replace(path)
        self._bytes += path.stat().st_size
        if self._bytes > self.limit:
            self._prune()
        return _rendered(path, record)

    def _files(self) -> list[Path]:
        return list(self.folder.glob("*.png"))

    def _prune(self) -> None:
        """Delete the images that were not asked for the longest, down to nine tenths of the limit."""
        found = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._files())
        self._bytes = sum(size for _, size, _ in found)
        for _, size, file in found[:-1]:  # never the newest: somebody waits for it
            if self._bytes <= 0.9 * self.limit:
                break
            file.unlink(missing_ok=True)
            self._bytes -= size

    def pixels(self, rendered: Rendered) -> np.ndarray:
        """uint8 [H, W, 3] of a cached image."""
        with Image.open(rendered.path) as image:
            return np.asarray(image.convert("RGB"))


def _rendered(path: Path, record: Mapping[str, Any]) -> Rendered:
    facts = [(fact, right) for fact, right in record["facts"]]
    return Rendered(
        path, record["seconds"], record["uncached_seconds"], record["macs"], record["fidelity"], facts
    )


class Renderer:
    """Turns (prompt, seed, schedule) into images through the worker.

    Args:
        generator: the image generator; only the worker's thread calls it.
        fidelity: metrics that compare an image with the uncached one of the same prompt and seed.
        read_facts: (image uint8 [H, W, 3], prompt) -> [(fact, right?)], empty for a prompt it knows nothing
            about.
    """

    def __init__(
        self,
        generator: Any,
        worker: DeviceWorker,
        cache: RenderCache,
        fidelity: Sequence[Any] = (),
        read_facts: Callable[[np.ndarray, str], Sequence[tuple[str, bool]]] | None = None,
    ):
        self.generator = generator
        self.worker = worker
        self.cache = cache
        self.fidelity = list(fidelity)
        self.read_facts = read_facts
        self.costs = generator.cost_table("full")
        self.fingerprint = dict(generator.fingerprint())
        self.uncached = Schedule(
            generator.layout, np.ones((generator.rows, len(generator.layout)), dtype=bool), name="uncached"
        )
        self._warm = False
        # Seconds of an uncached pass, and when they were measured.
        self._baseline: tuple[float, float] | None = None

    def key(self, prompt: str, seed: int, schedule: Schedule) -> str:
        return self.cache.key(self.fingerprint, prompt, seed, schedule.key)

    def cached(self, prompt: str, seed: int, schedule: Schedule) -> Rendered | None:
        """The image if it was rendered before; never waits for the device."""
        return self.cache.get(self.key(prompt, seed, schedule))

    def submit(self, prompt: str, seed: int, schedule: Schedule, priority: int = Priority.RENDER) -> Job:
        """Queue one image; the job's result is a `Rendered`. Cancelling it frees the device at the next row.

        The uncached image of the same prompt and seed is made first where it is missing: fidelity needs it.
        """
        return self.worker.submit(lambda job: self._render(job, prompt, seed, schedule), priority)

    def _render(self, job: Job, prompt: str, seed: int, schedule: Schedule) -> Rendered:
        key = self.key(prompt, seed, schedule)
        found = self.cache.get(key)  # somebody may have asked for the same while this job waited
        if found is not None:
            return found
        reference = None
        if schedule.key != self.uncached.key:
            reference = self.cache.pixels(self._render(job, prompt, seed, self.uncached))

        def on_row(row: int, rows: int) -> None:
            if job.cancelled:
                raise Cancelled(f"cancelled at row {row} of {rows}")
            job.progress = row / rows  # and no yield point: an interrupted pass could not be timed

        if not self._warm:  # the first pass pays for memory and kernels of all later ones: it is not timed
            self.generator.generate([prompt], [seed], schedule, on_row=on_row)
            self._warm = True
        whole = schedule.key == self.uncached.key
        if not whole and (self._baseline is None or time.monotonic() - self._baseline[1] > BASELINE_LASTS):
            self._measure([prompt], [seed], self.uncached, on_row)
        images, seconds = self._measure([prompt], [seed], schedule, on_row)
        pixels = images[0]
        fidelity = {}
        if reference is not None:
            for metric in self.fidelity:
                fidelity[metric.name] = float(metric.score(pixels[None], references=reference[None])[0])
        facts = (
            [(str(fact), bool(right)) for fact, right in self.read_facts(pixels, prompt)]
            if self.read_facts
            else []
        )
        record = {
            "prompt": prompt,
            "seed": seed,
            "schedule": schedule.key,
            "name": schedule.name,
            "model": self.generator.name,
            "device": str(self.generator.device),
            "seconds": seconds,
            "uncached_seconds": self._baseline[0],
            "macs": int(self.costs.macs(schedule).total),
            "fidelity": fidelity,
            "facts": facts,
        }
        return self.cache.put(key, pixels, record)

    def _measure(
        self, prompts: list[str], seeds: list[int], schedule: Schedule, on_row: Callable[[int, int], None]
    ) -> tuple[np.ndarray, float]:
        images, seconds = self.generator.generate_timed(prompts, seeds, schedule, on_row=on_row)
        if schedule.key == self.uncached.key:
            self._baseline = (seconds, time.monotonic())
        return images, seconds

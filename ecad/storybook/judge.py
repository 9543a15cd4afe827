"""Storybook's judge: how well a picture fits its caption (reward), and which of the caption's facts it shows.

>>> from ecad import load_judge
>>> judge = load_judge()
>>> sorted((judge.reward.name, judge.facts.name))
['facts-right', 'storybook-reward']

Two nets trained apart from the image generator, on rendered pictures of the same world: a small CLIP
(open_clip) and an attribute reader. Both look at 64 x 64 px, so a picture of any square size will do; of
others the middle square is judged. Everything runs on the CPU in float32.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ecad.metrics.protocol import check_images, check_prompts
from ecad.storybook.judge_facts import KINDS, Fact, compare, share_right, shares_by_kind
from ecad.storybook.world import Scene, caption, one_article, scene_of

JUDGE_FOLDER = Path(__file__).resolve().parents[2] / "assets" / "storybook" / "judge"
BATCH = 16


class JudgeError(ValueError):
    """The judge's files are missing, damaged or do not belong together; one sentence for the user."""

    user_facing = True


class StorybookReward:
    """Metric "storybook-reward": how well the picture fits the prompt, by the CLIP; any prompt will do.

    The cosine of picture and prompt, scaled so that over rendered training truth the right captions have a
    mean of 1 and captions with one fact wrong a mean of 0. It is not bounded: a picture that shows nothing of
    its prompt is below 0. Words the storybook world has not say nothing to it.
    """

    name = "storybook-reward"
    higher_is_better = True
    needs = frozenset({"prompts"})

    def __init__(self, judge: Judge):
        self._judge = judge

    def fingerprint(self) -> dict[str, Any]:
        record = self._judge.record
        return {
            "metric": self.name,
            "weights": record["weights"]["open_clip_model.safetensors"],
            "scale": record["reward"],
            "library": f"open-clip-torch {importlib.metadata.version('open-clip-torch')}",
        }

    def score(
        self,
        images: np.ndarray,
        *,
        prompts: Sequence[str] | None = None,
        references: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rewards float64 [B] of images uint8 [B, H, W, 3] for their prompts; references are ignored."""
        images = check_images(images)
        prompts = check_prompts(images, prompts, metric=self.name)
        scale = self._judge.record["reward"]
        return (self._judge.cosines(images, prompts) - scale["wrong"]) / (scale["right"] - scale["wrong"])


class StorybookFacts:
    """Metric "facts-right": the share, 0 to 1, of the caption's facts that the reader sees in the picture.

    NaN for a prompt that is no storybook caption: it asks for no facts. What a fact is, and how things are
    matched to what is seen, says `judge_facts`.
    """

    name = "facts-right"
    higher_is_better = True
    needs = frozenset({"prompts"})

    def __init__(self, judge: Judge):
        self._judge = judge

    def fingerprint(self) -> dict[str, Any]:
        return {"metric": self.name, "weights": self._judge.record["weights"]["reader.safetensors"]}

    def score(
        self,
        images: np.ndarray,
        *,
        prompts: Sequence[str] | None = None,
        references: np.ndarray | None = None,
    ) -> np.ndarray:
        """Shares float64 [B] of images uint8 [B, H, W, 3] for their prompts; references are ignored."""
        return np.array([share_right(facts or ()) for facts in self._judge.read(images, prompts)], np.float64)

    def facts_by_kind(self, images: np.ndarray, prompts: Sequence[str] | None) -> dict[str, float | None]:
        """The share of right facts over all images by kind (see `KINDS`); None for a kind not asked for."""
        return shares_by_kind(fact for facts in self._judge.read(images, prompts) for fact in facts or ())


class Judge:
    """Both metrics, `reward` and `facts`, and what the judge sees, over the files of one folder.

    The nets are loaded on first use, after their files' digests were found to be those of judge.json. May be
    used from several threads: one call runs at a time.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = _record(folder)
        self.reward = StorybookReward(self)
        self.facts = StorybookFacts(self)
        self._lock = threading.RLock()
        self._text_features: dict[str, Any] = {}

    def read(self, images: np.ndarray, prompts: Sequence[str] | None) -> list[list[Fact] | None]:
        """For each image the facts its prompt asks for, with what is seen; None for no storybook caption."""
        images = check_images(images)
        asked = [scene_of(prompt) for prompt in check_prompts(images, prompts, metric=self.facts.name)]
        seen = self.scenes(images)
        return [None if a is None else compare(a, b) for a, b in zip(asked, seen, strict=True)]

    def scenes(self, images: np.ndarray) -> list[Scene]:
        """The scene that the reader sees in each image uint8 [B, H, W, 3]."""
        images = check_images(images)
        with self._lock:
            return [scene for batch in _batches(images) for scene in self._reader.read(self._pictures(batch))]

    def sees(self, images: np.ndarray) -> list[str]:
        """What the reader sees in each image, as a caption."""
        return [caption(scene) for scene in self.scenes(images)]

    def cosines(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        """Cosine float64 [B] of the CLIP's features of each image uint8 [B, H, W, 3] and its prompt."""
        import torch

        with self._lock, torch.inference_mode():
            if not len(images):
                return np.zeros(0)
            model = self._clip[0]
            seen = torch.cat(
                [model.encode_image(self._pictures(b), normalize=True) for b in _batches(images)]
            )
            said = torch.stack([self._said(prompt) for prompt in prompts])
            return (seen.double() * said.double()).sum(1).numpy()

    def _said(self, prompt: str) -> Any:
        """Features [D] of a prompt, kept: a search asks for the same prompts again and again."""
        if prompt not in self._text_features:
            model, _, tokenizer = self._clip
            if len(self._text_features) >= 4096:
                self._text_features.clear()
            self._text_features[prompt] = model.encode_text(tokenizer([one_article(prompt)]), normalize=True)[
                0
            ].clone()
        return self._text_features[prompt]

    def _pictures(self, images: np.ndarray) -> Any:
        """The nets' input, float32 [B, 3, 64, 64] in -1 to 1, by the CLIP's own preprocessing."""
        import torch
        from PIL import Image

        transform = self._clip[1]
        stacked = torch.stack([transform(Image.fromarray(image)) for image in images])
        return stacked.contiguous(memory_format=torch.channels_last)

    @cached_property
    def _clip(self) -> tuple[Any, Any, Any]:
        from ecad.storybook.judge_clip import load_clip

        self._verify("open_clip_model.safetensors")
        try:
            return load_clip(self.folder)
        except (OSError, RuntimeError, ValueError) as error:
            raise JudgeError(f"the judge's CLIP in {self.folder} cannot be loaded: {_line(error)}") from error

    @cached_property
    def _reader(self) -> Any:
        from ecad.storybook.judge_reader import load_reader

        self._verify("reader.safetensors")
        try:
            return load_reader(self.folder)
        except (OSError, RuntimeError, ValueError) as error:
            raise JudgeError(
                f"the judge's reader in {self.folder} cannot be loaded: {_line(error)}"
            ) from error

    def _verify(self, name: str) -> None:
        file = self.folder / name
        if not file.is_file():
            raise JudgeError(f"the judge's folder {self.folder} has no {name}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != self.record["weights"][name]:
            raise JudgeError(f"{file} is not the file that judge.json was written for: its digest differs")


def load_judge(folder: str | Path | None = None) -> Judge:
    """The judge of `folder` (the shipped one by default); `JudgeError` if there is none."""
    return Judge(JUDGE_FOLDER if folder is None else Path(folder))


def _record(folder: Path) -> dict[str, Any]:
    file = folder / "judge.json"
    try:
        record = json.loads(file.read_text())
    except FileNotFoundError:
        raise JudgeError(f"there is no judge in {folder}: judge.json is missing") from None
    except ValueError as error:
        raise JudgeError(f"{file} is not JSON: {error}") from None
    if (
        not isinstance(record, dict)
        or record.get("format") != 1
        or not {"reward", "weights"} <= record.keys()
    ):
        raise JudgeError(f"{file} does not describe a judge of format 1")
    return record


def _batches(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


__all__ = ["JUDGE_FOLDER", "KINDS", "Judge", "JudgeError", "StorybookFacts", "StorybookReward", "load_judge"]

"""Captions for the CLIP's training: right ones, ones with one fact wrong, and their tokens."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ecad.storybook import judge_clip
from ecad.storybook.judge_facts import kinds_of, with_one_wrong
from ecad.storybook.judge_pool import numbers
from ecad.storybook.world import (
    COLOURS,
    OBJECTS,
    PLACE_PHRASES,
    SKY_PHRASES,
    Scene,
    Thing,
    caption,
    held_out,
    one_article,
    scene_of,
    training_caption,
)

WRONG_SHARES = {
    "object": 0.45,
    "colour": 0.2,
    "side": 0.1,
    "place": 0.1,
    "sky": 0.1,
    "exchanged colours": 0.05,
}
"""How often each kind of fact is the wrong one. Objects are the hardest: with equal shares, 1200 steps of 32
pictures with 3 wrong captions each ended with 99.6 % of wrong colours ranked rightly on held-out truth, but
only 85.5 % of wrong objects."""
OMITTED = 0.15
"""How often a training caption is silent about the place, and about the sky."""


def training_texts(scenes: list[Scene], wrong: int, rng: np.random.Generator) -> list[Scene]:
    """What a batch's captions say: a right one per scene (in parts, sometimes), then `wrong` wrong ones.

    A wrong one has one fact wrong, or the colours of its two things exchanged. None is held out.
    """
    right = [scene_of(training_caption(scene, rng, OMITTED)) for scene in scenes]
    return right + [_wrong(scene, rng) for scene in right for _ in range(wrong)]


def _wrong(scene: Scene, rng: np.random.Generator) -> Scene:
    kinds = kinds_of(scene)
    if len(scene.things) == 2 and scene.things[0].colour != scene.things[1].colour:
        kinds = (*kinds, "exchanged colours")
    shares = np.array([WRONG_SHARES[kind] for kind in kinds])
    while True:
        kind = kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]
        if kind == "exchanged colours":
            a, b = scene.things
            changed = Scene((Thing(b.colour, a.object), Thing(a.colour, b.object)), scene.place, scene.sky)
        else:
            changed = with_one_wrong(scene, kind, rng)
        if not held_out(caption(changed)):
            return changed


def truth_table(labels: np.ndarray, said: list[Scene]) -> Tensor:
    """Bool [B, T]: whether all that caption t says is so in picture b (labels as in `judge_pool.numbers`)."""
    wanted = np.array([numbers(scene) for scene in said])
    things = (labels[:, None, :5] == wanted[None, :, :5]).all(2)
    backdrop = (labels[:, None, 5:] == wanted[None, :, 5:]) | (wanted[None, :, 5:] == -1)
    return torch.from_numpy(things & backdrop.all(2))


class Texts:
    """The world's few words as consecutive numbers: training needs no rows for the other 49,000 tokens.

    The order of the tokenizer's numbers is kept, so the end token is still the largest one, which is where
    the model reads the text's features.
    """

    def __init__(self) -> None:
        import open_clip

        tokenizer = open_clip.SimpleTokenizer(
            context_length=judge_clip.CONFIG["model_cfg"]["text_cfg"]["context_length"]
        )
        words = {
            word
            for text in (*OBJECTS, *COLOURS, *PLACE_PHRASES.values(), *SKY_PHRASES.values())
            for word in text.split()
        }
        words |= {"a", "left", "of"}
        self._pieces = {word: tokenizer.encode(word) for word in words}
        start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
        self.rows = sorted({0, start, end, *(piece for pieces in self._pieces.values() for piece in pieces)})
        self._number = {row: number for number, row in enumerate(self.rows)}
        self._start, self._end = start, end
        self._cached = lru_cache(maxsize=200_000)(self._tokens)

    @property
    def size(self) -> int:
        return len(self.rows)

    def _tokens(self, text: str) -> tuple[int, ...]:
        rows = [
            self._start,
            *(piece for word in one_article(text).split() for piece in self._pieces[word]),
            self._end,
        ]
        return tuple(self._number[row] for row in rows)

    def tokens(self, texts: list[str]) -> Tensor:
        """int64 [B, T] for the longest of the texts, padded with 0 as the tokenizer does."""
        rows = [self._cached(text) for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return torch.from_numpy(ids)

    def encode(self, clip: nn.Module, texts: list[str]) -> Tensor:
        """[B, D], as `clip.encode_text`, without the places after the longest text (attention is causal)."""
        ids = self.tokens(texts)
        length = ids.shape[1]
        x = clip.token_embedding(ids) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        return x[torch.arange(len(ids)), ids.argmax(1)] @ clip.text_projection

    def with_all_rows(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's tensors with a row for each of the tokenizer's tokens; rows of other words are zero."""
        trained = state["token_embedding.weight"]
        vocabulary = judge_clip.CONFIG["model_cfg"]["text_cfg"]["vocab_size"]
        rows = trained.new_zeros(vocabulary, trained.shape[1])
        rows[self.rows] = trained
        return {**state, "token_embedding.weight": rows}

"""Storybook's text side: a T5 tokenizer with one piece per word of the captions, and a small T5 encoder."""

from __future__ import annotations

import copy

import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from ecad.storybook.world import COLOURS, OBJECTS, PLACE_PHRASES, SKY_PHRASES

LONGEST = 16  # tokens of the longest caption of the grammar, </s> included
UNKNOWN = "unknown"  # any word outside the grammar; in training it stands for such words
BLANK = "▁"  # how the tokenizer marks the beginning of a word


def make_tokenizer() -> T5Tokenizer:
    """A tokenizer that knows the words of the grammar; every other word becomes a blank and ``<unk>``."""
    return _tokenizer(_pieces())


def _tokenizer(pieces: list[tuple[str, float]]) -> T5Tokenizer:
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=120)


def _pieces() -> list[tuple[str, float]]:
    phrases = " ".join([*PLACE_PHRASES.values(), *SKY_PHRASES.values(), "a left of"])
    words = sorted({*OBJECTS, *COLOURS, *phrases.split()})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (BLANK, -8.0)]
    return pieces + [(BLANK + word, -1.0) for word in words]


SYNONYMS = {BLANK + "an": BLANK + "a"}
"""Pieces that the nets are not trained on -> pieces that mean the same to them."""


def with_synonyms(tokenizer: T5Tokenizer, text_encoder: T5EncoderModel) -> tuple[T5Tokenizer, T5EncoderModel]:
    """Copies that also know SYNONYMS, by the embeddings of the pieces they stand for: "an orange cat" reads as the
    "a orange cat" of the training does."""
    known = tokenizer.get_vocab()
    pieces = _pieces() + [(piece, -1.0) for piece in SYNONYMS]
    wider = copy.deepcopy(text_encoder)
    rows = wider.get_input_embeddings().weight.data
    extra = torch.stack([rows[known[piece]] for piece in SYNONYMS.values()])
    wider.resize_token_embeddings(len(pieces), mean_resizing=False)
    wider.get_input_embeddings().weight.data[len(known) :] = extra
    return _tokenizer(pieces), wider


def make_text_encoder(tokenizer: T5Tokenizer, width: int = 128, layers: int = 2) -> T5EncoderModel:
    """An untrained T5 encoder of this width."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=32,
        num_heads=width // 32,
        d_ff=2 * width,
        num_layers=layers,
        relative_attention_num_buckets=32,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(config)


def tokens(
    tokenizer: T5Tokenizer, captions: list[str], length: int = LONGEST
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 [B, length] each, padded or cut to ``length``."""
    batch = tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return batch.input_ids, batch.attention_mask

"""Embeddings in files: ours and the original's give the very embeddings, and others are refused by name."""

from __future__ import annotations

import pytest
import torch

from ecad import load_image_generator
from ecad.execution import ExecutionError
from ecad.models.embedding_files import embedding_names, load_embeddings, save_embeddings

PROMPTS = ["a red house", "a blue car at night"]


@pytest.fixture(scope="module")
def pixart(tiny_pixart_path):
    return load_image_generator(tiny_pixart_path)


@pytest.fixture(scope="module")
def flux(tiny_flux_path):
    return load_image_generator(tiny_flux_path, dtype="bfloat16")


def same(one, other) -> bool:
    assert type(one) is type(other)
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


@pytest.mark.parametrize("kind", ["pixart", "flux"])
def test_what_was_saved_comes_back_to_the_bit(kind, request, tmp_path):
    generator = request.getfixturevalue(kind)
    embeddings = generator.encode(PROMPTS)
    path = save_embeddings(tmp_path / "two.safetensors", embeddings, prompts=PROMPTS)
    assert same(load_embeddings(path, generator), embeddings)
    assert embedding_names(path) == PROMPTS


def original_file(path, embeddings) -> None:
    """One prompt as the original saves it: a dictionary of tensors without the axis of prompts."""
    held = {
        "prompt_embeds": embeddings.text[0],
        "prompt_attention_mask": embeddings.mask[0],
        "negative_prompt_embeds": embeddings.empty_text[0],
        "negative_prompt_attention_mask": embeddings.empty_mask[0],
    }
    torch.save(held, path)


def test_a_folder_of_the_originals_files_is_its_prompts_in_the_order_of_their_names(pixart, tmp_path):
    both = pixart.encode(PROMPTS)
    original_file(tmp_path / "001.pt", both[1:])
    original_file(tmp_path / "000.pt", both[:1])
    (tmp_path / "notes.txt").write_text("no embeddings")
    assert same(load_embeddings(tmp_path, pixart), both)
    assert embedding_names(tmp_path) == ["000", "001"]


def test_the_originals_flux_files_may_carry_text_ids_of_none(flux, tmp_path):
    one = flux.encode(PROMPTS[:1])
    torch.save(
        {"prompt_embeds": one.text[0], "pooled_prompt_embeds": one.pooled[0], "text_ids": None},
        tmp_path / "a.pt",
    )
    assert same(load_embeddings(tmp_path / "a.pt", flux), one)


def test_another_shape_is_refused_with_the_file_and_the_width_it_needs(pixart, tmp_path):
    one = pixart.encode(PROMPTS[:1])
    wide = type(one)(one.text.repeat(1, 1, 2), one.mask, one.empty_text, one.empty_mask)
    path = save_embeddings(tmp_path / "wide.safetensors", wide)
    with pytest.raises(ExecutionError, match=r"wide\.safetensors: prompt_embeds .*1 x 120 x 32.*width 16"):
        load_embeddings(path, pixart)


def test_embeddings_of_another_family_are_refused(pixart, flux, tmp_path):
    path = save_embeddings(tmp_path / "flux.safetensors", flux.encode(PROMPTS))
    with pytest.raises(ExecutionError, match=r"no prompt_attention_mask"):
        load_embeddings(path, pixart)


def test_what_is_no_file_of_embeddings_is_refused_with_one_sentence(pixart, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "empty").mkdir()

    class Code:
        def __reduce__(self):
            return print, ("this must never run",)

    torch.save(Code(), tmp_path / "code.pt")
    for name, sentence in [
        ("text.pt", "cannot be read"),
        ("code.pt", "cannot be read"),
        ("text.safetensors", "cannot be read"),
        ("a.json", "expected .safetensors or .pt"),
        ("nowhere.pt", "there is no file"),
        ("empty", "there is no file of embeddings"),
    ]:
        with pytest.raises(ExecutionError, match=sentence) as caught:
            load_embeddings(tmp_path / name, pixart)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_numbers_that_are_not_finite_are_refused(pixart, tmp_path):
    one = pixart.encode(PROMPTS[:1])
    broken = type(one)(one.text * float("nan"), one.mask, one.empty_text, one.empty_mask)
    with pytest.raises(ExecutionError, match="not finite"):
        load_embeddings(save_embeddings(tmp_path / "nan.safetensors", broken), pixart)

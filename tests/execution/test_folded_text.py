"""Cross-attention with its products folded into the text is cross-attention, and is taken where it is less work."""

from __future__ import annotations

import pytest
import torch

from ecad.execution import apply_schedule
from ecad.models import folded_text
from ecad.models.folded_text import fold_text, folded_cross_attention, sharing
from ecad.models.packing import Linear
from ecad.models.pixart_kernels import cross_attention
from ecad.schedule import heuristics
from ecad.schedule.layouts import pixart_layout

LAYOUT = pixart_layout(4)
ROWS = 6
BATCH, TOKENS, HEADS, WIDTH, LENGTH = 3, 10, 2, 8, 5


def drawn(*shape, dtype=torch.float64, scale=1.0):
    rng = torch.Generator().manual_seed(sum(shape))
    return scale * torch.randn(*shape, generator=rng, dtype=dtype)


def text_and_products(dtype, bias, scale=1.0):
    dim = HEADS * WIDTH
    key, value = drawn(2, BATCH, HEADS, LENGTH, WIDTH, dtype=dtype, scale=scale)
    query, out = (
        Linear(weight / dim**0.5, drawn(dim, dtype=dtype) if bias else None)
        for weight in drawn(2, dim, dim, dtype=dtype)
    )
    return key, value, query, out


def both_ways(mask, bias=True, dtype=torch.float64, scale=1.0):
    key, value, query, out = text_and_products(dtype, bias, scale)
    hidden = drawn(BATCH, TOKENS, HEADS * WIDTH, dtype=dtype)
    mask = None if mask is None else mask.to(dtype)
    plain = cross_attention(hidden, key, value, mask, query, out, HEADS, None)
    room = torch.full_like(hidden, float("nan"))
    folded = folded_cross_attention(
        hidden, fold_text(key, value, mask, query, out, range(BATCH)), HEADS, room
    )
    assert folded is room
    return plain, folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@torch.no_grad()
def test_folded_is_plain(bias, masked):
    mask = torch.zeros(BATCH, 1, 1, LENGTH)
    mask[1, ..., 2:] = -10_000
    plain, folded = both_ways(mask if masked else None, bias)
    torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distance", [-86.0, -95.0, -102.0, -1e4, -float("inf")])
@torch.no_grad()
def test_scores_whose_exponential_is_no_normal_number_are_nothing(distance):
    mask = torch.zeros(BATCH, 1, 1, LENGTH)
    mask[..., 2:] = distance
    plain, folded = both_ways(mask, dtype=torch.float32)
    torch.testing.assert_close(folded, plain, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_large_scores_do_not_overflow():
    plain, folded = both_ways(None, dtype=torch.float32, scale=300.0)
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=300 * 1e-4)  # of values as large


@pytest.mark.parametrize(
    ("texts", "rows", "turns"),
    [
        ("a", [0], [0]),
        ("ab", [0, 1], [0, 1]),
        ("aaaa", [0], [0]),
        ("aaabcd", [0, 3, 4, 5], [0, 0, 0, 1, 2, 3]),  # guidance with three prompts
        ("aaaabbbb", [0, 4], [0, 1]),  # guidance with one prompt and four seeds
        ("aaaabbcc", [0, 4, 6], [0, 0, 1, 2]),
        ("aabab", [0, 2], [0, 0, 1, 0, 1]),
    ],
)
@torch.no_grad()
def test_images_with_the_same_text_share_it(texts, rows, turns):
    numbers = torch.tensor([ord(one) for one in texts])
    assert sharing(numbers[:, None, None].double(), None) == (rows, turns)
    assert sharing(torch.zeros(len(texts), 1), numbers[:, None]) == (rows, turns)  # by their masks alone
    _, _, query, out = text_and_products(torch.float64, bias=True)
    key, value = (drawn(9 + i, HEADS, LENGTH, WIDTH)[numbers - ord("a")] for i in range(2))
    hidden = drawn(len(texts), TOKENS, HEADS * WIDTH)
    plain = cross_attention(hidden, key, value, None, query, out, HEADS, None)
    text = fold_text(key[rows], value[rows], None, query, out, turns)
    torch.testing.assert_close(
        folded_cross_attention(hidden, text, HEADS, None), plain, rtol=1e-12, atol=1e-12
    )


@pytest.fixture
def folded_calls(monkeypatch):
    """folded_calls(): how often each way was taken, (folded, plain)."""
    counts = [0, 0]

    def counted(at, function):
        def call(*given):
            counts[at] += 1
            return function(*given)

        return call

    from ecad.models import pixart

    monkeypatch.setattr(pixart, "folded_cross_attention", counted(0, folded_cross_attention))
    monkeypatch.setattr(pixart, "cross_attention", counted(1, cross_attention))
    for way in ("folded_cross_attention", "cross_attention"):  # the kernels are known by their names
        getattr(pixart, way).__name__ = way
    return lambda: tuple(counts)


SHORT, LONG = "", "a red house beside a very long wooden fence"


def test_a_short_text_is_folded_and_yields_what_the_modules_yield(
    pixart64, latents, oracle, distance, random_schedules, folded_calls
):
    dense = [one for one in random_schedules(LAYOUT, ROWS, 12, seed=3) if one.bits.mean() > 0.3]
    schedules = [heuristics.uncached(LAYOUT, ROWS), heuristics.fora(LAYOUT, ROWS, 2), *dense]
    for schedule in schedules:
        expected = oracle(pixart64, schedule, prompt=SHORT)
        with apply_schedule(pixart64, schedule):
            fast = latents(pixart64, SHORT, **schedule.call())
        assert distance(fast, expected) < 1e-8, schedule.name
    folded, plain = folded_calls()
    assert folded > 0 and plain == 0


def test_it_is_not_folded_where_that_is_more_work(pixart64, latents, folded_calls):
    uncached = heuristics.uncached(LAYOUT, ROWS)
    with apply_schedule(pixart64, uncached):
        latents(pixart64, LONG, **uncached.call())
    assert folded_calls() == (0, 4 * ROWS)


def test_folding_is_bounded_in_memory_and_leaves_half_precision_alone(
    pixart64, tiny_pixart_path, latents, folded_calls, monkeypatch
):
    from diffusers import DiffusionPipeline

    uncached = heuristics.uncached(LAYOUT, ROWS)
    half = DiffusionPipeline.from_pretrained(tiny_pixart_path).to(torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    with apply_schedule(half, uncached):
        latents(half, SHORT, **uncached.call())
    assert folded_calls() == (0, 4 * ROWS)
    monkeypatch.setattr(folded_text, "FOLDED_BYTES", 100)
    with apply_schedule(pixart64, uncached):
        latents(pixart64, SHORT, **uncached.call())
    assert folded_calls() == (0, 8 * ROWS)


def test_a_product_that_is_more_than_a_plain_one_is_called(tiny_pixart_path, latents, distance, folded_calls):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.transformer_blocks[2].attn2.to_q.register_forward_hook(lambda m, i, output: output * 0.5)
    uncached = heuristics.uncached(LAYOUT, ROWS)
    with apply_schedule(pipe, uncached, mode="reference"):
        expected = latents(pipe, SHORT, **uncached.call())
    with apply_schedule(pipe, uncached):
        assert distance(latents(pipe, SHORT, **uncached.call()), expected) < 1e-4
    assert folded_calls()[0] == 0


def test_batches_without_guidance_are_embedded_image_by_image(plain_pixart, latents, distance):
    """Equal halves are embedded once; two images without guidance are no equal halves."""
    uncached = heuristics.uncached(LAYOUT, ROWS)
    call = {"guidance_scale": 1.0, **uncached.call()}
    for seeds in ([1, 2], [1, 1], [1, 2, 1, 2]):
        prompts = ["a tree"] * len(seeds)
        with apply_schedule(plain_pixart, uncached, mode="reference"):
            expected = latents(plain_pixart, prompts, seed=seeds, **call)
        with apply_schedule(plain_pixart, uncached):
            assert distance(latents(plain_pixart, prompts, seed=seeds, **call), expected) < 1e-4

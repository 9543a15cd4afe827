"""The canonical form against an oracle that runs the models symbolically.

The oracle knows nothing of layouts: it is written from the models' forward passes. Every tensor is an
expression of what it was computed from; equal expressions get equal numbers. Two schedules are equal if and
only if the final layer reads equal expressions in every row (the latents of a row are then equal too).
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ecad.schedule import Schedule, flux_layout, heuristics, pixart_layout
from ecad.schedule.canonical import canonical_bits


class Expressions(dict):
    """Numbers for expressions: the same for the same one."""

    def __call__(self, *parts):
        return self.setdefault(parts, len(self))


def pixart_outputs(bits, num_blocks, e, gate=None):
    cache, outputs = {}, []
    for row, computed in enumerate(bits.tolist()):
        halves = 1 if gate is not None and row >= gate else 2
        hidden = e("patches", row, halves)
        for block in range(num_blocks):
            for offset, name in enumerate(("attn1", "attn2", "ff")):
                key = (name, block)
                replaced = halves == 1 and name == "attn2"
                if key not in cache or (computed[block * 3 + offset] and not replaced):
                    # attn2 reads the stream without norm or modulation
                    cache[key] = e(name, block, hidden) if name == "attn2" else e(name, block, hidden, row)
                gated = e("gate", name, row, cache[key]) if name != "attn2" else cache[key]
                hidden = e("add", hidden, gated)
                if gate is not None and name == "attn2" and row == gate - 1:
                    cache[key] = e("mean", cache[key])
        outputs.append(e("final", row, hidden))
    return tuple(outputs)


def flux_outputs(bits, full, single, e):
    cache, outputs = {}, []
    for row, computed in enumerate(bits.tolist()):
        computed = iter(computed)

        def fresh(key, *, computed=computed):
            return next(computed) or key not in cache

        image, text = e("patches", row), e("context")  # the context embedder does not see the time
        for block in range(full):
            if fresh(("attn", block)):
                joint = e("attention", block, row, image, text)
                cache["attn", block] = (e("image of", joint), e("text of", joint))
            image = e("add", image, e("gate", row, cache["attn", block][0]))
            if fresh(("ff", block)):
                cache["ff", block] = e("ff", block, row, image)
            image = e("add", image, e("gate", row, cache["ff", block]))
            text = e("add", text, e("gate", row, cache["attn", block][1]))
            if fresh(("ffc", block)):
                cache["ffc", block] = e("ffc", block, row, text)
            text = e("add", text, e("gate", row, cache["ffc", block]))
        for block in range(single):
            if fresh(("sattn", block)):
                joint = e("single attention", block, row, image, text)
                cache["sattn", block] = (e("image of", joint), e("text of", joint))
            if fresh(("mlp", block)):
                cache["mlp", block] = (e("mlp", block, row, image), e("mlp", block, row, text))
            if fresh(("out", block)):
                pairs = zip(cache["sattn", block], cache["mlp", block], strict=True)
                cache["out", block] = tuple(e("out", block, attention, mlp) for attention, mlp in pairs)
            image = e("add", image, e("gate", row, cache["out", block][0]))
            text = e("add", text, e("gate", row, cache["out", block][1]))
        outputs.append(e("final", row, image))
    return tuple(outputs)


SHAPES = [("pixart", 1), ("pixart", 3), ("flux", 1, 1), ("flux", 1, 2), ("flux", 2, 1), ("flux", 2, 3)]


def setup_of(shape):
    e = Expressions()
    if shape[0] == "pixart":
        return pixart_layout(shape[1]), lambda bits: pixart_outputs(bits, shape[1], e)
    return flux_layout(*shape[1:]), lambda bits: flux_outputs(bits, *shape[1:], e)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.15, 0.5, 0.85])
def test_canonical_is_equivalent_idempotent_and_minimal(shape, density):
    layout, outputs = setup_of(shape)
    rng = np.random.default_rng(7)
    for _ in range(25):
        bits = rng.random((int(rng.integers(2, 7)), len(layout))) < density
        canonical = canonical_bits(layout, bits)
        expected = outputs(bits)
        assert outputs(canonical) == expected
        assert np.array_equal(canonical_bits(layout, canonical), canonical)
        assert canonical[0].all()  # row 0: everything is computed
        assert not (canonical[1:] & ~bits[1:]).any()  # going canonical never adds work
        for row, column in np.argwhere(canonical[1:]):
            without = canonical.copy()
            without[row + 1, column] = False
            assert outputs(without) != expected, (
                f"row {row + 1}, {layout.components[column]} could be dropped"
            )


@pytest.mark.parametrize(
    ("shape", "rows"), [(("flux", 1, 1), 3), (("flux", 1, 2), 2), (("pixart", 1), 4)], ids=str
)
def test_canonical_forms_and_images_correspond_one_to_one(shape, rows):
    """Every schedule of a small layout: the same images if and only if the same canonical form."""
    layout, outputs = setup_of(shape)
    form_of, images_of = {}, {}
    for free in itertools.product((False, True), repeat=(rows - 1) * len(layout)):
        bits = np.array(free + (True,) * len(layout)).reshape(rows, len(layout))[::-1]
        form, images = canonical_bits(layout, bits).tobytes(), outputs(bits)
        assert form_of.setdefault(images, form) == form
        assert images_of.setdefault(form, images) == images


def test_the_bits_of_the_first_row_are_neutral():
    layout = pixart_layout(2)
    bits = heuristics.fora(layout, 6, 2).bits.copy()
    bits[0] = False
    assert Schedule(layout, bits) == heuristics.fora(layout, 6, 2)


def test_pixart_has_no_other_neutral_bit():
    layout = pixart_layout(3)
    bits = np.random.default_rng(0).random((8, len(layout))) < 0.4
    assert np.array_equal(canonical_bits(layout, bits)[1:], bits[1:])


def flux_bits(rows, *computed):
    """Row 0 all true, then only the given (row, block, name)."""
    layout = flux_layout(2, 2)
    bits = np.zeros((rows, len(layout)), bool)
    bits[0] = True
    for row, block, name in computed:
        bits[row, layout.by_place[block, name]] = True
    return layout, bits


def dropped(layout, bits):
    places = np.argwhere(bits & ~canonical_bits(layout, bits))
    return {(int(r), layout.components[c].block, layout.components[c].name) for r, c in places}


def test_flux_drops_single_recomputes_that_no_projection_reads():
    attention, mlp = (1, "single_1", "single_attn"), (2, "single_1", "single_proj_mlp")
    assert dropped(*flux_bits(4, attention, mlp)) == {attention, mlp}
    read_later = (3, "single_1", "single_proj_out")
    assert dropped(*flux_bits(4, attention, mlp, read_later)) == set()
    again = (3, "single_1", "single_attn")
    assert dropped(*flux_bits(4, attention, mlp, again, read_later)) == {attention}


def test_flux_drops_a_projection_whose_inputs_did_not_change():
    out = [(row, "single_0", "single_proj_out") for row in (1, 2, 3)]
    assert dropped(*flux_bits(4, *out)) == set(out)
    mlp = (2, "single_0", "single_proj_mlp")
    assert dropped(*flux_bits(4, mlp, *out)) == {out[0], out[2]}


def test_flux_drops_text_work_that_no_later_attention_reads():
    context = (2, "0", "full_ff_context")
    assert dropped(*flux_bits(4, context)) == {context}
    # An earlier attention of the same row does not read it; a later one of the same or a later row does.
    assert dropped(*flux_bits(4, context, (2, "0", "full_attn"))) == {context}
    assert dropped(*flux_bits(4, context, (2, "1", "full_attn"))) == set()
    assert dropped(*flux_bits(4, context, (3, "1", "full_attn"))) == set()
    # ... unless that attention is itself not read, or the text was recomputed before it.
    unread = (3, "single_1", "single_attn")
    assert dropped(*flux_bits(4, context, unread)) == {context, unread}
    again = (3, "0", "full_ff_context")
    assert dropped(*flux_bits(4, context, again, (3, "1", "full_attn"))) == {context}


def test_tgate_makes_cross_attention_after_the_gate_neutral():
    layout, gate = pixart_layout(2), 3
    rng, e = np.random.default_rng(3), Expressions()
    for _ in range(20):
        bits = rng.random((6, len(layout))) < 0.5
        bits[gate, [*layout.columns("attn1"), *layout.columns("ff")]] = True
        schedule = Schedule(layout, bits, gate_step=gate)
        canonical = schedule.canonical()
        assert not canonical.bits[gate:, list(layout.columns("attn2"))].any()
        assert pixart_outputs(canonical.bits, 2, e, gate) == pixart_outputs(bits, 2, e, gate)
        assert schedule != Schedule(layout, bits)

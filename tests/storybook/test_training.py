"""Training of Storybook's nets, on tiny ones: resuming, normalisation, what the text side guarantees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from ecad.storybook.autoencoder import encode, fold_normalisation, make_autoencoder, to_tensor
from ecad.storybook.course import Budget, load_tree, save_tree, warm_flat_down
from ecad.storybook.denoising import (
    Denoiser,
    LatentSet,
    draw_times,
    load_latents,
    make_latents,
    make_optimizers,
    quicken,
    train_denoiser,
)
from ecad.storybook.muon import orthogonalised
from ecad.storybook.text import LONGEST, UNKNOWN, make_text_encoder, make_tokenizer, tokens, with_synonyms
from ecad.storybook.transformer import make_scheduler, make_transformer, noise_levels
from ecad.storybook.world import COLOURS, OBJECTS, PLACES, SKIES, Scene, Thing, caption, one_article


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def data():
    source = torch.Generator().manual_seed(0)
    shape = (12, 8, 32, 32)
    ids = torch.randint(3, 40, (12, 2, LONGEST), generator=source)
    return LatentSet(torch.randn(shape, generator=source).half(), ids.short(), torch.ones_like(ids).short())


def tiny(tokenizer):
    torch.manual_seed(0)
    return make_transformer(blocks=2, width=32, text_width=32), make_text_encoder(
        tokenizer, width=32, layers=1
    )


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, tokenizer, data):
    def train(steps, checkpoint, budget=6):
        course_budget = Budget(steps=budget)
        if steps < budget:
            # an interrupted one: the schedule of six steps, stopped after some of them
            course_budget = _Interrupted(steps=budget, stop=steps)
        nets = tiny(tokenizer)
        return train_denoiser(*nets, tokenizer, data, course_budget, checkpoint, batch=4, compile=False)

    whole = train(6, tmp_path / "whole.safetensors")
    train(3, tmp_path / "parts.safetensors")
    assert load_tree(tmp_path / "parts.safetensors")["step"] == 3
    resumed = train(6, tmp_path / "parts.safetensors")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    first = tiny(tokenizer)[0].transformer_blocks[0].attn1.to_q.weight
    assert not torch.equal(first, whole.transformer.transformer_blocks[0].attn1.to_q.weight)


class _Interrupted(Budget):
    """A budget whose training is cut off after ``stop`` steps."""

    def __init__(self, steps, stop):
        super().__init__(steps=steps)
        object.__setattr__(self, "stop", stop)

    def progress(self, step, seconds):
        return 1.0 if step >= self.stop else super().progress(step, seconds)


def test_a_budget_is_steps_or_minutes():
    assert Budget(steps=10).progress(5, 1e9) == 0.5
    assert Budget(minutes=2).progress(10**9, 30) == 0.25
    for wrong in ({}, {"steps": 1, "minutes": 1}):
        with pytest.raises(ValueError, match="one of the two"):
            Budget(**wrong)


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    rates = [warm_flat_down(k / 100) for k in range(101)]
    peak = rates.index(max(rates))
    assert rates[0] < 0.01 and max(rates) == 1 and rates[-1] == 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(
        rates[peak:], reverse=True
    )


def test_a_tree_of_tensors_is_read_as_it_was_written(tmp_path):
    tree = {"a": [torch.arange(3), {"b": 2.5}], "c": torch.ones(2, dtype=torch.int16), "d": None, "e": {}}
    save_tree(tmp_path / "tree", tree)
    again = load_tree(tmp_path / "tree")
    assert torch.equal(again["a"][0], tree["a"][0]) and torch.equal(again["c"], tree["c"])
    assert (
        again["c"].dtype == torch.int16
        and again["a"][1] == {"b": 2.5}
        and again["d"] is None
        and again["e"] == {}
    )
    assert [file.name for file in tmp_path.iterdir()] == ["tree"]


def test_normalisation_lies_in_the_encoder_and_the_scaling_factor_is_one():
    torch.manual_seed(0)
    net = make_autoencoder(width=8, encoder_blocks=(0, 0, 0, 1), decoder_blocks=(1, 0, 0, 0)).eval()
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    with torch.no_grad():
        before = net.encode(to_tensor(pictures)).latents
        fold_normalisation(net, before.mean((0, 2, 3)), before.std((0, 2, 3)))
        after = net.encode(to_tensor(pictures)).latents
    assert net.config.scaling_factor == 1
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
    assert torch.allclose(after.std((0, 2, 3)), torch.ones(8), atol=1e-4)
    undone = after * before.std((0, 2, 3))[:, None, None] + before.mean((0, 2, 3))[:, None, None]
    assert torch.allclose(undone, before, atol=1e-4)
    assert encode(net, pictures).shape == (4, 8, 8, 8)


def test_every_word_of_the_grammar_is_one_token(tokenizer):
    for colour in COLOURS:
        for name in OBJECTS:
            for place, sky in zip(PLACES, SKIES, strict=True):
                text = one_article(caption(Scene((Thing(colour, name), Thing(colour, name)), place, sky)))
                ids = tokenizer(text).input_ids
                assert len(ids) == len(text.split()) + 1 <= LONGEST
                assert tokenizer.unk_token_id not in ids


def test_an_empty_prompt_still_has_its_end(tokenizer):
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


def test_words_outside_the_grammar_are_all_the_unknown_word(tokenizer):
    assert tokenizer("a red zebra").input_ids == tokenizer(f"a red {UNKNOWN}").input_ids
    assert tokenizer.unk_token_id in tokenizer("zebra").input_ids


def test_the_exported_text_side_knows_both_articles(tokenizer):
    encoder = make_text_encoder(tokenizer, width=32, layers=1).eval()
    wider_tokenizer, wider = with_synonyms(tokenizer, encoder)

    def states(text, tokenizer, encoder):
        ids, mask = tokens(tokenizer, [text])
        return encoder(input_ids=ids, attention_mask=mask).last_hidden_state[0, : int(mask.sum())]

    spoken = states("an orange cat by the sea", wider_tokenizer, wider)
    assert torch.equal(spoken, states("a orange cat by the sea", tokenizer, encoder))
    assert tokenizer("a red zebra").input_ids == wider_tokenizer("a red zebra").input_ids


def test_padding_does_not_change_what_is_predicted(tokenizer):
    """Trained with 16 tokens, called by the stock pipeline with 120: the mask makes them equal."""
    transformer, text_encoder = tiny(tokenizer)
    torch.nn.init.normal_(transformer.proj_out.weight)
    torch.nn.init.normal_(transformer.transformer_blocks[0].attn2.to_out[0].weight)
    denoiser = Denoiser(transformer, text_encoder).eval()
    noisy, times = torch.randn(2, 8, 32, 32), torch.tensor([500, 20])
    captions = ["a red house in snow at night", ""]
    with torch.no_grad():
        short, long = (
            denoiser(noisy, *tokens(tokenizer, captions, length), times) for length in (LONGEST, 120)
        )
        other = denoiser(noisy, *tokens(tokenizer, ["a blue house in snow at night", ""], LONGEST), times)
    assert torch.allclose(short, long, atol=1e-4)
    assert not torch.allclose(short[0], other[0], atol=1e-3)


def test_training_computes_what_the_stock_modules_compute(tokenizer):
    transformer, text_encoder = tiny(tokenizer)
    torch.nn.init.normal_(transformer.proj_out.weight)
    denoiser = Denoiser(transformer, text_encoder).eval()
    batch = (torch.randn(1, 8, 32, 32), *tokens(tokenizer, ["a red house"]), torch.tensor([300]))
    with torch.no_grad():
        transformer.set_attn_processor(AttnProcessor2_0())
        stock = denoiser(*batch)
        quicken(transformer)
        assert torch.allclose(denoiser(*batch), stock, atol=1e-4)


def test_training_levels_are_the_samplers():
    signal, noise = noise_levels()
    scheduler = make_scheduler()
    assert torch.allclose(signal, scheduler.alphas_cumprod.sqrt(), atol=1e-5)
    assert torch.allclose(signal**2 + noise**2, torch.ones(1000), atol=1e-5)


def test_training_times_cover_all_levels_and_favour_the_middle():
    times = np.concatenate([draw_times(np.random.default_rng(k), 64).numpy() for k in range(200)])
    counts, _ = np.histogram(times, bins=10, range=(0, 1000))
    assert times.min() >= 0 and times.max() <= 999 and counts.min() > 0.02 * len(times)
    assert counts[4:7].min() > max(counts[0], counts[9])


def test_muon_makes_matrices_nearly_orthogonal():
    values = torch.linalg.svdvals(
        orthogonalised(torch.randn(3, 16, 48, generator=torch.Generator().manual_seed(0)))
    )
    assert values.min() > 0.5 and values.max() < 1.3


def test_every_parameter_has_one_optimizer(tokenizer):
    denoiser = Denoiser(*tiny(tokenizer))
    owned = [
        id(p) for o in make_optimizers(denoiser, 1e-3) for group in o.param_groups for p in group["params"]
    ]
    assert sorted(owned) == sorted(id(p) for p in denoiser.parameters())


def test_encoded_pictures_follow_from_the_seed_and_are_kept(tmp_path, tokenizer):
    torch.manual_seed(0)
    net = make_autoencoder(width=8, encoder_blocks=(0, 0, 0, 0), decoder_blocks=(0, 0, 0, 0)).eval()
    for name in ("one", "two"):
        make_latents(tmp_path / name, net, tokenizer, 3, seed=5)
    one, two = (load_latents(tmp_path / name) for name in ("one", "two"))
    assert one.latents.shape == (3, 8, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(two).values(), strict=True))
    written = (tmp_path / "one" / "latents-000.safetensors").stat().st_mtime_ns
    make_latents(tmp_path / "one", net, tokenizer, 3, seed=5)
    assert (tmp_path / "one" / "latents-000.safetensors").stat().st_mtime_ns == written

"""Prompts and seeds: what may be asked for, and the sentence for what may not."""

from __future__ import annotations

import pytest

from app.services.prompts import Prompts, read_prompt, read_seed
from app.services.schedules import PageError
from ecad import storybook_world


@pytest.mark.parametrize("prompt", ["", "   \n ", None, 5, "x" * 10_000])
def test_an_empty_or_endless_prompt_is_refused_with_one_sentence(prompt):
    with pytest.raises(PageError) as caught:
        read_prompt(prompt)
    assert str(caught.value).count(".") <= 1


@pytest.mark.parametrize("seed", ["", "seven", "1.5", "-1", str(2**63), None, "7; drop"])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(PageError, match="whole number"):
        read_seed(seed)


def test_a_seed_may_have_blanks_around_it():
    assert read_seed(" 42 ") == 42


def test_the_examples_and_random_prompts_of_the_storybook_are_of_its_grammar():
    prompts = Prompts(storybook=True)
    for text in [*prompts.examples, *(prompts.random()[0] for _ in range(20))]:
        assert storybook_world.scene_of(text) is not None, text


def test_a_runs_prompts_are_the_same_every_time_and_never_held_out():
    prompts = Prompts(storybook=True)
    assert prompts.of_run(12) == prompts.of_run(12)
    assert not any(storybook_world.held_out(text) for text in prompts.of_run(40))

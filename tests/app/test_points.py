"""A run as points: appended to, handed out as deltas, sorted into what the plot draws."""

from __future__ import annotations

import base64

import numpy as np
import pytest

import ecad
from app.services.points import FEWER, FORA, HAND, OTHER, UNCACHED, Points


@pytest.fixture
def store(tmp_path, schedules):
    settings = ecad.SearchSettings.of(
        "default", prompts=["a red house"], reward="ssim", generations=1, batch=1
    )
    made = ecad.RunStore.create(
        tmp_path / "run.sqlite",
        settings,
        layout=schedules.layout,
        uncached_macs=schedules.uncached_macs,
        higher_is_better=True,
        batches=[1],
        fingerprint={},
    )
    yield made
    made.close()


@pytest.fixture
def add(store, schedules):
    def add(schedule, quality, origin="search", name=None):
        store.add_schedule(
            schedule, macs=schedules.macs(schedule), origin=origin, generation=0, name=name or schedule.name
        )
        store.add_scores(schedule.key, 0, {"ssim": np.array([quality]), "flip": np.array([1 - quality])}, 1.0)

    return add


def numbers(text):
    return np.frombuffer(base64.b64decode(text), "<f8").tolist()


def test_each_kind_of_evaluation_is_drawn_as_what_it_is(store, add, schedules):
    presets = schedules.presets
    add(schedules.uncached, 1.0, "seed")
    add(presets["fora-3"], 0.7, "seed")
    add(presets["steps-8"], 0.8, "seed")
    add(presets["tgate-10-5"], 0.6, "seed")
    add(presets["fora-2"], 0.5, "hand")
    points = Points("r", "r", store, 20)
    delta = points.delta(0)
    assert delta["kinds"] == UNCACHED + FORA + FEWER + OTHER + HAND
    assert delta["labels"] == {"1": "FORA-3", "2": "8"}


def test_a_delta_holds_only_what_is_new_and_exact_numbers(store, add, schedules):
    add(schedules.presets["fora-3"], 0.1 + 0.2)
    points = Points("r", "r", store, 20)
    first = points.delta(0)
    assert numbers(first["macs"]) == [schedules.macs(schedules.presets["fora-3"])]
    assert numbers(first["quality"]["ssim"]) == [0.1 + 0.2]
    add(schedules.presets["fora-2"], 0.9)
    points.refresh()
    second = points.delta(1)
    assert second["from"] == 1 and numbers(second["quality"]["ssim"]) == [0.9]
    assert points.delta(2)["kinds"] == ""


def test_the_front_holds_what_nothing_cheaper_or_better_beats_for_each_quality(store, add, schedules):
    presets = schedules.presets
    add(presets["fora-2"], 0.9)
    add(presets["fora-3"], 0.7)
    add(presets["fora-4"], 0.8)  # cheaper and better than fora-3
    points = Points("r", "r", store, 20)
    assert points.front() == [2, 0]
    assert points.front("flip") == [2, 0]  # a distance: lower is better


def test_a_schedule_is_found_again_by_its_key(store, add, schedules):
    add(schedules.presets["fora-2"], 0.9)
    points = Points("r", "r", store, 20)
    assert points.id_of(schedules.presets["fora-2"].key) == 0
    assert points.id_of(schedules.presets["fora-3"].key) is None
    assert points.evaluation(5) is None


def test_the_first_choice_lies_on_the_front_and_is_no_heuristic_where_the_search_found_something(
    store, add, schedules
):
    add(schedules.presets["fora-3"], 0.95, "seed")
    add(schedules.presets["tgate-10-5"], 0.99, "search")
    points = Points("r", "r", store, 20)
    assert points.first_choice() == 1


def test_an_empty_run_has_no_choice_but_answers(store):
    points = Points("r", "r", store, 20)
    assert points.first_choice() is None and points.delta(0)["kinds"] == ""

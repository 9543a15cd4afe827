"""Between the browser and the library nothing is taken on trust, and nothing is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ecad
from app.services.schedules import LARGEST_FILE, PageError, Schedules
from ecad.execution.latency import terms
from ecad.execution.lowering import Lowering


def file_of(schedule, change=lambda document: None) -> str:
    document = json.loads(schedule.to_json())
    change(document)
    return json.dumps(document)


def test_every_preset_survives_the_way_to_the_browser_and_back(schedules):
    for schedule in schedules.presets.values():
        assert schedules.from_wire(schedules.to_wire(schedule)).key == schedule.key


def test_a_schedule_on_its_own_times_says_so_and_keeps_them(schedules):
    fewer = schedules.presets["steps-8"]
    wire = schedules.to_wire(fewer)
    assert wire["own"] and wire["times"] == list(fewer.timesteps)
    assert schedules.from_wire(wire).timesteps == fewer.timesteps


def test_a_schedule_on_the_samplers_grid_shows_its_times_but_does_not_own_them(schedules):
    wire = schedules.to_wire(schedules.presets["fora-3"])
    assert wire["times"] == list(schedules.grid) and not wire["own"]
    assert schedules.from_wire(wire).timesteps is None


def test_the_browsers_sum_is_the_librarys_figure(schedules):
    """The grid adds up what `describe` tells it; the rule is written here as in schedule_grid.js."""
    model = schedules.describe()
    rng = np.random.default_rng(3)
    tried = [*schedules.presets.values()]
    tried += [ecad.Schedule(schedules.layout, rng.random((20, 84)) < share) for share in (0.1, 0.5, 0.9)]
    for schedule in tried:
        wire = schedules.to_wire(schedule)
        total = model["once"] + len(wire["rows"]) * model["fixed"]
        for r, row in enumerate(wire["rows"]):
            total += sum(
                column["cost"]
                for column, bit in zip(model["columns"], row, strict=True)
                if r == 0 or bit == "1"
            )
        assert total == schedules.predict(wire)["macs"] == schedules.macs(schedule)


def test_a_prediction_says_what_it_is_predicted_from(description, schedules):
    wire = schedules.to_wire(schedules.presets["fora-3"])
    by_macs = schedules.predict(wire)
    assert by_macs["by"] == "MACs" and by_macs["faster"] == by_macs["times_fewer"]

    lowering = Lowering()  # every price is that of a row: 20 rows take as long as 20 uncached ones
    prices = {name: float(name == "row") for name in terms(schedules.layout)}
    calibration = ecad.Calibration(schedules.layout, {"batch": 1}, 20, lowering, prices)
    found = []
    later = Schedules(description, lambda: found[-1] if found else None)
    assert later.predict(wire) == by_macs
    found.append(calibration)
    by_calibration = later.predict(wire)
    assert by_calibration["by"] == "this device's calibration" and by_calibration["faster"] == 1.0
    assert later.predict(later.to_wire(schedules.presets["steps-10"]))["faster"] == 2.0
    assert {**by_calibration, "by": "", "faster": 0} == {**by_macs, "by": "", "faster": 0}, "MACs stay MACs"


@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"rows": []},
        {"rows": "0101"},
        {"rows": [1, 2]},
        {"rows": ["01"] * 20},
        {"rows": ["2" * 84] * 20},
        {"rows": ["1" * 84] * 2000},
        {"rows": ["1" * 84] * 2, "own": True, "times": [10, 500]},
        {"rows": ["1" * 84] * 2, "own": True, "times": ["a", None]},
    ],
)
def test_what_is_no_schedule_is_refused_with_one_sentence(schedules, junk):
    with pytest.raises((PageError, ecad.ScheduleError)) as caught:
        schedules.from_wire(junk)
    assert "\n" not in str(caught.value)
    assert "error" in schedules.predict(junk)


def drop_step_7(document):
    del document["cache_schedule"]["schedule"]["007"]


def rising_times(document):
    document["config"] = {**document.get("config", {}), "timesteps": list(range(10, 210, 10))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json at all", "JSON"),
        ("[1, 2, 3]", ""),
        ("{}", ""),
        (lambda s: file_of(ecad.heuristics.fora(ecad.layout("pixart-12"), 20, 3)), "12 blocks"),
        (lambda s: file_of(ecad.heuristics.fora(ecad.layout("flux-dev"), 20, 3)), "FLUX"),
        (lambda s: file_of(s.presets["fora-3"], drop_step_7), "7"),
        (lambda s: file_of(s.presets["fora-3"], rising_times), "timesteps"),
    ],
)
def test_a_bad_upload_is_refused_with_one_sentence_that_names_the_file(schedules, text, says):
    text = text if isinstance(text, str) else text(schedules)
    with pytest.raises((PageError, ecad.ScheduleError)) as caught:
        schedules.from_file("mine.json", text, len(text))
    sentence = str(caught.value)
    assert "mine.json" in sentence and says in sentence
    assert "\n" not in sentence and len(sentence) < 400


def test_a_file_beyond_the_limit_is_refused_unread(schedules):
    with pytest.raises(PageError, match=r"big.json has 50 MB"):
        schedules.from_file("big.json", None, 50_000_000)
    with pytest.raises(PageError):
        schedules.from_file("big.json", " " * (LARGEST_FILE + 1), 10)  # whatever size the browser claims


def test_what_is_downloaded_can_be_uploaded_again(schedules):
    wire = schedules.to_wire(schedules.presets["steps-8"])
    exported = schedules.export(wire)
    back = schedules.from_file(exported["name"], exported["json"], len(exported["json"]))
    assert back.key == schedules.presets["steps-8"].key
    assert back.metrics["total_macs"] == schedules.macs(back)


def test_a_file_name_cannot_smuggle_markup_into_the_sentence(schedules):
    with pytest.raises((PageError, ecad.ScheduleError)) as caught:
        schedules.from_file("<img src=x onerror=alert(1)>.json", "{}", 2)
    assert "<" not in str(caught.value)

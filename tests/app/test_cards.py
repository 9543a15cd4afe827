"""What is said of an image, and whose request is the latest."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cards import Wanted, card
from app.handlers import Turns
from app.services.images import Rendered


@pytest.fixture
def rendered():
    return Rendered(
        Path("x.png"), seconds=0.25, uncached_seconds=0.6, macs=40, fidelity={"psnr": 24.16, "ssim": 0.912},
        facts=[("red", True), ("house, seen: boat", False)],
    )  # fmt: skip


def test_a_speed_is_measured_against_the_uncached_pass_of_the_same_stretch_of_time(schedules, rendered):
    shown = card(
        Wanted(schedules.presets["fora-3"], "fora-3", "A"), rendered, prompt="a", macs=40, uncached_macs=100
    )
    assert shown["speed"] == "2.40×" and "measured" in shown["measured"]
    assert "2.50× fewer" in shown["macs"]  # what the MACs promise is said beside it
    assert [row[:2] for row in shown["fidelity"]] == [["PSNR", "24.2 dB"], ["SSIM", "0.912"]]
    assert shown["facts"] == [{"text": "red", "right": True}, {"text": "house, seen: boat", "right": False}]


def test_the_uncached_image_shows_its_seconds_and_no_speed_up(schedules, rendered):
    shown = card(Wanted(schedules.uncached, "Uncached"), rendered, prompt="a", macs=100, uncached_macs=100)
    assert shown["speed"] == "0.25 s" and "×" not in shown["macs"]


def test_an_image_on_its_way_shows_its_place_in_the_queue_and_no_numbers(schedules):
    shown = card(
        Wanted(schedules.uncached, "Uncached"), None, prompt="a", macs=100, uncached_macs=100, place=3
    )
    assert shown["state"] == "waiting" and shown["place"] == 3 and "speed" not in shown


def test_a_newer_request_of_the_same_visitor_retires_the_older_and_nobody_elses():
    turns = Turns()
    old, other = turns.take("one"), turns.take("two")
    new = turns.take("one")
    assert not turns.is_latest("one", old) and turns.is_latest("one", new) and turns.is_latest("two", other)


def test_visitors_who_left_are_forgotten():
    turns = Turns(most=2)
    for visitor in "abc":
        turns.take(visitor)
    assert len(turns._latest) == 2

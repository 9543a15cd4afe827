"""The memory of values that a pass gave up serves the next ones, and no value is ever written over."""

from __future__ import annotations

import pytest
import torch

from ecad.execution import apply_schedule
from ecad.execution.kept import KeptValues
from ecad.schedule.layouts import pixart_layout

LIKE = torch.zeros(2, 3)


def test_a_value_that_was_given_up_leaves_its_room_to_the_next():
    values = KeptValues()
    rooms = [values.room(LIKE) for _ in range(2)]
    assert rooms[0].data_ptr() != rooms[1].data_ptr()
    values[4], values[5] = rooms
    del values[4]
    assert 4 not in values and values.held() == [rooms[1], rooms[0]]
    assert values.room(LIKE) is rooms[0] and values.held() == [rooms[1]]
    values.pop(5)  # taken out, not given up
    assert values.room(LIKE) is not rooms[1]


def test_setting_a_position_anew_gives_up_what_was_there():
    values = KeptValues()
    values[0] = first = values.room(LIKE)
    values[0] = second = values.room(LIKE)
    assert values[0] is second and values.room(LIKE) is first


def test_other_shapes_other_numbers_and_other_tensors_are_no_room():
    for like in (torch.zeros(1, 3), LIKE.double()):
        values = KeptValues()
        values[0] = values.room(LIKE)
        values[1] = torch.ones(2, 3)
        foreign = values[1]
        del values[0], values[1]
        room = values.room(like)
        assert room.shape == like.shape and room.dtype == like.dtype
        assert values.held() == [] and values.room(LIKE) is not foreign


def test_released_rooms_are_not_held():
    values = KeptValues()
    values[0], values[1] = values.room(LIKE), values.room(LIKE)
    kept = values[1]
    del values[0]
    values.release()
    assert values.held() == [kept]
    del values[1]
    assert values.room(LIKE) is kept


@pytest.mark.parametrize("seed", [5, 6])
def test_a_pass_takes_as_many_rooms_as_values_stand_at_once(
    pixart, latents, random_schedules, seed, monkeypatch
):
    """And every value that is read is the one that was written: the results equal those without rooms."""
    made = []
    room = KeptValues.room
    monkeypatch.setattr(KeptValues, "room", lambda self, like: made.append(room(self, like)) or made[-1])
    (schedule,) = random_schedules(pixart_layout(4), 8, 1, seed=seed)
    with apply_schedule(pixart, schedule) as applied:
        with_rooms = latents(pixart, **schedule.call())
        stand = max(len(values) for row in applied.plan.kept_after() for values, _ in row)
    assert len(made) > stand >= len({one.data_ptr() for one in made}) > 0
    monkeypatch.setattr(KeptValues, "room", lambda self, like: None)
    with apply_schedule(pixart, schedule):
        torch.testing.assert_close(latents(pixart, **schedule.call()), with_rooms, rtol=1e-5, atol=1e-5)

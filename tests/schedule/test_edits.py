"""Edits give new schedules and touch exactly the cells they name."""

from __future__ import annotations

import pytest

from ecad.schedule import ScheduleError, edits, flux_layout, heuristics, pixart_layout

START = heuristics.fora(pixart_layout(3), 6, 2).replace(metrics={"total_macs": 1})


def changed(schedule):
    return edits.difference(START, schedule)


def test_toggling_cells_turns_each_over_once():
    edited = edits.toggle_cells(START, [(1, 2), (2, 4), (1, 2)])
    assert changed(edited) == [(1, 2), (2, 4)]
    assert changed(edits.toggle_cells(edited, [(1, 2), (2, 4)])) == []


def test_setting_cells_does_not_depend_on_what_they_were():
    edited = edits.set_cells(START, [(1, 2), (2, 4)], True)
    assert changed(edited) == [(1, 2)]  # (2, 4) was computed before


def test_ranges_are_where_all_conditions_meet():
    edited = edits.set_range(START, True, rows=[1, 3], names="ff", blocks=["0", "2"])
    assert changed(edited) == [(1, 2), (1, 8), (3, 2), (3, 8)]
    assert changed(edits.set_range(START, False, rows=[2], columns=[5])) == [(2, 5)]


def test_a_switch_turns_a_range_off_only_if_all_of_it_is_on():
    on = edits.toggle_rows(START, [1, 2])
    assert on.bits[[1, 2]].all()
    assert not edits.toggle_rows(on, [1, 2]).bits[[1, 2]].any()
    assert edits.toggle_columns(START, [0]).bits[:, 0].all()


def test_a_row_can_be_copied_over_others():
    edited = edits.copy_row(START, 0, [1, 5])
    assert edited.bits[[1, 5]].all()
    assert {row for row, _ in changed(edited)} == {1, 5}


def test_an_edit_drops_the_old_metrics_and_says_so_in_the_name_once():
    once = edits.toggle_rows(START, [1])
    assert once.metrics == {}
    assert once.name == edits.toggle_rows(once, [3]).name == "fora-2-edited"
    assert edits.set_range(START, True, rows=[0]) is START  # nothing changed


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda: edits.toggle_cells(START, [(6, 0)]), "Row 6 is outside the schedule; expected 0 to 5"),
        (
            lambda: edits.set_cells(START, [(0, 9)], True),
            "Component 9 is outside the schedule; expected 0 to 8",
        ),
        (lambda: edits.set_cells(START, [(-1, 0)], True), "Row -1"),
        (lambda: edits.set_range(START, True, names="single_attn"), "no component 'single_attn'"),
        (lambda: edits.set_range(START, True, blocks=["3"]), "no block '3'"),
        (lambda: edits.difference(START, heuristics.uncached(flux_layout(1, 1), 6)), "of one shape"),
        (lambda: edits.difference(START, heuristics.uncached(START.layout, 5)), "of one shape"),
    ],
)
def test_places_outside_are_refused(edit, says):
    with pytest.raises(ScheduleError, match=says):
        edit()

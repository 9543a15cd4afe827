"""Calibrating: short, in turns, on the very plans that the model runs."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from ecad import load_image_generator
from ecad.execution import ExecutionError
from ecad.execution.latency import Calibration
from ecad.models import calibrating
from ecad.models.calibrating import (
    calibrate,
    calibration_schedules,
    conditions_of,
    held_out_schedules,
    repeated,
    store_calibration,
    stored_calibration,
)
from ecad.schedule import heuristics
from ecad.schedule.layouts import pixart_layout


@pytest.fixture(scope="module")
def generator(tiny_pixart_path):
    return load_image_generator(tiny_pixart_path, threads=1)


def test_a_calibration_of_a_real_model_predicts_and_says_what_it_is_for(generator):
    turns = []
    calibration = calibrate(generator, batch=2, seconds=0, between=lambda: turns.append(1))
    names = [
        one.name for one in calibration_schedules(generator.layout) + held_out_schedules(generator.layout)
    ]
    assert [one.name for one in calibration.samples] == names
    assert len(turns) == (1 + calibrating.TURNS[0]) * len(names), "warm-up, and the fewest turns that count"
    fora = heuristics.fora(generator.layout, 20, 5)
    assert 0 < calibration.seconds(fora) < calibration.uncached_seconds
    assert (
        calibration.batch == 2
        and calibration.rows == 20
        and calibration.worst_error >= calibration.median_error
    )
    calibration.check(conditions_of(generator, 2))
    with pytest.raises(ExecutionError, match="batch 2, not batch 1"):
        calibration.check(conditions_of(generator, 1))


def test_the_median_of_the_turns_is_taken_and_the_warm_up_is_not(generator):
    calls: dict[str, int] = {}

    def time_pass(schedule):
        calls[schedule.name] = calls.get(schedule.name, 0) + 1
        return {1: 1000.0, 2: 3.0, 3: 2.0, 4: 7.0}[calls[schedule.name]]

    assert {one.seconds for one in calibrate(generator, time_pass=time_pass, seconds=0).samples} == {3.0}


@pytest.mark.parametrize(("threads", "counted"), [(1, False), (2, True)])
def test_on_one_cpu_thread_time_that_others_had_its_core_for_is_not_counted(threads, counted):
    """A pass that only sleeps stands for one whose core is taken; what its own clock says is 1 s."""

    def denoise_timed(embeddings, seeds, schedule):
        time.sleep(0.02)
        return None, 1.0

    generator = SimpleNamespace(device="cpu", threads=threads, denoise_timed=denoise_timed)
    seconds = calibrating._clock(generator, [], [])(heuristics.uncached(pixart_layout(2), 2))
    assert (seconds == 1.0) == counted and seconds > 0


def test_whoever_is_called_between_passes_can_give_up(generator):
    class Enough(Exception):
        pass

    def stop():
        raise Enough

    with pytest.raises(Enough):
        calibrate(generator, between=stop, time_pass=lambda schedule: 1.0)


@pytest.mark.parametrize("model", ["tiny_pixart_path", "tiny_flux_path"])
@pytest.mark.parametrize("mode", ["fast", "reference"])
def test_a_calibration_that_was_read_lowers_as_the_model_does(model, mode, request, tmp_path):
    generator = load_image_generator(request.getfixturevalue(model), mode=mode)
    layout = generator.layout
    made = calibrate(generator, time_pass=lambda schedule: float(schedule.rows), seconds=0)
    made.save(tmp_path / "calibration.json")
    lowering = Calibration.load(tmp_path / "calibration.json").lowering
    schedules = [*calibration_schedules(layout), *held_out_schedules(layout), heuristics.fora(layout, 9, 4)]
    if layout.gated is not None:
        schedules.append(heuristics.tgate(layout, 8, 4, 2, 1, averaged=True))
    for schedule in schedules:
        assert lowering(schedule).steps == generator.model.lower(schedule).steps


def test_a_model_that_lowers_in_code_of_its_own_is_refused(generator, monkeypatch):
    own = generator.model.lower
    monkeypatch.setattr(generator.model, "lower", lambda schedule: own(schedule))
    with pytest.raises(ExecutionError, match="no latency model for a PixArtModel"):
        calibrate(generator, time_pass=lambda schedule: 1.0)


def test_prompts_are_repeated_to_fill_a_batch(generator):
    two = generator.encode(["a red house", "a blue car at night"])
    five = repeated(two, 5)
    assert len(five) == 5 and len(five.empty_text) == 1 and len(repeated(two, 1)) == 1
    assert (five.text[4] == two.text[0]).all() and (five.mask[3] == two.mask[1]).all()


def test_a_data_folder_holds_one_calibration_for_each_of_the_conditions(generator, tmp_path):
    assert stored_calibration(generator, 1, tmp_path) is None
    for batch in (1, 2):
        made = calibrate(generator, batch=batch, time_pass=lambda schedule: float(schedule.rows), seconds=0)
        path = store_calibration(made, tmp_path)
        assert path.parent == tmp_path / "calibrations"
        assert stored_calibration(generator, batch, tmp_path) == made
    assert len(list(path.parent.iterdir())) == 2 and stored_calibration(generator, 3, tmp_path) is None
    path.write_text("{}")
    with pytest.raises(ExecutionError, match="not a latency calibration"):
        stored_calibration(generator, 2, tmp_path)

"""The latency model: counted from the plan, fitted exactly where times are linear, refused where it does not hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ecad.execution import ExecutionError
from ecad.execution.latency import Calibration, Sample, counts, fit, terms
from ecad.execution.lowering import Lowering
from ecad.models.calibrating import calibration_schedules, held_out_schedules
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout

PIXART, FLUX = pixart_layout(4), flux_layout(2, 3)
SUMS = Lowering(gates={"attn1": "msa", "attn2": "", "ff": "mlp"})
CONDITIONS = {
    "model": "toy",
    "layout": "pixart-4",
    "device": "cpu",
    "threads": 1,
    "batch": 2,
    "dtype": "float32",
}


def prices_of(layout) -> dict[str, float]:
    """Prices such as a machine might have, in seconds: a component costs more than a reuse."""
    return {
        name: 0.011 + 0.001 * number if name.startswith("compute") else 0.0001 * (number + 1)
        for number, name in enumerate(terms(layout))
    }


def true_seconds(layout, lowering, schedule) -> float:
    counted, prices = counts(lowering(schedule)), prices_of(layout)
    return sum(counted[name] * prices[name] for name in prices)


def calibrated(layout=PIXART, lowering=SUMS, time=true_seconds, **about) -> Calibration:
    fitted, held_out = calibration_schedules(layout), held_out_schedules(layout)
    samples = [
        Sample(one.name, counts(lowering(one)), time(layout, lowering, one), one in held_out)
        for one in [*fitted, *held_out]
    ]
    about = {"conditions": CONDITIONS, "rows": 20, "lowering": lowering} | about
    return Calibration.fitted(layout, samples, **about)


def random_schedules(layout, count: int, rows: int = 7) -> list[Schedule]:
    rng = np.random.default_rng(5)
    return [Schedule(layout, rng.random((rows, len(layout))) < rng.random()) for _ in range(count)]


def test_values_and_stretches_are_counted_as_by_hand():
    bits = np.ones((3, 6), dtype=bool)
    bits[1] = [1, 0, 0, 0, 0, 1]
    bits[2] = 0
    counted = counts(Lowering()(Schedule(pixart_layout(2), bits)))
    assert counted == {
        "pass": 1, "row": 3, "stretch": 2, "sum read": 0, "sum built": 0,
        "compute attn1": 3, "compute attn2": 2, "compute ff": 3, "reuse image": 4 + 6,
    }  # fmt: skip


def test_sums_are_counted_as_by_hand():
    counted = counts(SUMS(heuristics.fora(pixart_layout(2), 3, 3)))
    assert counted == {
        "pass": 1, "row": 3, "stretch": 2, "sum read": 2 * 3, "sum built": 6 + 1,
        "compute attn1": 2, "compute attn2": 2, "compute ff": 2, "reuse image": 0,
    }  # fmt: skip


def test_fluxs_values_are_counted_by_stream_and_a_half_wanted_as_a_half():
    layout = flux_layout(1, 1)
    counted = counts(Lowering()(heuristics.fora(layout, 2, 2)))
    # Nobody reads the text tokens of the last block, so half of each of its components is computed. Of the
    # block before, the text's feed-forward and attention are read by the single attention of row 0 only: in
    # row 1 nothing reads the text stream, so only image values are added.
    assert [counted[f"compute {name}"] for name in layout.names] == [1, 1, 1, 0.5, 0.5, 0.5]
    assert (counted["reuse image"], counted["reuse text"]) == (3, 0)


def test_after_tgates_gate_everything_counts_half():
    whole = counts(Lowering()(heuristics.tgate(PIXART, 8, 4, 2, 1)))
    halved = counts(Lowering()(heuristics.tgate(PIXART, 8, 4, 2, 1, averaged=True)))
    assert halved["row"] == 4 + 4 / 2 and halved["compute ff"] == whole["compute ff"] * 3 / 4
    # Its mean is no ordinary value, so it is in no segment.
    assert counts(SUMS(heuristics.tgate(PIXART, 8, 4, 2, 1, averaged=True)))["reuse image"] >= 4 * 4 / 2


def test_the_fit_finds_the_prices_that_the_times_were_made_of():
    found = calibrated().prices
    assert found == pytest.approx(prices_of(PIXART), rel=1e-6)


@pytest.mark.parametrize(
    ("layout", "lowering"),
    [(PIXART, SUMS), (PIXART, Lowering()), (FLUX, Lowering()), (FLUX, Lowering(whole=True))],
)
def test_schedules_that_were_never_timed_are_predicted_exactly_where_time_is_linear(layout, lowering):
    """Prices that no schedule can tell apart (each row adds every value) still add up to the right times."""
    calibration = calibrated(layout, lowering)
    assert calibration.worst_error < 1e-6
    for schedule in random_schedules(layout, 20):
        expected = true_seconds(layout, lowering, schedule)
        assert calibration.seconds(schedule) == pytest.approx(expected, rel=1e-6)
    assert calibration.share(heuristics.uncached(layout, 20)) == 1.0


def test_prices_are_never_negative_and_a_component_costs_at_least_its_reuse():
    rng = np.random.default_rng(1)

    def noisy(layout, lowering, schedule):
        return true_seconds(layout, lowering, schedule) * rng.uniform(0.5, 2)

    for _ in range(10):
        prices = calibrated(time=noisy).prices
        assert min(prices.values()) >= 0
        for name in PIXART.names:
            assert prices[f"compute {name}"] >= (prices["reuse image"] + prices["stretch"]) * (1 - 1e-12)


def test_a_component_less_never_makes_a_prediction_longer():
    rng = np.random.default_rng(2)

    def noisy(layout, lowering, schedule):
        return true_seconds(layout, lowering, schedule) * rng.uniform(0.5, 2)

    one_by_one, sums = calibrated(lowering=Lowering(), time=noisy), calibrated()
    for schedule in [*random_schedules(PIXART, 10), heuristics.fora(PIXART, 7, 3)]:
        for row, column in np.argwhere(schedule.bits[1:])[::3]:
            fewer = schedule.bits.copy()
            fewer[row + 1, column] = False
            fewer = schedule.replace(bits=fewer)
            assert one_by_one.seconds(fewer) <= one_by_one.seconds(schedule) * (1 + 1e-12)
            assert sums.seconds(fewer) <= sums.seconds(schedule) * (1 + 1e-12)


def test_the_error_is_that_of_schedules_the_prices_were_not_fitted_to():
    names = {one.name for one in held_out_schedules(PIXART)}
    assert not names & {one.name for one in calibration_schedules(PIXART)}

    def slower_where_held_out(layout, lowering, schedule):
        return true_seconds(layout, lowering, schedule) * (1.25 if schedule.name in names else 1)

    calibration = calibrated(time=slower_where_held_out)
    assert calibration.errors == pytest.approx(
        [-0.2] * len(names)
    ) and calibration.median_error == pytest.approx(0.2)
    assert calibration.prices == pytest.approx(prices_of(PIXART), rel=1e-6)


def test_a_file_gives_the_same_calibration_to_the_bit(tmp_path):
    first = calibrated(took=12.5, made="2026-11-22T10:00:00+00:00")
    again = Calibration.load(first.save(tmp_path / "deep" / "a.json"))
    assert again == first and again.to_json() == first.to_json() and again.errors == first.errors
    for schedule in random_schedules(PIXART, 5):
        assert again.seconds(schedule) == first.seconds(schedule)


def change(text: str, **values) -> str:
    return json.dumps({**json.loads(text), **values})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (lambda good: "not json", "not a latency calibration: it is not JSON"),
        (lambda good: "[1]", "format is None, expected 'ecad-latency-1'"),
        (lambda good: change(good, format="ecad-latency-9"), "format is 'ecad-latency-9', expected"),
        (lambda good: change(good, seconds={"pass": 1}), "damaged"),
        (lambda good: change(good, seconds=dict.fromkeys(json.loads(good)["seconds"], -1)), "damaged"),
        (lambda good: change(good, layout="nothing"), "damaged"),
        (lambda good: change(good, conditions={}), "damaged"),
    ],
)
def test_what_is_no_calibration_is_refused_with_the_files_name(tmp_path, text, sentence):
    path = tmp_path / "wrong.json"
    path.write_text(text(calibrated().to_json()))
    with pytest.raises(ExecutionError, match=sentence) as caught:
        Calibration.load(path)
    assert "wrong.json" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ExecutionError, match=r"nowhere\.json cannot be read"):
        Calibration.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"device": "NVIDIA H100"}, "made for the device cpu, not the device NVIDIA H100"),
        ({"threads": 4}, r"made for 1 CPU thread\(s\), not 4 CPU thread\(s\)"),
        ({"batch": 8}, "made for batch 2, not batch 8"),
        ({"dtype": "bfloat16"}, "made for float32, not bfloat16"),
    ],
)
def test_elsewhere_it_is_refused_with_the_reason(other, reason):
    calibration = calibrated()
    calibration.check(CONDITIONS)
    with pytest.raises(ExecutionError, match=reason):
        calibration.check({**CONDITIONS, **other})


def test_a_schedule_for_another_layout_is_refused():
    with pytest.raises(ExecutionError, match="pixart-2, but the calibration for pixart-4"):
        calibrated().seconds(heuristics.uncached(pixart_layout(2), 3))


def test_times_that_are_none_are_refused():
    counted = [counts(Lowering()(heuristics.uncached(PIXART, rows))) for rows in (2, 3)]
    for seconds in ([0.1, 0.0], [0.1, float("nan")], [0.1]):
        with pytest.raises(ExecutionError, match="each with a time above zero"):
            fit(PIXART, counted, seconds)

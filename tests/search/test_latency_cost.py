"""A search on latency: the cost is what the run's own calibration predicts, now and after every resume."""

from __future__ import annotations

import hashlib
import json

import pytest

from ecad.execution import ExecutionError
from ecad.execution.latency import Calibration, terms
from ecad.execution.lowering import Lowering
from ecad.search import RunStore, Search, SearchError, SearchSettings, make_evaluator, open_run


def calibration_of(toy, *, dear: str = "attn2", **conditions) -> Calibration:
    """Prices under which one kind of component takes nearly all the time, as no count of MACs has it."""
    layout = toy.ToyGenerator.layout
    prices = {name: 0.1 if name == f"compute {dear}" else 0.001 for name in terms(layout)}
    conditions = {"weights": "w0", "threads": 1, "batch": 2, "processor": "any"} | conditions
    return Calibration(layout, conditions, toy.ROWS, Lowering(), prices)


def open_search(toy, path, settings, calibration=None) -> Search:
    evaluator = make_evaluator(toy.ToyGenerator(), toy.ToyReward(), settings)
    return Search(evaluator, open_run(path, evaluator, settings, calibration=calibration))


def finish(search: Search) -> str:
    search.start()
    assert search.wait(60)
    digest = search.store.digest()
    search.store.close()
    return digest


def test_a_resumed_search_needs_no_calibration_but_the_runs_own_and_ends_the_same(toy, tmp_path):
    settings = toy.toy_settings(cost="latency", generations=5)
    long = finish(open_search(toy, tmp_path / "long.sqlite", settings, calibration_of(toy)))
    finish(open_search(toy, tmp_path / "short.sqlite", settings.replace(generations=1), calibration_of(toy)))
    assert finish(open_search(toy, tmp_path / "short.sqlite", settings)) == long
    other = finish(open_search(toy, tmp_path / "other.sqlite", settings, calibration_of(toy, dear="ff")))
    macs = finish(open_search(toy, tmp_path / "macs.sqlite", settings.replace(cost="macs")))
    assert len({long, other, macs}) == 3, "what is dear decides where the search goes"


def test_what_is_minimised_and_limited_is_the_predicted_share_of_the_uncached_time(toy, tmp_path):
    calibration = calibration_of(toy)
    settings = toy.toy_settings(cost="latency", min_cost=0.3, max_cost=0.5)
    finish(open_search(toy, tmp_path / "a.sqlite", settings, calibration))
    with RunStore.open(tmp_path / "a.sqlite") as store:
        assert store.calibration == calibration
        found, front = store.evaluations(), store.front()
    assert all(e.objective == e.latency == calibration.share(e.schedule) for e in found)
    assert any(abs(e.latency - e.cost) > 0.1 for e in found), "MACs say something else"
    children = [e.latency for e in found if e.origin == "search"]
    assert children and min(children) >= 0.3 and max(children) <= 0.5
    best = max(e.quality for e in found)
    assert [e.latency for e in front] == sorted(e.latency for e in front) and front[-1].quality == best
    assert front[0].summary()["predicted_speed"] == 1 / front[0].latency


def test_a_run_on_macs_has_the_digest_it_always_had(toy, tmp_path):
    digest = finish(open_search(toy, tmp_path / "a.sqlite", toy.toy_settings()))
    with RunStore.open(tmp_path / "a.sqlite") as store:
        assert store.calibration is None
        expected = hashlib.sha256()
        for e in sorted(store.evaluations(), key=lambda e: e.key):
            assert e.latency is None and e.objective == e.cost and "predicted_speed" not in e.summary()
            expected.update(f"{e.key} {e.macs}\n".encode())
            for metric, values in sorted(store.scores(e.key).items()):
                expected.update(f"{metric} {len(values)}\n".encode() + values.astype("<f8").tobytes())
    assert digest == expected.hexdigest()


def test_settings_of_before_there_was_a_choice_mean_macs(toy):
    values = json.loads(toy.toy_settings().to_json())
    del values["cost"]
    assert SearchSettings.from_json(json.dumps(values)) == toy.toy_settings()


def test_what_cannot_be_is_refused_with_one_sentence(toy, tmp_path):
    path, latency = tmp_path / "a.sqlite", toy.toy_settings(cost="latency")
    with pytest.raises(SearchError, match="`cost` must be one of macs, latency, not 'watts'"):
        toy.toy_settings(cost="watts")
    with pytest.raises(SearchError, match="needs a calibration of this device"):
        open_search(toy, path, latency)
    with pytest.raises(SearchError, match="takes no latency calibration"):
        open_search(toy, path, toy.toy_settings(), calibration_of(toy))
    with pytest.raises(ExecutionError, match="made for batch 8, not batch 2"):
        open_search(toy, path, latency, calibration_of(toy, batch=8))
    with pytest.raises(ExecutionError, match=r"made for 4 CPU thread\(s\), not 1"):
        open_search(toy, path, latency, calibration_of(toy, threads=4))
    assert not path.exists()
    open_search(toy, path, latency, calibration_of(toy)).store.close()
    with pytest.raises(SearchError, match="`cost` was latency, now macs"):
        open_search(toy, path, toy.toy_settings())

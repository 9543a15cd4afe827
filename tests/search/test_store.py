"""The run file: what it keeps, whom it lets write, what it refuses."""

from __future__ import annotations

import math
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ecad.schedule import heuristics
from ecad.search import RunStore, SearchError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(toy, tmp_path):
    settings = toy.toy_settings()
    store = RunStore.create(
        tmp_path / "a.sqlite",
        settings,
        layout=toy.ToyGenerator.layout,
        uncached_macs=1000,
        higher_is_better=True,
        batches=[2, 1],
        fingerprint={"weights": "w0"},
    )
    yield store
    store.close()


def add(store, toy, n, *, macs, scores, psnr=None):
    schedule = heuristics.fora(toy.ToyGenerator.layout, 8, n)
    store.add_schedule(schedule, macs=macs, origin="seed", generation=0)
    for batch, values in enumerate(scores):
        extra = {} if psnr is None else {"psnr": np.array(psnr[batch])}
        store.add_scores(schedule.key, batch, {"toy-reward": np.array(values), **extra}, 0.5)
    return schedule


def test_an_evaluation_appears_with_its_last_batch_and_reads_back_exactly(store, toy):
    schedule = heuristics.fora(toy.ToyGenerator.layout, 8, 2)
    store.add_schedule(schedule, macs=500, origin="seed", generation=0)
    store.add_scores(schedule.key, 0, {"toy-reward": np.array([0.1, 0.2])}, 1.0)
    assert store.evaluation(schedule.key) is None and store.batches_done(schedule.key) == {0}
    store.add_scores(schedule.key, 1, {"toy-reward": np.array([0.3])}, 2.0)
    found = store.evaluation(schedule.key)
    assert (found.macs, found.cost, found.speed, found.images, found.seconds) == (500, 0.5, 2.0, 3, 3.0)
    assert found.quality == math.fsum([0.1, 0.2, 0.3]) / 3
    assert found.schedule == schedule and found.schedule.name == "fora-2"
    np.testing.assert_array_equal(store.scores(schedule.key)["toy-reward"], [0.1, 0.2, 0.3])


def test_a_stored_score_never_changes(store, toy):
    schedule = add(store, toy, 2, macs=500, scores=[[1, 2], [3]])
    store.add_scores(schedule.key, 0, {"toy-reward": np.array([9.0, 9.0])}, 1.0)
    np.testing.assert_array_equal(store.scores(schedule.key)["toy-reward"], [1, 2, 3])


def test_a_schedule_keeps_its_own_times_and_gate(store, toy):
    layout = toy.ToyGenerator.layout
    grid = toy.ToyGenerator.timesteps
    for schedule in (
        heuristics.fewer_steps(layout, 4, grid=grid),
        heuristics.tgate(layout, 8, 4, averaged=True),
    ):
        store.add_schedule(schedule, macs=1, origin="hand")
        for batch in (0, 1):
            store.add_scores(schedule.key, batch, {"toy-reward": np.zeros(2 - batch)}, 0)
        assert store.evaluation(schedule.key).schedule == schedule


def test_the_front_holds_no_dominated_evaluation(store, toy):
    add(store, toy, 1, macs=1000, scores=[[5, 5], [5]])
    add(store, toy, 2, macs=600, scores=[[3, 3], [3]])
    add(store, toy, 3, macs=700, scores=[[2, 2], [2]])
    add(store, toy, 4, macs=300, scores=[[1, 1], [1]])
    assert [e.macs for e in store.front()] == [300, 600, 1000]


def test_since_gives_only_what_is_new(store, toy):
    add(store, toy, 1, macs=1000, scores=[[5, 5], [5]])
    first, last = store.since(0)
    assert [e.name for e in first] == ["fora-1"]
    assert store.since(last) == ([], last)
    add(store, toy, 2, macs=600, scores=[[3, 3], [3]])
    add(store, toy, 3, macs=600, scores=[[3, 3], [3]])
    fresh, last = store.since(last, limit=1)
    assert [e.name for e in fresh] == ["fora-2"]
    assert [e.name for e in store.since(last)[0]] == ["fora-3"]


def test_the_digest_knows_neither_order_nor_time_but_every_bit_of_a_score(toy, tmp_path):
    def digest(name, order, scores=((1, 2), (3,)), seconds=0.5):
        store = RunStore.create(
            tmp_path / name,
            toy.toy_settings(),
            layout=toy.ToyGenerator.layout,
            uncached_macs=1000,
            higher_is_better=True,
            batches=[2, 1],
            fingerprint={},
        )
        for n in order:
            schedule = heuristics.fora(toy.ToyGenerator.layout, 8, n)
            store.add_schedule(schedule, macs=100 * n, origin="seed")
            for batch, values in enumerate(scores):
                store.add_scores(schedule.key, batch, {"toy-reward": np.array(values, float)}, seconds)
        with store:
            return store.digest()

    same = digest("1", [1, 2, 3])
    assert digest("2", [3, 1, 2], seconds=9.0) == same
    assert digest("3", [1, 2]) != same
    assert digest("4", [1, 2, 3], scores=((1, np.nextafter(2, 3)), (3,))) != same


def test_a_mean_leaves_out_what_a_metric_does_not_judge(store, toy):
    schedule = add(store, toy, 2, macs=1, scores=[[1, 1], [1]], psnr=[[30.0, np.nan], [np.nan]])
    assert store.evaluation(schedule.key).means["psnr"] == 30.0
    schedule = add(store, toy, 3, macs=1, scores=[[1, 1], [1]], psnr=[[np.nan, np.nan], [np.nan]])
    assert np.isnan(store.evaluation(schedule.key).means["psnr"])
    assert store.evaluation(schedule.key).summary()["metrics"]["psnr"] is None


def test_a_distance_as_reward_turns_the_sign_of_quality(toy, tmp_path):
    with RunStore.create(
        tmp_path / "d.sqlite",
        toy.toy_settings(),
        layout=toy.ToyGenerator.layout,
        uncached_macs=1000,
        higher_is_better=False,
        batches=[3],
        fingerprint={},
    ) as store:
        schedule = add(store, toy, 2, macs=1, scores=[[0.5, 0.5, 0.5]])
        assert store.evaluation(schedule.key).quality == -0.5


def test_every_thread_may_write_and_read(store, toy):
    errors = []

    def work(n):
        try:
            add(store, toy, n, macs=n, scores=[[n, n], [n]])
            assert store.evaluation(heuristics.fora(toy.ToyGenerator.layout, 8, n).key) is not None
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and store.count() == 7


def test_a_second_writer_is_refused_in_this_process_and_in_another(store, toy):
    with pytest.raises(SearchError, match="another search is writing"):
        RunStore.open(store.path, write=True)
    code = f"from ecad.search import RunStore; RunStore.open({str(store.path)!r}, write=True)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "another search is writing" in done.stderr
    add(store, toy, 2, macs=1, scores=[[1, 1], [1]])
    with RunStore.open(store.path) as reader:  # reading is always allowed
        assert reader.count() == 1
        with pytest.raises(SearchError, match="reading only"):
            reader.add_event("x", generation=None)
    store.close()
    with RunStore.open(store.path, write=True) as again:
        assert again.count() == 1


def test_an_exported_run_opens_where_nothing_can_be_written(store, toy, tmp_path):
    add(store, toy, 2, macs=500, scores=[[1, 2], [3]])
    folder = tmp_path / "shipped"
    path = store.export(folder / "run.sqlite")
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with RunStore.open(path) as shipped:
            assert shipped.digest() == store.digest()
            assert shipped.front()[0].name == "fora-2"
            assert shipped.settings == store.settings
        assert [file.name for file in folder.iterdir()] == ["run.sqlite"]
    finally:
        folder.chmod(stat.S_IRWXU)
    with path.open("rb") as file:
        assert file.read(20)[18] == 1, "a shipped run must not be in WAL mode"


def test_a_run_that_was_not_closed_is_not_read_without_its_journal(store, toy, monkeypatch):
    add(store, toy, 2, macs=500, scores=[[1, 2], [3]])  # lies in the journal still
    monkeypatch.setattr("ecad.search.runfile.os.access", lambda *_: False)  # as on a read-only disk
    with pytest.raises(SearchError, match="was not closed"):
        RunStore.open(store.path)
    store.close()
    with RunStore.open(store.path) as whole:
        assert whole.count() == 1


def test_a_run_that_was_killed_at_its_birth_leaves_its_name_free(toy, tmp_path, monkeypatch):
    def create():
        return RunStore.create(
            tmp_path / "a.sqlite",
            toy.toy_settings(),
            layout=toy.ToyGenerator.layout,
            uncached_macs=1,
            higher_is_better=True,
            batches=[1],
            fingerprint={},
        )

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", kill)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        create()
    assert not (tmp_path / "a.sqlite").exists()
    create().close()
    with pytest.raises(SearchError, match="exists already"):
        create()


def test_what_is_no_run_is_refused_with_one_sentence(tmp_path):
    text = tmp_path / "text.sqlite"
    text.write_text("hello " * 100)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE a (b)")
    db.close()
    for path in (text, other):
        with pytest.raises(SearchError, match="is not a run of ECAD Explorer"):
            RunStore.open(path)
    with pytest.raises(SearchError, match="cannot be read"):
        RunStore.open(tmp_path / "missing.sqlite")


def test_a_truncated_run_is_refused(store, toy, tmp_path):
    add(store, toy, 2, macs=500, scores=[[1, 2], [3]])
    path = store.export(tmp_path / "whole.sqlite")
    cut = tmp_path / "cut.sqlite"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SearchError):
        RunStore.open(cut).evaluations()


def test_a_waiting_schedule_belongs_to_the_first_generation_that_takes_it(store, toy):
    one, two = toy.brought_in(), heuristics.fora(toy.ToyGenerator.layout, 8, 3)
    for schedule in (one, two):
        store.add_schedule(schedule, macs=1, origin="hand")
    store.add_event("inject", generation=None, key=one.key)
    assert store.take_injections(4) == [one]
    store.add_event("inject", generation=None, key=two.key)
    assert store.take_injections(4) == [one, two], (
        "a generation asked again after a kill takes what waits, too"
    )
    assert store.take_injections(5) == []
    assert [event["generation"] for event in store.events()] == [4, 4]


def test_a_generations_population_comes_back_in_its_order(store):
    genomes = [b"b", b"a", b"c"]
    store.add_generation(0, {"population": genomes, "statistics": {"hypervolume": 1.5}, "x": ["inf"]})
    store.add_generation(1, {"population": genomes[::-1], "statistics": {"hypervolume": 2.5}})
    number, state = store.last_generation()
    assert number == 1 and state["population"] == genomes[::-1]
    assert [statistics["hypervolume"] for _, statistics in store.generations()] == [1.5, 2.5]


def test_measured_costs_are_kept_with_how_they_were_measured(store, toy):
    schedule = add(store, toy, 2, macs=500, scores=[[1, 2], [3]])
    store.add_cost(schedule.key, "latency", 0.25, {"device": "cpu", "batch": 1})
    assert ("latency", 0.25, {"device": "cpu", "batch": 1}) in store.costs(schedule.key)
    with pytest.raises(SearchError, match="holds no schedule"):
        store.costs("00")

"""Runs on the page: what is shipped stays, what visitors do is kept, and nobody's work disturbs another's."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest

import ecad
from app.services.images import RenderCache, Renderer
from app.services.runs import Runs
from app.services.schedules import PageError
from app.services.worker import DeviceWorker, Priority

PROMPTS = ["a red house", "a blue tree", "a green car", "a red boat"]


@pytest.fixture(scope="module")
def worker():
    made = DeviceWorker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def generator(worker, tiny_pixart_path):
    return worker.run(lambda job: ecad.load_image_generator(str(tiny_pixart_path), threads=1))


@pytest.fixture(scope="module")
def metrics():
    return {name: ecad.metric(name) for name in ("ssim", "psnr")}


def settings_of(generator):
    return ecad.SearchSettings.of(
        "default", prompts=PROMPTS[:2], model=generator.name, reward="ssim", batch=1, population=4,
        generations=1, seed_count=4,
    )  # fmt: skip


@pytest.fixture
def shipped(generator, metrics, tmp_path):
    """A run of two evaluations, as a file outside the data folder."""
    path = tmp_path / "shipped" / "shipped.sqlite"
    path.parent.mkdir()
    evaluator = ecad.make_evaluator(generator, list(metrics.values()), settings_of(generator))
    with ecad.open_run(tmp_path / "made.sqlite", evaluator, settings_of(generator)) as store:
        for n, quality in ((2, 0.9), (3, 0.8)):
            schedule = ecad.heuristics.fora(generator.layout, 20, n)
            store.add_schedule(schedule, macs=evaluator.macs(schedule), origin="seed", name=schedule.name)
            for batch in range(2):
                store.add_scores(schedule.key, batch, {m: np.array([quality]) for m in ("ssim", "psnr")}, 0.1)
        store.export(path)
    return path


@pytest.fixture
def open_page(generator, worker, metrics, tmp_path):
    opened = []

    def open_page(shipped=None, asked=None, metrics=metrics):
        runs = Runs(
            generator, worker, metrics=metrics, of_runs=("ssim", "psnr"), data_dir=tmp_path / "data",
            prompts=lambda count: PROMPTS[:count], shipped=shipped, asked=asked,
        )  # fmt: skip
        opened.append(runs)
        return runs

    (tmp_path / "data").mkdir()
    yield open_page
    for runs in opened:
        runs.close()


def edited(generator):
    bits = np.ones((20, len(generator.layout)), dtype=bool)
    bits[5:9, :6] = False
    return ecad.Schedule(generator.layout, bits, name="mine")


def test_an_edited_schedule_joins_the_run_and_the_shipped_file_stays_as_it_is(open_page, shipped, generator):
    before = shipped.read_bytes()
    runs = open_page(shipped)
    assert len(runs.first.points) == 2
    task = runs.evaluate(None, edited(generator), "mine")
    assert task.wait(300) and task.error is None
    points = runs.first.points
    assert len(points) == 3 and points.evaluation(2).origin == "hand"
    assert points.id_of(edited(generator).key) == 2
    assert shipped.read_bytes() == before
    assert np.isfinite(points.evaluation(2).means["ssim"])


def test_what_was_evaluated_is_there_again_after_a_restart(open_page, shipped, generator):
    runs = open_page(shipped)
    assert runs.evaluate(None, edited(generator), "mine").wait(300)
    runs.close()
    again = open_page(shipped)
    assert [e.name for e in map(again.first.points.evaluation, range(3))] == ["fora-2", "fora-3", "mine"]


def test_a_poll_sends_only_what_the_page_does_not_have(open_page, shipped):
    runs = open_page(shipped)
    first = runs.poll({"run": None, "since": 0})
    assert first["from"] == 0 and len(first["kinds"]) == 2
    second = runs.poll({"run": first["run"], "since": 2})
    assert second["from"] == 2 and second["kinds"] == ""
    for junk in ({"since": "x"}, {"run": first["run"], "since": 99}, {"run": "no such run", "since": 2}, {}):
        assert runs.poll(junk)["from"] == 0


def test_a_run_of_other_weights_says_so_and_is_not_mixed_with_new_scores(
    open_page, shipped, generator, monkeypatch
):
    real = generator.fingerprint
    monkeypatch.setattr(generator, "fingerprint", lambda: {**real(), "weights": "others"})
    runs = open_page(shipped)
    assert "other weights" in runs.first.note
    task = runs.evaluate(None, edited(generator), "mine")
    assert task.wait(300) and task.error is None
    assert task.run is not runs.first and len(runs.first.points) == 2


def test_other_threads_or_versions_do_not_make_it_another_run(open_page, shipped, generator, monkeypatch):
    real = generator.fingerprint
    monkeypatch.setattr(generator, "fingerprint", lambda: {**real(), "threads": 77, "torch": "9.9"})
    runs = open_page(shipped)
    assert runs.first.note == ""
    assert runs.writable(runs.first) is runs.first


def test_a_search_can_be_paused_resumed_and_stopped_and_there_is_only_one(open_page, shipped):
    runs = open_page(shipped)
    assert runs.state()["can_start"]
    runs.go_on(None, 50)
    assert runs.state()["status"] == "running" and not runs.state()["can_start"]
    with pytest.raises(PageError, match="already"):
        runs.go_on(None, 1)
    runs.pause()
    assert runs.state()["status"] == "paused"
    runs.resume()
    assert runs.state()["status"] == "running"
    runs.stop()
    assert runs.first.search.wait(300)
    assert runs.state()["status"] == "idle" and runs.state()["can_start"]


def test_a_cancelled_evaluation_frees_the_device_and_leaves_no_point(open_page, shipped, generator):
    runs = open_page(shipped)
    task = runs.evaluate(None, edited(generator), "mine")
    task.cancel()
    assert task.wait(300)
    assert isinstance(task.error, ecad.Cancelled)
    assert len(runs.first.points) == 2


@pytest.fixture
def renderer(generator, worker, metrics, tmp_path):
    return Renderer(generator, worker, RenderCache(tmp_path / "renders"), list(metrics.values()))


def test_the_same_image_is_never_rendered_twice(renderer, generator, monkeypatch):
    schedule = ecad.heuristics.fora(generator.layout, 20, 5)
    first = renderer.submit("a red house", 3, schedule).result()
    monkeypatch.setattr(generator, "generate_timed", None)  # whoever renders now fails
    assert renderer.submit("a red house", 3, schedule).result() == first
    assert renderer.cached("a red house", 3, schedule) == first
    assert renderer.cached("a red house", 4, schedule) is None


def test_an_image_comes_with_its_time_its_cost_and_its_fidelity(renderer, generator):
    made = renderer.submit("a red house", 3, ecad.heuristics.fora(generator.layout, 20, 5)).result()
    assert made.seconds > 0 and made.uncached_seconds > 0
    assert made.macs < renderer.submit("a red house", 3, renderer.uncached).result().macs
    assert set(made.fidelity) == {"ssim", "psnr"} and made.fidelity["ssim"] < 1


def test_the_uncached_schedule_under_another_name_is_the_uncached_image(renderer, generator):
    fewer_bits = np.ones((20, len(generator.layout)), dtype=bool)
    fewer_bits[0] = False  # the first step always computes
    same = ecad.Schedule(generator.layout, fewer_bits, name="other")
    made = renderer.submit("a red house", 3, same).result()
    assert made.path == renderer.submit("a red house", 3, renderer.uncached).result().path


def test_a_cancelled_render_stops_between_two_rows_and_leaves_no_file(
    renderer, generator, worker, monkeypatch
):
    real, submitted, jobs, rows_begun = generator.generate_timed, threading.Event(), [], []

    def cancelled_at_row_2(*args, on_row=None, **kwargs):
        def row(number, rows):
            rows_begun.append(number)
            if number == 2:
                submitted.wait(60)
                jobs[0].cancel()
            on_row(number, rows)

        return real(*args, on_row=row, **kwargs)

    monkeypatch.setattr(generator, "generate_timed", cancelled_at_row_2)
    jobs.append(renderer.submit("a blue tree", 3, renderer.uncached))
    submitted.set()
    assert jobs[0].wait(300)
    assert isinstance(jobs[0].error, ecad.Cancelled)
    assert rows_begun == [0, 1, 2]
    assert renderer.cached("a blue tree", 3, renderer.uncached) is None
    assert worker.run(lambda _: "free", Priority.RENDER) == "free"


def test_a_damaged_file_of_the_cache_counts_as_none(renderer, generator):
    made = renderer.submit("a red house", 3, renderer.uncached).result()
    made.path.write_bytes(made.path.read_bytes()[:200])
    assert renderer.cached("a red house", 3, renderer.uncached) is None
    assert renderer.submit("a red house", 3, renderer.uncached).result().path == made.path


def test_a_run_for_another_model_is_refused_with_one_sentence(open_page, tmp_path, schedules):
    path = tmp_path / "other.sqlite"
    settings = ecad.SearchSettings.of("default", prompts=["a"], reward="ssim", generations=1)
    ecad.RunStore.create(
        path, settings, layout=schedules.layout, uncached_macs=1, higher_is_better=True, batches=[1],
        fingerprint={},
    ).close()  # fmt: skip
    moved = shutil.copy(path, tmp_path / "moved.sqlite")
    with pytest.raises(ecad.SearchError, match="choose another"):
        open_page(asked=moved)

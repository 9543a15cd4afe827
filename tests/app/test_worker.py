"""The worker's rules: urgency decides the order, long work gives way at its yield points, cancelled work
ends."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from app.services.worker import DeviceWorker, Priority


@pytest.fixture
def worker():
    made = DeviceWorker()
    yield made
    made.close()


def hold(worker, priority=Priority.RENDER):
    """Occupy the worker until the returned event is set."""
    begun, release = threading.Event(), threading.Event()
    job = worker.submit(lambda job: (begun.set(), release.wait(30)), priority)
    assert begun.wait(30)
    return release, job


def test_waiting_jobs_are_taken_by_urgency_then_in_order_of_arrival(worker):
    release, _ = hold(worker)
    order = []
    jobs = [
        worker.submit(lambda job, name=name: order.append(name), priority)
        for name, priority in [("search", 10), ("evaluate", 5), ("render 1", 0), ("render 2", 0)]
    ]
    release.set()
    for job in jobs:
        job.result()
    assert order == ["render 1", "render 2", "evaluate", "search"]


def test_a_search_gives_way_to_a_render_at_its_yield_point_and_goes_on_after(worker):
    order, asked, queued = [], threading.Event(), threading.Event()

    def search(job):
        order.append("search row 1")
        asked.set()
        queued.wait(30)
        worker.yield_point()
        order.append("search row 2")

    long = worker.submit(search, Priority.SEARCH)
    asked.wait(30)
    render = worker.submit(lambda job: order.append("render"), Priority.RENDER)
    queued.set()
    long.result()
    assert render.done
    assert order == ["search row 1", "render", "search row 2"]


def test_a_yield_point_takes_nothing_of_equal_or_less_urgency(worker):
    order, asked, queued = [], threading.Event(), threading.Event()

    def first(job):
        asked.set()
        queued.wait(30)
        worker.yield_point()
        order.append("first")

    one = worker.submit(first, Priority.RENDER)
    asked.wait(30)
    two = worker.submit(lambda job: order.append("second"), Priority.RENDER)
    queued.set()
    one.result(), two.result()
    assert order == ["first", "second"]


def test_an_evaluation_that_interrupts_the_search_is_itself_interrupted_by_a_render(worker):
    order, in_search, in_evaluation = [], threading.Event(), threading.Event()
    go_search, go_evaluation = threading.Event(), threading.Event()

    def search(job):
        in_search.set()
        go_search.wait(30)
        worker.yield_point()
        order.append("search")

    def evaluate(job):
        in_evaluation.set()
        go_evaluation.wait(30)
        worker.yield_point()
        order.append("evaluate")

    jobs = [worker.submit(search, Priority.SEARCH)]
    in_search.wait(30)
    jobs.append(worker.submit(evaluate, Priority.EVALUATE))
    go_search.set()
    in_evaluation.wait(30)
    jobs.append(worker.submit(lambda job: order.append("render"), Priority.RENDER))
    go_evaluation.set()
    for job in jobs:
        job.result()
    assert order == ["render", "evaluate", "search"]


def test_a_job_cancelled_while_it_waits_never_begins(worker):
    release, _ = hold(worker)
    ran = []
    job = worker.submit(lambda job: ran.append(1))
    job.cancel()
    release.set()
    with pytest.raises(CancelledError):
        job.result()
    assert ran == []


def test_a_running_job_sees_that_it_was_cancelled_and_frees_the_worker(worker):
    begun = threading.Event()

    def until_cancelled(job):
        begun.set()
        while not job.cancelled:
            pass
        raise CancelledError

    job = worker.submit(until_cancelled)
    begun.wait(30)
    job.cancel()
    assert worker.submit(lambda job: "next").result() == "next"
    assert job.done


def test_an_error_reaches_whoever_waits_and_the_worker_lives_on(worker):
    def fail(job):
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        worker.submit(fail).result()
    assert worker.submit(lambda job: 5).result() == 5


def test_run_inside_the_worker_runs_in_place_instead_of_waiting_for_itself(worker):
    assert worker.submit(lambda job: worker.run(lambda inner: 7)).result() == 7


def test_the_place_in_the_queue_counts_what_comes_before(worker):
    release, _ = hold(worker)
    first = worker.submit(lambda job: None)
    second = worker.submit(lambda job: None)
    search = worker.submit(lambda job: None, Priority.SEARCH)
    assert (worker.ahead(first), worker.ahead(second), worker.ahead(search)) == (1, 2, 3)
    release.set()
    search.result()
    assert worker.ahead(second) == 0


def test_a_render_counts_no_search_before_it_because_the_search_gives_way(worker):
    release, search = hold(worker, Priority.SEARCH)
    render = worker.submit(lambda job: None)
    assert worker.ahead(render) == 0
    release.set()
    render.result()
    search.result()
    assert not worker.busy

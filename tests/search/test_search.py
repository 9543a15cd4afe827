"""The search: never twice, resumable after any kill, in the order of ask, obedient from any thread."""

from __future__ import annotations

import collections
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ecad.schedule import heuristics, layout
from ecad.search import RunStore, Search, SearchError, SearchSettings, make_evaluator, open_run
from ecad.search.evolution import Evolution
from ecad.search.front import non_dominated
from ecad.search.seeds import seed_schedules

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("toy.py")


def finish(search: Search) -> str:
    """Run a search to its end; returns the run's digest."""
    search.start()
    assert search.wait(60)
    digest = search.store.digest()
    search.store.close()
    return digest


def until(condition, seconds: float = 60) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_the_search_improves_on_its_seeds_and_ends_after_its_generations(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite")
    search.start()
    assert search.wait(60) and search.state == "finished"
    progress = search.progress()
    assert (progress.generation, progress.message) == (4, "4 generations")
    assert progress.evaluations == search.store.count() == 10 + 4 * 6
    volumes = [statistics["hypervolume"] for _, statistics in search.store.generations()]
    assert len(volumes) == 5 and volumes == sorted(volumes) and volumes[-1] > volumes[0]
    assert search.store.state == "finished: 4 generations"
    front = search.store.front()
    assert {"uncached"} <= {e.name for e in front} and any(e.origin == "search" for e in front)
    search.store.close()


def test_the_same_seed_finds_the_same_and_another_seed_does_not(toy, tmp_path):
    digests = [
        finish(toy.toy_search(tmp_path / f"{i}.sqlite", toy.toy_settings(seed=seed)))
        for i, seed in enumerate([1, 1, 2])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_no_child_outside_the_cost_limits_is_computed(toy, tmp_path):
    settings = toy.toy_settings(min_cost=0.3, max_cost=0.45, generations=6)
    search = toy.toy_search(tmp_path / "a.sqlite", settings)
    search.inject(toy.brought_in())  # what a person brings in is not limited
    search.start()
    search.wait()
    costs = {
        origin: [e.cost for e in search.store.evaluations() if e.origin == origin]
        for origin in ("seed", "search", "hand")
    }
    search.store.close()
    assert max(costs["search"]) <= 0.45 < max(costs["seed"]) and costs["hand"][0] > 0.45
    assert min(costs["search"]) >= 0.3 > min(costs["seed"])
    assert len(costs["search"]) == 36


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_no_schedule_is_evaluated_twice(toy, tmp_path, preset):
    search = toy.toy_search(tmp_path / "a.sqlite", toy.toy_settings(preset=preset, generations=8))
    finish(search)
    passes = collections.Counter(search.evaluator.generator.passes)
    assert set(passes.values()) == {1}, "every (schedule, batch) is computed once"
    finished = toy.toy_search(tmp_path / "a.sqlite", toy.toy_settings(preset=preset, generations=8))
    finish(finished)
    assert finished.evaluator.generator.passes == [], "a finished run computes nothing"


def test_more_generations_continue_to_what_one_long_run_finds(toy, tmp_path):
    long = finish(toy.toy_search(tmp_path / "long.sqlite", toy.toy_settings(generations=7)))
    finish(toy.toy_search(tmp_path / "short.sqlite", toy.toy_settings(generations=2)))
    assert finish(toy.toy_search(tmp_path / "short.sqlite", toy.toy_settings(generations=7))) == long


def run_and_kill(path: Path, seconds: float | None, *options: str) -> int | None:
    """Run toy.py, kill it `seconds` after it opened the run or let it end; then its number of passes."""
    process = subprocess.Popen(
        [sys.executable, str(TOY), str(path), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    if seconds is None:
        ended = process.stdout.readline()
        assert process.wait(60) == 0
        return int(ended.split()[1])
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return None


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_killed_again_and_again_it_ends_as_if_undisturbed(toy, tmp_path, preset):
    settings = toy.toy_settings(preset=preset)
    undisturbed = toy.toy_search(tmp_path / "calm.sqlite", settings)
    undisturbed.inject(toy.brought_in().replace(bits=toy.brought_in().bits))
    digest = finish(undisturbed)

    rng, path = random.Random(preset), tmp_path / "killed.sqlite"
    options = ("--pause", "0.001", "--preset", preset, "--inject")
    counts = []
    for _ in range(4):
        run_and_kill(path, rng.uniform(0.02, 0.9), *options)
        with RunStore.open(path) as store:
            counts.append(store.count())
    passes = run_and_kill(path, None, *options)
    assert counts == sorted(counts), "nothing stored is lost"
    with RunStore.open(path) as store:
        assert store.digest() == digest
        assert store.count() - counts[-1] <= passes, "only what was not stored was computed"
        assert [event["kind"] for event in store.events()] == ["inject"]


def test_a_run_resumes_from_any_of_its_generations(toy, tmp_path):
    """Replay oracle: a fresh algorithm fed with the stored evaluations asks for the same children."""
    settings = toy.toy_settings(generations=6)
    search = toy.toy_search(tmp_path / "a.sqlite", settings)
    search.start()
    search.wait()
    generator, genome, store = search.evaluator.generator, search.genome, search.store
    seeds = seed_schedules(generator.layout, generator.rows, generator.timesteps, settings)
    evolution = Evolution(
        genome, settings, np.array([genome.encode(s) for s in seeds]), search._key, search._cost
    )
    none = np.zeros((0, genome.length), dtype=bool), np.zeros((0, 2))
    states = []
    for _ in range(7):
        found = [store.evaluation(genome.decode(x).key) for x in evolution.ask()]
        assert all(found), "the replay asked for something that the run never evaluated"
        evolution.tell(np.array([(e.cost, 1 - e.quality) for e in found]), *none)
        states.append(evolution.state())
    last = store.last_generation()[1]
    assert {name: last[name] for name in states[-1]} == states[-1]
    # and from each snapshot on, a new process's algorithm goes the same way
    resumed = Evolution(
        genome, settings, np.array([genome.encode(s) for s in seeds]), search._key, search._cost
    )
    tried = set()
    for state, following in itertools.pairwise(states):
        tried.update(state["told"])
        resumed.restore(state, tried)
        found = [store.evaluation(genome.decode(x).key) for x in resumed.ask()]
        resumed.tell(np.array([(e.cost, 1 - e.quality) for e in found]), *none)
        assert resumed.state() == following
    store.close()


def test_a_schedule_brought_in_joins_the_population_and_the_front(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite", toy.toy_settings(seed_count=3, generations=1))
    better = heuristics.fewer_steps(search.evaluator.generator.layout, 7, grid=toy.ToyGenerator.timesteps)
    search.inject(better, name="mine")
    search.start()
    search.wait()
    store = search.store
    found = store.evaluation(better.key)
    assert (found.name, found.origin) == ("mine", "hand") and found.key in {e.key for e in store.front()}
    assert store.events() == [{"kind": "inject", "generation": 0, "key": better.key, "detail": {}}]
    _, state = store.last_generation()
    assert np.packbits(search.genome.encode(better)).tobytes() in state["population"]
    with pytest.raises(SearchError, match="is for pixart-28"):
        search.inject(heuristics.uncached(layout("storybook"), 8))
    store.close()


def test_pause_resume_and_stop_are_obeyed(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite", generator=toy.ToyGenerator(0.002))
    assert search.state == "new" and search.progress().eta is None
    search.start()
    until(lambda: search.store.count() >= 2)
    search.pause()
    until(lambda: search.state == "paused")
    count = search.store.count()
    time.sleep(0.1)
    assert search.store.count() == count and search.progress().state == "paused"
    search.resume()
    until(lambda: search.store.count() > count)
    assert search.progress().eta > 0
    search.stop()
    assert search.wait(10) and search.state == "stopped" and search.store.state == "stopped"
    search.start()
    assert search.wait(60) and search.state == "finished"
    calm = finish(toy.toy_search(tmp_path / "calm.sqlite"))
    assert search.store.digest() == calm
    search.store.close()


def test_stop_ends_a_pause_and_does_not_wait_for_the_batch(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite", generator=toy.ToyGenerator(0.01))
    search.start()
    until(lambda: search.evaluator.generator.passes)
    search.stop()
    assert search.wait(10)
    assert search.store.count() == 0, "the first batch was dropped half-way"
    search.start()
    search.pause()
    until(lambda: search.state == "paused")
    search.stop()
    assert search.wait(10) and search.state == "stopped"
    search.store.close()


def test_every_device_job_goes_through_the_injected_runner_and_on_row_is_called(toy, tmp_path):
    jobs, rows = [], []

    def run_on_device(job):
        jobs.append(threading.current_thread().name)
        return job()

    search = toy.toy_search(
        tmp_path / "a.sqlite",
        toy.toy_settings(generations=0),
        run_on_device=run_on_device,
        on_row=lambda row, of: rows.append((row, of)),
    )
    finish(search)
    assert len(jobs) == 10 * 2, "one job per schedule and batch"
    assert rows[:8] == [(row, 8) for row in range(8)]


def test_time_that_others_take_between_two_rows_is_not_the_searchs(toy, tmp_path):
    search = toy.toy_search(
        tmp_path / "a.sqlite",
        toy.toy_settings(generations=0, seed_count=1),
        on_row=lambda *_: time.sleep(0.01),
    )
    search.start()
    search.wait()
    assert search.store.seconds() < 0.01 * 8 * 2
    search.store.close()


def test_a_hand_made_schedule_is_evaluated_beside_the_search_and_never_again(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite")
    odd = heuristics.uncached(search.evaluator.generator.layout, 5)  # this search could not vary it
    first = search.evaluate(odd, name="five")
    passes = len(search.evaluator.generator.passes)
    assert search.evaluate(odd.replace(name="again")).name == first.name == "five"
    assert len(search.evaluator.generator.passes) == passes
    alone = search.evaluator.evaluate(odd)
    assert (alone.quality, alone.macs, alone.key) == (first.quality, first.macs, first.key)
    np.testing.assert_array_equal(alone.scores["toy-reward"], search.store.scores(odd.key)["toy-reward"])
    search.store.close()


@pytest.mark.parametrize(
    ("stops", "reason"),
    [
        ({"evaluations": 13}, "13 evaluations"),
        ({"time_limit": 1e-9}, "1e-09 seconds"),
        ({"plateau": 2, "generations": 500}, "the front did not grow in 2 generations"),
    ],
)
def test_every_stop_stops(toy, tmp_path, stops, reason):
    search = toy.toy_search(tmp_path / "a.sqlite", toy.toy_settings(**stops))
    search.start()
    assert search.wait(120) and search.store.state == f"finished: {reason}"
    if "evaluations" in stops:
        assert search.store.count() == 13
        search.set_stops(evaluations=None)
        search.start()
        search.wait(60)
        digest = search.store.digest()
        search.store.close()
        assert digest == finish(toy.toy_search(tmp_path / "calm.sqlite")), "it went on where it was"
    else:
        search.store.close()


def test_a_run_under_other_conditions_says_what_differs_and_waits_for_consent(toy, tmp_path):
    path = tmp_path / "a.sqlite"
    finish(toy.toy_search(path, toy.toy_settings(generations=1)))
    with pytest.raises(SearchError, match=r"generator\.weights was w0, now w1.*--accept-changes"):
        toy.toy_search(path, generator=toy.ToyGenerator(weights="w1"))
    search = toy.toy_search(path, generator=toy.ToyGenerator(weights="w1"), accept_changes=True)
    finish(search)
    with RunStore.open(path) as store:
        event = store.events()[0]
        assert (event["kind"], event["generation"]) == ("changed", 2)
        assert event["detail"]["changes"] == {"generator.weights": ["w0", "w1"]}
        assert store.fingerprint["generator"]["weights"] == "w1"


def test_another_search_under_a_known_name_is_refused(toy, tmp_path):
    path = tmp_path / "a.sqlite"
    finish(toy.toy_search(path, toy.toy_settings(generations=0)))
    with pytest.raises(SearchError, match="`seed` was 3, now 4"):
        toy.toy_search(path, toy.toy_settings(seed=4))
    with pytest.raises(SearchError, match="`prompts` was"):
        toy.toy_search(path, toy.toy_settings(prompts=("a boat",)))


def test_two_searches_never_share_a_run(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite")
    with pytest.raises(SearchError, match="another search is writing"):
        toy.toy_search(tmp_path / "a.sqlite")
    search.store.close()
    with RunStore.open(tmp_path / "a.sqlite") as reader, pytest.raises(SearchError, match="reading only"):
        Search(search.evaluator, reader)


def test_what_makes_a_search_fail_is_told_and_the_run_stays_resumable(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite")
    generator = search.evaluator.generator
    real, generator.decode = generator.decode, lambda latents: 1 / 0
    search.start()
    with pytest.raises(ZeroDivisionError):
        search.wait(30)
    assert search.state == "failed" and "division" in search.progress().message
    generator.decode = real
    search.start()
    assert search.wait(60)
    digest = search.store.digest()
    search.store.close()
    assert digest == finish(toy.toy_search(tmp_path / "calm.sqlite"))


def test_a_reward_without_a_number_is_refused(toy, tmp_path):
    search = toy.toy_search(tmp_path / "a.sqlite")
    search.evaluator.reward.score = lambda images, **_: np.full(len(images), np.nan)
    search.start()
    with pytest.raises(SearchError, match="toy-reward gave no number"):
        search.wait(30)
    search.store.close()


def test_the_public_function_runs_a_search_to_its_front(toy, tmp_path):
    import ecad

    seen = []
    front = ecad.search(
        toy.ToyGenerator(),
        toy.ToyReward(),
        toy.toy_settings(),
        tmp_path / "a.sqlite",
        on_progress=seen.append,
    )
    assert [e.cost for e in front] == sorted(e.cost for e in front)
    points = [(e.cost, -e.quality) for e in front]
    assert len(non_dominated(points)) == len(points)
    assert seen[-1].state == "finished"
    with pytest.raises(SearchError, match="reward is ssim, but the first metric is toy-reward"):
        ecad.search(
            toy.ToyGenerator(), toy.ToyReward(), toy.toy_settings(reward="ssim"), tmp_path / "b.sqlite"
        )


def test_a_real_pipeline_is_searched_from_end_to_end(tiny_pixart_path, tmp_path):
    """Real passes, real metrics: what is stored is what a separate evaluation gives, bit for bit."""
    import ecad

    generator = ecad.load_image_generator(tiny_pixart_path, device="cpu", threads=1)
    metrics = [ecad.metric("ssim"), ecad.metric("psnr")]
    settings = SearchSettings.of(
        prompts=["a red house", "a blue tree in snow", "a car"],
        model="tiny",
        reward="ssim",
        population=2,
        generations=1,
        seed_count=3,
        batch=2,
    )
    evaluator = make_evaluator(generator, metrics, settings)
    with open_run(tmp_path / "a.sqlite", evaluator, settings) as store:
        search = Search(evaluator, store)
        search.start()
        search.wait()
        assert store.count() == 5
        uncached = store.evaluation(evaluator.uncached.key)
        assert (uncached.cost, uncached.quality, uncached.means["psnr"]) == (1.0, 1.0, 100.0)
        # another evaluator, the other order, another schedule evaluated before: the same bits
        fresh = make_evaluator(generator, metrics, settings)
        for evaluation in store.evaluations()[::-1]:
            again = fresh.evaluate(evaluation.schedule)
            assert (again.key, again.macs) == (evaluation.key, evaluation.macs)
            for name, values in store.scores(evaluation.key).items():
                np.testing.assert_array_equal(again.scores[name], values)

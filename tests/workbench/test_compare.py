"""`python -m ecad compare`: which schedules stand for what, and honest intervals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ecad.__main__ import main
from ecad.schedule import heuristics
from ecad.search import RunStore, SearchSettings, make_evaluator, open_run, run_path
from ecad.workbench import compare as command


def test_an_interval_holds_the_truth_19_times_of_20():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        found = command.interval(rng.normal(0.3, 1.0, size=12))
        hits += found["low"] <= 0.3 <= found["high"]
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


def test_an_interval_leaves_out_what_was_not_judged():
    assert command.interval(np.array([1.0, np.nan, 3.0]))["mean"] == 2.0
    assert command.interval(np.array([np.nan])) == {"mean": None, "low": None, "high": None}
    assert command.interval(np.array([1.0])) == {"mean": 1.0, "low": None, "high": None}


@pytest.fixture(scope="module")
def run(tiny_pixart_path, tmp_path_factory):
    """A data folder with a run "try" on the tiny pipeline, in which the search found one schedule."""
    import ecad

    folder = tmp_path_factory.mktemp("data")
    generator = ecad.load_image_generator(tiny_pixart_path, device="cpu", threads=1)
    settings = SearchSettings.of(prompts=["a red house"], model=str(tiny_pixart_path), reward="ssim")
    evaluator = make_evaluator(generator, ecad.metric("ssim"), settings)
    with open_run(run_path("try", folder), evaluator, settings) as store:
        bits = heuristics.fora(generator.layout, 20, 4).bits.copy()
        bits[4, 0] = False
        mine = heuristics.uncached(generator.layout, 20).replace(bits=bits, name="mine")
        dear = heuristics.evenly_spaced(generator.layout, 20, "ff", 1, 1).replace(name="dear")
        for schedule, quality, origin in ((mine, 0.5, "search"), (dear, 0.9, "search")):
            store.add_schedule(schedule, macs=evaluator.macs(schedule), origin=origin)
            store.add_scores(schedule.key, 0, {"ssim": np.array([quality])}, 1.0)
    return folder, generator, mine


def test_each_level_has_the_best_found_schedule_and_the_nearest_baselines(run):
    folder, generator, _ = run
    with RunStore.open(run_path("try", folder)) as store:
        chosen = command.choose(store.evaluations(), generator, [1.5, 50.0])
    names = {(choice.level, choice.kind): choice.schedule.name for choice in chosen}
    assert names[1.5, "found"] == "mine", "a better one that saves too little does not count"
    assert (50.0, "found") not in names
    # fixed costs are large in so small a model, so the nearest interval is not the level itself
    table = generator.cost_table("full")
    uncached = table.uncached(20).total
    for (level, kind), name in names.items():
        if kind == "fora":
            n = int(name.removeprefix("fora-"))
            speeds = [
                uncached / table.macs(heuristics.fora(generator.layout, 20, k)).total for k in range(2, 20)
            ]
            assert abs(np.log(speeds[n - 2] / level)) == min(abs(np.log(np.array(speeds) / level)))
    assert names[1.5, "steps"].startswith("steps-") and names[1.5, "steps-late"].endswith("-late")


def compare_options(folder, prompts, count, level):
    """The command on the run "try" at one level, without what a test asks besides."""
    asked = ["--prompts", str(prompts), "--count", count, "--levels", level, "--batch-size", "2"]
    return ["compare", "try", *asked, "--data-dir", str(folder), "--threads", "1", "--device", "cpu"]


def test_the_report_pairs_every_image_and_goes_on_where_it_was(run, tmp_path, capsys):
    folder, _, _ = run
    prompts = tmp_path / "unseen.txt"
    prompts.write_text("a car\na red boat\na tree\n")
    options = compare_options(folder, prompts, "3", "1.5")
    assert main([*options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["count"], report["prompts"], report["reward"]) == (3, "unseen", "ssim")
    entries = {entry["kind"]: entry for entry in report["levels"][0]["entries"]}
    assert set(entries) == {"found", "fora", "steps", "steps-late"}
    with RunStore.open(run_path("try-on-unseen-3", folder)) as store:
        scores = {kind: store.scores(entry["key"])["flip"] for kind, entry in entries.items()}
        assert store.settings.images()[0] == ("a car", "a red boat", "a tree")
    expected = command.interval(scores["found"] - scores["fora"])
    assert entries["fora"]["found_minus_this"]["flip"] == expected
    assert entries["found"]["against_uncached"]["ssim"]["mean"] < 0
    assert report["uncached"]["ssim"]["mean"] == 1.0

    def never(*_, **__):
        raise AssertionError("computed again")

    import ecad.search.evaluator

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ecad.search.evaluator.Evaluator, "score_batch", never)
        assert main(options) == 0
    table = capsys.readouterr().out
    assert "| 1.5x | found (mine) |" in table and "| uncached | 1.00x |" in table


def test_finalists_meet_again_on_other_images(run, tmp_path, capsys):
    """By the run's own (invented) scores "dear" is the better one; on real images "mine" or "dear" wins by what it
    does there."""
    folder, _, mine = run
    prompts = tmp_path / "many.txt"
    prompts.write_text("a car\na red boat\na tree\na blue fish\na yellow star\n")
    options = [*compare_options(folder, prompts, "2", "1.0"), "--json"]

    def found(*more: str) -> str:
        assert main([*options, *more]) == 0
        entries = json.loads(capsys.readouterr().out)["levels"][0]["entries"]
        return next(entry["key"] for entry in entries if entry["kind"] == "found")

    own = found()
    assert own != mine.key
    chosen = found("--finalists", "2", "--validation", "3")
    with RunStore.open(run_path("try-finalists-many-3", folder)) as store:
        again = {one.key: one.quality for one in store.evaluations()}
        assert store.settings.images()[0] == ("a tree", "a blue fish", "a yellow star")
    assert set(again) == {own, mine.key} and chosen == max(again, key=again.get)
    assert main([*options, "--finalists", "2", "--validation", "4"]) == 2
    assert "fewer than 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", "1"], "`count`"),
        (["--levels", "0.5"], "`levels`"),
        (["--finalists", "0"], "`finalists`"),
        (["--prompts", "none.txt"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(run, options, words, capsys):
    assert main(["compare", "try", "--data-dir", str(run[0]), *options]) == 2
    assert words in capsys.readouterr().err

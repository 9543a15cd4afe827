"""`python -m ecad front`: the front of a run as table, JSON and schedule files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ecad.__main__ import main
from ecad.schedule import Schedule, heuristics, layout
from ecad.search import RunStore, SearchSettings, run_path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run called "try" with three evaluations, one of them dominated."""
    monkeypatch.setenv("ECAD_DATA_DIR", str(tmp_path))
    small = layout("pixart-3")
    settings = SearchSettings.of(prompts=["a", "b"], reward="ssim")
    with RunStore.create(
        run_path("try"),
        settings,
        layout=small,
        uncached_macs=1000,
        higher_is_better=True,
        batches=[2],
        fingerprint={},
    ) as store:
        for n, macs, quality in ((1, 1000, 1.0), (2, 600, 0.5), (3, 700, 0.4)):
            schedule = heuristics.fora(small, 6, n)
            name = "a name / with: signs" if n == 2 else None
            store.add_schedule(schedule, macs=macs, origin="seed", generation=0, name=name)
            scores = {"ssim": np.array([quality, quality]), "facts-right": np.array([np.nan, np.nan])}
            store.add_scores(schedule.key, 0, scores, 1.0)
        return store.path, store.digest()


def test_json_holds_evaluations_front_and_digest(run, capsys):
    path, digest = run
    for name in ("try", str(path)):
        assert main(["front", name, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["evaluations"] == 3 and report["digest"] == digest
        assert [(e["macs"], e["quality"], e["cost"]) for e in report["front"]] == [
            (600, 0.5, 0.6),
            (1000, 1.0, 1.0),
        ]
        assert report["front"][0]["speed"] == pytest.approx(1 / 0.6)
        assert report["front"][0]["metrics"] == {"facts-right": None, "ssim": 0.5}
        assert report["front"][1]["key"] == heuristics.fora(layout("pixart-3"), 6, 1).key


def test_the_table_shows_the_cheapest_first(run, capsys):
    assert main(["front", "try"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("try: 3 evaluations")
    assert [line.split()[0] for line in lines[1:]] == ["name", "a", "fora-1"]
    assert "1.67x" in lines[2]


def test_exported_schedules_are_the_fronts(run, tmp_path, capsys):
    assert (
        main(["front", "try", "--export", str(tmp_path / "out"), "--copy", str(tmp_path / "copy.sqlite")])
        == 0
    )
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["a-name-with-signs.json", "fora-1.json"]
    assert Schedule.load(files[0]) == heuristics.fora(layout("pixart-3"), 6, 2)
    assert Schedule.load(files[0]).metrics["ssim"] == 0.5
    with RunStore.open(tmp_path / "copy.sqlite") as copy:
        assert copy.digest() == run[1]


def test_a_run_that_is_not_there_is_one_sentence(run, capsys):
    assert main(["front", "other"]) == 2
    assert "the runs here are try" in capsys.readouterr().err

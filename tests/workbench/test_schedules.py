"""`python -m ecad schedules` writes the heuristics, and what we ship is what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecad.__main__ import main
from ecad.schedule import Schedule, layout
from ecad.schedule.costs import cost_table
from ecad.schedule.layouts import default_rows
from ecad.search import RunStore
from ecad.workbench.schedules import SHIPPED, for_model

SHIPPED_FOLDER = Path(__file__).parents[2] / "schedules"


def written(folder):
    return {path.stem for path in folder.glob("*.json")}


def test_every_heuristic_of_a_model_is_written_under_its_name(tmp_path, capsys):
    assert main(["schedules", "--model", "flux-schnell", "--output-dir", str(tmp_path)]) == 0
    expected = {schedule.name: schedule for schedule in for_model("flux-schnell")}
    assert written(tmp_path) == set(expected)
    for name, schedule in expected.items():
        read = Schedule.load(tmp_path / f"{name}.json", layout("flux-schnell"))
        assert read == schedule
        assert (read.name, read.model) == (name, "flux-schnell")
    assert f"{len(expected)} schedules" in capsys.readouterr().out


def test_patterns_rows_and_skipping(tmp_path):
    arguments = ["schedules", "-o", str(tmp_path), "--rows", "10", "--only", "fora-*", "uncached"]
    assert main(arguments) == 0
    assert written(tmp_path) == {"uncached", "fora-2", "fora-3", "fora-4", "fora-5", "fora-7"}
    assert Schedule.load(tmp_path / "fora-2.json").rows == 10
    (tmp_path / "fora-2.json").write_text("mine")
    assert main([*arguments, "--skip-existing"]) == 0
    assert (tmp_path / "fora-2.json").read_text() == "mine"


def test_listing_writes_nothing(tmp_path, capsys):
    assert main(["schedules", "-o", str(tmp_path / "none"), "--list"]) == 0
    assert "steps-8-late\n" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "dall-e"], "There is no model named 'dall-e'"),
        (["--rows", "0"], "--rows must be 1 to 1000"),
        (["--only", "fora-99"], "No schedule is named fora-99"),
    ],
)
def test_wrong_wishes_are_one_sentence(tmp_path, capsys, arguments, says):
    assert main(["schedules", "-o", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("model", SHIPPED)
def test_the_shipped_schedules_are_those_of_the_rules(model):
    folder = SHIPPED_FOLDER / model
    assert written(folder) == set(SHIPPED[model])
    rules = {schedule.name: schedule for schedule in for_model(model)}
    for name in SHIPPED[model]:
        path = folder / f"{name}.json"
        assert path.read_text(encoding="utf-8") == rules[name].to_json(), (
            f"{path} is not what the command writes"
        )
        assert Schedule.load(path, layout(model)).rows <= default_rows(model)


def test_the_found_schedules_are_those_of_the_shipped_run():
    run = SHIPPED_FOLDER.parent / "assets" / "storybook" / "run.sqlite"
    with RunStore.open(run) as store:
        known = {one.key: one for one in store.evaluations()}
    table = cost_table("storybook")
    for level in (2, 3, 4, 5):
        schedule = Schedule.load(SHIPPED_FOLDER / "storybook-found" / f"found-{level}x.json")
        found = known[schedule.key]
        assert found.origin == "search" and found.macs == table.macs(schedule).total
        assert level <= found.speed < level + 0.5


def test_what_is_shipped_stays_small():
    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.rglob("*")) < 5_000_000

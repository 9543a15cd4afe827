"""`python -m ecad search`: what its options mean, and a real search that is interrupted and goes on."""

from __future__ import annotations

import argparse
import io
import json
import threading

import pytest

from ecad.__main__ import main
from ecad.search import Progress, RunStore, SearchError, SearchSettings, run_path
from ecad.storybook.world import held_out
from ecad.workbench import search as command
from ecad.workbench._evaluation_set import captions


def parse(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(["--name", "try", *options])


def test_the_default_is_twelve_training_captions_of_the_embedded_model():
    settings = command.settings_of(parse("--population-size", "16", "--num-cycles", "4"), None)
    assert (settings.model, settings.population, settings.generations) == ("storybook", 16, 4)
    assert len(settings.images()[0]) == 12 and not any(held_out(prompt) for prompt in settings.prompts)
    assert settings == command.settings_of(parse("--population-size", "16", "--num-cycles", "4"), None)


def test_held_out_captions_are_held_out_and_different():
    found = captions(40, seed=0, held_out=True)
    assert len(set(found)) == 40 and all(held_out(prompt) for prompt in found)


def test_a_run_that_goes_on_keeps_what_is_not_given():
    stored = SearchSettings.of("paper", prompts=["a"], seed=5, generations=2)
    again = command.settings_of(parse("--num-cycles", "9"), stored)
    assert again == stored.replace(generations=9)


def test_another_model_needs_a_file_of_prompts(tmp_path):
    with pytest.raises(SearchError, match="--prompts"):
        command.settings_of(parse("--model", "pixart-alpha"), None)
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\n\n  a car \n")
    settings = command.settings_of(
        parse("--model", "x", "--prompts", str(file), "--seeds-per-prompt", "2"), None
    )
    assert settings.prompts == ("a red house", "a car") and len(settings.images()[1]) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--population-size", "1"], "`population`"),
        (["--images", "0"], "`images`"),
        (["--preset", "best"], "`preset`"),
        (["--prompts", "no/such/file"], "cannot be read"),
        (["--reward", "beauty"], "there is no reward 'beauty'"),
        (["--threads", "-1"], "`threads`"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(options, words, tmp_path, capsys):
    code = main(["search", "--name", "try", "--quiet", "--data-dir", str(tmp_path), *options])
    err = capsys.readouterr().err
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_name_that_is_no_name_is_refused(tmp_path, capsys):
    assert main(["search", "--name", "../x", "--data-dir", str(tmp_path)]) == 2
    assert "run's name" in capsys.readouterr().err


def test_progress_says_where_it_is_and_when_it_ends():
    progress = Progress("running", "", 2, 4, 7, 16, 71, 100.0, 200.0, 0.5)
    said = command.sentence(progress)
    assert said.startswith("generation 2 of 4: 7 of 16 candidates") and "3 min left" in said
    stream = io.StringIO()
    show = command.Display(stream, every=1000)
    for _ in range(5):
        show(progress)
    assert stream.getvalue().count("\n") == 1, "a log is not flooded"


def test_a_real_search_is_interrupted_goes_on_and_prints_its_front(
    tiny_pixart_path, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\na car\n")
    options = ["search", "--name", "try", "--data-dir", str(tmp_path), "--model", str(tiny_pixart_path)]
    options += ["--prompts", str(file), "--reward", "ssim", "--population-size", "2", "--num-cycles", "1"]
    options += ["--seed-count", "3", "--threads", "1", "--device", "cpu"]

    from ecad.search import Search

    real_wait, pressed = Search.wait, threading.Event()

    def ctrl_c_after_the_first_evaluation(self, timeout=None):
        ended = real_wait(self, timeout)
        if self.store.count() >= 1 and not pressed.is_set():
            pressed.set()
            raise KeyboardInterrupt
        return ended

    monkeypatch.setattr(Search, "wait", ctrl_c_after_the_first_evaluation)
    assert main(options) == 130
    assert "goes on from here" in capsys.readouterr().err
    with RunStore.open(run_path("try", tmp_path)) as store:
        assert 1 <= store.count() < 5

    # the name alone goes on: everything else is the run's own
    assert main(["search", "--name", "try", "--data-dir", str(tmp_path), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "going on with the run try" in printed.err
    assert "5 evaluations" in printed.out and "uncached" in printed.out

    assert (
        main(["search", "--name", "try", "--data-dir", str(tmp_path), "--seed", "9", "--device", "cpu"]) == 2
    )
    assert "`seed` was 0, now 9" in capsys.readouterr().err

    assert main(["front", "try", "--data-dir", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["evaluations"] == 5 and report["reward"] == "ssim" and report["images"] == 2


def test_a_search_on_latency_makes_its_calibration_once_and_goes_on_with_it(
    tiny_pixart_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("ecad.models.calibrating.SECONDS", 0.0)
    file = tmp_path / "prompts.txt"
    file.write_text("a red house\na car\n")
    options = [
        "search",
        "--data-dir",
        str(tmp_path),
        "--model",
        str(tiny_pixart_path),
        "--prompts",
        str(file),
    ]
    options += ["--reward", "ssim", "--population-size", "2", "--num-cycles", "0", "--seed-count", "2"]
    options += ["--threads", "1", "--device", "cpu", "--batch-size", "2", "--cost", "latency"]
    assert main([*options, "--name", "one"]) == 0
    printed = capsys.readouterr()
    assert "calibrating" in printed.err and "predicted" in printed.out
    assert main([*options, "--name", "two"]) == 0
    assert "calibrating" not in capsys.readouterr().err, "the kept one is used"
    (kept,) = (tmp_path / "calibrations").iterdir()
    kept.unlink()
    assert main(["search", "--name", "two", "--data-dir", str(tmp_path), "--num-cycles", "1"]) == 0
    assert "calibrating" not in capsys.readouterr().err, "a run that goes on has its own"
    with RunStore.open(run_path("two", tmp_path)) as store:
        assert store.settings.cost == "latency" and store.calibration.batch == 2
        assert all(evaluation.latency is not None for evaluation in store.evaluations())

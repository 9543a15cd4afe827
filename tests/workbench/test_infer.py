"""`python -m ecad infer`: pictures with their history inside, figures, and one sentence for wrong input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ecad.__main__ import main
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import flux_layout, pixart_layout


@pytest.fixture
def infer(tiny_pixart_path, tmp_path, capsys):
    """code, out, err = infer(*arguments): the command on the tiny model, writing under tmp_path / out."""

    def call(*arguments, model=tiny_pixart_path):
        code = main(
            ["infer", "--model", str(model), "--output-dir", str(tmp_path / "out"), *map(str, arguments)]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_an_image_carries_its_prompt_seed_and_schedule(infer, tmp_path):
    schedule = heuristics.fora(pixart_layout(4), 4, 2)
    schedule.save(tmp_path / "fora-2.json")
    code, out, _ = infer("--prompt", "a red house", "--seed", 7, "--schedule", tmp_path / "fora-2.json")
    assert code == 0
    (path,) = (tmp_path / "out" / "images").glob("*.png")
    image = Image.open(path)
    assert image.size == (256, 256)
    assert (image.text["prompt"], image.text["seed"]) == ("a red house", "7")
    assert Schedule.from_json(image.text["schedule"]) == schedule
    assert "speed-up" in out and "measured" in out and "MACs" in out and "time" in out


def test_figures_as_json_and_a_predicted_speed_up_is_called_so(infer, tmp_path):
    heuristics.fora(pixart_layout(4), 4, 4).save(tmp_path / "fora-4.json")
    code, out, _ = infer("-p", "a tree", "-s", tmp_path / "fora-4.json", "--predict", "--json")
    report = json.loads(out)
    assert code == 0 and report["speed_up_is"] == "predicted"
    assert report["speed_up"] == pytest.approx(report["macs_uncached_per_image"] / report["macs_per_image"])
    assert report["seconds"] > 0 and len(report["images"]) == 1


def test_several_prompts_and_seeds_make_the_images_that_each_alone_makes(infer, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red house\n\na blue car\n")
    code, out, _ = infer("-f", tmp_path / "prompts.txt", "-n", 2, "--seed", 5, "--batch-size", 3, "--json")
    report = json.loads(out)
    assert code == 0 and len(report["images"]) == 4 and report["speed_up_is"] == "uncached"
    fourth = np.asarray(Image.open(report["images"][3]), dtype=int)
    infer("-p", "a blue car", "--seed", 6, "--output-dir", tmp_path / "alone")
    alone = np.asarray(Image.open(next((tmp_path / "alone" / "images").glob("*.png"))), dtype=int)
    assert np.abs(fourth - alone).max() <= 1  # another batch size may round the other way


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", " "], "prompt is empty"),
        (["--prompt", "a" * 10_000], "10,000 characters"),
        (["--prompt", "a tree", "--seed", "seven"], "--seed must be a whole number, not 'seven'"),
        (["--prompt", "a tree", "--seed", "-1"], "--seed must be 0 to"),
        (["--prompt", "a tree", "-n", "0"], "--num-images-per-prompt must be 1 to"),
        (["--prompt-file", "no-such-file.txt"], "cannot be read"),
        (["--prompt", "a tree", "--mode", "quick"], "reference, fast"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(infer, arguments, sentence):
    code, _, err = infer(*arguments)
    assert code == 2
    assert sentence in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("layout", [pixart_layout(12), flux_layout(19, 38)])
def test_a_schedule_for_another_model_is_refused(infer, tmp_path, layout):
    heuristics.uncached(layout, 4).save(tmp_path / "other.json")
    code, _, err = infer("--prompt", "a tree", "--schedule", tmp_path / "other.json")
    assert code == 2 and layout.name in err and len(err.strip().splitlines()) == 1


def test_a_missing_model_is_one_sentence(infer):
    code, _, err = infer("--prompt", "a tree", model="nowhere")
    assert code == 2 and "no model 'nowhere'" in err

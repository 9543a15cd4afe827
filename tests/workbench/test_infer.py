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
    assert (
        f"cache: {3 * 2 * 64 * 16 * 4 / 1e6:.2f} MB" in out
    )  # FORA's three sums, both halves, 64 tokens, width 16


def test_figures_as_json_and_a_predicted_speed_up_is_called_so(infer, tmp_path):
    heuristics.fora(pixart_layout(4), 4, 4).save(tmp_path / "fora-4.json")
    code, out, _ = infer("-p", "a tree", "-s", tmp_path / "fora-4.json", "--predict", "--json")
    report = json.loads(out)
    assert code == 0 and report["speed_up_is"] == "predicted"
    assert report["speed_up"] == pytest.approx(report["macs_uncached_per_image"] / report["macs_per_image"])
    assert report["seconds"] > 0 and len(report["images"]) == 1


def test_a_kept_calibration_is_what_a_prediction_comes_from(infer, tiny_pixart_path, tmp_path, monkeypatch):
    from ecad.models import load_image_generator
    from ecad.models.calibrating import calibrate, store_calibration

    monkeypatch.setenv("ECAD_DATA_DIR", str(tmp_path / "data"))
    heuristics.fora(pixart_layout(4), 4, 4).save(tmp_path / "fora-4.json")
    options = "-p", "a tree", "-s", tmp_path / "fora-4.json", "--predict", "--json", "--threads", "1"
    report = json.loads(infer(*options)[1])
    assert report["predicted_from"] == "the MACs"
    generator = load_image_generator(tiny_pixart_path, device="cpu", threads=1)
    found = calibrate(generator, batch=1, time_pass=lambda schedule: 1 + float(schedule.bits.sum()))
    store_calibration(found, tmp_path / "data")
    report = json.loads(infer(*options)[1])
    assert report["predicted_from"] == "this device's calibration"
    schedule = heuristics.fora(pixart_layout(4), 4, 4)
    assert report["speed_up"] == pytest.approx(1 / found.share(schedule))


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
        (["--prompt", "a tree", "--mode", "reference", "--compile"], "only the fast mode is compiled"),
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


def test_options_set_size_guidance_and_steps(infer):
    code, out, _ = infer(
        "-p",
        "a tree",
        "--height",
        192,
        "--width",
        128,
        "--guidance-scale",
        2,
        "--num-inference-steps",
        2,
        "--json",
    )
    report = json.loads(out)
    assert code == 0 and Image.open(report["images"][0]).size == (128, 192)
    assert (report["height"], report["width"], report["guidance_scale"], report["rows"]) == (192, 128, 2.0, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--height", "200"],
            "height must be a multiple of 32 pixels for pixart, not 200; the nearest is 192",
        ),
        (["--width", "wide"], "--width must be a whole number, not 'wide'"),
        (["--width", "-32"], "--width must be 8 to 8192"),
        (["--guidance-scale", "much"], "--guidance-scale must be a number, not 'much'"),
        (["--guidance-scale", "nan"], "--guidance-scale must be 0 to 100, not nan"),
        (["--num-inference-steps", "0"], "--num-inference-steps must be 1 to 1000"),
    ],
)
def test_settings_that_no_image_can_have_are_refused(infer, arguments, sentence):
    code, _, err = infer("-p", "a tree", *arguments)
    assert code == 2
    assert sentence in err and len(err.strip().splitlines()) == 1


def test_another_number_of_steps_than_the_schedules_is_refused(infer, tmp_path):
    heuristics.uncached(pixart_layout(4), 4).save(tmp_path / "four.json")
    code, _, err = infer("-p", "a tree", "-s", tmp_path / "four.json", "--num-inference-steps", 20)
    assert code == 2 and "is 20, but the schedule has 4 steps" in err


def test_a_files_own_size_is_used_only_for_the_model_it_was_made_for(infer, tmp_path, tiny_pixart_path):
    schedule = heuristics.fora(pixart_layout(4), 2, 2).replace(config={"height": 128, "width": 128})
    path = tmp_path / "small.json"
    schedule.replace(model=str(tiny_pixart_path)).save(path)
    report = json.loads(infer("-p", "a tree", "-s", path, "--predict", "--json")[1])
    assert (report["height"], report["width"]) == (128, 128) and "remark" not in report
    report = json.loads(infer("-p", "a tree", "-s", path, "--predict", "--json", "--height", 64)[1])
    assert (report["height"], report["width"]) == (64, 128)
    schedule.replace(model="pixart-alpha").save(path)
    _, out, _ = infer("-p", "a tree", "-s", path, "--predict")
    assert "256 x 256 px" in out
    assert "was made for pixart-alpha: its height 128, width 128 not used, the loaded model's own are" in out


def test_embeddings_from_a_file_make_the_images_of_their_prompts(infer, tmp_path, tiny_pixart_path):
    from ecad import load_image_generator
    from ecad.models.embedding_files import save_embeddings

    generator = load_image_generator(tiny_pixart_path, device="cpu")
    prompts = ["a red house", "a blue car"]
    save_embeddings(tmp_path / "two.safetensors", generator.encode(prompts), prompts=prompts)
    made = []
    for source in (["-i", tmp_path / "two.safetensors"], ["-f", tmp_path / "prompts.txt"]):
        (tmp_path / "prompts.txt").write_text("\n".join(prompts))
        code, out, _ = infer(*source, "-n", 2, "--num-inference-steps", 2, "--json")
        assert code == 0
        made.append([Image.open(path) for path in json.loads(out)["images"]])
        for image in made[-1]:
            image.load()
    for one, other in zip(*made, strict=True):
        assert one.text["prompt"] == other.text["prompt"] and one.text["seed"] == other.text["seed"]
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_embeddings_that_are_none_are_one_sentence(infer, tmp_path):
    (tmp_path / "notes.pt").write_bytes(b"no tensor")
    for given, sentence in [("nowhere.pt", "there is no file of embeddings"), ("notes.pt", "cannot be read")]:
        code, _, err = infer("-i", tmp_path / given)
        assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1

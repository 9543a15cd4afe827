"""`python -m ecad latency`: figures into the files, or one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ecad import load_image_generator
from ecad.__main__ import main
from ecad.execution.latency import Calibration
from ecad.models.embedding_files import save_embeddings
from ecad.schedule import Schedule, heuristics
from ecad.schedule.layouts import pixart_layout


@pytest.fixture
def latency(tiny_pixart_path, capsys):
    def call(*arguments):
        few = ["--batch-size", 1, "--warmup-steps", 0, "--num-samples", 2]
        code = main(["latency", *map(str, ["--model", tiny_pixart_path, *few, *arguments])])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_figures_go_into_the_files_once(latency, tmp_path):
    path = tmp_path / "fora-2.json"
    heuristics.fora(pixart_layout(4), 4, 2).save(path)
    code, out, _ = latency("-d", tmp_path)
    written = Schedule.load(path).metrics["latency"]
    assert code == 0 and "ms an image" in out
    assert (
        written["batch_size"] == 1 and len(written["latencies"]) == 2 and written["timed"] == "denoising loop"
    )
    assert written["reached"] == pytest.approx(written["speed_up"] / written["macs_ratio"])
    _, out, _ = latency("-d", tmp_path)
    assert "already" in out and Schedule.load(path).metrics["latency"] == written


def test_embeddings_in_files_stand_for_prompts(latency, tiny_pixart_path, tmp_path):
    heuristics.fora(pixart_layout(4), 4, 2).save(tmp_path / "fora-2.json")
    encoded = load_image_generator(tiny_pixart_path).encode(["a red house"])
    path = save_embeddings(tmp_path / "one.safetensors", encoded)
    code, out, _ = latency("-d", tmp_path / "fora-2.json", "--embedding-dir", path, "-b", 2, "--json")
    assert code == 0 and json.loads(out)[str(tmp_path / "fora-2.json")]["batch_size"] == 2
    code, _, err = latency("-d", tmp_path / "fora-2.json", "-i", tmp_path / "none.pt")
    assert code == 2 and "there is no file of embeddings" in err


def test_json_writes_no_file(latency, tmp_path):
    path = tmp_path / "fora-4.json"
    heuristics.fora(pixart_layout(4), 4, 4).save(path)
    before = path.read_bytes()
    code, out, _ = latency("-d", path, "--json")
    assert code == 0 and json.loads(out)[str(path)]["median"] > 0
    assert path.read_bytes() == before


def test_wrong_input_is_one_sentence_and_code_2(latency, tmp_path):
    heuristics.uncached(pixart_layout(12), 4).save(tmp_path / "other.json")
    for arguments, sentence in [
        ([], "no schedule to time"),
        (["-d", tmp_path / "other.json"], "pixart-12"),
        (["-d", tmp_path / "other.json", "--num-samples", "many"], "--num-samples must be a whole number"),
    ]:
        code, _, err = latency(*arguments)
        assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1


@pytest.fixture
def calibrated(latency, tmp_path, monkeypatch):
    """A data folder with a calibration of the tiny model, made with the command."""
    monkeypatch.setattr("ecad.models.calibrating.SECONDS", 0.0)
    code, out, _ = latency("--calibrate", "--threads", 1, "--data-dir", tmp_path / "data")
    assert code == 0
    return tmp_path / "data", out


def test_a_calibration_is_kept_and_told_in_plain_words(calibrated, tiny_pixart_path):
    folder, out = calibrated
    (file,) = (folder / "calibrations").iterdir()
    kept = Calibration.load(file)
    assert (
        kept.conditions["threads"] == 1
        and kept.batch == 1
        and kept.conditions["model"] == tiny_pixart_path.name
    )
    for words in (
        "computing attn1",
        "adding a kept value",
        "a row",
        "1 CPU thread,",
        "not fitted to",
        str(file),
    ):
        assert words in out


def test_a_prediction_says_that_it_is_one_and_changes_no_file(latency, calibrated, tmp_path):
    folder, _ = calibrated
    path = tmp_path / "fora-4.json"
    heuristics.fora(pixart_layout(4), 20, 4).save(path)
    before = path.read_bytes()
    code, out, _ = latency("-s", path, "--predict", "--data-dir", folder)
    assert code == 0 and "predicted" in out and "nothing was timed" in out and "measured" not in out
    code, out, _ = latency("-s", path, "--predict", "--data-dir", folder, "--json")
    (figures,) = json.loads(out).values()
    (file,) = (folder / "calibrations").iterdir()
    kept = Calibration.load(file)
    assert (
        figures["milliseconds"] == 1000 * kept.seconds(Schedule.load(path)) and figures["predicted"] is True
    )
    assert figures["speed_up"] == pytest.approx(1 / kept.share(Schedule.load(path)))
    assert path.read_bytes() == before


def test_a_prediction_needs_no_torch(calibrated, tiny_pixart_path, tmp_path):
    path = tmp_path / "fora-4.json"
    heuristics.fora(pixart_layout(4), 20, 4).save(path)
    arguments = [
        "latency",
        "--predict",
        "-s",
        str(path),
        "-m",
        str(tiny_pixart_path),
        "--data-dir",
        str(calibrated[0]),
    ]
    code = (
        "import sys; from ecad.__main__ import main\n"
        f"assert main({arguments!r}) == 0\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_calibration_that_holds_here_there_is_one_sentence_and_no_guess(
    latency, calibrated, tmp_path
):
    path = tmp_path / "fora-4.json"
    heuristics.fora(pixart_layout(4), 20, 4).save(path)
    heuristics.uncached(pixart_layout(12), 4).save(tmp_path / "other.json")
    for arguments, sentence in [
        (["-s", path, "--data-dir", tmp_path / "empty"], "there is no latency calibration"),
        (["-s", path, "--threads", 3], "made for 1 CPU thread(s), not 3 CPU thread(s)"),
        (["-s", path, "--batch-size", 7], "made for batch 1, not batch 7"),
        (["-s", path, "--device", "cuda"], "made for the device cpu, not the device"),
        (["-s", path, "--mode", "reference"], "made for the mode fast, not the mode reference"),
        (["-s", path, "--compile"], "made for the mode fast, not the mode fast, compiled"),
        (["-s", tmp_path / "other.json"], "PixArt with 4 blocks"),
        ([], "no schedule"),
    ]:
        code, out, err = latency("--predict", "--data-dir", calibrated[0], *arguments)
        assert code == 2 and not out and sentence in err and len(err.strip().splitlines()) == 1, err


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({"processor": "Zilog Z80"}, "made for the processor Zilog Z80"),
        (
            {"execution": None},
            "made for version 1 of the execution, not version ",
        ),  # the first did not say so
    ],
)
def test_a_calibration_of_other_conditions_does_not_hold_here(
    latency, calibrated, tmp_path, conditions, sentence
):
    path = tmp_path / "fora-4.json"
    heuristics.fora(pixart_layout(4), 20, 4).save(path)
    (file,) = (calibrated[0] / "calibrations").iterdir()
    kept = json.loads(file.read_text())
    kept["conditions"] = {k: v for k, v in {**kept["conditions"], **conditions}.items() if v is not None}
    (tmp_path / "calibrations").mkdir()
    (tmp_path / "calibrations" / file.name).write_text(json.dumps(kept))
    code, _, err = latency("--predict", "-s", path, "--data-dir", tmp_path)
    assert code == 2 and sentence in err

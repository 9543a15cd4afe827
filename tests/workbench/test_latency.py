"""`python -m ecad latency`: figures into the files, or one JSON object."""

from __future__ import annotations

import json

import pytest

from ecad.__main__ import main
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

"""`python -m ecad macs` counts files without weights, as the original's command does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ecad.__main__ import main
from ecad.schedule import Schedule, heuristics, layout
from ecad.schedule.costs import cost_table

PIXART, FLUX = layout("pixart-alpha"), layout("flux-dev")


@pytest.fixture
def fora(tmp_path):
    path = tmp_path / "fora-3.json"
    heuristics.fora(PIXART, 20, 3).save(path)
    return path


def counted(capsys, *arguments):
    assert main(["macs", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("generator", ["pixart-alpha", "PixArtAlphaImageGenerator"])
def test_json_prints_one_object_by_file_name_and_writes_nothing(fora, capsys, generator):
    before = fora.read_bytes()
    found = counted(capsys, "--image-generator", generator, "-i", fora.parent, "--convention", "paper")
    assert list(found) == ["fora-3.json"]
    assert found["fora-3.json"]["total_macs"] == 2_019_308_470_272
    steps = found["fora-3.json"]["by_inference_step"]
    assert list(steps) == [f"{row:03}" for row in range(20)]
    assert [steps[step]["macs"] for step in ("000", "001")] == [285_689_806_848, 1_498_447_872]
    assert fora.read_bytes() == before


def test_a_single_file_and_folders_below_are_counted(fora, capsys):
    deep = fora.parent / "more" / "uncached.json"
    heuristics.uncached(PIXART, 20).save(deep)
    assert list(counted(capsys, "--image-generator", "pixart-alpha", "-i", fora)) == ["fora-3.json"]
    found = counted(capsys, "--image-generator", "pixart-alpha", "--input-dir", fora.parent)
    assert sorted(found) == ["fora-3.json", "more/uncached.json"]


def test_full_is_the_tables_full(fora, capsys):
    found = counted(capsys, "--image-generator", "storybook", "-i", fora, "--convention", "full")[
        "fora-3.json"
    ]
    macs = cost_table("storybook").macs(Schedule.load(fora))
    assert found["total_macs"] == macs.total
    assert found["once_per_pass"] == macs.once
    assert found["total_macs"] == macs.once + sum(
        step["macs"] for step in found["by_inference_step"].values()
    )


def test_without_json_the_originals_keys_are_written_and_the_rest_kept(fora, capsys):
    schedule = Schedule.load(fora).replace(metrics={"latency": {"avg": 1.0}}, config={"mine": 1})
    schedule.save(fora)
    assert main(["macs", "--image-generator", "pixart-alpha", "-i", str(fora), "--print-detailed"]) == 0
    assert "2,019,308,470,272" in capsys.readouterr().out
    metrics = json.loads(fora.read_text())["metrics"]
    assert metrics["total_macs"] == 2_019_308_470_272
    assert metrics["total_macs_T"] == 2.019308470272
    assert metrics["by_inference_step"]["001"] == {"macs": 1_498_447_872}
    assert metrics["latency"] == {"avg": 1.0}
    again = Schedule.load(fora)
    assert again == schedule
    assert again.config == {"mine": 1}


def test_existing_figures_stay_unless_told(fora):
    Schedule.load(fora).replace(metrics={"total_macs": 1, "by_inference_step": {"000": {"flops": 7}}}).save(
        fora
    )
    arguments = ["macs", "--image-generator", "pixart-alpha", "-i", str(fora)]
    assert main(arguments) == 0
    assert Schedule.load(fora).metrics["total_macs"] == 1
    assert main([*arguments, "--recompute-existing"]) == 0
    metrics = Schedule.load(fora).metrics
    assert metrics["total_macs"] == 2_019_308_470_272
    assert metrics["by_inference_step"]["000"] == {"flops": 7, "macs": 285_689_806_848}


def test_the_two_conventions_do_not_overwrite_each_other(fora):
    arguments = ["macs", "--image-generator", "pixart-alpha", "-i", str(fora)]
    assert main(arguments) == main([*arguments, "--convention", "full"]) == 0
    metrics = Schedule.load(fora).metrics
    assert metrics["total_macs"] == 2_019_308_470_272
    assert metrics["total_macs_full"] == cost_table("pixart-alpha").macs(Schedule.load(fora)).total


@pytest.mark.parametrize(
    ("config", "model", "generator", "side"),
    [
        ({}, None, "flux-dev", 256),
        ({"height": 1024, "width": 1024}, None, "flux-dev", 1024),
        ({"height": 1024, "width": 1024}, "flux-dev", "FluxImageGenerator", 1024),
        # made for another model: the size is that model's
        ({"height": 1024, "width": 1024}, "flux-schnell", "flux-dev", 256),
    ],
)
def test_a_files_size_counts_where_its_model_is_the_one_asked_for(
    tmp_path, capsys, config, model, generator, side
):
    path = tmp_path / "a.json"
    heuristics.fora(FLUX, 3, 3).replace(config=config, model=model).save(path)
    total = counted(capsys, "--image-generator", generator, "-i", path)["a.json"]["total_macs"]
    assert total == cost_table("flux-dev", height=side, convention="paper").macs(Schedule.load(path)).total
    square = counted(capsys, "--image-generator", generator, "-i", path, "--height", 512)["a.json"]
    assert square["total_macs"] == cost_table("flux-dev", height=512, convention="paper").uncached(
        1
    ).total + (2 * cost_table("flux-dev", height=512, convention="paper").fixed)


def test_the_hub_name_in_a_file_of_the_original_says_the_size(tmp_path, capsys):
    path = tmp_path / "tgate.json"
    schedule = heuristics.tgate(PIXART, 20, 9, 1, averaged=True)
    schedule.replace(config={"transformer_weights": "PixArt-alpha/PixArt-XL-2-1024-MS"}).save(path)
    found = counted(capsys, "--image-generator", "pixart-alpha", "-i", path)
    assert found["tgate.json"]["total_macs"] == 58_634_348_101_632


def test_the_model_a_file_names_is_taken_where_none_is_given(fora, capsys):
    Schedule.load(fora).replace(model="pixart-alpha").save(fora)
    assert counted(capsys, "-i", fora)["fora-3.json"]["total_macs"] == 2_019_308_470_272


def test_a_local_model_is_read_from_its_configuration_alone(tmp_path, capsys):
    folder = tmp_path / "mine" / "transformer"
    folder.mkdir(parents=True)
    config = {
        "_class_name": "PixArtTransformer2DModel",
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "sample_size": 32,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "caption_channels": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    path = tmp_path / "a.json"
    heuristics.fora(PIXART, 20, 3).save(path)
    found = counted(capsys, "--image-generator", folder.parent, "-i", path)
    assert found["a.json"]["total_macs"] == 2_019_308_470_272


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "bad.json: not a schedule"),
        (heuristics.uncached(layout("pixart-2"), 2).to_json(), "for pixart-2; expected one for pixart-28"),
        (heuristics.uncached(FLUX, 2).to_json(), "for flux-19-38; expected one for pixart-28"),
    ],
)
def test_a_file_that_is_no_schedule_is_named_and_the_others_are_counted(fora, capsys, content, says):
    (fora.parent / "bad.json").write_text(content)
    assert main(["macs", "--json", "--image-generator", "pixart-alpha", "-i", str(fora.parent)]) == 2
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == ["fora-3.json"]
    assert says in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image-generator", "sdxl", "-i", "FORA"], "There is no model named 'sdxl'"),
        (["-i", "FORA"], "names no model; expected --image-generator"),
        (["--image-generator", "pixart-alpha", "-i", "nowhere"], "nowhere does not exist"),
        (["--image-generator", "pixart-alpha", "-i", "EMPTY"], "holds no .json file"),
        (["--image-generator", "pixart-alpha", "-i", "FORA", "--height", "100"], "multiple of 16"),
    ],
)
def test_wrong_questions_are_one_sentence(fora, tmp_path, capsys, arguments, says):
    (tmp_path / "empty").mkdir()
    places = {"FORA": str(fora), "EMPTY": str(tmp_path / "empty")}
    assert main(["macs", *(places.get(argument, argument) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_counting_loads_no_torch(fora):
    code = (
        "import sys; from ecad.__main__ import main;"
        f"code = main(['macs', '--json', '--image-generator', 'pixart-alpha', '-i', {str(fora)!r}]);"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0

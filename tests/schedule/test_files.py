"""The file: what is written, what is read back, and one sentence for everything that is not a schedule."""

from __future__ import annotations

import json
import random
import re
import stat

import numpy as np
import pytest

from ecad.schedule import Schedule, ScheduleError, flux_layout, heuristics, pixart_layout
from ecad.schedule.files import write_atomically

PIXART, FLUX = pixart_layout(2), flux_layout(1, 2)


def original(of=PIXART, rows=3, density=0.5, seed=0):
    """The content of a file as the original writes it: no format, no model."""
    bits = np.random.default_rng(seed).random((rows, len(of))) < density
    content = json.loads(Schedule(of, bits, name="cand_007", attributes={"num_affected_steps": 2}).to_json())
    del content["format"]
    return content, bits


def refusal(content, **expected):
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_json(text, source="here.json", **expected)
    sentence = str(caught.value)
    assert sentence.startswith("here.json: ")
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


@pytest.mark.parametrize("of", [PIXART, FLUX], ids=str)
def test_a_file_keeps_every_bit_and_everything_said(of, tmp_path):
    content, bits = original(of)
    content["config"] = {"height": 256, "guidance_scale": 4.5, "mine": {"deep": [1, None, "ü"]}}
    content["metrics"] = {"total_macs": 2**60 + 1, "latency": {"avg": 1.5, "gpu": "X"}, "mine": []}
    content["cache_schedule"]["attributes"]["mine"] = "kept"
    content["note"] = "kept too"
    schedule = Schedule.from_json(json.dumps(content))
    assert np.array_equal(schedule.bits, bits)  # raw, not canonical
    path = tmp_path / "deep" / "a.json"
    schedule.save(path)
    again = Schedule.load(path)
    assert np.array_equal(again.bits, bits)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {key: written[key] for key in content} == content
    assert written["format"] == 1
    assert again.to_json() == schedule.to_json()


def test_the_text_is_the_originals_skeleton():
    text = heuristics.fora(FLUX, 2, 2).replace(model="flux-dev", sigmas=[1.0, 0.5]).to_json()
    content = json.loads(text)
    assert list(content) == ["format", "model", "cache_schedule", "config", "metrics"]
    assert list(content["cache_schedule"]) == [
        *("num_blocks", "num_inference_steps", "name", "attributes", "schedule", "num_single_blocks")
    ]
    assert list(content["cache_schedule"]["schedule"]) == ["000", "001"]
    assert list(content["cache_schedule"]["schedule"]["000"]) == ["0", "single_0", "single_1"]
    assert content["config"] == {"sigmas": [1.0, 0.5]}
    assert text.splitlines()[1] == '    "format": 1,'


@pytest.mark.parametrize("of", [PIXART, FLUX], ids=str)
def test_reading_does_not_depend_on_the_order_of_keys(of):
    content, bits = original(of, rows=12)
    rng = random.Random(1)

    def shuffled(value):
        if not isinstance(value, dict):
            return value
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key]) for key in keys}

    for text in (json.dumps(shuffled(content)), json.dumps(content, sort_keys=True)):
        assert np.array_equal(Schedule.from_json(text).bits, bits)


def test_step_keys_need_no_padding():
    content, bits = original(rows=11)
    steps = content["cache_schedule"]["schedule"]
    content["cache_schedule"]["schedule"] = {str(int(key)): blocks for key, blocks in steps.items()}
    assert np.array_equal(Schedule.from_json(json.dumps(content)).bits, bits)


@pytest.mark.parametrize("times", [[999, 500, 0], [3, 2, 1]])
def test_own_timesteps_are_read_back(times):
    schedule = heuristics.uncached(PIXART, 3).replace(timesteps=times)
    assert Schedule.from_json(schedule.to_json()).timesteps == tuple(times)
    assert Schedule.from_json(schedule.to_json()) == schedule


def test_sigmas_are_read_back_exactly():
    schedule = heuristics.uncached(FLUX, 3).replace(sigmas=[1.0, 1 / 3, 0.1])
    assert Schedule.from_json(schedule.to_json()).sigmas == (1.0, 1 / 3, 0.1)


def test_tgate_files_of_the_original_are_read_and_written():
    schedule = heuristics.tgate(PIXART, 6, 3, 2, averaged=True)
    content = json.loads(schedule.to_json())
    custom = {"name": "compute_attn_tgate", "kwargs": {"gate_step": 3}}
    assert all(
        block["custom_compute_attn"] == custom
        for step in content["cache_schedule"]["schedule"].values()
        for block in step.values()
    )
    assert content["config"]["pipeline"] == {"name": "tgate", "kwargs": {"gate_step": 3}}
    again = Schedule.from_json(json.dumps(content))
    assert again == schedule
    assert again.gate_step == 3
    del content["config"]["pipeline"]  # the blocks alone say it
    assert Schedule.from_json(json.dumps(content)) == schedule


def test_the_default_functions_change_nothing():
    content, bits = original()
    for step in content["cache_schedule"]["schedule"].values():
        for block in step.values():
            block["custom_compute_attn"] = {"name": "Compute_Attn_Cached", "kwargs": {}}
            block["custom_compute_ff"] = {"name": "compute_ff_cached"}
    schedule = Schedule.from_json(json.dumps(content))
    assert np.array_equal(schedule.bits, bits)
    assert schedule.gate_step is None


def test_a_missing_model_is_filled_in_and_a_given_one_kept(tmp_path):
    path = tmp_path / "a.json"
    heuristics.uncached(PIXART, 2).save(path)
    assert Schedule.load(path).model is None
    assert Schedule.load(path, model="storybook").model == "storybook"
    heuristics.uncached(PIXART, 2).replace(model="pixart-alpha").save(path)
    assert Schedule.load(path, model="storybook").model == "pixart-alpha"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ('{"a": 1, "\\ud800": 1, "\\ud800": 2}', "stands twice"),
        ("[]", 'object with the key "cache_schedule"'),
        ("null", 'object with the key "cache_schedule"'),
        ("{}", 'object with the key "cache_schedule"'),
        ('{"dit_schedule": {}}', 'object with the key "cache_schedule"'),
        ('{"cache_schedule": []}', "cache_schedule must be an object"),
        ('{"cache_schedule": {}, "cache_schedule": {}}', '"cache_schedule" stands twice'),
        ('{"cache_schedule": {"num_blocks": NaN}}', "NaN is no JSON number"),
        ('{"cache_schedule": {"num_blocks": 1e999}}', "1e999 is no JSON number"),
        ('{"metrics": -Infinity}', "-Infinity is no JSON number"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ('{"cache_schedule": ' + "9" * 10_000 + "}", "cannot|can be read|Exceeds"),
        (" " * (16 * 2**20 + 1), "larger than 16 MB"),
    ],
)
def test_what_is_no_schedule_at_all(text, says):
    assert re.search(says, refusal(text))


def changed(content, path, value):
    """`content` with the entry at `path` replaced, or removed if `value` is Ellipsis."""
    content = json.loads(json.dumps(content))
    where = content
    for key in path[:-1]:
        where = where[key]
    if value is ...:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return content


BODY = "cache_schedule"
STEPS = (BODY, "schedule")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ((BODY, "num_blocks"), ..., "num_blocks is missing; expected an integer"),
        ((BODY, "num_blocks"), True, "from 1 to 1000, not true"),
        ((BODY, "num_blocks"), "2", 'from 1 to 1000, not "2"'),
        ((BODY, "num_blocks"), 10**9, "from 1 to 1000"),
        ((BODY, "num_blocks"), 12, 'step 000: block "2" is missing; expected the 12 from 0 to 11'),
        ((BODY, "num_blocks"), 1, 'step 000: block "1" is unknown; expected 0'),
        ((BODY, "num_inference_steps"), ..., "num_inference_steps is missing"),
        ((BODY, "num_inference_steps"), 0, "from 1 to 1000, not 0"),
        ((BODY, "num_inference_steps"), 10**12, "from 1 to 1000"),
        (
            (BODY, "num_inference_steps"),
            4,
            "step 003 is missing; expected 4 steps, as num_inference_steps says",
        ),
        ((BODY, "num_inference_steps"), 2, "step 002 is too many; expected 2 steps, 000 to 001"),
        ((BODY, "schedule"), ..., "cache_schedule.schedule is missing"),
        ((BODY, "name"), 5, "name must be text"),
        ((BODY, "attributes"), [], "attributes must be an object"),
        ((BODY, "gate_steps"), 5, 'unknown key "gate_steps"'),
        (("config",), [], "config must be an object"),
        (("metrics",), "fast", 'metrics must be an object, not "fast"'),
        (("model",), 5, "model must be a name, not 5"),
        (("format",), 2, "format 2 is unknown; expected 1"),
        (("format",), True, "format true is unknown"),
        (("dit_schedule",), {"a": 1}, "dit_schedule"),
        ((*STEPS, "001"), ..., "step 001 is missing; expected 3 steps"),
        ((*STEPS, "1"), {}, "step 001 stands twice"),
        ((*STEPS, "003"), {}, "step 003 is too many; expected 3 steps"),
        ((*STEPS, "first"), {}, 'step key "first" is no number; expected 000 to 002'),
        ((*STEPS, "-1"), {}, 'step key "-1" is no number'),
        ((*STEPS, "٣"), {}, "is no number"),
        ((*STEPS, "001"), [], "step 001 must be an object of blocks"),
        ((*STEPS, "001", "1"), ..., 'step 001: block "1" is missing; expected 0, 1'),
        ((*STEPS, "001", "2"), {}, 'step 001: block "2" is unknown; expected 0, 1'),
        ((*STEPS, "001", "1"), None, "step 001, block 1 must be an object of components, not nothing"),
        (
            (*STEPS, "001", "1", "ff"),
            ...,
            'step 001, block 1: component "ff" is missing; expected attn1, attn2, ff',
        ),
        ((*STEPS, "001", "1", "FF"), True, 'step 001, block 1: component "FF" is unknown'),
        ((*STEPS, "001", "1", "ff"), 1, "step 001, block 1: ff must be true or false, not 1"),
        ((*STEPS, "001", "1", "ff"), "true", 'must be true or false, not "true"'),
        ((*STEPS, "001", "1", "ff"), None, "must be true or false, not nothing"),
        (
            ("config", "timesteps"),
            [1, 2, 3],
            r"config.timesteps must fall strictly, but timesteps[1] is 2 after 1",
        ),
        (("config", "timesteps"), [9, 8], "config.timesteps must hold 3 times"),
        (("config", "timesteps"), [9, 8, 7.5], "config.timesteps[2] must be an integer, not 7.5"),
        (("config", "timesteps"), [5000, 8, 7], "config.timesteps[0] must lie in 0 to 999"),
        (("config", "timesteps"), "999", "config.timesteps must be a list"),
        (("config", "sigmas"), [1.0, 0.5, 0.1], "config.sigmas are for FLUX"),
        (("config", "pipeline"), {"name": "tgate", "kwargs": {"gate_step": 2}}, "no custom_compute_attn"),
        ((*STEPS, "001", "1", "custom_compute_attn"), {"name": "mine"}, 'function "mine" is unknown'),
        ((*STEPS, "001", "1", "custom_compute_attn"), "mine", "must be an object with a name"),
        ((*STEPS, "001", "1", "custom_compute_ff"), {"name": "compute_attn_tgate"}, "compute_ff_cached"),
        (
            (*STEPS, "001", "1", "custom_compute_attn"),
            {"name": "compute_attn_tgate", "kwargs": {"gate_step": 2}},
            "step 000, block 0 has gate_step nothing and step 001, block 1 has 2",
        ),
        (
            (*STEPS, "001", "1", "custom_compute_attn"),
            {"name": "compute_attn_tgate", "kwargs": {"gate": 2}},
            "expects the kwargs gate_step",
        ),
    ],
)
def test_each_place_that_is_wrong_is_named(path, value, says):
    assert says in refusal(changed(original()[0], path, value))


def test_both_kinds_of_times_are_refused():
    content, _ = original()
    content["config"] = {"timesteps": [3, 2, 1], "sigmas": [1.0, 0.5, 0.1]}
    assert "both timesteps and sigmas" in refusal(content)


def test_flux_times_are_checked():
    content, _ = original(FLUX)
    assert "config.sigmas must fall" in refusal(changed(content, ("config", "sigmas"), [0.5, 0.6, 0.1]))
    assert "config.sigmas[0] must be above 0" in refusal(
        changed(content, ("config", "sigmas"), [2, 0.6, 0.1])
    )
    assert "config.timesteps are for PixArt" in refusal(changed(content, ("config", "timesteps"), [3, 2, 1]))


def test_a_tgate_pipeline_of_another_gate_is_refused():
    content = json.loads(heuristics.tgate(PIXART, 6, 3, 2, averaged=True).to_json())
    content["config"]["pipeline"]["kwargs"]["gate_step"] = 4
    assert "config.pipeline has gate_step 4; expected 3" in refusal(content)


def test_a_file_for_another_layout_is_refused_both_ways():
    pixart, flux = original(PIXART)[0], original(FLUX)[0]
    assert (
        "made for FLUX with 1 full and 2 single blocks; expected a schedule for PixArt with 2 blocks"
        in refusal(flux, layout=PIXART)
    )
    assert "made for PixArt with 2 blocks; expected a schedule for FLUX" in refusal(pixart, layout=FLUX)
    assert "made for PixArt with 2 blocks; expected a schedule for PixArt with 3 blocks" in refusal(
        pixart, layout=pixart_layout(3)
    )
    assert Schedule.from_json(json.dumps(pixart), layout=PIXART).layout == PIXART


def test_a_flux_file_that_hides_its_single_blocks_is_refused():
    content = changed(original(FLUX)[0], (BODY, "num_single_blocks"), ...)
    assert "without cache_schedule.num_single_blocks" in refusal(content)
    assert "num_single_blocks must be an integer" in refusal(
        changed(original(FLUX)[0], (BODY, "num_single_blocks"), 0)
    )


def test_custom_functions_are_refused_in_flux():
    content, _ = original(FLUX)
    custom = {"name": "compute_attn_tgate", "kwargs": {"gate_step": 1}}
    says = refusal(changed(content, (*STEPS, "001", "0", "custom_compute_attn"), custom))
    assert 'component "custom_compute_attn" is unknown' in says


def test_a_long_value_is_cut_short_in_the_sentence():
    content = changed(original()[0], (*STEPS, "001", "1", "ff"), "x" * 5000)
    assert "..." in refusal(content)


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(ScheduleError, match="cannot be read"):
        Schedule.load(tmp_path / "none.json")
    with pytest.raises(ScheduleError, match="cannot be read"):
        Schedule.load(tmp_path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(50 * 2**20)  # sparse
    with pytest.raises(ScheduleError, match="larger than 16 MB"):
        Schedule.load(huge)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "a.json"
    heuristics.uncached(PIXART, 2).save(path)
    before = path.read_bytes()
    for metrics in ({"score": float("nan")}, {"score": object()}):
        with pytest.raises(ScheduleError, match="holds what JSON cannot"):
            heuristics.fora(PIXART, 2, 2).replace(metrics=metrics).save(path)
    assert path.read_bytes() == before


def test_writing_replaces_the_file_at_once_and_leaves_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def broken(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "half")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_random_damage_never_ends_in_another_error():
    """Any change of any one place of a file is read or refused with a sentence."""
    content, _ = original(FLUX, rows=2)
    rng = random.Random(0)
    strange = [None, True, 0, -1, 1.5, "", "x", [], {}, [[]], {"0": {}}, 10**30]

    def places(value, path=()):
        for key, inner in value.items() if isinstance(value, dict) else ():
            yield (*path, key)
            yield from places(inner, (*path, key))

    everywhere = list(places(content))
    for _ in range(400):
        damaged = changed(content, rng.choice(everywhere), rng.choice([*strange, ...]))
        try:
            Schedule.from_json(json.dumps(damaged))
        except ScheduleError as error:
            assert "\n" not in str(error)

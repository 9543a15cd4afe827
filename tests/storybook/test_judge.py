"""Rules of the shipped judge, on rendered truth that it was not trained on."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest

from ecad.metrics import Metric, MetricError
from ecad.storybook.judge import JUDGE_FOLDER, JudgeError, load_judge
from ecad.storybook.judge_check import check_on_truth
from ecad.storybook.judge_facts import kinds_of, with_one_wrong
from ecad.storybook.world import caption, one_article, render, sample_scene


@pytest.fixture(scope="module")
def judge():
    return load_judge()


@pytest.fixture(scope="module")
def truth():
    """Eight held-out scenes and their pictures uint8 [8, 256, 256, 3]."""
    rng = np.random.default_rng(21)
    scenes = [sample_scene(rng, held_out=True) for _ in range(8)]
    return scenes, np.stack([np.asarray(render(scene, rng)) for scene in scenes])


def test_held_out_truth_is_read_and_ranked_rightly(judge):
    figures = check_on_truth(128, seed=7, judge=judge)
    assert figures["judge_facts_on_truth"] >= 0.97
    assert figures["judge_ranks_truth"] >= 0.97
    assert min(figures["judge_facts_on_truth_by_kind"].values()) >= 0.95
    assert min(figures["judge_ranks_truth_by_kind"].values()) >= 0.9
    assert figures["judge_counts"]["pictures"] == 128
    json.dumps(figures, allow_nan=False)


def test_both_are_metrics(judge):
    for it, name in ((judge.reward, "storybook-reward"), (judge.facts, "facts-right")):
        assert isinstance(it, Metric)
        assert (it.name, it.higher_is_better, it.needs) == (name, True, {"prompts"})
        assert json.loads(json.dumps(it.fingerprint(), allow_nan=False)) == it.fingerprint()


def test_the_reward_is_near_one_for_truth_and_falls_with_each_wrong_fact(judge, truth):
    scenes, images = truth
    right = judge.reward.score(images, prompts=[caption(scene) for scene in scenes])
    assert right.dtype == np.float64 and right.shape == (8,)
    assert 0.7 < right.mean() < 1.3
    rng = np.random.default_rng(5)
    for i, scene in enumerate(scenes):
        wrong = [caption(with_one_wrong(scene, kind, rng)) for kind in kinds_of(scene)]
        scores = judge.reward.score(images[[i] * len(wrong)], prompts=wrong)
        assert scores.mean() < right[i] - 0.3


def test_the_reward_falls_as_a_picture_is_destroyed(judge, truth):
    scenes, images = truth
    prompts = [caption(scene) for scene in scenes]
    noise = np.random.default_rng(2).integers(0, 256, images.shape)
    scores = [
        judge.reward.score(((1 - t) * images + t * noise).astype(np.uint8), prompts=prompts).mean()
        for t in (0, 0.5, 0.75, 1)
    ]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < scores[0] - 0.7


def test_a_prompt_outside_the_grammar_has_a_reward_but_no_facts(judge, truth):
    images = truth[1][:2]
    prompts = ["a lighthouse, oil on canvas", ""]
    assert np.isfinite(judge.reward.score(images, prompts=prompts)).all()
    assert all(math.isnan(share) for share in judge.facts.score(images, prompts=prompts))
    assert judge.read(images, prompts) == [None, None]


def test_a_very_long_prompt_is_cut_not_refused(judge, truth):
    assert np.isfinite(judge.reward.score(truth[1][:1], prompts=["a red house " * 1000])).all()


def test_scores_do_not_depend_on_the_batch(judge, truth):
    scenes, images = truth
    prompts = [caption(scene) for scene in scenes]
    together = judge.reward.score(images, prompts=prompts)
    alone = [judge.reward.score(images[i : i + 1], prompts=prompts[i : i + 1])[0] for i in range(8)]
    assert together == pytest.approx(alone, abs=1e-4)
    reversed_ = judge.reward.score(images[::-1], prompts=prompts[::-1])[::-1]
    assert together == pytest.approx(reversed_, abs=1e-4)
    assert judge.scenes(images) == [judge.scenes(images[i : i + 1])[0] for i in range(8)]
    assert judge.reward.score(images[:0], prompts=[]).shape == (0,)
    assert judge.facts.score(images[:0], prompts=[]).shape == (0,)


def test_what_it_sees_is_a_caption(judge, truth):
    scenes, images = truth
    assert judge.sees(images) == [caption(scene) for scene in scenes]


def test_facts_by_kind_agree_with_the_scores(judge, truth):
    scenes, images = truth
    prompts = [caption(scene) for scene in scenes]
    assert judge.facts.score(images, prompts=prompts).tolist() == [1.0] * 8
    moved = prompts[1:] + prompts[:1]
    facts = [fact for row in judge.read(images, moved) for fact in row]
    shares = judge.facts.facts_by_kind(images, moved)
    objects = [fact.right for fact in facts if fact.kind == "object"]
    assert shares["object"] == sum(objects) / len(objects) < 1


def test_pictures_of_another_size_are_judged_alike(judge, truth):
    scenes, images = truth
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    prompts = [caption(scene) for scene in scenes]
    assert judge.scenes(doubled) == judge.scenes(images)
    difference = judge.reward.score(doubled, prompts=prompts) - judge.reward.score(images, prompts=prompts)
    assert np.abs(difference).max() < 0.1


def test_wrong_arguments_are_named(judge, truth):
    images = truth[1]
    with pytest.raises(MetricError, match="prompts="):
        judge.reward.score(images)
    with pytest.raises(MetricError, match="8 images but 1 prompts"):
        judge.facts.score(images, prompts=["a red house"])
    with pytest.raises(MetricError, match="list of prompts"):
        judge.facts.score(images, prompts="a red house")
    with pytest.raises(MetricError, match="uint8"):
        judge.reward.score(images / 255, prompts=["a red house"] * 8)


def test_a_folder_without_a_judge_is_refused(tmp_path):
    with pytest.raises(JudgeError, match="there is no judge in"):
        load_judge(tmp_path)
    (tmp_path / "judge.json").write_text("{}")
    with pytest.raises(JudgeError, match="format 1"):
        load_judge(tmp_path)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "reader.safetensors"])
def test_other_weights_are_refused(tmp_path, truth, name):
    folder = shutil.copytree(JUDGE_FOLDER, tmp_path / "judge")
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(JudgeError, match=f"{name} is not the file"):
        load_judge(folder).facts.score(truth[1], prompts=["a red house"] * 8)
    (folder / name).unlink()
    with pytest.raises(JudgeError, match=f"has no {name}"):
        load_judge(folder).facts.score(truth[1], prompts=["a red house"] * 8)


def test_the_clip_is_loaded_by_open_clip_alone(judge, truth):
    """The folder is a plain open_clip model: its own functions give the cosine behind the reward."""
    import open_clip
    import torch
    from PIL import Image

    name = f"local-dir:{JUDGE_FOLDER}"
    model, transform = open_clip.create_model_from_pretrained(name)
    tokenizer = open_clip.get_tokenizer(name)
    scenes, images = truth
    prompts = [one_article(caption(scene)) for scene in scenes]
    with torch.inference_mode():
        seen = model.eval().encode_image(
            torch.stack([transform(Image.fromarray(i)) for i in images]), normalize=True
        )
        said = model.encode_text(tokenizer(prompts), normalize=True)
    assert judge.cosines(images, prompts) == pytest.approx((seen * said).sum(1).numpy(), abs=1e-5)


def test_weights_that_open_clip_did_not_load_are_noticed(tmp_path):
    """open_clip goes on with random weights where it finds none; our loader must not."""
    from ecad.storybook.judge_clip import WEIGHTS_FILE, load_clip

    folder = shutil.copytree(JUDGE_FOLDER, tmp_path / "judge")
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises((OSError, RuntimeError, ValueError)):
        load_clip(folder)


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in JUDGE_FOLDER.iterdir()) < 16 * 2**20

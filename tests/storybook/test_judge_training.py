"""Rules of the judge's training material and of a training in miniature."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecad.storybook import judge_clip, judge_pool, judge_training
from ecad.storybook.judge import load_judge
from ecad.storybook.judge_augment import augment, plain
from ecad.storybook.judge_facts import compare, share_right
from ecad.storybook.judge_pool import Pool, make_pool, numbers, shrink
from ecad.storybook.judge_texts import Texts, training_texts, truth_table
from ecad.storybook.world import caption, held_out, one_article, sample_scene, scene_of


@pytest.fixture
def scenes():
    rng = np.random.default_rng(4)
    return [sample_scene(rng) for _ in range(40)]


def test_no_training_caption_is_held_out_right_or_wrong(scenes):
    said = training_texts(scenes, 3, np.random.default_rng(0))
    assert len(said) == 160
    assert not any(held_out(caption(scene)) for scene in said)


def test_each_wrong_caption_is_wrong_and_each_right_one_right(scenes):
    said = training_texts(scenes, 3, np.random.default_rng(1))
    for i, scene in enumerate(scenes):
        assert share_right(compare(said[i], scene)) == 1
        for other in said[40 + 3 * i : 43 + 3 * i]:
            assert share_right(compare(other, scene)) < 1


def test_some_captions_are_silent_about_place_or_sky(scenes):
    said = training_texts(scenes * 5, 0, np.random.default_rng(2))
    assert 0.05 < np.mean([scene.place is None for scene in said]) < 0.3
    assert 0.05 < np.mean([scene.sky is None for scene in said]) < 0.3


def test_the_truth_table_knows_true_captions_of_other_pictures():
    pictured = [scene_of("a red cat on sand at night"), scene_of("a red cat in snow at night")]
    said = [
        scene_of(text) for text in ("a red cat at night", "a red cat in snow", "a red cat left of a blue cup")
    ]
    table = truth_table(np.array([numbers(scene) for scene in pictured]), said)
    assert table.tolist() == [[True, False, False], [True, True, False]]


def test_texts_are_numbered_like_the_tokenizer_does(scenes):
    import open_clip

    texts = Texts()
    captions = [one_article(caption(scene)) for scene in scenes]
    ours = texts.tokens(captions)
    theirs = open_clip.SimpleTokenizer(context_length=32)(captions)
    assert torch.tensor(texts.rows)[ours].tolist() == theirs[:, : ours.shape[1]].tolist()
    assert not theirs[:, ours.shape[1] :].any()


def test_training_encodes_texts_as_the_stored_model_does(scenes, tmp_path):
    torch.manual_seed(0)
    texts = Texts()
    clip = judge_clip.build(texts.size).eval()
    judge_clip.save_clip(texts.with_all_rows(clip.state_dict()), tmp_path)
    model, _, tokenizer = judge_clip.load_clip(tmp_path)
    captions = [one_article(caption(scene)) for scene in scenes[:5]]
    with torch.inference_mode():
        assert torch.allclose(texts.encode(clip, captions), model.encode_text(tokenizer(captions)), atol=2e-3)


def test_the_loss_falls_when_the_own_caption_is_nearest_and_ignores_other_true_ones():
    seen, scale = torch.eye(3), torch.tensor(2.0)
    good = torch.cat([torch.eye(3), -torch.eye(3)])
    nothing = torch.zeros(3, 6, dtype=torch.bool)
    loss = judge_training.contrastive_loss(seen, good, scale, nothing)
    assert loss < judge_training.contrastive_loss(seen, good.roll(1, 0), scale, nothing)
    # A wrong caption as near as the own one costs a lot, unless it is true as well.
    hard = torch.cat([torch.eye(3), torch.eye(3)])
    also_true = torch.cat([torch.zeros(3, 3), torch.eye(3)], 1).bool()
    assert judge_training.contrastive_loss(seen, hard, scale, nothing) > loss + 0.2
    masked = judge_training.contrastive_loss(seen, hard, scale, also_true)
    assert masked < judge_training.contrastive_loss(seen, hard, scale, nothing) - 0.2


def test_damage_is_small_and_seeded():
    pictures = (
        np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    )
    before = pictures.copy()
    damaged = augment(pictures, np.random.default_rng(1))
    assert (pictures == before).all()
    assert damaged.shape == (16, 3, 64, 64)
    assert torch.equal(damaged, augment(pictures, np.random.default_rng(1)))
    assert 0 < (damaged - plain(pictures)).abs().mean() < 0.5


def test_an_interrupted_pool_is_continued_to_the_same_one(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_pool, "RENDERED", 64)
    whole = make_pool(tmp_path / "whole", 6, seed=3)
    make_pool(tmp_path / "parts", 4, seed=3)
    parts = make_pool(tmp_path / "parts", 6, seed=3)
    assert (whole.images == parts.images).all() and whole.scenes == parts.scenes
    assert (make_pool(tmp_path / "parts", 6, seed=4).images != whole.images).any()
    assert not any(held_out(caption(scene)) for scene in whole.scenes)


def test_the_pool_is_reduced_as_the_judge_reduces(tmp_path):
    from PIL import Image

    torch.manual_seed(0)
    texts = Texts()
    judge_clip.save_clip(texts.with_all_rows(judge_clip.build(texts.size).state_dict()), tmp_path)
    _, transform, _ = judge_clip.load_clip(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    picture = Image.fromarray(noise)
    assert torch.allclose(transform(picture), plain(shrink(picture)[None])[0], atol=1e-6)


def test_a_training_in_miniature_writes_a_judge_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(judge_training, "make_pool", _tiny_pool)
    sizes = {"pictures": 12, "reader_batch": 4, "clip_batch": 4, "reader_steps": 4, "clip_steps": 4}
    whole = judge_training.train(tmp_path / "whole", tmp_path / "work", **sizes)
    # Both nets are interrupted after two steps of four.
    monkeypatch.setattr(judge_training, "Course", _Interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            judge_training.train(tmp_path / "parts", tmp_path / "work2", **sizes)
    monkeypatch.undo()
    monkeypatch.setattr(judge_training, "make_pool", _tiny_pool)
    parts = judge_training.train(tmp_path / "parts", tmp_path / "work2", **sizes)
    assert parts == whole
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    assert np.isfinite(load_judge(tmp_path / "parts").reward.score(picture, prompts=["a red house"])).all()


def _tiny_pool(folder, count, seed):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(count)]
    images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return Pool(images, scenes, np.array([numbers(scene) for scene in scenes], np.int64))


class _Interrupted(judge_training.Course):
    """Stops with a checkpoint after two steps."""

    def run(self, loss_of, budget, checkpoint=None, **options):
        if self.step < 2:
            while self.step < 2:
                self.advance(loss_of, budget)
            self.save(checkpoint)
            raise KeyboardInterrupt
        super().run(loss_of, budget, checkpoint, **options)

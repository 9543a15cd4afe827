"""Train the judge on rendered truth: the attribute reader, then the CLIP with captions with one fact wrong.

Both see pictures of the pool with small damage (`judge_augment`), and no held-out caption: not as the right
one, and not as a wrong one either. `train` is the whole; it goes on where it was interrupted, and every batch
follows from (seed, step) alone, so an interrupted training ends like an undisturbed one.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecad.storybook import judge_clip
from ecad.storybook.course import Budget, Course
from ecad.storybook.judge_augment import augment, plain
from ecad.storybook.judge_facts import kinds_of, with_one_wrong
from ecad.storybook.judge_pool import SIZE, Pool, make_pool
from ecad.storybook.judge_reader import READER_WEIGHTS_FILE, Reader, save_reader
from ecad.storybook.judge_texts import Texts, training_texts, truth_table
from ecad.storybook.world import caption, held_out, one_article

WRONG_PER_PICTURE = 6
LARGEST_LOGIT_SCALE = math.log(100)  # as CLIP's authors limit it


def train(
    target: Path,
    work: Path,
    *,
    seed: int = 0,
    pictures: int = 24000,
    reader_steps: int = 1500,
    clip_steps: int = 2200,
    reader_batch: int = 64,
    clip_batch: int = 32,
    threads: int = 1,
) -> dict[str, Any]:
    """Train both nets and write the judge's folder `target`; returns what judge.json says.

    `work` keeps the rendered pool and the checkpoints: the same call again goes on from there, and with
    everything done only writes `target` anew. Remove `work` to start afresh. Prints a line of progress, with
    the time left, every 50 steps.
    """
    torch.set_num_threads(threads)
    pool = make_pool(work, pictures, seed)
    reader = train_reader(pool, work, reader_steps, seed=seed, batch=reader_batch)
    clip, texts = train_clip(pool, work, clip_steps, seed=seed, batch=clip_batch)
    target.mkdir(parents=True, exist_ok=True)
    save_reader(reader, target)
    judge_clip.save_clip(texts.with_all_rows(clip.state_dict()), target)
    scale = reward_scale(target, pool, seed)
    weights = {name: digest(target / name) for name in (judge_clip.WEIGHTS_FILE, READER_WEIGHTS_FILE)}
    settings = {
        "seed": seed,
        "pictures": pictures,
        "reader_steps": reader_steps,
        "reader_batch": reader_batch,
    }
    settings |= {"clip_steps": clip_steps, "clip_batch": clip_batch}
    record = {"format": 1, "reward": scale, "weights": weights, "training": settings}
    (target / "judge.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def train_reader(pool: Pool, work: Path, steps: int, *, seed: int, batch: int) -> Reader:
    """The reader after `steps` batches: cross entropy of every head; what is not in a scene is not asked."""
    torch.manual_seed(seed)
    reader = Reader(SIZE).to(memory_format=torch.channels_last)
    labels = torch.from_numpy(pool.labels)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 1, step])
        rows = rng.integers(len(pool), size=batch)
        pictures = augment(pool.images[rows], rng)
        with torch.autocast("cpu", torch.bfloat16):
            heads = reader(pictures)
        answers = labels[torch.from_numpy(rows)].unbind(1)
        losses = [F.cross_entropy(x.float(), y, ignore_index=-1) for x, y in zip(heads, answers, strict=True)]
        return torch.stack(losses).mean()

    print(f"judge reader: {steps} steps", flush=True)
    _descend(reader, loss, steps, peak=2e-3, checkpoint=work / f"reader-{seed}-{batch}-{steps}.safetensors")
    return reader.eval()


def train_clip(pool: Pool, work: Path, steps: int, *, seed: int, batch: int) -> tuple[nn.Module, Texts]:
    """The CLIP after `steps` batches, over the world's own words; `Texts` gives it the whole vocabulary."""
    torch.manual_seed(seed + 1)
    texts = Texts()
    clip = judge_clip.build(texts.size).to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 2, step])
        rows = rng.integers(len(pool), size=batch)
        pictures = augment(pool.images[rows], rng)
        said = training_texts([pool.scenes[row] for row in rows], WRONG_PER_PICTURE, rng)
        with torch.autocast("cpu", torch.bfloat16):
            seen_features = clip.encode_image(pictures)
            said_features = texts.encode(clip, [caption(scene) for scene in said])
        also_true = truth_table(pool.labels[rows], said)
        return contrastive_loss(seen_features.float(), said_features.float(), clip.logit_scale, also_true)

    print(f"judge clip: {steps} steps", flush=True)
    _descend(clip, loss, steps, peak=1.5e-3, checkpoint=work / f"clip-{seed}-{batch}-{steps}.safetensors")
    return clip.eval(), texts


def contrastive_loss(seen: Tensor, said: Tensor, logit_scale: Tensor, also_true: Tensor) -> Tensor:
    """CLIP's symmetric loss with further, wrong captions as extra columns.

    seen [B, D], said [B + W, D] (the first B are the pictures' own captions), also_true bool [B, B + W]:
    captions that are true of a picture. Except for the picture's own one they count neither as right nor as
    wrong.
    """
    own = torch.arange(len(seen))
    scale = logit_scale.clamp(max=LARGEST_LOGIT_SCALE).exp()
    logits = scale * F.normalize(seen, dim=1) @ F.normalize(said, dim=1).T
    ignored = also_true.clone()
    ignored[own, own] = False
    logits = logits.masked_fill(ignored, -1e4)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(seen)].T, own)) / 2


def _descend(net: nn.Module, loss, steps: int, *, peak: float, checkpoint: Path) -> None:
    """AdamW over a budget of steps, from the checkpoint if there is one."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]  # norms, biases, the logit scale
    groups = [
        {"params": decayed, "weight_decay": 0.02, "peak": peak},
        {"params": others, "weight_decay": 0.0, "peak": peak},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), foreach=True)
    course = Course({"net": net}, [optimizer])
    if checkpoint.exists():
        course.resume(checkpoint)
    net.train()
    course.run(loss, Budget(steps=steps), checkpoint, every_minutes=1.0)


def reward_scale(target: Path, pool: Pool, seed: int, count: int = 2000) -> dict[str, float]:
    """Mean cosine of training pictures with their own captions and with captions that have one fact wrong.

    Measured with the model as stored; the reward is scaled so that these two are 1 and 0.
    """
    model, _, tokenizer = judge_clip.load_clip(target)
    rng = np.random.default_rng([seed, 3])
    scenes = pool.scenes[:count]
    wrong = []
    for scene in scenes:
        kinds = kinds_of(scene)
        while held_out(caption(changed := with_one_wrong(scene, kinds[int(rng.integers(len(kinds)))], rng))):
            pass
        wrong.append(caption(changed))
    cosines: dict[str, list[Tensor]] = {"right": [], "wrong": []}
    with torch.inference_mode():
        for start in range(0, len(scenes), 64):
            rows = slice(start, start + 64)
            seen = model.encode_image(plain(pool.images[:count][rows]), normalize=True)
            for name, texts in (
                ("right", [caption(scene) for scene in scenes[rows]]),
                ("wrong", wrong[rows]),
            ):
                said = model.encode_text(tokenizer([one_article(text) for text in texts]), normalize=True)
                cosines[name].append((seen * said).sum(1))
    return {name: float(torch.cat(values).double().mean()) for name, values in cosines.items()}


def digest(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()

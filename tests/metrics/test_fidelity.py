"""Rules of the metrics that compare an image with a reference."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from ecad.metrics import Metric, MetricError, metric, metric_names

NAMES = metric_names()


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def pictures(rng):
    """Three smooth pictures uint8 [3, 48, 40, 3]: coarse random colours, enlarged."""
    return rng.integers(20, 236, (3, 6, 5, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


def noisy(pictures, strength, seed=0):
    noise = np.random.default_rng(seed).normal(0, strength, pictures.shape)
    return np.clip(pictures + noise, 0, 255).round().astype(np.uint8)


def test_the_three_metrics_of_the_design_are_there():
    assert set(NAMES) == {"psnr", "ssim", "flip"}


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_what_the_protocol_says(name):
    it = metric(name)
    assert isinstance(it, Metric)
    assert it.name == name
    assert it.needs == {"references"}
    assert json.loads(json.dumps(it.fingerprint(), allow_nan=False)) == it.fingerprint()


@pytest.mark.parametrize(("name", "best"), [("psnr", 100.0), ("ssim", 1.0), ("flip", 0.0)])
def test_identical_images_get_the_best_score_and_it_is_strict_json(name, best, pictures):
    scores = metric(name).score(pictures, references=pictures.copy())
    assert scores.dtype == np.float64
    assert scores.tolist() == pytest.approx([best] * 3, abs=1e-12)
    json.dumps(scores.tolist(), allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_more_noise_is_worse(name, pictures):
    it = metric(name)
    scores = [it.score(noisy(pictures, s), references=pictures) for s in (2, 6, 15, 40)]
    direction = -1 if it.higher_is_better else 1
    assert (direction * np.diff(scores, axis=0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_each_image_what_it_gets_alone(name, pictures):
    it, images = metric(name), noisy(pictures, 12)
    alone = [it.score(images[i : i + 1], references=pictures[i : i + 1])[0] for i in range(3)]
    assert it.score(images, references=pictures).tolist() == alone
    assert it.score(images[:0], references=pictures[:0]).shape == (0,)


def test_psnr_of_a_constant_error_is_the_formula(pictures):
    shifted = pictures + np.uint8(5)  # the pictures stay below 236
    expected = 10 * math.log10(255**2 / 25)
    assert metric("psnr").score(shifted, references=pictures) == pytest.approx([expected] * 3)


def test_psnr_never_passes_its_cap():
    reference = np.zeros((1, 256, 256, 3), np.uint8)
    image = reference.copy()
    image[0, 0, 0, 0] = 1  # 101 dB by the formula
    assert metric("psnr").score(image, references=reference)[0] == 100.0


def test_ssim_of_two_flat_images_is_the_luminance_term():
    # Without variance the structure term is C2 / C2: SSIM = (2ab + C1) / (a² + b² + C1), C1 = (0.01 * 255)².
    a, b, c1 = 100, 140, (0.01 * 255) ** 2
    images = np.full((1, 32, 32, 3), a, np.uint8)
    references = np.full((1, 32, 32, 3), b, np.uint8)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metric("ssim").score(images, references=references)[0] == pytest.approx(expected, abs=1e-9)


def test_flip_of_black_against_white_is_the_largest_error():
    # The paper maps the largest colour difference, pure green to pure blue, to 1; this one comes close.
    black = np.zeros((1, 64, 64, 3), np.uint8)
    score = metric("flip").score(black, references=255 - black)[0]
    assert 0.9 < score <= 1.0


def test_flip_sees_a_colour_change_that_keeps_the_mean_squared_error(pictures):
    # The same squared error shows more as a shift in hue than as fine noise: why FLIP stands beside PSNR.
    shift = np.array([12, 0, -12])
    hue = np.clip(pictures + shift, 0, 255).astype(np.uint8)
    checker = np.where(np.indices(pictures.shape[:3]).sum(0) % 2, 1, -1)[..., None] * shift
    fine = np.clip(pictures + checker, 0, 255).astype(np.uint8)
    psnr, flip = metric("psnr"), metric("flip")
    assert psnr.score(hue, references=pictures) == pytest.approx(psnr.score(fine, references=pictures))
    assert (flip.score(hue, references=pictures) > flip.score(fine, references=pictures)).all()


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MetricError, match=r"'lpips'.*flip, psnr, ssim"):
        metric("lpips")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("images", "references", "message"),
    [
        (
            np.zeros((2, 16, 16, 3), np.float32),
            np.zeros((2, 16, 16, 3), np.uint8),
            "^images .*uint8.*float32",
        ),
        (
            np.zeros((16, 16, 3), np.uint8),
            np.zeros((16, 16, 3), np.uint8),
            r"^images .*\[B, H, W, 3\].*\[16, 16, 3\]",
        ),
        (np.zeros((2, 16, 16, 4), np.uint8), np.zeros((2, 16, 16, 4), np.uint8), "^images .*shape"),
        ([0], np.zeros((2, 16, 16, 3), np.uint8), "^images .*numpy.*list"),
        (np.zeros((2, 16, 16, 3), np.uint8), None, "references="),
        (np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16, 3), np.int64), "^references .*int64"),
        (
            np.zeros((2, 16, 16, 3), np.uint8),
            np.zeros((1, 16, 16, 3), np.uint8),
            r"\[2, 16, 16, 3\].*\[1, 16, 16, 3\]",
        ),
    ],
)
def test_wrong_arguments_are_named(name, images, references, message):
    with pytest.raises(MetricError, match=message):
        metric(name).score(images, references=references)


def test_ssim_says_how_small_is_too_small():
    tiny = np.zeros((1, 8, 20, 3), np.uint8)
    with pytest.raises(MetricError, match="11 x 11 px, not 20 x 8"):
        metric("ssim").score(tiny, references=tiny)


def test_metrics_never_load_torch():
    code = (
        "import sys, numpy as np\n"
        "from ecad.metrics import metric, metric_names\n"
        "image = np.zeros((1, 16, 16, 3), np.uint8)\n"
        "[metric(name).score(image, references=image) for name in metric_names()]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

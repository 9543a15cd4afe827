"""The image generator: the stock pipeline's images, noise by seed alone, passes that share nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ecad import Cancelled, load_image_generator
from ecad.execution import ExecutionError
from ecad.models.protocol import PROMPT_LIMIT
from ecad.schedule import heuristics
from ecad.schedule.layouts import pixart_layout


@pytest.fixture(scope="module")
def reference(tiny_pixart_path):
    return load_image_generator(tiny_pixart_path, mode="reference")


@pytest.fixture(scope="module")
def fast(tiny_pixart_path):
    return load_image_generator(tiny_pixart_path)


def test_it_describes_the_model_it_holds(reference):
    assert reference.layout == pixart_layout(4)
    assert (reference.height, reference.width, reference.rows) == (256, 256, 20)
    assert reference.timesteps[0] == 999 and len(reference.timesteps) == 20
    table = reference.cost_table()
    assert table.macs(heuristics.uncached(reference.layout, 20)).total > 0
    assert json.loads(json.dumps(reference.fingerprint())) == reference.fingerprint()
    assert len(reference.fingerprint()["weights"]) == 64


def test_an_uncached_image_is_the_stock_pipelines_to_the_byte(reference):
    pipe = reference.pipe
    stock = pipe(
        "a red house",
        num_inference_steps=20,
        guidance_scale=4.5,
        generator=torch.Generator().manual_seed(7),
        output_type="pil",
    ).images[0]
    ours = reference.generate(["a red house"], [7])
    assert ours.dtype == np.uint8 and ours.shape == (1, 256, 256, 3)
    assert np.array_equal(ours[0], np.asarray(stock))


def test_noise_depends_on_the_seed_alone(reference):
    batch = reference.noise([5, 6, 5])
    alone = torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(5))
    assert torch.equal(batch[:1], alone) and torch.equal(batch[2:], alone)
    assert not torch.equal(batch[1:2], alone)


@pytest.mark.parametrize("kind", ["reference", "fast"])
def test_batch_mates_and_their_order_change_nothing(kind, request):
    generator = request.getfixturevalue(kind)
    schedule = heuristics.fora(generator.layout, 6, 2)
    prompts, seeds = ["a red house", "a blue car at night", "a tree"], [1, 2, 3]
    embeddings = generator.encode(prompts)
    together = generator.denoise(embeddings, seeds, schedule)
    order = [2, 0, 1]
    permuted = generator.denoise(
        generator.encode([prompts[i] for i in order]), [seeds[i] for i in order], schedule
    )
    assert torch.equal(permuted, together[order])
    for i in range(3):
        alone = generator.denoise(embeddings[i : i + 1], seeds[i : i + 1], schedule)
        assert (alone - together[i]).abs().max() / together.std() < 1e-4


def test_passes_inside_a_pass_share_nothing(fast):
    schedule = heuristics.fora(fast.layout, 6, 3)
    one, two = fast.encode(["a red house"]), fast.encode(["a blue car", "a tree"])
    alone = fast.denoise(one, [1], schedule)
    inner = []

    def interrupt(row, rows):
        assert rows == 6
        if row == 4:
            inner.append(fast.denoise(two, [2, 3], heuristics.fora(fast.layout, 5, 2)))

    assert torch.equal(fast.denoise(one, [1], schedule, on_row=interrupt), alone)
    assert torch.equal(inner[0], fast.denoise(two, [2, 3], heuristics.fora(fast.layout, 5, 2)))


def test_a_callback_hears_each_row_before_it_runs_and_may_cancel(fast):
    rows = []

    def stop(row, count):
        rows.append(row)
        if row == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        fast.denoise(fast.encode(["a tree"]), [1], heuristics.uncached(fast.layout, 4), on_row=stop)
    assert rows == [0, 1, 2]


def test_a_schedule_with_its_own_times_runs_on_them(fast):
    grid = fast.timesteps
    few = heuristics.fewer_steps(fast.layout, 8, spacing="late", grid=grid)
    embeddings = fast.encode(["a tree"])
    assert not torch.equal(
        fast.denoise(embeddings, [1], few), fast.denoise(embeddings, [1], heuristics.uncached(fast.layout, 8))
    )


def test_embeddings_do_not_depend_on_their_neighbours(fast):
    together = fast.encode(["a red house", "a blue car at night", "a red house"])
    assert len(together) == 3 and len(together[1:]) == 2
    assert torch.equal(together[1:2].text, fast.encode(["a blue car at night"]).text)
    assert torch.equal(together[:1].text, together[2:].text)


def test_wrong_input_is_refused_with_one_sentence(fast, tmp_path, tiny_pixart_path):
    with pytest.raises(ExecutionError, match="prompt is empty"):
        fast.encode(["a tree", "  "])
    with pytest.raises(ExecutionError, match=f"10,000 characters; the limit is {PROMPT_LIMIT:,}"):
        fast.encode(["a" * 10_000])
    with pytest.raises(ExecutionError, match="whole number"):
        fast.generate(["a tree"], ["seven"])
    with pytest.raises(ExecutionError, match="1 prompts but 2 seeds"):
        fast.generate(["a tree"], [1, 2])
    with pytest.raises(ExecutionError, match=r"pixart-28.*pixart-4"):
        fast.generate(["a tree"], [1], heuristics.uncached(pixart_layout(28), 20))
    with pytest.raises(ExecutionError, match="no model 'nowhere'"):
        load_image_generator("nowhere")
    with pytest.raises(ExecutionError, match="not a saved diffusers pipeline"):
        load_image_generator(tmp_path)
    with pytest.raises(ExecutionError, match="float16 or bfloat16, not 'int5'"):
        load_image_generator(tiny_pixart_path, dtype="int5")

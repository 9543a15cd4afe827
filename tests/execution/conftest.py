"""An independent oracle: the original's semantics by wrapped modules, and small pipelines to run."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

# Where FLUX's components lie in diffusers' modules; PixArt's carry their own names.
FLUX_MODULES = {
    "full_attn": "attn",
    "full_ff": "ff",
    "full_ff_context": "ff_context",
    "single_attn": "attn",
    "single_proj_mlp": "proj_mlp",
    "single_proj_out": "proj_out",
}


def module_of(transformer, component):
    if component.block.startswith("single_"):
        block = transformer.single_transformer_blocks[int(component.block.removeprefix("single_"))]
    else:
        block = transformer.transformer_blocks[int(component.block)]
    return getattr(block, FLUX_MODULES.get(component.name, component.name))


@contextmanager
def wrapped_modules(pipe, schedule, kinds=1):
    """Run the stock pipeline with every component's module wrapped: compute or return its last output.

    Nothing of `ecad.execution` takes part: raw bits, every output kept, a component without a kept output
    computes. The row is the number of the transformer's call; `kinds` calls make a step, each with its own
    cache.
    """
    transformer, kept, calls = pipe.transformer, {}, [-1]
    modules = {c.index: module_of(transformer, c) for c in schedule.layout.components}

    def count(*_):
        calls[0] += 1

    def wrap(module, column):
        forward = type(module).forward

        def call(*args, **kwargs):
            row, kind = divmod(calls[0], kinds)
            if schedule.bits[row, column] or (kind, column) not in kept:
                kept[kind, column] = forward(module, *args, **kwargs)
            return kept[kind, column]

        module.forward = call

    handle = transformer.register_forward_pre_hook(count)
    for column, module in modules.items():
        wrap(module, column)
    try:
        yield
    finally:
        handle.remove()
        for module in modules.values():
            del module.forward


@pytest.fixture(scope="session")
def oracle():
    """latents = oracle(pipe, schedule, **call): final latents of the wrapped stock pipeline."""

    def run(pipe, schedule, kinds=1, **call):
        with wrapped_modules(pipe, schedule, kinds):
            return latents_of(pipe, **schedule.call(), **call)

    return run


def latents_of(pipe, prompt="a red house", *, seed=3, **call):
    """Final latents of one stock call on the CPU; `seed` for one image or a list of seeds for several."""
    import torch

    seeds = [seed] if isinstance(seed, int) else seed
    generators = [torch.Generator().manual_seed(one) for one in seeds]
    call.setdefault("max_sequence_length", 24)
    return pipe(prompt, generator=generators, output_type="latent", **call).images


@pytest.fixture(scope="session")
def latents():
    return latents_of


@pytest.fixture(scope="session")
def distance():
    """Largest difference over the spread: the measure of the project's tolerance."""
    return lambda a, b: float((a - b).abs().max() / b.std())


def load(path):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(path)
    pipe.set_progress_bar_config(disable=True)
    _let_every_component_matter(pipe)
    return pipe


def _let_every_component_matter(pipe):
    """Random weights barely listen to the text, or to attention at all: a wrong value there would not be seen.

    Nor would it behind noise that a random model mistakes for an image at the first time, a hundred times too
    large: hence the prediction of velocity.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler

    transformer, draw = pipe.transformer, torch.nn.init.normal_
    torch.manual_seed(0)
    with torch.no_grad():
        if hasattr(transformer, "caption_projection"):
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(
                pipe.scheduler.config, prediction_type="v_prediction"
            )
            draw(transformer.caption_projection.linear_1.weight, std=1.0)
            draw(transformer.caption_projection.linear_2.weight, std=1.0)
            for block in transformer.transformer_blocks:
                for attention, out in ((block.attn1, 0.3), (block.attn2, 0.5)):
                    for linear in (attention.to_q, attention.to_k, attention.to_v):
                        draw(linear.weight, std=0.25)
                    draw(attention.to_out[0].weight, std=out)
                draw(block.ff.net[0].proj.weight, std=0.25)
                draw(block.ff.net[2].weight, std=0.25)
            draw(transformer.proj_out.weight, std=0.02)
        else:
            draw(transformer.context_embedder.weight, std=1.0)
            for name, weight in transformer.named_parameters():
                if "transformer_blocks" in name and name.endswith("weight") and weight.ndim == 2:
                    draw(weight, std=0.3)


@pytest.fixture(scope="session")
def pixart(tiny_pixart_path):
    return load(tiny_pixart_path)


@pytest.fixture(scope="session")
def pixart64(tiny_pixart_path):
    """The same in float64: what differs there by more than 1e-8 is wrong, however strongly the model amplifies."""
    import torch

    return load(tiny_pixart_path).to(torch.float64)


@pytest.fixture(scope="session")
def plain_pixart(tiny_pixart_path):
    """The same with the weights as they were drawn, which amplify rounding no more than trained ones do."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(tiny_pixart_path)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def sigma(tiny_sigma_path):
    return load(tiny_sigma_path)


@pytest.fixture(scope="session")
def flux(tiny_flux_path):
    return load(tiny_flux_path)


@pytest.fixture(scope="session")
def random_schedules():
    """count random schedules of a layout: from sparse to dense, with short and long stretches."""
    from ecad.schedule import Schedule

    def make(layout, rows, count, seed=0):
        rng = np.random.default_rng(seed)
        made = []
        for number in range(count):
            share = rng.uniform(0.05, 0.95)
            bits = rng.random((rows, len(layout))) < share
            if number % 3 == 1:  # whole rows
                bits[rng.random(rows) < 0.5] = False
            elif number % 3 == 2:  # long stretches: runs of the same bit
                run = int(rng.integers(2, 13))
                flat = np.repeat(rng.random(bits.size // run + 1) < share, run)[: bits.size]
                bits = flat.reshape(bits.shape)
            made.append(Schedule(layout, bits, name=f"random-{number}"))
        return made

    return make


@pytest.fixture(scope="session")
def alternating_ends():
    """make(layout, rows): a FLUX schedule in the manner of those that a search finds, by a rule of our own.

    Odd rows compute nothing; rows 0 and 4 everything; the other even ones in turn the front of the model (two-stream
    blocks and the first third of the single ones) and the rest of it.
    """
    from ecad.schedule import Schedule

    def make(layout, rows):
        singles = [c.index for c in layout.components if c.block.startswith("single_")]
        front = singles[0] + len(singles) // 9 * 3
        bits = np.zeros((rows, len(layout)), dtype=bool)
        for row in range(0, rows, 2):
            if row in (0, 4):
                bits[row] = True
            elif row % 4 == 2:
                bits[row, :front] = True
            else:
                bits[row, front:] = True
        return Schedule(layout, bits, name="alternating-ends")

    return make

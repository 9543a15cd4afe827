"""What the page's services need of a model, without loading one: the storybook's layout, times and costs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import ecad
from app.services.schedules import Schedules


def dpm_grid(rows: int) -> tuple[int, ...]:
    """The sampler's own times: evenly from 999 down, without 0."""
    return tuple(round(999 * (rows - row) / rows) for row in range(rows))


@pytest.fixture(scope="session")
def description():
    """Layout, grid and costs of the embedded model; its weights play no part in what the page computes of
    them."""
    return SimpleNamespace(
        name="storybook",
        layout=ecad.layout("storybook"),
        rows=20,
        timesteps=dpm_grid(20),
        cost_table=lambda convention="full": ecad.cost_table("storybook", convention=convention),
    )


@pytest.fixture(scope="session")
def schedules(description):
    return Schedules(description)

"""The measure of the project's tolerance."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def distance():
    """Largest difference over the spread."""
    return lambda a, b: float((a - b).abs().max() / b.std())

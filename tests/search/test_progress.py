"""The estimate of the time left."""

from __future__ import annotations

import pytest

from ecad.search.progress import OVERHEAD, USUAL_COST, Pace


def test_the_time_left_follows_effort_and_the_nearest_limit(toy):
    pace = Pace()
    settings = toy.toy_settings(population=10, generations=3)
    assert pace.eta(settings, 1, 0, 0.0) is None
    pace.took(1.0, 2 * (1.0 + OVERHEAD))  # two seconds per effort
    pace.took(0.2, 2 * (0.2 + OVERHEAD))
    pace.left([0.5, 0.3])
    rest = 2 * (0.8 + 2 * OVERHEAD) + 2 * 10 * 2 * (USUAL_COST + OVERHEAD)
    assert pace.eta(settings, 1, 30, 5.0) == pytest.approx(rest)
    assert pace.eta(settings.replace(time_limit=8.0), 1, 30, 5.0) == pytest.approx(3.0)
    assert pace.eta(settings.replace(evaluations=31), 1, 30, 5.0) == pytest.approx(
        2 * (USUAL_COST + OVERHEAD)
    )
    assert pace.eta(settings.replace(evaluations=31), 1, 40, 5.0) == 0.0
    assert pace.eta(settings.replace(generations=None, plateau=3), 1, 30, 5.0) is None

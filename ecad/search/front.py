"""The non-dominated points of two objectives, both minimised, and the area that they dominate."""

from __future__ import annotations

from collections.abc import Sequence


def non_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the non-dominated points, by rising first objective. O(n log n).

    Of equal points the first of the sequence stands for all. A point with a NaN is on no front.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], points[i][1], i))
    front: list[int] = []
    best = float("inf")
    for i in order:
        if points[i][0] == points[i][0] and points[i][1] < best:
            front.append(i)
            best = points[i][1]
    return front


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that the points dominate below `reference`: the sum of the front's rectangles."""
    inside = [point for point in points if point[0] < reference[0] and point[1] < reference[1]]
    area, ceiling = 0.0, reference[1]
    for i in non_dominated(inside):
        x, y = inside[i]
        area += (reference[0] - x) * (ceiling - y)
        ceiling = y
    return area

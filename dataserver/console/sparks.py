"""A sparkline as points of SVG shapes: the band between minimum and maximum, and a line."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

from dataserver.graphs.model import Sparkline

WIDTH, HEIGHT = 96, 20
#: Margin above and below, so that a flat line is fully visible.
_EDGE = 2


class Drawn(NamedTuple):
    """The points of the band and of the line of last values; ``words`` is the text alternative."""

    band: str
    line: str
    words: str


def drawn(line: Sparkline) -> Drawn:
    """``line`` in a picture of :data:`WIDTH` by :data:`HEIGHT`; empty without any value."""
    line = tuple(column if column and all(map(isfinite, column)) else None for column in line)
    known = [column for column in line if column is not None]
    if not known:
        return Drawn("", "", "last day: no value")
    low, high = min(c.minimum for c in known), max(c.maximum for c in known)
    unit = WIDTH / len(line)
    upper: list[tuple[float, float]] = []
    lower: list[tuple[float, float]] = []
    lasts: list[tuple[float, float]] = []
    for place, column in enumerate(line):
        if column is None:
            continue
        left, right = place * unit, (place + 1) * unit
        top, bottom = _y(column.maximum, low, high), _y(column.minimum, low, high)
        _step(upper, left, right, top)
        _step(lower, left, right, bottom)
        _step(lasts, left, right, _y(column.last, low, high))
    words = f"last day: {low:g}" if low == high else f"last day: {low:g} to {high:g}"
    return Drawn(_points([*upper, *reversed(lower)]), _points(lasts), words)


def _step(points: list[tuple[float, float]], left: float, right: float, y: float) -> None:
    """Continue at ``y`` from left to right; a straight line gets no point in between."""
    if len(points) > 1 and points[-1] == (left, y):
        points[-1] = (right, y)
    else:
        points += [(left, y), (right, y)]


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _y(value: float, low: float, high: float) -> float:
    # Halves: the whole span may exceed a float.
    span = high / 2 - low / 2
    share = (value / 2 - low / 2) / span if span > 0 else 0.5
    return round(HEIGHT - _EDGE - share * (HEIGHT - 2 * _EDGE), 1)

"""A sparkline as the points of an SVG polygon: the band between least and greatest."""

from __future__ import annotations

from typing import NamedTuple

from dataserver.graphs.model import Sparkline

WIDTH, HEIGHT = 96, 20
#: Room above and below, so that a flat line is seen whole.
_EDGE = 2


class Drawn(NamedTuple):
    """The points of a band and of the line of last values; ``words`` for who does not see them."""

    band: str
    line: str
    words: str


def drawn(line: Sparkline) -> Drawn:
    """``line`` in a picture of :data:`WIDTH` by :data:`HEIGHT`."""
    known = [column for column in line if column is not None]
    low, high = min(c.minimum for c in known), max(c.maximum for c in known)
    unit = WIDTH / len(line)
    upper, lower, lasts = [], [], []
    for place, column in enumerate(line):
        if column is None:
            continue
        left, right = place * unit, (place + 1) * unit
        top, bottom = _y(column.maximum, low, high), _y(column.minimum, low, high)
        upper += [f"{left:.1f},{top}", f"{right:.1f},{top}"]
        lower += [f"{left:.1f},{bottom}", f"{right:.1f},{bottom}"]
        last = _y(column.last, low, high)
        lasts += [f"{left:.1f},{last}", f"{right:.1f},{last}"]
    words = f"last day: {low:g}" if low == high else f"last day: {low:g} to {high:g}"
    return Drawn(" ".join([*upper, *reversed(lower)]), " ".join(lasts), words)


def _y(value: float, low: float, high: float) -> str:
    share = 0.5 if low == high else (value - low) / (high - low)
    return f"{HEIGHT - _EDGE - share * (HEIGHT - 2 * _EDGE):.1f}"

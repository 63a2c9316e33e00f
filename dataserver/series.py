"""The step function of a module: a value holds from its time until the next one.

Points are (time, value) in order of time; of several with the same time the last one
is the value from then on.  Pure: whoever calls has read the points.
"""

from __future__ import annotations

from bisect import bisect_right, insort_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

V = TypeVar("V", float, str)
Point = tuple[int, V]


class Aggregate(NamedTuple):
    """One span of a series: its bounds in time, and what the function did there.

    ``mean`` is weighted by time; None where the function was not yet defined or is text.
    """

    start: int
    end: int
    last: float | str | None
    minimum: float | str | None
    maximum: float | str | None
    mean: float | None


def _time(point: Point[V]) -> int:
    return point[0]


def value_at(points: Sequence[Point[V]], time: int) -> V | None:
    """The value at ``time``: that of the last point not after it, None before the first."""
    index = bisect_right(points, time, key=_time)
    return points[index - 1][1] if index else None


def steps(points: Sequence[Point[V]], start: int, end: int) -> list[Point[V]]:
    """The function between ``start`` and ``end``: its value at the start, then each change."""
    first = value_at(points, start)
    inside = points[bisect_right(points, start, key=_time) : bisect_right(points, end, key=_time)]
    return ([(start, first)] if first is not None else []) + list(inside)


def aggregate(points: Sequence[Point[V]], start: int, end: int, step: int) -> Iterator[Aggregate]:
    """The function from ``start`` to ``end`` in spans of ``step`` seconds (the last may be short)."""
    if step <= 0:
        raise ValueError("step must be at least one second")
    for left in range(start, end, step):
        right = min(left + step, end)
        # A point exactly on the right edge belongs to the next span.
        yield _span(steps(points, left, right - 1), left, right)


def _span(path: list[Point[V]], left: int, right: int) -> Aggregate:
    if not path:
        return Aggregate(left, right, None, None, None, None)
    values = [value for _, value in path]
    ends = [time for time, _ in path[1:]] + [right]
    mean = None
    if all(isinstance(value, int | float) for value in values):
        weighted = sum(
            float(value) * (end - time) for (time, value), end in zip(path, ends, strict=True)
        )
        mean = weighted / (right - path[0][0])
    return Aggregate(left, right, values[-1], min(values), max(values), mean)


def insert_late(
    points: list[Point[V]], time: int, value: V, next_known: int | None
) -> list[Point[V]]:
    """Put a late ``value`` into ``points``; the points that had to be added, in order of time.

    Exact (invariant 7): the function gives ``value`` at ``time`` and, at ``next_known`` and
    after, what it gave before.  ``next_known`` is the next time at which the function is known
    to be right as it was: the agent's next packet, or one second later for a value that came
    with a time of its own; None where nothing later is known.
    """
    before = value_at(points, time)
    if before == value:
        return []
    added = [(time, value)]
    if before is not None and next_known is not None and not _between(points, time, next_known):
        added.append((next_known, before))
    for point in added:
        insort_right(points, point, key=_time)
    return added


def _between(points: Sequence[Point[V]], after: int, until: int) -> bool:
    """Whether some point lies in (after, until]."""
    index = bisect_right(points, after, key=_time)
    return index < len(points) and points[index][0] <= until


def next_after(times: Sequence[int], time: int) -> int | None:
    """The first of the sorted ``times`` that is after ``time``."""
    index = bisect_right(times, time)
    return times[index] if index < len(times) else None


def in_order(points: Iterable[Point[V]]) -> list[Point[V]]:
    """``points`` sorted by time; those of the same time stay in the order they came."""
    return sorted(points, key=_time)

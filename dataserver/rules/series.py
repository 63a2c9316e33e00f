"""A module's history as a step function: a value holds from its time until the next one.  Pure.

Points are (time, value) in order of time; of several with the same time the last one
is the value from then on.

Reading back (:func:`steps`, :func:`aggregate`) consumes points one by one and keeps none of
them, so a span may contain any number; inserting late values works on a list.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, compress, pairwise, takewhile
from operator import add, mul, sub
from typing import NamedTuple, TypeVar

V = TypeVar("V", bound=float | str)
Point = tuple[int, V]


class Aggregate(NamedTuple):
    """The summary of one span [start, end) of a series, in seconds.

    ``last`` is the value at the span's end, or None if the function is not defined yet.
    ``minimum``, ``maximum`` and ``mean`` (weighted by time) are those of the part where it is
    defined; None if it is defined nowhere, or if any value is text.
    """

    start: int
    end: int
    last: float | str | None
    minimum: float | None
    maximum: float | None
    mean: float | None


class Bucket(NamedTuple):
    """The summary of the points in one column of a graph; ``column`` is its number, from 0.

    ``first`` is the time of its first point, ``last`` the value at its end, ``changes`` the number
    of its points.  ``area`` is value times seconds, ``over`` the seconds at or above each of the
    given edges, both from the first point to the column's end; the part before the first point
    depends on the previous column.
    """

    column: int
    first: int
    last: float
    changes: int
    minimum: float
    maximum: float
    area: float
    over: tuple[int, ...] = ()


def _time(point: Point[V]) -> int:
    return point[0]


def value_at(points: Sequence[Point[V]], time: int) -> V | None:
    """The value at ``time``: that of the last point not after it, or None before the first."""
    index = bisect_right(points, time, key=_time)
    return points[index - 1][1] if index else None


def steps(points: Iterable[Point[V]], start: int, end: int) -> Iterator[Point[V]]:
    """The function from ``start`` to ``end``: its value at the start, then each point after it.

    ``points`` must include the last one that is not after ``start``; earlier ones do not matter.
    """
    path = iter(points)
    at_start: Point[V] | None = None
    for point in path:
        if point[0] > start:
            path = chain((point,), path)
            break
        at_start = (start, point[1])
    if at_start is not None:
        yield at_start
    yield from takewhile(lambda point: point[0] <= end, path)


def aggregate(points: Iterable[Point[V]], lefts: Sequence[int], end: int) -> Iterator[Aggregate]:
    """The function in spans that begin at ``lefts``, each until the next, the last until ``end``.

    ``points`` as for :func:`steps`.  A point on the edge between two spans belongs to the
    later one.
    """
    if not lefts:
        return
    path = steps(points, lefts[0], end - 1)
    following = next(path, None)
    value: V | None = None
    for left, right in pairwise(chain(lefts, (end,))):
        span, since = _Span(), left
        while following is not None and following[0] < right:
            span.hold(value, following[0] - since)
            since, value = following
            following = next(path, None)
        span.hold(value, right - since)
        yield Aggregate(left, right, value, *span.summary())


class _Span:
    """Sums up the values held in one span, in constant memory."""

    __slots__ = ("_area", "_has_text", "_maximum", "_minimum", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0
        self._area = 0.0
        self._minimum = math.inf
        self._maximum = -math.inf
        self._has_text = False

    def hold(self, value: float | str | None, seconds: int) -> None:
        """Add ``value``, held for ``seconds``; ignored if that is zero."""
        if value is None or not seconds:
            return
        if isinstance(value, str):
            self._has_text = True
            return
        self._seconds += seconds
        self._area += value * seconds
        self._minimum = min(self._minimum, value)
        self._maximum = max(self._maximum, value)

    def summary(self) -> tuple[float | None, float | None, float | None]:
        """Minimum, maximum, mean."""
        if self._has_text or not self._seconds:
            return None, None, None
        mean = self._area / self._seconds
        # Rounding may move the mean of equal values slightly away from them; the sum of values
        # near both ends of the range of doubles may be NaN.
        within = min(max(mean, self._minimum), self._maximum)
        return self._minimum, self._maximum, None if math.isnan(mean) else within


def buckets(
    times: Sequence[int],
    values: Sequence[float],
    lefts: Sequence[int],
    until: int,
    edges: Sequence[float] = (),
) -> Iterator[Bucket]:
    """Points in order of time summed up in columns that begin at ``lefts``, the last one unbounded.

    The last value holds until ``until``, which is no earlier than the last time.
    """
    left, count = 0, len(times)
    while left < count:
        column = bisect_right(lefts, times[left]) - 1
        is_last = column + 1 == len(lefts)
        end = until if is_last else lefts[column + 1]
        right = count if is_last else bisect_left(times, end, left)
        inside = values[left:right]
        following = times[right] if right < count else until
        ends = (*times[left + 1 : right], min(following, end))
        seconds = list(map(sub, ends, times[left:right]))
        low, high = min(inside), max(inside)
        yield Bucket(
            column=column,
            first=times[left],
            last=inside[-1],
            changes=right - left,
            minimum=low,
            maximum=high,
            area=math.fsum(map(mul, inside, seconds)),
            over=tuple(_over(edge, inside, seconds, low, high) for edge in edges),
        )
        left = right


def _over(
    edge: float, values: Sequence[float], seconds: Sequence[int], low: float, high: float
) -> int:
    """Seconds for which the values were at or above ``edge``; they are in [``low``, ``high``]."""
    if high < edge:
        return 0
    return sum(seconds if low >= edge else compress(seconds, map(float(edge).__le__, values)))


def merged(one: Bucket, other: Bucket) -> Bucket:
    """The summary of both parts of one column; ``other`` begins where ``one`` ends."""
    return Bucket(
        column=one.column,
        first=one.first,
        last=other.last,
        changes=one.changes + other.changes,
        minimum=min(one.minimum, other.minimum),
        maximum=max(one.maximum, other.maximum),
        area=one.area + other.area,
        over=tuple(map(add, one.over, other.over)),
    )


def insert_late(
    points: list[Point[V]], time: int, value: V, next_known: int | None
) -> list[Point[V]]:
    """Insert a late ``value`` into ``points``; returns the added points in order of time.

    Exact (invariant 7): the function gives ``value`` at ``time`` and, at ``next_known`` and
    after, the same as before.  ``next_known`` is the next time at which the function is known
    to be right as it was: the agent's next packet, or one second later for a value with a time of
    its own; None if no later time is known.
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


def has_point(points: Sequence[Point[V]], time: int) -> bool:
    """Whether there is a point at ``time``."""
    return _between(points, time - 1, time)


def _between(points: Sequence[Point[V]], after: int, until: int) -> bool:
    """Whether there is a point in (after, until]."""
    index = bisect_right(points, after, key=_time)
    return index < len(points) and points[index][0] <= until


def next_after(times: Sequence[int], time: int) -> int | None:
    """The first of the sorted ``times`` that is after ``time``."""
    index = bisect_right(times, time)
    return times[index] if index < len(times) else None

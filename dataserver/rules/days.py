"""Dividing a span of time into the columns of a graph: of equal length, or of local days.  Pure.

A local day begins at midnight and has 23, 24 or 25 hours; if clocks change at midnight, it
begins with the change, and a zone that crosses the date line may skip one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

DAY = 86_400
_WEEK = 7
#: Columns at least as long as the shortest day, in seconds, become days.
_SHORTEST = 82_800


class Columns(NamedTuple):
    """Where columns begin, strictly increasing; each ends where the next one begins.

    ``step`` is their length in seconds; for days, 86400 times the number of days.
    """

    lefts: Sequence[int]
    step: int


def columns(start: int, end: int, step: int, zone: tzinfo) -> Columns:
    """[start, end), epoch seconds, in columns of ``step`` seconds; the last may be shorter.

    A whole number of days means days of the ``zone``: the second column and all after it begin
    at midnight; for whole weeks, on Mondays.
    """
    is_days = step % DAY == 0
    return Columns(
        _days(start, end, step // DAY, zone) if is_days else range(start, end, step), step
    )


def columns_at_most(start: int, end: int, most: int, zone: tzinfo, *, unit: int = 1) -> Columns:
    """[start, end) in at most ``most`` columns, of a multiple of ``unit`` seconds each.

    If they are as long as a day, each is the same number of days of the ``zone``.
    """
    step = unit * max(1, -((start - end) // (unit * most)))
    if step < _SHORTEST:
        return Columns(range(start, end, step), step)
    count = max(1, step // DAY, -(-unit // DAY))
    while len(lefts := _days(start, end, count, zone)) > most:
        count += 1
    return Columns(lefts, count * DAY)


def beginning(time: int, step: int, zone: tzinfo) -> int:
    """When the local day of ``time`` began, or its week if ``step`` is whole weeks."""
    return _begin(_first(time, step // DAY, zone), zone)


def _days(start: int, end: int, count: int, zone: tzinfo) -> list[int]:
    """``start``, then the beginning of each ``count``-th day up to ``end``."""
    found = [start] if start < end else []
    day = _first(start, count, zone)
    try:
        while found:
            day += timedelta(days=count)
            left = _begin(day, zone)
            if left >= end:
                break
            # A day that the zone skips begins with the next one.
            if left > found[-1]:
                found.append(left)
    except OverflowError:
        pass  # after the year 9999
    return found


def _first(time: int, count: int, zone: tzinfo) -> date:
    """The local day of ``time``, or for whole weeks the Monday of its week."""
    day = datetime.fromtimestamp(time, zone).date()
    return day - timedelta(days=day.weekday()) if count % _WEEK == 0 else day


def _begin(day: date, zone: tzinfo) -> int:
    """The first second of a local day, or of the next one if the zone skips it."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    high = int(midnight.timestamp())
    if datetime.fromtimestamp(high, zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return high
    # A change of clocks skips midnight: find the first second with this date or a later one.
    low = high - 2 * DAY
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).date() < day:
            low = middle
        else:
            high = middle
    return high

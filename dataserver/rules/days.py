"""Columns of time: of equal length, or of local days.

A day of a zone begins at its midnight and has 23, 24 or 25 hours, where clocks change at midnight
it begins with the change, and a zone that crosses the date line may skip one.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

DAY = 86_400
_WEEK = 7
#: Columns of a graph that are as long as the shortest day, in seconds, are days.
_SHORTEST = 82_800


class Columns(NamedTuple):
    """Where columns begin, strictly increasing; each ends where the next one begins.

    ``step`` is their length in seconds, of days that of as many usual days.
    """

    lefts: Sequence[int]
    step: int


def columns(start: int, end: int, step: int, zone: tzinfo) -> Columns:
    """[start, end), epoch seconds, in columns of ``step`` seconds, the last maybe shorter.

    A whole number of days means days of the ``zone``: the second column begins at a midnight, and
    so do all after it.  Of weeks they begin on Mondays.
    """
    is_days = step % DAY == 0
    return Columns(
        _days(start, end, step // DAY, zone) if is_days else range(start, end, step), step
    )


def columns_at_most(start: int, end: int, most: int, zone: tzinfo, *, unit: int = 1) -> Columns:
    """[start, end) in at most ``most`` columns, of a multiple of ``unit`` seconds each.

    Where they are as long as a day they are days of the ``zone``, of which each has as many.
    """
    step = unit * max(1, -((start - end) // (unit * most)))
    if step < _SHORTEST:
        return Columns(range(start, end, step), step)
    count = max(1, step // DAY, -(-unit // DAY))
    while len(lefts := _days(start, end, count, zone)) > most:
        count += 1
    return Columns(lefts, count * DAY)


def beginning(time: int, step: int, zone: tzinfo) -> int:
    """When the local day of ``time`` began; where ``step`` is weeks, its week."""
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
        pass  # after the year 9999: there is no such day
    return found


def _first(time: int, count: int, zone: tzinfo) -> date:
    """The local day of ``time``, of weeks their Monday."""
    day = datetime.fromtimestamp(time, zone).date()
    return day - timedelta(days=day.weekday()) if count % _WEEK == 0 else day


def _begin(day: date, zone: tzinfo) -> int:
    """The first second of a local day; of one that the zone skips, of the day after it."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    high = int(midnight.timestamp())
    if datetime.fromtimestamp(high, zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return high
    # A change of clocks skips midnight.  It is the first second with this date, or a later one.
    low = high - 2 * DAY
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).date() < day:
            low = middle
        else:
            high = middle
    return high

"""When a module without a new value becomes unknown: by its interval or its cron expression.

A module's ``cron_interval`` determines when its values are expected:

==========================  ==========================================================
empty, up to four digits    every ``interval`` seconds
five and more digits        every that many seconds, or ``interval`` if that is longer
minutes ``*``               every ``interval`` seconds, while hours and days match
other minutes               once each time that the expression matches: ``0-30 3 * * *``
                            is once a night, between 3:00 and 3:30
an invalid expression       every ``interval`` seconds
==========================  ==========================================================

It is silent for too long when two expected values in a row did not arrive.  Expressions are those
of planned downtimes (:mod:`dataserver.rules.downtimes`), in local time.  No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Final

from dataserver.rules.downtimes import Cron, parse_cron

#: Seconds, for a module without an interval of an agent without one.
DEFAULT_INTERVAL: Final = 300
#: Intervals of silence after which a module is unknown, an agent overdue.
UNKNOWN_AFTER: Final = 2
#: Shorter texts in ``cron_interval`` are not expressions; the interval counts.
SHORTEST: Final = 5
#: Seconds by which a value may be early or late: agents' clocks differ, and they check the time
#: once per interval.
TOLERANCE: Final = 300

#: The longest time between two leap days on the same day of the week: an expression that matches
#: no day within it never matches.
_DAYS_AHEAD: Final = 40 * 366
_EVERY_MINUTE: Final = frozenset(range(60))
#: The largest value of the column of a state's interval.
_LONGEST: Final = 2**31 - 1


def silent_until(cron_interval: str, seen: int, interval: int, zone: tzinfo) -> int:
    """Until when (epoch s) a module with its newest value at ``seen`` may be silent.

    ``interval`` in seconds: the module's, or its agent's if it has none.
    """
    if len(cron_interval) < SHORTEST:
        return seen + UNKNOWN_AFTER * interval
    if cron_interval.isdecimal() and cron_interval.isascii():
        return seen + UNKNOWN_AFTER * max(_number(cron_interval), interval)
    return _by_expression(cron_interval, seen, interval, zone)


def expected_interval(cron_interval: str, seen: int, interval: int, zone: tzinfo) -> int:
    """Half of the time, in seconds, for which a module may be silent after ``seen``."""
    silence = silent_until(cron_interval, seen, interval, zone) - seen
    return min(-(-silence // UNKNOWN_AFTER), _LONGEST)


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= len(str(_LONGEST)) else _LONGEST


@lru_cache(maxsize=8_192)
def _by_expression(text: str, seen: int, interval: int, zone: tzinfo) -> int:
    cron = parse_cron(text)
    if cron is not None:
        every_minute = cron.minutes == _EVERY_MINUTE
        found = _next_intervals if every_minute else _next_times
        until = found(cron, seen, interval, zone)
        if until is not None:
            return until
    return seen + UNKNOWN_AFTER * interval


def _next_intervals(cron: Cron, seen: int, interval: int, zone: tzinfo) -> int | None:
    """The end of the second interval after ``seen`` within the matching hours and days, or None."""
    end = seen
    for _ in range(UNKNOWN_AFTER):
        wanted = end + interval
        windows = _windows(cron, wanted, zone)
        window = next((each for each in windows if each[1] > wanted), None)
        if window is None:
            return None
        end = max(wanted, window[0])
    # After waiting for its hours, the value may arrive at any time within the interval.
    return end if end == seen + UNKNOWN_AFTER * interval else end + TOLERANCE


def _next_times(cron: Cron, seen: int, _interval: int, zone: tzinfo) -> int | None:
    """The end of the second window after the one that contains ``seen``, or None."""
    windows = (each for each in _windows(cron, seen, zone) if each[0] > seen + TOLERANCE)
    second = next(islice(windows, UNKNOWN_AFTER - 1, None), None)
    return None if second is None else second[1] - 60 + TOLERANCE


def _windows(cron: Cron, since: int, zone: tzinfo) -> Iterator[tuple[int, int]]:
    """Begin and end (epoch s) of the runs of matching minutes, from the day of ``since`` on."""
    day = datetime.fromtimestamp(since, zone).toordinal()
    runs = _runs(cron)
    while (found := _next_day(cron.days, cron.months, cron.weekdays, day)) is not None:
        midnight = datetime.fromordinal(found)
        for first, end in runs:
            begin = midnight + timedelta(minutes=first)
            yield _epoch(begin, zone), _epoch(midnight + timedelta(minutes=end), zone)
        day = found + 1


@lru_cache(maxsize=4_096)
def _next_day(
    days: frozenset[int], months: frozenset[int], weekdays: frozenset[int], since: int
) -> int | None:
    """The first matching day from ``since`` on (both as ordinals), or None.

    Cached for all times of day: an expression that matches seldom or never takes long to search,
    and any uploader may send any number of modules with one.
    """
    day = date.fromordinal(since)
    last = day + timedelta(days=_DAYS_AHEAD)
    while day <= last:
        if day.month not in months:
            day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        elif day.day in days and day.isoweekday() % 7 in weekdays:
            return day.toordinal()
        else:
            day += timedelta(days=1)
    return None


@lru_cache(maxsize=1_024)
def _runs(cron: Cron) -> tuple[tuple[int, int], ...]:
    """The runs of matching minutes of a day: first minute, and end (not included).

    Adjacent runs, also of different hours, are joined.
    """
    runs: list[tuple[int, int]] = []
    for minute in (
        hour * 60 + minute for hour in sorted(cron.hours) for minute in sorted(cron.minutes)
    ):
        if runs and runs[-1][1] == minute:
            runs[-1] = (runs[-1][0], minute + 1)
        else:
            runs.append((minute, minute + 1))
    return tuple(runs)


def _epoch(local: datetime, zone: tzinfo) -> int:
    return int(local.replace(tzinfo=zone).timestamp())

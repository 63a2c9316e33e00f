"""When a module has been silent for too long: by its interval, or by its cron expression.

A module's ``cron_interval`` says how its values come:

==========================  ==========================================================
empty, up to four digits    every ``interval`` seconds
five and more digits        every so many seconds, or ``interval`` if that is longer
minutes ``*``               every ``interval`` seconds, while hours and days fit
other minutes               once each time that the expression fits: ``0-30 3 * * *``
                            is once a night, between 3:00 and 3:30
no readable expression      every ``interval`` seconds
==========================  ==========================================================

and it is silent for too long when two values in a row did not come.  Expressions are those of
planned downtimes (:mod:`dataserver.rules.downtimes`), their times local.  No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Final

from dataserver.rules.downtimes import Cron, parse_cron

#: Shorter texts in ``cron_interval`` are no expression: intervals count as ever.
SHORTEST: Final = 5
#: A value comes so many seconds before or after its time at most: agents' clocks differ, and
#: they look at the time once per interval.
TOLERANCE: Final = 300

#: What does not fit in these days never does: the longest time between two leap days that are the
#: same day of the week.
_DAYS_AHEAD: Final = 40 * 366
_EVERY_MINUTE: Final = frozenset(range(60))


def silent_until(cron_interval: str, seen: int, interval: int, zone: tzinfo) -> int:
    """Until when (epoch s) a module whose newest value came at ``seen`` may be silent.

    ``interval`` in seconds: the module's, or where it has none its agent's.
    """
    if len(cron_interval) < SHORTEST:
        return seen + 2 * interval
    if cron_interval.isdecimal() and cron_interval.isascii():
        return seen + 2 * max(_number(cron_interval), interval)
    return _by_expression(cron_interval, seen, interval, zone)


def expected_interval(cron_interval: str, seen: int, interval: int, zone: tzinfo) -> int:
    """The seconds of which two are the silence that a module may keep after ``seen``."""
    silence = silent_until(cron_interval, seen, interval, zone) - seen
    return min((silence + 1) // 2, _LONGEST)


#: What the column of a state's interval takes.
_LONGEST: Final = 2**31 - 1


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
    return seen + 2 * interval


def _next_intervals(cron: Cron, seen: int, interval: int, zone: tzinfo) -> int | None:
    """The second interval after ``seen`` that ends while hours and days fit; None: none does."""
    end = seen
    for _ in range(2):
        wanted = end + interval
        windows = _windows(cron, wanted, zone)
        window = next((each for each in windows if each[1] > wanted), None)
        if window is None:
            return None
        end = max(wanted, window[0])
    # Where it had to wait for its hours, nobody knows when in the interval it will come.
    return end if end == seen + 2 * interval else end + TOLERANCE


def _next_times(cron: Cron, seen: int, _interval: int, zone: tzinfo) -> int | None:
    """The end of the second window after the one in which ``seen`` lies; None: there is none."""
    windows = (each for each in _windows(cron, seen, zone) if each[0] > seen + TOLERANCE)
    second = next(islice(windows, 1, None), None)
    return None if second is None else second[1] - 60 + TOLERANCE


def _windows(cron: Cron, since: int, zone: tzinfo) -> Iterator[tuple[int, int]]:
    """Begin and end (epoch s) of the spans of minutes that fit, from the day of ``since`` on."""
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
    """The first day that fits, from ``since`` on, as ordinals; None: there is none.

    Remembered for all times of day: what fits seldom or never takes long to find, and anybody
    who may upload may have any number of modules with such an expression.
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
    """Spans of minutes of a day that fit, each from its first minute up to, not including, its end.

    Those of several hours are one where they touch.
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

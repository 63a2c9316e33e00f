"""When a planned downtime is active: its schedule as the console writes it.  No I/O, no clock.

All schedules but ``once`` are in local time, to the second and with both ends included: a time
that a change of clocks skips does not occur that day, one that it doubles occurs twice.

==============  =======================================================================
once            from ``begins`` up to, not including, ``ends`` (epoch seconds)
weekly          on each marked weekday from ``time_from`` to ``time_to``; if that is
                earlier, to that time of the next day
monthly         from ``day_from``, ``time_from`` to ``day_to``, ``time_to``; if the month is
                too short, to its last day
cron            from any minute that matches ``cron_from`` to the next that matches ``cron_to``
==============  =======================================================================

Cron expressions are Pandora's, not crontab's: five fields (minute, hour, day, month, weekday
0 to 6), each ``*``, ``n`` or ``n-m`` (``22-2`` wraps around), and all five must match; in crontab
a day matches either by its number or by its weekday.
Source: Pandora FMS manual, "Scheduled downtimes" and "Cron for server modules".
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

ONCE: Final = "once"
CRON: Final = "cron"
WEEKLY: Final = "weekly"
MONTHLY: Final = "monthly"

#: The longest time between two leap days, 1896 to 1904 or 2096 to 2104: an expression that
#: matches no day within it never matches.
_DAYS_BACK: Final = 8 * 366

_TIME: Final = re.compile(r"([0-9]{1,3}):([0-9]{2})(?::([0-9]{2}))?(?:\.[0-9]*)?")
_FIELD: Final = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?")
#: The first and the last number of each field.
_FIELDS: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of a downtime.

    ``execution`` is ``once``, ``cron``, or anything else for ``periodicity`` (``weekly`` or
    ``monthly``).  Times of day are seconds after midnight, None if they are missing.
    """

    execution: str
    periodicity: str = WEEKLY
    begins: int = 0
    ends: int = 0
    #: Monday is 0.
    weekdays: frozenset[int] = frozenset()
    time_from: int | None = None
    time_to: int | None = None
    day_from: int | None = None
    day_to: int | None = None
    cron_from: str = ""
    cron_to: str = ""

    def active(self, now: int, zone: tzinfo) -> bool:
        """Whether it is active at ``now`` (epoch seconds); an invalid one never is."""
        if self.execution == ONCE:
            return self.begins <= now < self.ends
        local = datetime.fromtimestamp(now, zone).replace(tzinfo=None)
        if self.execution == CRON:
            return self._active_by_cron(local)
        return self._active_weekly(local) or self._active_monthly(local)

    def fault(self) -> str | None:
        """Why it is invalid and can never be active, as a clause; None if it is valid."""
        if self.execution == ONCE:
            return None
        if self.execution == CRON:
            bad = [text for text in (self.cron_from, self.cron_to) if parse_cron(text) is None]
            return f"no cron expression of five fields: {bad[0]!r}" if bad else None
        if self.periodicity not in (WEEKLY, MONTHLY):
            return f"neither weekly nor monthly: {self.periodicity!r}"
        if self.time_from is None or self.time_to is None:
            return "its times are missing or no times"
        if self.periodicity == MONTHLY and (self.day_from is None or self.day_to is None):
            return "its days are missing"
        return None

    def _active_weekly(self, local: datetime) -> bool:
        first, last = self.time_from, self.time_to
        if self.periodicity != WEEKLY or first is None or last is None:
            return False
        time = _seconds(local)
        if first <= last:
            return local.weekday() in self.weekdays and first <= time <= last
        # It spans midnight, and belongs to the weekday on which it began.
        yesterday = (local.weekday() - 1) % 7
        begun = local.weekday() in self.weekdays and time >= first
        return begun or (yesterday in self.weekdays and time <= last)

    def _active_monthly(self, local: datetime) -> bool:
        if self.periodicity != MONTHLY or self.fault() is not None:
            return False
        first = (self.day_from or 0, self.time_from or 0)
        last = (self.day_to or 0, self.time_to or 0)
        month_end = monthrange(local.year, local.month)[1]
        time = (local.day, _seconds(local))
        after, before = first <= time, time <= (min(last[0], month_end), last[1])
        return (after and before) if first <= last else (after or before)

    def _active_by_cron(self, local: datetime) -> bool:
        start, stop = parse_cron(self.cron_from), parse_cron(self.cron_to)
        if start is None or stop is None:
            return False
        minute = local.replace(second=0, microsecond=0)
        started = _latest(start, minute)
        if started is None:
            return False
        stopped = _latest(stop, minute)
        return stopped is None or stopped < started


class Cron(NamedTuple):
    """A cron expression: the matching numbers of each field; Sunday is 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]


@lru_cache(maxsize=1_024)
def parse_cron(text: str) -> Cron | None:
    """The expression ``text``, or None if it is invalid."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return None
    parsed = [_numbers(field, *ends) for field, ends in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = parsed
    if not (minutes and hours and days and months and weekdays):
        return None
    return Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))


def time_of_day(text: str | None) -> int | None:
    """Seconds after midnight of ``HH:MM:SS``, or None if it is not a time of day."""
    match = _TIME.fullmatch(text) if text else None
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    time = hours * 3_600 + minutes * 60 + seconds
    return time if minutes < 60 and seconds < 60 and time <= 86_400 else None


def _numbers(field: str, low: int, high: int) -> frozenset[int] | None:
    """The numbers of one field, or None if it is invalid."""
    if field == "*":
        return frozenset(range(low, high + 1))
    match = _FIELD.fullmatch(field)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    if not (low <= first <= high and low <= last <= high):
        return None
    if first <= last:
        return frozenset(range(first, last + 1))
    return frozenset(range(first, high + 1)) | frozenset(range(low, last + 1))


def _latest(cron: Cron, minute: datetime) -> datetime | None:
    """The latest matching minute that is not after ``minute``, or None."""
    until = (minute.hour, minute.minute)
    day = minute.replace(hour=0, minute=0)
    for _ in range(_DAYS_BACK):
        if (
            day.month in cron.months
            and day.day in cron.days
            and day.isoweekday() % 7 in cron.weekdays
        ):
            found = _latest_of_day(cron, until)
            if found is not None:
                return day.replace(hour=found[0], minute=found[1])
        day -= timedelta(days=1)
        until = (24, 0)
    return None


def _latest_of_day(cron: Cron, until: tuple[int, int]) -> tuple[int, int] | None:
    """The latest matching hour and minute not after ``until``, or None."""
    for hour in sorted(cron.hours, reverse=True):
        minutes = [minute for minute in cron.minutes if (hour, minute) <= until]
        if minutes:
            return hour, max(minutes)
    return None


def _seconds(local: datetime) -> int:
    return local.hour * 3_600 + local.minute * 60 + local.second

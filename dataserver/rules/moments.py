"""Times, durations and spans in command-line options: ``--from``, ``--to``, ``--step``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from dataserver.errors import UsageError
from dataserver.rules.days import DAY, beginning
from dataserver.rules.times import LATEST, SLACK, from_local_text

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([0-9]{1,9})\s*(s|min|m|h|d|w|)")
_LOCAL = re.compile(
    r"([0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2})(?:[ T]+([0-9]{1,2}:[0-9]{2})(:[0-9]{2})?)?"
)
_EPOCH = re.compile(r"[0-9]{1,10}")

_TIMES = '"YYYY-MM-DD[ HH:MM[:SS]]", epoch seconds, "now", or before now as -90s, -2h, -7d'


class Span(NamedTuple):
    """From ``start`` to ``end``, epoch seconds; ``step`` in seconds, or None for every change."""

    start: int
    end: int
    step: int | None


def span(
    start: str | None, end: str | None, step: str | None, *, newest: int, now: int, zone: tzinfo
) -> Span:
    """The span given by the options; UsageError if one is invalid or the end is before the start.

    1. Without an end, it ends at the newest value, or at the start if that is later.
    2. Without a start, it begins a day before the end; with a step, at the step boundary before.
    3. With a step the end is not included, so without an end it is a second later.
    """
    seconds = None if step is None else duration(step)
    first = None if start is None else moment(start, now=now, zone=zone)
    if end is not None:
        # In an hour that a change of clocks doubles: the later one, to include both.
        last = moment(end, now=now, zone=zone, later=True)
    else:
        last = max(newest, first or 0) + (0 if seconds is None else 1)
    if first is None:
        first = max(0, _whole_step(last - DAY, seconds, zone))
    if first > last:
        raise UsageError(f"the span ends before it begins ({end} is before {start})")
    return Span(first, last, seconds)


def duration(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``5m``, ``2h``, ``7d`` or ``1w``; UsageError."""
    match = _DURATION.fullmatch(text.strip())
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if seconds < 1:
        raise UsageError(f"{text!r} is not a duration", hint="write it like 90s, 5m, 2h, 7d or 1w")
    return seconds


def duration_text(seconds: float) -> str:
    """A duration for display, in at most two units: ``45 s``, ``3 min 5 s``, ``2 d 4 h``."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def age_text(seconds: float) -> str:
    """How long ago something was: ``3 min 5 s``; if it is in the future: ``12 h ahead``."""
    return f"{duration_text(-seconds)} ahead" if -seconds > SLACK else duration_text(seconds)


def moment(text: str, *, now: int, zone: tzinfo, later: bool = False) -> int:
    """Epoch seconds of a time written as in :data:`_TIMES`; raises UsageError.

    A time in a doubled hour is the earlier one, unless ``later``.
    """
    text = text.strip()
    if text == "now":
        return now
    if text.startswith("-"):
        return max(0, now - duration(text[1:]))
    if _EPOCH.fullmatch(text):
        return int(text)
    match = _LOCAL.fullmatch(text)
    whole = f"{match[1]} {match[2] or '00:00'}{match[3] or ':00'}" if match else ""
    # An invalid time gives zero, which stands for never.
    seconds = from_local_text(whole, zone, LATEST if later else None)
    if seconds <= 0:
        raise UsageError(f"{text!r} is not a time", hint=f"write it as {_TIMES}")
    return seconds


def _whole_step(time: int, step: int | None, zone: tzinfo) -> int:
    """``time`` rounded down to a multiple of ``step`` in the local time of ``zone``."""
    if step is None or time < 0:
        return time
    if step % DAY == 0:
        return beginning(time, step, zone)
    offset = datetime.fromtimestamp(time, zone).utcoffset() or timedelta()
    return time - (time + int(offset.total_seconds())) % step

"""Noise, waves and incidents, of which made-up values are computed.

Everything is a pure function of a key and a time, so that values can be computed in any order with
the same result.  Times are epoch seconds.
"""

from __future__ import annotations

import math
from zlib import crc32

HOUR, DAY, WEEK = 3_600, 86_400, 604_800

_MASK = (1 << 64) - 1
_TURN = 2 * math.pi / DAY
#: Days from the beginning of a week to 1970-01-01, a Thursday.
_MONDAY = 3


def key(*parts: object) -> int:
    """A number that identifies ``parts``."""
    return crc32(":".join(map(str, parts)).encode())


def chance(key: int, place: int) -> float:
    """A pseudorandom number in [0, 1) for each ``place``."""
    # The mixing of splitmix64, so that neighbours are independent.
    mixed = (key * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / (_MASK + 1)


def drift(key: int, time: int, period: int) -> float:
    """A smooth curve between -1 and 1 that turns about every ``period`` seconds.

    Its slope is at most 3 / ``period``.
    """
    place, into = divmod(time, period)
    part = into / period
    before, after = chance(key, place), chance(key, place + 1)
    return 2 * (before + (after - before) * part * part * (3 - 2 * part)) - 1


def daylight(local: int) -> float:
    """A wave with 0 at 2:00 and 1 at 14:00; ``local``: local seconds."""
    return 0.5 + 0.5 * math.sin((local - 8 * HOUR) * _TURN)


def daylight_since(local: int) -> float:
    """The integral of :func:`daylight`, in seconds; only differences are meaningful."""
    return 0.5 * local - 0.5 * math.cos((local - 8 * HOUR) * _TURN) / _TURN


def hour(local: int) -> float:
    """The hour of the day, 0 to 24."""
    return local % DAY / HOUR


def weekday(local: int) -> int:
    """0 on a Monday, 6 on a Sunday."""
    return (local // DAY + _MONDAY) % 7


def incident(key: int, time: int, every: int, longest: int) -> float:
    """The elapsed part (0 to 1) of the incident at ``time``, or -1 without one.

    There is one in each ``every`` seconds; it lasts from a quarter of ``longest`` seconds to all.
    """
    into = time % every
    begin, length = _incident(key, time // every, every, longest)
    return (into - begin) / length if begin <= into < begin + length else -1.0


def incidents(key: int, time: int, every: int, longest: int) -> int:
    """The number of these incidents that have begun from 1970 to ``time``."""
    return time // every + (time % every >= _incident(key, time // every, every, longest)[0])


def _incident(key: int, place: int, every: int, longest: int) -> tuple[float, float]:
    length = longest * (0.25 + 0.75 * chance(key, 2 * place))
    return (every - length) * chance(key, 2 * place + 1), length


def rounded(value: float, step: float) -> str:
    """The nearest multiple of ``step``, as an agent writes it."""
    return f"{round(value / step) * step:.10g}"

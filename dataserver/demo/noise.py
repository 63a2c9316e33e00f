"""What made-up values are made of: noise, waves and incidents, as functions of time.

Everything is a pure function of a key and a time, so that any second can be asked for on its own,
in any order, with the same answer every time.  Times are epoch seconds.
"""

from __future__ import annotations

import math
from zlib import crc32

HOUR, DAY, WEEK = 3_600, 86_400, 604_800

_MASK = (1 << 64) - 1
_TURN = 2 * math.pi / DAY
#: 1970-01-01 was a Thursday: so many days before it a week began.
_MONDAY = 3


def key(*parts: object) -> int:
    """One number for what is told apart by ``parts``."""
    return crc32(":".join(map(str, parts)).encode())


def chance(key: int, place: int) -> float:
    """A number from 0 (with) to 1 (without), as good as by chance, for each ``place``."""
    # The mixing of splitmix64: neighbours have nothing in common.
    mixed = (key * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed ^ (mixed >> 31)) / (_MASK + 1)


def drift(key: int, time: int, period: int) -> float:
    """A smooth up and down between -1 and 1 that turns about every ``period`` seconds.

    Its slope is 3 / ``period`` at most.
    """
    place, into = divmod(time, period)
    part = into / period
    before, after = chance(key, place), chance(key, place + 1)
    return 2 * (before + (after - before) * part * part * (3 - 2 * part)) - 1


def daylight(local: int) -> float:
    """0 at two at night, 1 at two in the afternoon; ``local``: local seconds."""
    return 0.5 + 0.5 * math.sin((local - 8 * HOUR) * _TURN)


def daylight_since(local: int) -> float:
    """The integral of :func:`daylight`, in seconds; only differences of it mean something."""
    return 0.5 * local - 0.5 * math.cos((local - 8 * HOUR) * _TURN) / _TURN


def hour(local: int) -> float:
    """The hour of the day, 0 to 24."""
    return local % DAY / HOUR


def weekday(local: int) -> int:
    """0 on a Monday, 6 on a Sunday."""
    return (local // DAY + _MONDAY) % 7


def incident(key: int, time: int, every: int, longest: int) -> float:
    """How much of an incident is over (0 to 1) that has begun by ``time``; -1: there is none.

    There is one in each ``every`` seconds, of a quarter of ``longest`` seconds to all of them.
    """
    into = time % every
    begin, length = _incident(key, time // every, every, longest)
    return (into - begin) / length if begin <= into < begin + length else -1.0


def incidents(key: int, time: int, every: int, longest: int) -> int:
    """How many of the same incidents have begun by ``time``, since 1970."""
    return time // every + (time % every >= _incident(key, time // every, every, longest)[0])


def _incident(key: int, place: int, every: int, longest: int) -> tuple[float, float]:
    length = longest * (0.25 + 0.75 * chance(key, 2 * place))
    return (every - length) * chance(key, 2 * place + 1), length


def rounded(value: float, step: float) -> str:
    """The nearest multiple of ``step`` as an agent writes it."""
    return f"{round(value / step) * step:.10g}"

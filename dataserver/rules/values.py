"""Values by module type: numbers, counters and strings.  No I/O, no clock.

The rules are those that the golden cases show (``tests/golden/number_formats``,
``counters``, ``module_tags``).  The *packet's* type decides how a value is read and
in which table it lands; bounds and ``post_process`` are the module's own.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

#: Longer texts are unusual for numbers, and stay out of the cache.
_CACHED_LENGTH = 40

#: A value that did not change is stored again when the last stored one is older (s).
DAY = 86_400

# Perl's \d matches every Unicode digit, but a number ends where the ASCII digits do: "٣" counts
# as a number, and as zero (golden case number_formats).  All quantifiers are possessive (`++`),
# so a value of a million digits and one letter does not backtrack.
_NUMBER = re.compile(r"\s*+([+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)\s*+")
_ASCII_PREFIX = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")


class Kind(IntEnum):
    """How a value is read."""

    NUMBER = 0
    TEXT = 1
    RATE = 2  # difference to the last reading, per second
    DIFFERENCE = 3  # plain difference to the last reading


class TypeRule(NamedTuple):
    """The properties of a module type, which follow from its name alone."""

    kind: Kind
    is_async: bool
    is_proc: bool


class Bounds(NamedTuple):
    """The factor and the limits that a module's configuration applies to each number."""

    factor: float  # post_process; 0: none
    low: float
    high: float


NO_BOUNDS = Bounds(0.0, -math.inf, math.inf)


class Number(NamedTuple):
    """A number as it is stored: the state's text and the history's double."""

    text: str
    number: float


class Reading(NamedTuple):
    """The result of a counter's reading."""

    #: The new reading replaces the remembered one.
    remember: bool
    #: Rate or difference since the last one, or None if there is no value to store.
    amount: float | None
    #: It is older than the remembered one, so its rate can no longer be computed.
    late: bool = False


@lru_cache(maxsize=256)
def type_rule(name: str) -> TypeRule:
    """How values of the module type ``name`` (such as ``generic_data_inc``) are read."""
    if name.endswith("_string"):
        kind = Kind.TEXT
    elif name.endswith("_inc_abs"):
        kind = Kind.DIFFERENCE
    elif name.endswith("_inc"):
        kind = Kind.RATE
    else:
        kind = Kind.NUMBER
    is_proc = name.endswith("_proc") or name == "keep_alive"
    return TypeRule(kind, name.startswith("async_"), is_proc)


def bounds(post_process: float | None, low: float | None, high: float | None) -> Bounds:
    """The bounds given by a module's ``min`` and ``max``.

    They apply only if they differ; if ``max`` is below ``min``, a zero on one side means a
    bound on the other side only, and without a zero there is no bound.
    """
    factor, low, high = post_process or 0.0, low or 0.0, high or 0.0
    if low == high:
        return Bounds(factor, -math.inf, math.inf)
    if high > low:
        return Bounds(factor, low, high)
    if high == 0:
        return Bounds(factor, low, math.inf)
    if low == 0:
        return Bounds(factor, -math.inf, high)
    return Bounds(factor, -math.inf, math.inf)


def parse_number(text: str) -> float | None:
    """The finite number that ``text`` is, or None.  A comma is a decimal point."""
    match = _NUMBER.fullmatch(text.replace(",", "."))
    if match is None:
        return None
    digits = match[1]
    if not digits.isascii():
        prefix = _ASCII_PREFIX.match(digits)
        digits = prefix[0] if prefix else "0"
    number = float(digits)
    return number if math.isfinite(number) else None


def limited(number: float, limits: Bounds) -> Number | None:
    """``number`` after ``post_process`` as it is stored, or None if it is out of bounds."""
    if limits.factor:
        number *= limits.factor
    if not limits.low <= number <= limits.high or not math.isfinite(number):
        return None
    text = f"{number:.5f}"
    return Number(text, float(text))


def number(text: str, limits: Bounds = NO_BOUNDS) -> Number | None:
    """A plain numeric value as it is stored, or None if it is refused.

    Cached, since most values of most modules are a few small numbers; but not a text of megabytes
    that an agent sends instead of a number.
    """
    return _number(text, limits) if len(text) <= _CACHED_LENGTH else _uncached(text, limits)


def _uncached(text: str, limits: Bounds) -> Number | None:
    parsed = parse_number(text)
    return None if parsed is None else limited(parsed, limits)


_number = lru_cache(maxsize=65_536)(_uncached)


def reading(kind: Kind, value: float, time: int, last: tuple[float, int] | None) -> Reading:
    """The result of a counter's ``value`` at ``time`` after its ``last`` (value, time).

    A first reading and a reset counter are only remembered; a second reading for the same
    second is ignored, and for rates an earlier one as well (its rate can no longer be computed).
    A difference does not depend on time: an earlier reading counts like a later one, and a
    smaller one for the same second is a reset.
    """
    if last is None:
        return Reading(True, None)
    last_value, last_time = last
    if kind is Kind.RATE and time <= last_time:
        return Reading(False, None, time < last_time)
    if value < last_value:
        return Reading(True, None)
    if time == last_time:
        return Reading(False, None)
    amount = value - last_value
    return Reading(True, amount / (time - last_time) if kind is Kind.RATE else amount)

"""A module's thresholds as records, and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from dataserver.status import Interval, Match, Rules
from dataserver.values import Kind, type_rule


class Threshold(NamedTuple):
    """Where a module has ``status`` ("warning" or "critical").

    Numbers from ``low`` up to, not including, ``high`` (None: without bound), or with
    ``inverse`` all others; with ``percent`` those that differ from the value before by as many
    percent, down and up.  Where ``pattern`` is not None, texts in which it is found, with
    ``inverse`` those in which it is not.
    """

    status: str
    low: float | None = None
    high: float | None = None
    inverse: bool = False
    percent: bool = False
    pattern: str | None = None
    #: That of a module which is up or down, and whose configuration says nothing else.
    is_down: bool = False

    @property
    def words(self) -> str:
        """Where it is, for people: "from 80 to below 90"."""
        if self.pattern is not None:
            verb = "does not match" if self.inverse else "matches"
            return f"where the text {verb} {self.pattern}"
        if self.percent:
            return self._relative()
        if self.is_down:
            return "when it is up" if self.inverse else "when it is down (0)"
        low, high = _text(self.low), _text(self.high)
        if self.inverse:
            return f"below {low}" if self.high is None else f"below {low}, and from {high}"
        return f"from {low}" if self.high is None else f"from {low} to below {high}"

    def _relative(self) -> str:
        ways = []
        if self.low:
            ways.append(f"falls by more than {_text(self.low)} %")
        if self.high:
            ways.append(f"rises by {_text(self.high)} % or more")
        return f"where it {' or '.join(ways)} from one value to the next"


def thresholds_of(rules: Rules, type_name: str) -> tuple[Threshold, ...]:
    """The thresholds that count for a module of this type, the graver first."""
    return tuple(_thresholds(rules, type_name))


def _thresholds(rules: Rules, type_name: str) -> Iterator[Threshold]:
    rule = type_rule(type_name)
    critical, warning = rules.critical, rules.warning
    if rule.kind is Kind.TEXT:
        yield from _of_text("critical", rules.critical_text)
        yield from _of_text("warning", rules.warning_text)
        return
    if critical is None and rule.is_proc:
        critical = rules.down
        yield Threshold("critical", critical.low, critical.high, critical.inverse, is_down=True)
    else:
        yield from _of_number("critical", critical)
    yield from _of_number("warning", warning)


def _of_text(status: str, match: Match | None) -> Iterator[Threshold]:
    if match is not None:
        yield Threshold(status, inverse=match.inverse, pattern=match.pattern.text)


def _of_number(status: str, interval: Interval | None) -> Iterator[Threshold]:
    if interval is None:
        return
    low, high, inverse, percent = interval
    is_open = not percent and (high < low or math.isinf(high))
    yield Threshold(status, low, None if is_open else high, inverse and not percent, percent)


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.15g}"

"""A module's status: from its values, its thresholds and flip-flop protection.  Pure.

:func:`judge_number` and :func:`judge_text` give the status that a value has by itself,
:func:`advance` the module's new standing after a value of that status.  Both are applied to every
value seen, stored or not.

The effective status (``status``) changes only after as many values as flip-flop protection
demands; ``known`` is the effective status while the module is not unknown, ``last`` the newest
value's own.  The transitions, in order of precedence::

    enough values of one status, not the known one     -> that status, with its event
    not initialised                                    -> normal
    unknown                                            -> the known status, with its event
    anything else                                      -> unchanged

Enough means, with consecutive values (``ff_type`` 0), ``limit`` values of that status in a row
after the first; with counters (``ff_type`` 1), more than ``limit`` of that status since a counter
last reached its limit, and then critical and warning have their event again even if they were
known.

Source: ``docs/status.md``; golden cases ``flipflop``, ``thresholds_*``, ``async_proc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from dataserver.rules.patterns import Pattern, compiled
from dataserver.rules.values import parse_number


class Status(IntEnum):
    """A module's status, with Pandora's numbers."""

    NORMAL = 0
    CRITICAL = 1
    WARNING = 2
    UNKNOWN = 3
    NOT_INITIALISED = 4

    # An enum's own hash is Python code, and these are keys in the hot path.
    __hash__ = int.__hash__


_STATUSES = tuple(Status)


def status_of(number: int | None) -> Status:
    """The status with that number; any other number, or None, means not initialised."""
    if number is None or not 0 <= number < len(_STATUSES):
        return Status.NOT_INITIALISED
    return _STATUSES[number]


#: The valid values of a packet's ``<status>``.
_GIVEN = {status.name: status for status in (Status.NORMAL, Status.CRITICAL, Status.WARNING)}
#: The largest value of the column of ``changes``.
_MOST_CHANGES = 255


class Interval(NamedTuple):
    """Numbers from ``low`` up to but not including ``high``; with ``inverse``, all others."""

    low: float
    high: float
    inverse: bool
    #: Both ends are percentages by which a value differs from the previous one, down and up.
    percent: bool = False

    def holds(self, number: float, before: float | None) -> bool:
        """Whether it contains ``number``; ``before`` is the module's previous value."""
        if self.percent:
            return before is not None and self._differs(number, before)
        inside = number >= self.low and (number < self.high or self.high < self.low)
        return inside is not self.inverse

    def _differs(self, number: float, before: float) -> bool:
        if before == 0:
            return False
        way = 1 if before > 0 else -1
        above = self.high != 0 and number >= before * (1 + way * self.high / 100)
        below = self.low != 0 and number < before * (1 - way * self.low / 100)
        return above or below


class Match(NamedTuple):
    """Texts that match a pattern; with ``inverse``, those that do not."""

    pattern: Pattern
    inverse: bool

    def holds(self, text: str) -> bool:
        """Whether it contains ``text``.  A pattern that takes too long counts as not matching."""
        return self.pattern.matches(text) is not self.inverse


_DOWN = Interval(0.0, 1.0, False)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A module's thresholds and flip-flop protection, from its configuration.

    Made by :func:`rules`, which returns one object for equal configurations: compared by identity.
    """

    critical: Interval | None = None
    warning: Interval | None = None
    critical_text: Match | None = None
    warning_text: Match | None = None
    #: Further warnings in a row, while in warning, after which the next is critical; 0: none is.
    warning_time: int = 0
    #: Values needed beyond the first, by status: normal, critical, warning.
    limits: tuple[int, int, int] = (0, 0, 0)
    #: Count values by status, not reset by other statuses, instead of values in a row.
    counting: bool = False
    #: Longest run of equal statuses of an asynchronous module, in seconds; 0: unlimited.
    timeout: int = 0
    #: Interval in seconds while a change is pending; 0: the normal one.
    interval: int = 0
    #: Whether a threshold depends on the previous value.
    relative: bool = False
    #: The critical values of a `_proc` type without a critical threshold: zero means down.
    down: Interval = _DOWN


#: No thresholds: every value is normal.
PLAIN = Rules()


class Standing(NamedTuple):
    """A module's standing: the status columns of its row.  Times are epoch seconds."""

    status: Status = Status.NOT_INITIALISED
    known: Status = Status.NOT_INITIALISED
    last: Status = Status.NOT_INITIALISED
    last_known: Status = Status.NOT_INITIALISED
    #: Values of one status in a row, not counting the first.
    changes: int = 0
    #: When an asynchronous module's run of equal statuses began.
    run_start: int = 0
    normal: int = 0
    warning: int = 0
    critical: int = 0
    changed_at: int = 0
    #: Warnings received while the module was in warning.
    warnings: int = 0


#: A module without a value; an asynchronous one counts as normal.
FRESH = Standing()
FRESH_ASYNC = Standing(*[Status.NORMAL] * 4)


@lru_cache(maxsize=4_096)
def rules(
    min_critical: float,
    max_critical: float,
    min_warning: float,
    max_warning: float,
    str_critical: str,
    str_warning: str,
    critical_inverse: bool,
    warning_inverse: bool,
    percentage_critical: bool,
    percentage_warning: bool,
    warning_time: int,
    each_ff: bool,
    min_ff_event: int,
    min_ff_event_normal: int,
    min_ff_event_critical: int,
    min_ff_event_warning: int,
    ff_type: int,
    ff_timeout: int,
    module_ff_interval: int,
) -> Rules:
    """The rules of a module with these columns; equal columns give the same object."""
    if not any(locals().values()):
        return PLAIN
    each = (min_ff_event_normal, min_ff_event_critical, min_ff_event_warning)
    return Rules(
        critical=_interval(min_critical, max_critical, critical_inverse, percentage_critical),
        warning=_interval(min_warning, max_warning, warning_inverse, percentage_warning),
        critical_text=_match(str_critical, critical_inverse),
        warning_text=_match(str_warning, warning_inverse),
        warning_time=warning_time,
        limits=each if each_ff else (min_ff_event,) * 3,
        counting=ff_type == 1,
        timeout=ff_timeout,
        interval=module_ff_interval,
        relative=percentage_critical or percentage_warning,
        down=_DOWN._replace(inverse=critical_inverse),
    )


def _interval(low: float, high: float, inverse: bool, percent: bool) -> Interval | None:
    return None if low == high and not (percent and low) else Interval(low, high, inverse, percent)


def _match(text: str, inverse: bool) -> Match | None:
    pattern = compiled(text) if text else None
    return None if pattern is None else Match(pattern, inverse)


def given(text: str | None) -> Status | None:
    """The status in a packet's ``<status>``, or None if it is missing or invalid."""
    return _GIVEN.get(text.strip().upper()) if text else None


def judge_number(rules: Rules, number: float, is_proc: bool, before: str) -> Status:
    """The status of a number; ``before`` is the text of the module's previous value."""
    critical, warning = rules.critical, rules.warning
    if critical is None and is_proc:
        critical = rules.down
    if critical is not None and critical.holds(number, _number(critical, before)):
        return Status.CRITICAL
    if warning is not None and warning.holds(number, _number(warning, before)):
        return Status.WARNING
    return Status.NORMAL


def judge_text(rules: Rules, text: str) -> Status:
    """The status of a text."""
    if rules.critical_text is not None and rules.critical_text.holds(text):
        return Status.CRITICAL
    if rules.warning_text is not None and rules.warning_text.holds(text):
        return Status.WARNING
    return Status.NORMAL


def _number(interval: Interval, before: str) -> float | None:
    return parse_number(before) if interval.percent else None


class Step(NamedTuple):
    """The effect of a value on its module's standing."""

    standing: Standing
    shortcut: Shortcut
    #: Only the run of equal statuses grew.
    grew: bool
    #: The status of the event to write, or None if there is no event.
    event_status: Status | None = None
    #: The known status before.
    previous: Status = Status.NOT_INITIALISED


# Cached, since modules of one agent mostly change in the same way at the same time; equal
# standings are then also the same object.
@lru_cache(maxsize=8_192)
def advance(rules: Rules, standing: Standing, new: Status, time: int, is_async: bool) -> Step:
    """The standing after a value of status ``new`` at ``time`` (epoch seconds)."""
    new, warnings = _escalated(rules, standing, new)
    limit = rules.limits[new]
    changes, run_start, expired = _run(rules, standing, new, limit, time, is_async)
    counts = [0, 0, 0] if expired else [standing.normal, standing.critical, standing.warning]
    known = standing.known
    if rules.counting:
        counts[new] += 1
        enough = counts[new] > limit
        fires = enough and (new is not Status.NORMAL or known is not new)
        if enough:
            counts[new] = 0
    else:
        fires = changes >= limit and known is not new
    event_status: Status | None = None
    status, changed_at = standing.status, standing.changed_at
    if fires:
        event_status = status = new
    elif Status.NOT_INITIALISED in (status, known):
        status = Status.NORMAL
    elif status is Status.UNKNOWN:
        event_status = status = known
    if event_status is not None or status is not standing.status:
        changed_at = time
        if event_status is not None and (rules.counting or not fires):
            counts = [0, 0, 0]
    normal, critical, warning = counts
    after = Standing(
        status,
        status,
        new,
        new,
        changes,
        run_start,
        normal,
        warning,
        critical,
        changed_at,
        warnings,
    )
    grew = after[:4] == standing[:4] and after[5:] == standing[5:]
    return Step(after, shortcut(rules, after), grew, event_status, known)


def _escalated(rules: Rules, standing: Standing, new: Status) -> tuple[Status, int]:
    """The new status and the count of warnings: a warning becomes critical after too many."""
    if not rules.warning_time:
        return new, standing.warnings
    if new is not Status.WARNING:
        return new, 0
    warnings = standing.warnings + (standing.known is Status.WARNING)
    warnings = min(warnings, rules.warning_time + 1)
    return (Status.CRITICAL if warnings > rules.warning_time else new), warnings


def _run(
    rules: Rules, standing: Standing, new: Status, limit: int, time: int, is_async: bool
) -> tuple[int, int, bool]:
    """The run of equal statuses with ``new``: its length, when it began, whether it expired.

    It compares the status last *known*: having been unknown meanwhile does not end a run.
    """
    changes, run_start = standing.changes, standing.run_start
    if standing.last_known is not new:
        return (changes if rules.counting else 0), (time if is_async else run_start), False
    expired = bool(is_async and limit and rules.timeout and time - run_start > rules.timeout)
    if rules.counting:
        changes = min(changes + 1, _MOST_CHANGES)
    else:
        changes = 0 if expired else min(changes, limit, _MOST_CHANGES - 1) + 1
    return changes, (time if expired else run_start), expired


class Shortcut(NamedTuple):
    """Results known without :func:`advance`, since most values of most modules change no status."""

    #: The status of which one more value changes nothing, or None if every value may.
    steady_status: Status | None = None
    #: The standing after one more value of the same status, if it is steady; else None.
    next_if_same: Standing | None = None


@lru_cache(maxsize=4_096)
def shortcut(rules: Rules, standing: Standing) -> Shortcut:
    """The shortcut for the next value after ``standing``."""
    if _is_steady(rules, standing):
        return Shortcut(steady_status=standing.status)
    grown = standing._replace(changes=standing.changes + 1)
    return Shortcut(next_if_same=grown) if _is_steady(rules, grown) else Shortcut()


def _is_steady(rules: Rules, standing: Standing) -> bool:
    """Whether one more value of the same status changes nothing at all."""
    status = standing.status
    return (
        not rules.counting
        and not rules.timeout
        and status is standing.known is standing.last is standing.last_known
        and status <= Status.WARNING
        and standing.changes == min(rules.limits[status], _MOST_CHANGES - 1) + 1
        and standing.warnings == 0
        and not (rules.warning_time and status is not Status.NORMAL)
    )


def is_pending(rules: Rules, standing: Standing) -> bool:
    """Whether the newest values differ from the known status, but are not enough to change it."""
    if rules.counting:
        return standing.last_known is not standing.known
    return (
        standing.last_known <= Status.WARNING
        and standing.changes < rules.limits[standing.last_known]
    )

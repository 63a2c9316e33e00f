"""What a value means for its module: the table of statuses, flip-flop included; pure.

:func:`judge_number` and :func:`judge_text` say what status a value has by itself,
:func:`advance` what becomes of the module's standing with it.  Both are applied to every
value seen, stored or not.

The effective status (``status``) follows the values with the patience that flip-flop asks
for; ``known`` is the effective status while the module is not unknown, ``last`` the newest
value's own.  The transitions, in the order in which they are looked for::

    enough values of one status, not the known one     -> that status, with its event
    not initialised                                    -> normal
    unknown                                            -> what is known, with its event
    anything else                                      -> as it was

Enough is, plainly (``ff_type`` 0), ``limit`` values of that status after the first, in a row;
with counters (``ff_type`` 1) more than ``limit`` of that status since a counter last ran out,
and critical and warning are then told again even if they were known.

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

    # An enum's own is written in Python, and these are keys in the hot path.
    __hash__ = int.__hash__


_STATUSES = tuple(Status)


def status_of(number: int | None) -> Status:
    """The status of that number; what is none counts as not initialised."""
    if number is None or not 0 <= number < len(_STATUSES):
        return Status.NOT_INITIALISED
    return _STATUSES[number]


#: What a packet's ``<status>`` may say.
_GIVEN = {status.name: status for status in (Status.NORMAL, Status.CRITICAL, Status.WARNING)}
#: What the column of ``changes`` takes.
_MOST_CHANGES = 255


class Interval(NamedTuple):
    """Numbers from ``low`` up to, not including, ``high``; ``inverse``: all others."""

    low: float
    high: float
    inverse: bool
    #: Both ends are percents by which a value differs from the one before, down and up.
    percent: bool = False

    def holds(self, number: float, before: float | None) -> bool:
        """Whether ``number`` lies in it; ``before`` is the module's value until now."""
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
    """Texts in which a pattern is found; ``inverse``: in which it is not."""

    pattern: Pattern
    inverse: bool

    def holds(self, text: str) -> bool:
        """Whether ``text`` is one of them.  A pattern that takes too long is not found."""
        return self.pattern.matches(text) is not self.inverse


_DOWN = Interval(0.0, 1.0, False)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """How a module's values are judged, and with how much patience; from its configuration.

    Made by :func:`rules`, which gives one object for equal configurations: compared by identity.
    """

    critical: Interval | None = None
    warning: Interval | None = None
    critical_text: Match | None = None
    warning_text: Match | None = None
    #: So many warnings in a row are taken before they become critical; 0: any number.
    warning_time: int = 0
    #: Values needed beyond the first, by status: normal, critical, warning.
    limits: tuple[int, int, int] = (0, 0, 0)
    #: Counters that other statuses do not reset, instead of values in a row.
    counting: bool = False
    #: Seconds that a run of equal statuses of an asynchronous module may take; 0: any time.
    timeout: int = 0
    #: Seconds between values while a change is pending; 0: as ever.
    interval: int = 0
    #: Some threshold depends on the value before.
    relative: bool = False
    #: What is critical in a `_proc` type whose configuration does not say it: zero is down.
    down: Interval = _DOWN


#: Of a module without thresholds: whatever its number is, it is normal.
PLAIN = Rules()


class Standing(NamedTuple):
    """Where a module stands: its row's status columns.  Times are epoch seconds."""

    status: Status = Status.NOT_INITIALISED
    known: Status = Status.NOT_INITIALISED
    last: Status = Status.NOT_INITIALISED
    last_known: Status = Status.NOT_INITIALISED
    #: Values in a row of one status, less the first.
    changes: int = 0
    #: When an asynchronous module's run of equal statuses began.
    run_start: int = 0
    normal: int = 0
    warning: int = 0
    critical: int = 0
    changed_at: int = 0
    #: Warnings that came while the module was known to be in warning.
    warnings: int = 0


#: A module without a value, and an asynchronous one: no news is good news.
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
    """The rules that a module's columns mean; equal ones are one object."""
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
    """The status that a packet's ``<status>`` gives; None: none that is known."""
    return _GIVEN.get(text.strip().upper()) if text else None


def judge_number(rules: Rules, number: float, is_proc: bool, before: str) -> Status:
    """The status of a number; ``before``: the text of the module's value until now."""
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
    """What a value did to its module's standing."""

    standing: Standing
    rest: Rest
    #: The run of equal statuses grew, and nothing else changed.
    grew: bool
    #: The status that is told as an event, and the one before it; None: none is.
    told: Status | None = None
    was: Status = Status.NOT_INITIALISED


# Modules of one agent mostly go the same way at the same time, so the answers are remembered;
# and equal standings are then one object.
@lru_cache(maxsize=8_192)
def advance(rules: Rules, standing: Standing, new: Status, time: int, is_async: bool) -> Step:
    """The standing after a value of status ``new`` at ``time`` (epoch seconds)."""
    new, warnings = _impatient(rules, standing, new)
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
    told: Status | None = None
    status, changed_at = standing.status, standing.changed_at
    if fires:
        told = status = new
    elif Status.NOT_INITIALISED in (status, known):
        status = Status.NORMAL
    elif status is Status.UNKNOWN:
        told = status = known
    if told is not None or status is not standing.status:
        changed_at = time
        if told is not None and (rules.counting or not fires):
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
    return Step(after, rest(rules, after), grew, told, known)


def _impatient(rules: Rules, standing: Standing, new: Status) -> tuple[Status, int]:
    """The new status and the count of warnings: too many of them are critical."""
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
    """How long the run of equal statuses is with ``new``, and when it began.

    Compared is what was last *known*: that a module was unknown meanwhile breaks no run.
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


class Rest(NamedTuple):
    """What needs no further thought, since most values of most modules change no status."""

    #: The status of which one more value changes nothing; None: each does.
    settled: Status | None = None
    #: Where one more value of the same status leads, if that is settled then; None: elsewhere.
    grown: Standing | None = None


@lru_cache(maxsize=4_096)
def rest(rules: Rules, standing: Standing) -> Rest:
    """How a module that stands so comes to rest."""
    if _is_settled(rules, standing):
        return Rest(settled=standing.status)
    grown = standing._replace(changes=standing.changes + 1)
    return Rest(grown=grown) if _is_settled(rules, grown) else Rest()


def _is_settled(rules: Rules, standing: Standing) -> bool:
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
    """Whether newer values wait to be believed."""
    if rules.counting:
        return standing.last_known is not standing.known
    return (
        standing.last_known <= Status.WARNING
        and standing.changes < rules.limits[standing.last_known]
    )

"""A slow and obvious reference of what a module's status, flip-flop and events must be.

It takes everything that ever happened to a module, in order, and goes through all of it from the
start: there is no state to be carried over, so nothing can be carried over wrongly.  It shares no
code with the server's own status machine.  Source: the golden cases and the facts about the Perl
data server that go with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NORMAL, CRITICAL, WARNING, UNKNOWN, NOT_INITIALISED = range(5)

#: The greatest number that ``status_changes`` can hold.
BYTE = 255


@dataclass(frozen=True)
class Level:
    """What makes a value critical, or a warning."""

    min: float = 0.0
    max: float = 0.0
    #: A regular expression, for texts; empty: none.
    text: str = ""
    inverse: bool = False
    #: ``min`` and ``max`` are percents of the value before this one.
    percentage: bool = False


@dataclass(frozen=True)
class Module:
    """What a module's configuration says of its status; times in seconds."""

    type: str = "generic_data"
    critical: Level = Level()
    warning: Level = Level()
    warning_time: int = 0
    ff_type: int = 0
    min_ff_event: int = 0
    each_ff: bool = False
    min_ff_event_normal: int = 0
    min_ff_event_warning: int = 0
    min_ff_event_critical: int = 0
    ff_timeout: int = 0
    module_ff_interval: int = 0
    module_interval: int = 0
    agent_interval: int = 300
    #: The module or its agent is quiet.
    quiet: bool = False

    @property
    def is_async(self) -> bool:
        return self.type.startswith("async_")

    @property
    def is_text(self) -> bool:
        return self.type.endswith("_string")

    @property
    def is_proc(self) -> bool:
        return self.type.endswith("_proc") or self.type == "keep_alive"


@dataclass(frozen=True)
class Value:
    """An accepted value, as the state holds it (numbers with five decimals), and its time.

    ``given`` is the status that the packet told with it.
    """

    time: int
    text: str
    given: str | None = None


@dataclass(frozen=True)
class Sweep:
    """Somebody noticed at ``time`` that the module has had no value for too long."""

    time: int


#: A module in the sequence: its configuration from then on.
Happened = Value | Sweep | Module


@dataclass
class Told:
    """An event."""

    type: str
    severity: int
    data: str
    status: int
    closed: bool
    #: The effective status before it.
    before: int


@dataclass
class State:
    """The status columns of a module's state."""

    status: int
    known_status: int
    last_status: int
    last_known_status: int
    status_changes: int = 0
    ff_normal: int = 0
    ff_warning: int = 0
    ff_critical: int = 0
    ff_start: int = 0
    last_status_change: int = 0
    warning_count: int = 0
    #: As no value has come yet; the server may have another one by then.
    current_interval: int = 0


def replay(module: Module, happened: Sequence[Happened]) -> tuple[State, list[Told]]:
    """All of ``happened`` from the module's creation on: its state now, and all its events."""
    first = NORMAL if module.is_async else NOT_INITIALISED
    state = State(first, first, first, first)
    events: list[Told] = []
    before = ""
    for each in happened:
        if isinstance(each, Module):
            module = each
        elif isinstance(each, Sweep):
            if before:
                _sweep(module, state, events, each.time, before)
        else:
            _value(module, state, events, each, before)
            before = each.text
    return state, events


def _value(module: Module, state: State, events: list[Told], value: Value, before: str) -> None:
    new = _status(module, value, before)
    new = _after_too_many_warnings(module, state, new)
    limit = _limit(module, new)
    _count(module, state, value.time, new, limit)

    shown = value.text if module.is_text else _shown(value.text)
    if module.ff_type == 0:
        changes = state.status_changes >= limit and new != state.known_status
    else:
        changes = _counters_say_so(state, new, limit)

    if changes:
        _tell(module, state, events, new, shown)
        state.status = new
        state.last_status_change = value.time
        if module.ff_type == 1:
            _reset(state)
    elif state.status == NOT_INITIALISED:
        # Whatever it is, it is not believed yet; that it works is news enough.
        state.status = NORMAL
        state.last_status_change = value.time
    elif state.status == UNKNOWN:
        _tell(module, state, events, state.known_status, shown)
        state.status = state.known_status
        state.last_status_change = value.time
        _reset(state)

    state.known_status = state.status
    state.last_status = state.last_known_status = new
    # In a row, no value is believed before there are enough of it, be it the known status again.
    waits = state.status_changes < limit if module.ff_type == 0 else new != state.status
    state.current_interval = module.module_interval or module.agent_interval
    if waits and module.module_ff_interval:
        state.current_interval = module.module_ff_interval


def _sweep(module: Module, state: State, events: list[Told], time: int, value: str) -> None:
    if module.is_async:
        if state.status == NORMAL:
            return
        _add(
            module, state, events, Told("going_down_normal", 5, value, NORMAL, False, state.status)
        )
        state.status = state.known_status = NORMAL
        state.last_status = state.last_known_status = NORMAL
    elif module.type == "keep_alive" or state.status == UNKNOWN:
        return
    else:
        _add(module, state, events, Told("going_unknown", 5, value, UNKNOWN, False, state.status))
        state.status = state.last_status = UNKNOWN
    state.last_status_change = time


# -- the status that a value is ------------------------------------------------------


def _status(module: Module, value: Value, before: str) -> int:
    told = {"NORMAL": NORMAL, "CRITICAL": CRITICAL, "WARNING": WARNING}
    if value.given is not None and value.given.upper() in told:
        return told[value.given.upper()]
    if module.is_text:
        if _matches(module.critical, value.text):
            return CRITICAL
        return WARNING if _matches(module.warning, value.text) else NORMAL
    number = float(value.text)
    last = _number(before)
    critical = module.critical
    by_default = critical.min == critical.max and not (critical.percentage and critical.min)
    if module.is_proc and by_default:
        critical = Level(0, 1, inverse=critical.inverse)
    if _holds(critical, number, last):
        return CRITICAL
    return WARNING if _holds(module.warning, number, last) else NORMAL


def _matches(level: Level, text: str) -> bool:
    try:
        found = re.search(level.text, text) is not None
    except re.error:
        return False
    return level.text != "" and found != level.inverse


def _holds(level: Level, number: float, last: float | None) -> bool:
    if level.percentage and (level.min != 0 or level.max != 0):
        return last is not None and _changed_by(level, number, last)
    if level.min == level.max:
        return False
    inside = number >= level.min and (number < level.max or level.max < level.min)
    return not inside if level.inverse else inside


def _changed_by(level: Level, number: float, last: float) -> bool:
    if last == 0:
        return False  # nothing is a percent of it
    up, down = (1, -1) if last > 0 else (-1, 1)
    rose = level.max != 0 and number >= last * (1 + up * level.max / 100)
    fell = level.min != 0 and number < last * (1 + down * level.min / 100)
    return rose or fell


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# -- from one status to another --------------------------------------------------------


def _after_too_many_warnings(module: Module, state: State, new: int) -> int:
    if module.warning_time == 0:
        return new
    if new != WARNING:
        state.warning_count = 0
        return new
    if state.known_status == WARNING:
        state.warning_count += 1
    if state.warning_count > module.warning_time:
        state.warning_count = module.warning_time + 1
        return CRITICAL
    return WARNING


def _limit(module: Module, new: int) -> int:
    if not module.each_ff:
        return module.min_ff_event
    return {
        NORMAL: module.min_ff_event_normal,
        WARNING: module.min_ff_event_warning,
        CRITICAL: module.min_ff_event_critical,
    }[new]


def _count(module: Module, state: State, time: int, new: int, limit: int) -> None:
    plain = module.ff_type == 0
    if new == state.last_known_status:
        counted = min(state.status_changes, limit) if plain else state.status_changes
        state.status_changes = min(counted + 1, BYTE)
        too_long = limit and module.ff_timeout and time - state.ff_start > module.ff_timeout
        if module.is_async and too_long:
            if plain:
                state.status_changes = 0
            state.ff_start = time
            _reset(state)
    else:
        if plain:
            state.status_changes = 0
        if module.is_async:
            state.ff_start = time


def _counters_say_so(state: State, new: int, limit: int) -> bool:
    if new == NORMAL:
        state.ff_normal += 1
        if state.ff_normal <= limit:
            return False
        if state.status != NORMAL:
            return True
        state.ff_normal = 0
        return False
    if new == CRITICAL:
        state.ff_critical += 1
        return state.ff_critical > limit
    state.ff_warning += 1
    return state.ff_warning > limit


def _reset(state: State) -> None:
    state.ff_normal = state.ff_warning = state.ff_critical = 0


# -- what is told ------------------------------------------------------------------------


def _tell(module: Module, state: State, events: list[Told], new: int, shown: str) -> None:
    was = state.known_status
    if new == NORMAL:
        if was != NOT_INITIALISED:
            told = Told("going_down_normal", 2, shown, NORMAL, True, state.status)
            _add(module, state, events, told)
    elif new == CRITICAL:
        _add(module, state, events, Told("going_up_critical", 4, shown, new, False, state.status))
    else:
        kind = "going_down_warning" if was == CRITICAL else "going_up_warning"
        _add(module, state, events, Told(kind, 3, shown, WARNING, False, state.status))


def _add(module: Module, state: State, events: list[Told], told: Told) -> None:
    for earlier in events:
        earlier.closed = True
    if not module.quiet:
        events.append(told)


def _shown(number: str) -> str:
    return f"{float(number):.1f}".rstrip("0").rstrip(".")

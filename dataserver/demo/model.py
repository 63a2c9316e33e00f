"""Made-up agents as records, and the packets that they send; pure.

A module's value is a function of time, so an agent's packet of a time is always the same, however
the history is divided.  Times are epoch seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from heapq import merge
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from dataserver.rules.times import local_text

#: Intervals of silence after which a server sets an agent's modules to unknown.
UNKNOWN_AFTER = 2

#: A module's value at a time, or None if the packet does not contain the module.
Value = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of a module.

    Numbers: from the first up to, not including, the second, or without limit if that is less;
    texts: if the pattern matches.
    """

    warning: tuple[float, float] | None = None
    critical: tuple[float, float] | None = None
    warning_text: str = ""
    critical_text: str = ""

    def tags(self) -> Iterator[tuple[str, str]]:
        """The thresholds as tags of a packet's module."""
        for name, bounds in (("warning", self.warning), ("critical", self.critical)):
            if bounds is not None:
                yield f"min_{name}", f"{bounds[0]:g}"
                yield f"max_{name}", f"{bounds[1]:g}"
        for name, text in (("warning", self.warning_text), ("critical", self.critical_text)):
            if text:
                yield f"str_{name}", text

    def level(self, kind: str, value: str) -> int:
        """0: normal, 1: warning, 2: critical.  A change makes an event."""
        if kind.endswith("_string"):
            if self.critical_text and re.search(self.critical_text, value):
                return 2
            return 1 if self.warning_text and re.search(self.warning_text, value) else 0
        if kind.endswith("_proc"):
            return 0 if value != "0" else 2
        for level, bounds in ((2, self.critical), (1, self.warning)):
            if bounds is not None and _holds(*bounds, float(value)):
                return level
        return 0


def _holds(low: float, high: float, number: float) -> bool:
    return number >= low and (number < high or high < low)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Module:
    """One module: ``kind`` is its type in the packet."""

    name: str
    kind: str
    value: Value
    unit: str = ""
    description: str = ""
    group: str = "System"
    limits: Limits = NO_LIMITS

    def element(self) -> tuple[str, str]:
        """Its XML before and after the value."""
        settings = [
            ("description", self.description),
            ("unit", self.unit),
            ("module_group", self.group),
            *self.limits.tags(),
        ]
        tags = "".join(f"<{tag}>{escape(text)}</{tag}>\n" for tag, text in settings if text)
        head = f"<module>\n<name>{escape(self.name)}</name>\n<type>{self.kind}</type>\n<data>"
        return head, f"</data>\n{tags}</module>\n"


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent: sends every ``interval`` seconds, at ``phase`` seconds, if ``sends(time)``.

    ``attributes`` are those of its packets' root, except for name, interval and time.
    """

    name: str
    attributes: dict[str, str]
    interval: int
    phase: int
    modules: tuple[Module, ...]
    sends: Callable[[int], bool] = field(default=lambda _: True)

    def times(self, start: int, end: int) -> Iterator[int]:
        """The times of its packets after ``start`` and until ``end``."""
        first = start + 1 + (self.phase - start - 1) % self.interval
        return (time for time in range(first, end + 1, self.interval) if self.sends(time))

    def values(self, time: int) -> list[tuple[Module, str]]:
        """The modules of its packet of ``time``, with their values."""
        found = ((module, module.value(time)) for module in self.modules)
        return [(module, value) for module, value in found if value is not None]


class File(NamedTuple):
    """A file as an agent uploads it; ``modified``: when (epoch seconds)."""

    name: str
    content: bytes
    modified: int


class Due(NamedTuple):
    """What happens at ``time``: a file arrives, or, if it is None, a silence is noticed.

    ``has_events``: storing it creates events, which must have this time.
    """

    time: int
    file: File | None
    has_events: bool


class Sender:
    """Writes one agent's packets, its local times in ``zone``."""

    def __init__(self, agent: Agent, zone: tzinfo) -> None:
        self.agent = agent
        self._zone = zone
        self._elements = {module.name: module.element() for module in agent.modules}
        root = {**agent.attributes, "agent_name": agent.name, "interval": str(agent.interval)}
        written = " ".join(f"{name}={quoteattr(text)}" for name, text in root.items())
        self._head = f"<?xml version='1.0' encoding='UTF-8'?>\n<agent_data {written}"
        #: The level of each module's last value.
        self._levels: dict[str, int] = {}

    def packet(self, time: int) -> File:
        """The packet of that time."""
        return self._file(time, self.agent.values(time))

    def dues(self, start: int, end: int) -> Iterator[Due]:
        """Its packets after ``start`` and until ``end``, and the times its silences are noticed."""
        # From earlier on: whether the first one has events depends on those before it.
        before = start - (UNKNOWN_AFTER + 1) * self.agent.interval
        return (due for due in self._dues(before, end) if due.time > start)

    def _dues(self, start: int, end: int) -> Iterator[Due]:
        allowed = UNKNOWN_AFTER * self.agent.interval
        held: Due | None = None
        silent = True
        for time in self.agent.times(start, end):
            if held is not None:
                silent = time - held.time > allowed
                yield from self._followed(held, silent)
            values = self.agent.values(time)
            held = Due(time, self._file(time, values), self._changes_level(values) or silent)
            silent = False
        if held is not None:
            yield from self._followed(held, end - held.time > allowed)

    def _followed(self, due: Due, by_silence: bool) -> Iterator[Due]:
        if not by_silence:
            yield due
            return
        # The last one before a silence must be stored at its own time, too.
        yield due._replace(has_events=True)
        yield Due(due.time + UNKNOWN_AFTER * self.agent.interval + 1, None, True)

    def _changes_level(self, values: list[tuple[Module, str]]) -> bool:
        before = dict(self._levels)
        for module, value in values:
            if module.limits is not NO_LIMITS or module.kind.endswith("_proc"):
                self._levels[module.name] = module.limits.level(module.kind, value)
        return self._levels != before

    def _file(self, time: int, values: list[tuple[Module, str]]) -> File:
        stamp = local_text(time, self._zone).replace("-", "/")
        parts = [f"{self._head} timestamp='{stamp}'>\n"]
        for module, value in values:
            head, tail = self._elements[module.name]
            parts += (head, escape(value), tail)
        parts.append("</agent_data>\n")
        return File(f"{self.agent.name}.{time}.data", "".join(parts).encode(), time)


class Portion(NamedTuple):
    """Files that are stored together at ``time``; ``sweeps``: silences are noticed then."""

    time: int
    files: tuple[File, ...]
    sweeps: bool


def portions(dues: list[Iterator[Due]], most: int, longest: int) -> Iterator[Portion]:
    """All that happens, in order of time: at most ``most`` files or ``longest`` seconds together.

    A portion ends with whatever creates an event, so that the event has the right time.
    """
    files: list[File] = []
    begin, now, ends, sweeps = 0, 0, False, False
    for due in merge(*dues, key=lambda due: due.time):
        is_full = len(files) >= most or due.time - begin > longest
        if (files or sweeps) and due.time > now and (ends or is_full):
            yield Portion(now, tuple(files), sweeps)
            files, begin, ends, sweeps = [], due.time, False, False
        begin, now = begin or due.time, due.time
        ends |= due.has_events
        if due.file is None:
            sweeps = True
        else:
            files.append(due.file)
    if files or sweeps:
        yield Portion(now, tuple(files), sweeps)

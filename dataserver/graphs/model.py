"""The records of graphs.  Console, pictures and JSON draw them without computing anything.

Times are epoch seconds; a span is [start, end).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from dataserver.store.read.modules import ModuleRecord


class Shape(StrEnum):
    """How a module is drawn."""

    #: A line in steps.
    NUMBER = "number"
    #: Bands of up (not zero) and down (zero).
    BOOLEAN = "boolean"
    #: Bands, each with its text.
    TEXT = "text"


class Span(NamedTuple):
    """[start, end)."""

    start: int
    end: int


class Point(NamedTuple):
    """The module is ``value`` from ``time`` until the next point."""

    time: int
    value: float


class Column(NamedTuple):
    """The step function in [start, end), one column of a reduced graph.

    ``minimum`` and ``maximum`` are over all values that hold in it, however briefly; ``mean`` is
    weighted by time; ``last`` is the value at its end; ``changes`` counts the points in it.
    None before the first value.
    """

    start: int
    end: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    last: float | None
    changes: int


class Band(NamedTuple):
    """A text that holds in [start, end).

    ``changes``: the number of texts that follow each other within it; if more than one, there is
    no room for each at this width, and ``text`` is the last of them.
    """

    start: int
    end: int
    text: str
    changes: int = 1


class StatusSpan(NamedTuple):
    """A status that holds in [start, end): "normal", "warning", "critical", "unknown".

    None if the status cannot be determined.
    """

    start: int
    end: int
    status: str | None


class Zone(NamedTuple):
    """A range of values in which a module is "warning" or "critical"; None is no bound."""

    status: str
    low: float | None
    high: float | None


class Mark(NamedTuple):
    """An event of the module."""

    event_id: int
    time: int
    type: str
    severity: int
    text: str


@dataclass(frozen=True, slots=True)
class Silences:
    """The spans in which an agent sent no packet, as far as the ledger goes back.

    ``known_since``: the time from which packets are known, or None if none are known.
    """

    known_since: int | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class ModuleGraph:
    """One module from ``start`` to ``end``.

    A number or boolean is given by ``points`` if all stored points fit the requested width
    (``is_exact``), else by ``columns``; a text by ``bands`` in either case.  If ``end`` is in the
    future, all of these end at ``until``, and the last value holds until then.  ``changes`` is
    the number of points stored in the span.  A module whose type changed between numbers and text
    shows only the points of its current type.

    ``shares`` are the parts of the span (0 to 1) in each status: "normal", "warning", "critical",
    "unknown", and "not known"; they add up to 1.  ``marks`` are the newest events of the span in
    order of time; ``has_more_marks``: there are older ones.  ``step`` is the length of a column
    in seconds; from a day on, columns are local days, which begin at midnight.
    """

    agent_id: int
    agent: str
    alias: str
    module: ModuleRecord
    shape: Shape
    start: int
    end: int
    until: int
    step: int
    is_exact: bool
    changes: int
    points: tuple[Point, ...]
    columns: tuple[Column, ...]
    bands: tuple[Band, ...]
    silences: Silences
    statuses: tuple[StatusSpan, ...]
    shares: dict[str, float]
    zones: tuple[Zone, ...]
    marks: tuple[Mark, ...]
    has_more_marks: bool


class PacketColumn(NamedTuple):
    """Packets of [start, end), and the number that was due in it (may be fractional)."""

    start: int
    end: int
    packets: int
    expected: float


@dataclass(frozen=True, slots=True)
class AccessGraph:
    """An agent's packets from ``start`` to ``end``, in columns of ``step`` seconds, or local days.

    ``share`` is the part (0 to 1) of the expected packets that arrived, no column counted as
    more than full; None if none was expected.
    """

    agent_id: int
    agent: str
    alias: str
    start: int
    end: int
    interval: int
    step: int
    columns: tuple[PacketColumn, ...]
    packets: int
    expected: float
    share: float | None
    silences: Silences


class SparkColumn(NamedTuple):
    """The values of a module in one column of a sparkline."""

    minimum: float
    maximum: float
    last: float


#: One entry for each column, None before the first number.
Sparkline = tuple[SparkColumn | None, ...]

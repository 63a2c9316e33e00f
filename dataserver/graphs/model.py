"""What a graph shows, as records: whoever draws (console, picture, JSON) computes nothing.

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
    """What the step function does in [start, end), one column of a reduced graph.

    ``minimum`` and ``maximum`` are over all values held or taken in it, however shortly; ``mean``
    is weighted by time; ``last`` is the value at its end; ``changes`` how many points lie in it.
    None: before the first value.
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

    ``changes``: how many texts follow each other within it; where more than one, they are too
    many to be told apart at this width, and ``text`` is the last of them.
    """

    start: int
    end: int
    text: str
    changes: int = 1


class StatusSpan(NamedTuple):
    """A status that holds in [start, end): "normal", "warning", "critical", "unknown".

    None: not known.
    """

    start: int
    end: int
    status: str | None


class Zone(NamedTuple):
    """Values in which a module is "warning" or "critical"; None: without bound on that side."""

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
    """When an agent sent no packet, as far as the ledger tells.

    ``known_since``: nothing is known of the time before; None: of no time at all.
    """

    known_since: int | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class ModuleGraph:
    """One module from ``start`` to ``end``.

    A number or boolean is told by ``points`` where all that is stored fits the width asked for
    (``is_exact``), else by ``columns``; a text by ``bands`` in either case.  All end at
    ``until``, where ``end`` is later than now, and the last value holds until then.  ``changes``
    is how many points are stored in the span.  A module whose type changed between numbers and
    text shows what its type of today is.  ``shares`` are the parts of the span (0 to 1) in each
    status: "normal", "warning", "critical", "unknown", and "not known"; they add up to 1.
    ``marks`` are the newest events of the span in order of time, ``has_more_marks``: there are
    older ones.
    ``step`` is the length of a column in seconds; from a day on columns are local days, which begin
    at midnight.
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
    """Packets of [start, end), and how many were due in it (not a whole number at the ends)."""

    start: int
    end: int
    packets: int
    expected: float


@dataclass(frozen=True, slots=True)
class AccessGraph:
    """An agent's packets from ``start`` to ``end``, in columns of ``step`` seconds, or local days.

    ``share`` is the part (0 to 1) of the expected packets that arrived, no column counted as
    more than full; None: none was expected.
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
    """A module in one column of a sparkline."""

    minimum: float
    maximum: float
    last: float


#: One for each column, None where there was no number yet.
Sparkline = tuple[SparkColumn | None, ...]

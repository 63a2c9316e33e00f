"""Reads graphs from a database: of modules, of an agent's packets, sparklines.

:class:`Graphs` is the only entry for everything that draws.  The functions on silence compute
from an agent's packets when it was silent and what was expected then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from itertools import pairwise

from sqlalchemy import Engine

from dataserver.errors import UsageError
from dataserver.graphs.model import (
    AccessGraph,
    Mark,
    ModuleGraph,
    PacketColumn,
    Silences,
    Span,
    SparkColumn,
    Sparkline,
)
from dataserver.graphs.module import ModuleDrawing, Query
from dataserver.rules.days import columns_at_most
from dataserver.rules.due import DEFAULT_INTERVAL, UNKNOWN_AFTER
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading
from dataserver.store.read.access import HOUR, ActiveSpan, PacketActivity
from dataserver.store.read.history import Buckets, Spark, module_events, module_rules
from dataserver.store.read.modules import AgentRecord
from dataserver.store.read.modules import agent as agent_by_id
from dataserver.store.read.modules import module as module_by_id

#: Events that one graph shows.
_MARKS = 200


class Graphs:
    """Reads graphs from one database; each call is a few short transactions of its own."""

    def __init__(self, engine: Engine, layout: Layout, zone: tzinfo) -> None:
        self._engine = engine
        self._layout = layout
        self._zone = zone
        self._buckets = Buckets(engine, layout)
        self._packets = PacketActivity(engine, layout)

    def module(self, module_id: int, start: int, end: int, width: int, now: int) -> ModuleGraph:
        """The graph of a module from ``start`` to ``end`` in at most ``width`` columns.

        Data ends at ``now``.  All times in epoch seconds.  Raises UsageError (no such module) and
        StoreError.
        """
        with translating("look up the module"), reading(self._engine) as conn:
            found = module_by_id(conn, self._layout, self._zone, module_id)
        if found is None:
            raise UsageError(f"there is no module {module_id}")
        agent_id, module = found
        agent = self._agent(agent_id)
        until = max(start, min(end, now))
        interval = agent.interval or DEFAULT_INTERVAL
        heard = self._heard(agent_id, interval, start, until)
        since = self._packets.first(agent_id)
        rules = module_rules(self._engine, self._layout, module_id)
        columns = columns_at_most(start, end, width, self._zone)
        query = Query(module, rules, start, end, until, width, columns)
        unknown = (
            []
            if query.rule.is_async
            else unknown_spans(heard, interval, module.interval or interval, start, until)
        )
        drawing = ModuleDrawing(self._buckets, query, unknown)
        marks = module_events(self._engine, self._layout, module_id, start, end, _MARKS + 1)
        return ModuleGraph(
            agent_id=agent_id,
            agent=agent.name,
            alias=agent.alias,
            module=module,
            start=start,
            end=end,
            until=until,
            step=columns.step,
            silences=silences(heard, since, interval, start, until),
            marks=tuple(Mark(*mark) for mark in marks[-_MARKS:]),
            has_more_marks=len(marks) > _MARKS,
            **drawing.graph_fields(),
        )

    def access(self, agent_id: int, start: int, end: int, width: int, now: int) -> AccessGraph:
        """The graph of an agent's packets in at most ``width`` columns; times as in :meth:`module`.

        Raises UsageError (no such agent) and StoreError.
        """
        agent = self._agent(agent_id)
        until = max(start, min(end, now))
        interval = agent.interval or DEFAULT_INTERVAL
        since = self._packets.first(agent_id)
        is_folded = start < self._packets.folded_until(agent_id)
        unit = max(interval, HOUR) if is_folded else interval
        # Folded hours begin at whole hours, so columns that hold them must too.
        first = start - start % unit if is_folded else start
        heard = self._heard(agent_id, interval, first, until)
        lefts, step = columns_at_most(first, end, width, self._zone, unit=unit)
        counts = self._packets.counts(agent_id, lefts, until)
        columns = tuple(
            PacketColumn(
                left,
                right,
                counts.get(place, 0),
                _expected(left, min(right, until), since, interval),
            )
            for place, (left, right) in enumerate(pairwise([*lefts, end]))
        )
        packets = sum(counts.values())
        expected, share = share_arrived(heard, packets, since, interval, first, until)
        return AccessGraph(
            agent_id=agent_id,
            agent=agent.name,
            alias=agent.alias,
            start=start,
            end=end,
            interval=interval,
            step=step,
            columns=columns,
            packets=packets,
            expected=expected,
            share=share,
            silences=silences(heard, since, interval, start, until),
        )

    def sparklines(
        self, module_ids: Sequence[int], start: int, end: int, width: int
    ) -> dict[int, Sparkline]:
        """Sparklines of numeric modules, by id; modules without a number are left out.

        Raises StoreError.
        """
        step = max(1, -((start - end) // width))
        sparks = self._buckets.sparks(module_ids, start, end, step)
        count = -((start - end) // step)
        lines = {module_id: _sparkline(spark, count) for module_id, spark in sparks.items()}
        return {module_id: line for module_id, line in lines.items() if any(line)}

    def _agent(self, agent_id: int) -> AgentRecord:
        with translating("look up the agent"), reading(self._engine) as conn:
            agent = agent_by_id(conn, self._layout, self._zone, agent_id)
        if agent is None:
            raise UsageError(f"there is no agent {agent_id}")
        return agent

    def _heard(self, agent_id: int, interval: int, start: int, until: int) -> list[ActiveSpan]:
        return self._packets.heard(agent_id, start, until, longest_gap(interval))


def _expected(start: int, end: int, since: int | None, interval: int) -> float:
    """The number of packets due in [start, end), as far as the ledger goes back."""
    if since is None:
        return 0.0
    return max(0, end - max(start, since)) / interval


def _sparkline(spark: Spark, count: int) -> Sparkline:
    found: list[SparkColumn | None] = []
    held = spark.before
    for column in range(count):
        inside = spark.columns.get(column)
        if inside is not None:
            low, high, last = inside
            if held is not None:
                low, high = min(low, held), max(high, held)
            held = last
            found.append(SparkColumn(low, high, last))
        else:
            found.append(None if held is None else SparkColumn(held, held, held))
    return tuple(found)


# -- silence --

#: Intervals without a packet after which an agent is silent: agents are not punctual.
SILENT_AFTER = 1.5


def longest_gap(interval: int) -> int:
    """The longest gap, in seconds, between two packets that is not silence."""
    return int(interval * SILENT_AFTER)


def silences(
    heard: Sequence[ActiveSpan], since: int | None, interval: int, start: int, until: int
) -> Silences:
    """The silences in [start, until), each from the time a packet was due to the next packet."""
    gaps = _gaps(heard, longest_gap(interval), until)
    return Silences(since, tuple(clipped((Span(a + interval, b) for a, b in gaps), start, until)))


def unknown_spans(
    heard: Sequence[ActiveSpan], agent_interval: int, interval: int, start: int, until: int
) -> list[Span]:
    """The spans in which a module of ``interval`` is unknown because its agent is silent."""
    after = UNKNOWN_AFTER * interval
    gaps = _gaps(heard, max(after, longest_gap(agent_interval)), until)
    return clipped((Span(a + after, b) for a, b in gaps), start, until)


def clipped(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """The parts of the spans in [start, end)."""
    cut = (Span(max(a, start), min(b, end)) for a, b in spans)
    return [span for span in cut if span.start < span.end]


def share_arrived(
    heard: Sequence[ActiveSpan],
    packets: int,
    since: int | None,
    interval: int,
    start: int,
    until: int,
) -> tuple[float, float | None]:
    """The number of packets expected in [start, until), and the share of them that arrived.

    Expected are those that arrived and, for each silence, those that were due in it, so that an
    agent may be a little early or late.  Before the ledger's first time none are expected.
    """
    known = max(start, until if since is None else since)
    if known >= until:
        return 0.0, None
    gaps = clipped(
        (Span(a, b) for a, b in _gaps(heard, longest_gap(interval), until)), known, until
    )
    # At the end of a gap that ends with a packet, that packet was due and arrived.
    ends = {span.first for span in heard}
    missing = sum(
        max(0, round((gap.end - gap.start) / interval) - (gap.end in ends)) for gap in gaps
    )
    expected = packets + missing
    return float(expected), packets / expected if expected else None


def _gaps(heard: Sequence[ActiveSpan], longest: int, until: int) -> list[Span]:
    """The gaps between packets that are longer than ``longest``, the last one up to ``until``."""
    gaps = [Span(one.last, other.first) for one, other in pairwise(heard)]
    if heard:
        gaps.append(Span(heard[-1].last, until))
    return [gap for gap in gaps if gap.end - gap.start > longest]

"""Graphs read from a database: the one door for whoever draws."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from itertools import pairwise

from sqlalchemy import Engine

from dataserver.days import columns_at_most
from dataserver.errors import UsageError
from dataserver.graphs import silence
from dataserver.graphs.drawing import Drawing, Query
from dataserver.graphs.model import (
    AccessGraph,
    Mark,
    ModuleGraph,
    PacketColumn,
    SparkColumn,
    Sparkline,
)
from dataserver.store.accesses import HOUR, Accesses, Heard
from dataserver.store.buckets import Buckets, Spark
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading
from dataserver.store.listing import AgentRecord
from dataserver.store.listing import agent as agent_by_id
from dataserver.store.listing import module as module_by_id
from dataserver.store.module_marks import module_events, module_rules

#: What an agent's interval is taken for where it says none, in seconds.
_INTERVAL = 300
#: Events that one graph shows.
_MARKS = 200


class Graphs:
    """Reads graphs from one database; each call is a few short transactions of its own."""

    def __init__(self, engine: Engine, layout: Layout, zone: tzinfo) -> None:
        self._engine = engine
        self._layout = layout
        self._zone = zone
        self._buckets = Buckets(engine, layout)
        self._accesses = Accesses(engine, layout)

    def module(self, module_id: int, start: int, end: int, width: int, now: int) -> ModuleGraph:
        """One module's graph, in at most ``width`` columns; ``now`` bounds what can be known.

        Raises UsageError (no such module) and StoreError.
        """
        with translating("look up the module"), reading(self._engine) as conn:
            found = module_by_id(conn, self._layout, self._zone, module_id)
        if found is None:
            raise UsageError(f"there is no module {module_id}")
        agent_id, module = found
        agent = self._agent(agent_id)
        until = max(start, min(end, now))
        interval = agent.interval or _INTERVAL
        heard = self._heard(agent_id, interval, start, until)
        since = self._accesses.first(agent_id)
        rules = module_rules(self._engine, self._layout, module_id)
        columns = columns_at_most(start, end, width, self._zone)
        query = Query(module, rules, start, end, until, width, columns)
        unknown = (
            []
            if query.rule.is_async
            else silence.unknown_spans(heard, interval, module.interval or interval, start, until)
        )
        drawing = Drawing(self._buckets, query, unknown)
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
            silences=silence.silences(heard, since, interval, start, until),
            marks=tuple(Mark(*mark) for mark in marks[-_MARKS:]),
            has_more_marks=len(marks) > _MARKS,
            **drawing.drawn(),
        )

    def access(self, agent_id: int, start: int, end: int, width: int, now: int) -> AccessGraph:
        """One agent's packets, in at most ``width`` columns.

        Raises UsageError (no such agent) and StoreError.
        """
        agent = self._agent(agent_id)
        until = max(start, min(end, now))
        interval = agent.interval or _INTERVAL
        since = self._accesses.first(agent_id)
        is_folded = start < self._accesses.folded_until(agent_id)
        unit = max(interval, HOUR) if is_folded else interval
        # Folded hours begin at whole hours: so do columns that hold them.
        first = start - start % unit if is_folded else start
        heard = self._heard(agent_id, interval, first, until)
        lefts, step = columns_at_most(first, end, width, self._zone, unit=unit)
        counts = self._accesses.counts(agent_id, lefts, until)
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
        expected, share = silence.arrived(heard, packets, since, interval, first, until)
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
            silences=silence.silences(heard, since, interval, start, until),
        )

    def sparklines(
        self, module_ids: Sequence[int], start: int, end: int, width: int
    ) -> dict[int, Sparkline]:
        """Sparklines of numeric modules, by id; those without a number are left out.

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

    def _heard(self, agent_id: int, interval: int, start: int, until: int) -> list[Heard]:
        return self._accesses.heard(agent_id, start, until, silence.longest_gap(interval))


def _expected(start: int, end: int, since: int | None, interval: int) -> float:
    """Packets that were due in [start, end), as far as the ledger goes back."""
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

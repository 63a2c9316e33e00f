"""Modules of type ``keep_alive`` of agents that fell silent: they get the value 0.

Each packet of an agent gives them 1.  When an agent has not been heard of for twice its interval
they get 0 at that time, as a value like any other: judged by the module's thresholds (critical,
where there are none) and flip-flop, told as an event, kept in history.  While the silence lasts
they get it again each time that twice the interval is over.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from dataserver.rules.times import SLACK
from dataserver.store import ledger, schema
from dataserver.store.cache import AgentCache, AgentEntry
from dataserver.store.changes import Changes, Writer
from dataserver.store.counts import recount
from dataserver.store.evaluate import Evaluator
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.reference import storm_protection
from dataserver.store.sql import Sql
from dataserver.store.standing import column_text
from dataserver.store.sweeps.unknown import Types, read_types, unindexed
from dataserver.store.write import States, write_late

#: Modules changed by one step at most; their agents are read with all that they have.
BLOCK = 200
_INTERVALS = 2
_INTERVAL = 300

_AGENT, _MODULE, _STATE = schema.agent.c, schema.module.c, schema.state.c


class SilenceSweep:
    """Looks through the ``keep_alive`` modules, a block in each step."""

    def __init__(self, sql: Sql, layout: Layout, events: EventLog, zone: tzinfo) -> None:
        """``zone`` is that of the local times in the database."""
        self._sql = sql
        self._layout = layout
        self._events = events
        self._text = column_text(zone)
        # Nothing of it is kept: agents are read under their locks, each time anew.
        self._catalog = AgentCache(zone, layout)
        self._evaluator = Evaluator(zone, longest_text=0, max_ahead=0)
        self._writer = Writer(sql, layout)
        self._states = States(sql, layout)
        #: The last module that the present pass has looked at.
        self._after = 0

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True: there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds, as for the unknown sweep.  Raises what the
        database raises, and StoreConflict.
        """
        until = min(now, horizon)
        query = self._silent(read_types(conn), until)
        block = query.where(_MODULE.id > self._after).order_by(_MODULE.id).limit(BLOCK)
        picked = conn.execute(block).all()
        self._after = picked[-1].module_id if len(picked) == BLOCK else 0
        overdue = [row for row in picked if self._is_overdue(row, until)]
        if overdue:
            agent_ids = sorted({row.agent_id for row in overdue})
            versions = ledger.lock_versions(conn, self._sql, agent_ids)
            # Packets may have come before the locks were ours.
            module_ids = [row.module_id for row in overdue]
            rows = conn.execute(query.where(_MODULE.id.in_(module_ids))).all()
            changed = self._give_up(
                conn, [row for row in rows if self._is_overdue(row, until)], now
            )
            ledger.raise_locked(conn, self._sql, {key: versions[key] for key in changed})
        return bool(self._after)

    def _give_up(self, conn: Connection, silent: list[Any], now: int) -> set[int]:
        """Give zero to these modules of locked agents; the agents that were changed."""
        module_ids = {row.module_id for row in silent}
        agents = [AgentEntry(*each) for each in {(row.agent_id, row.name) for row in silent}]
        gone = self._catalog.load(conn, agents, float(now))
        batch = Changes(now, storm=storm_protection(conn, self._layout))
        for agent in agents:
            if agent.id not in gone:
                batch.agents[agent.id] = agent
                agent.keep_alives = [
                    module for module in agent.keep_alives if module.id in module_ids
                ]
                self._evaluator.contact(batch, agent, "0")
        self._writer.history(conn, batch)
        if batch.late:
            write_late(conn, self._writer, batch)
        self._states.write(conn, batch, self._text)
        recount(conn, self._sql, batch.recount)
        text = self._text(now)
        self._events.write(conn, batch.events, now, text, overtaken=batch.overtaken)
        return set(batch.agents)

    def _silent(self, types: Types, until: int) -> Select[Any]:
        """Modules that have not been told of a contact for too long, with their agents."""
        joined = schema.state.join(schema.module, _MODULE.id == _STATE.module_id).join(
            schema.agent, _AGENT.id == _MODULE.agent_id
        )
        interval = func.coalesce(func.nullif(_AGENT.interval, 0), _INTERVAL)
        query = (
            select(
                _MODULE.id.label("module_id"),
                _AGENT.id.label("agent_id"),
                _AGENT.name,
                _AGENT.contact,
                _AGENT.interval,
            )
            .select_from(joined)
            .where(
                _MODULE.type_id.in_(types.keep_alive),
                unindexed(_MODULE.disabled) == 0,
                unindexed(_AGENT.disabled) == 0,
                interval * _INTERVALS < until - _STATE.processed,
                # Where bounds refuse the zero it is not tried again at once.
                or_(
                    interval * _INTERVALS < until - _STATE.last_execution_try,
                    _STATE.last_execution_try > until + SLACK,
                ),
            )
        )
        pending = _MODULE.delete_pending
        return query.where(pending == 0) if self._layout.has(pending) else query

    def _is_overdue(self, row: Any, until: int) -> bool:
        """Whether the agent was not heard of either: the module may be newer than its packets."""
        # Local texts sort as times do, but for the doubled hour of a clock change.
        before = self._text(until - _INTERVALS * (row.interval or _INTERVAL))
        return str(row.contact)[:19] < before

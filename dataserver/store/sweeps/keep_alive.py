"""The keep-alive sweep: gives 0 to the ``keep_alive`` modules of agents that fell silent.

Each packet of an agent gives these modules 1.  When an agent has sent no packet for twice its
interval they get 0, a value like any other: judged by the module's thresholds (critical if it has
none) and flip-flop, reported by an event, stored in history.  As long as the silence lasts they
get it again after every two intervals.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from dataserver.rules.due import DEFAULT_INTERVAL, UNKNOWN_AFTER
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
from dataserver.store.sweeps.unknown import Types, is_agent_overdue, read_types, unindexed
from dataserver.store.write import States, write_late

#: Modules changed by one step at most; their agents are read with all of their modules.
BLOCK = 200

_AGENT, _MODULE, _STATE = schema.agent.c, schema.module.c, schema.state.c


class SilenceSweep:
    """Checks the ``keep_alive`` modules, one block in each step."""

    def __init__(self, sql: Sql, layout: Layout, events: EventLog, zone: tzinfo) -> None:
        """``zone`` is the time zone of the local times in the database."""
        self._sql = sql
        self._layout = layout
        self._events = events
        self._text = column_text(zone)
        # Keeps nothing between steps: agents are read anew under their locks.
        self._catalog = AgentCache(zone, layout)
        self._evaluator = Evaluator(zone, longest_text=0, max_ahead=0)
        self._writer = Writer(sql, layout)
        self._states = States(sql, layout)
        #: The last module that the current pass has checked.
        self._after = 0

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True if there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds, as for the unknown sweep.  Raises the database's
        errors and StoreConflict.
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
            # Packets may have arrived before the locks were ours.
            module_ids = [row.module_id for row in overdue]
            rows = conn.execute(query.where(_MODULE.id.in_(module_ids))).all()
            changed = self._write_zeros(
                conn, [row for row in rows if self._is_overdue(row, until)], now
            )
            ledger.raise_locked(conn, self._sql, {key: versions[key] for key in changed})
        return bool(self._after)

    def _write_zeros(self, conn: Connection, silent: list[Any], now: int) -> set[int]:
        """Give 0 to these modules of locked agents; returns the ids of the changed agents."""
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
        """A query for the modules that got no value for too long, with their agents."""
        joined = schema.state.join(schema.module, _MODULE.id == _STATE.module_id).join(
            schema.agent, _AGENT.id == _MODULE.agent_id
        )
        interval = func.coalesce(func.nullif(_AGENT.interval, 0), DEFAULT_INTERVAL)
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
                interval * UNKNOWN_AFTER < until - _STATE.processed,
                # If the module's bounds refuse 0, it is not tried again at once.
                or_(
                    interval * UNKNOWN_AFTER < until - _STATE.last_execution_try,
                    _STATE.last_execution_try > until + SLACK,
                ),
            )
        )
        pending = _MODULE.delete_pending
        return query.where(pending == 0) if self._layout.has(pending) else query

    def _is_overdue(self, row: Any, until: int) -> bool:
        """Whether the agent is silent too: a module may be newer than the agent's last packet."""
        return is_agent_overdue(row.contact, row.interval, until, self._text)

"""Agents of mode 2 ("autodisable") that fell silent: disabled, until their next packet.

Such an agent is disabled when it has not been heard of for twice its interval and every module
of it that could be unknown is.  Modules that are disabled, never had a value, or answer to no
clock (asynchronous ones and ``keep_alive``) have no say.  Its next packet enables it again:
:mod:`dataserver.store.agents`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, select, update

from dataserver.status import Status
from dataserver.store import ledger, schema
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql
from dataserver.store.unknown import Types, read_types

#: Agents disabled by one step at most.
BLOCK = 1_000
#: The mode of agents that are disabled when they fall silent.
_AUTODISABLE = 2
_INTERVALS = 2
_INTERVAL = 300


class Autodisable:
    """Looks through the agents of mode 2, a block in each step."""

    def __init__(self, sql: Sql, layout: Layout, text: Callable[[int], str]) -> None:
        """``text`` gives the local time of epoch seconds."""
        self._sql = sql
        self._layout = layout
        self._text = text
        #: The last agent that the present pass has looked at.
        self._after = 0

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True: there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds, as for the unknown sweep.  Raises what the
        database raises.
        """
        types = read_types(conn)
        a = schema.agent.c
        query = self._silent(types).where(a.id > self._after).order_by(a.id).limit(BLOCK)
        picked = conn.execute(query).all()
        self._after = picked[-1].id if len(picked) == BLOCK else 0
        until = min(now, horizon)
        overdue = [row.id for row in picked if self._is_overdue(row, until)]
        if overdue:
            self._disable(conn, types, overdue, until)
        return bool(self._after)

    def _disable(self, conn: Connection, types: Types, agent_ids: list[int], until: int) -> None:
        versions = ledger.lock_versions(conn, self._sql, agent_ids)
        a = schema.agent.c
        # Packets may have come before the lock was ours.
        rows = conn.execute(self._silent(types).where(a.id.in_(agent_ids))).all()
        still = [row.id for row in rows if self._is_overdue(row, until)]
        if still:
            conn.execute(update(schema.agent).where(a.id.in_(still)).values(disabled=1))
            ledger.raise_locked(conn, self._sql, {key: versions[key] for key in still})

    def _is_overdue(self, agent: Any, until: int) -> bool:
        """Whether the agent's last contact is too long ago."""
        # Local texts sort as times do, but for the doubled hour of a clock change.
        before = self._text(until - _INTERVALS * (agent.interval or _INTERVAL))
        return str(agent.contact)[:19] < before

    def _silent(self, types: Types) -> Select[Any]:
        a = schema.agent.c
        query = select(a.id, a.interval, a.contact).where(
            a.disabled == 0,
            a.mode == _AUTODISABLE,
            self._module(types, schema.state.c.status == Status.UNKNOWN.value),
            ~self._module(
                types,
                schema.state.c.status.not_in(
                    (Status.UNKNOWN.value, Status.NOT_INITIALISED.value),
                ),
            ),
        )
        # Counts are kept with every change of a status: most agents need no second look.
        return query.where(a.unknown_count != 0) if self._layout.has(a.unknown_count) else query

    def _module(self, types: Types, status: ColumnElement[bool]) -> ColumnElement[bool]:
        """That the agent has a module that could be unknown and whose status is so."""
        m, s = schema.module.c, schema.state.c
        query = (
            exists()
            .where(m.agent_id == schema.agent.c.id, s.module_id == m.id, status)
            .where(m.disabled == 0, m.type_id.not_in(types.other))
        )
        pending = m.delete_pending
        return query.where(pending == 0) if self._layout.has(pending) else query

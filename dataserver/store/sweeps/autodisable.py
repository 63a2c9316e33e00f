"""Agents of mode 2 ("autodisable") that fell silent: disabled, until their next packet.

Such an agent is disabled when it has not been heard of for twice its interval and every module
of it that could be unknown is.  Modules that are disabled, never had a value, or answer to no
clock (asynchronous ones and ``keep_alive``) have no say.  Its next packet enables it again:
:mod:`dataserver.store.agents`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, update

from dataserver.rules.status import Status
from dataserver.store import ledger, schema
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql
from dataserver.store.sweeps.unknown import Types, read_types, unindexed

#: Agents looked at by one step.
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
        until, a = min(now, horizon), schema.agent.c
        query = self._candidates()
        picked = conn.execute(query.where(a.id > self._after).order_by(a.id).limit(BLOCK)).all()
        self._after = picked[-1].id if len(picked) == BLOCK else 0
        types = read_types(conn)
        silent = self._silent(conn, types, picked, until)
        if silent:
            versions = ledger.lock_versions(conn, self._sql, silent)
            # Packets may have come before the locks were ours.
            again = conn.execute(query.where(a.id.in_(silent))).all()
            still = self._silent(conn, types, again, until)
            conn.execute(update(schema.agent).where(a.id.in_(still)).values(disabled=1))
            ledger.raise_locked(conn, self._sql, {key: versions[key] for key in still})
        return bool(self._after)

    def _candidates(self) -> Select[Any]:
        a = schema.agent.c
        query = select(a.id, a.interval, a.contact).where(a.disabled == 0, a.mode == _AUTODISABLE)
        # Counts are kept with every change of a status: most agents need no second look.
        return query.where(a.unknown_count != 0) if self._layout.has(a.unknown_count) else query

    def _silent(
        self, conn: Connection, types: Types, agents: Sequence[Any], until: int
    ) -> list[int]:
        """Ids of those that were not heard of and whose modules are all unknown."""
        overdue = [agent.id for agent in agents if self._is_overdue(agent, until)]
        m, s = schema.module.c, schema.state.c
        query = (
            select(m.agent_id, s.status)
            .join_from(schema.module, schema.state, s.module_id == m.id)
            .where(m.agent_id.in_(overdue), unindexed(m.disabled) == 0)
            .where(unindexed(m.type_id).not_in(types.other))
            .where(s.status != Status.NOT_INITIALISED.value)
            .distinct()
        )
        if self._layout.has(m.delete_pending):
            query = query.where(m.delete_pending == 0)
        statuses: dict[int, set[int]] = {}
        for agent_id, status in conn.execute(query) if overdue else ():
            statuses.setdefault(agent_id, set()).add(status)
        return [key for key in overdue if statuses.get(key) == {Status.UNKNOWN.value}]

    def _is_overdue(self, agent: Any, until: int) -> bool:
        """Whether the agent's last contact is too long ago."""
        # Local texts sort as times do, but for the doubled hour of a clock change.
        before = self._text(until - _INTERVALS * (agent.interval or _INTERVAL))
        return str(agent.contact)[:19] < before

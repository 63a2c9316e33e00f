"""The autodisable sweep: disables agents of mode 2 ("autodisable") that fell silent.

Such an agent is disabled when it has sent no packet for twice its interval and all of its modules
that can become unknown are unknown.  Modules that are disabled, never had a value, or are not due
at any time (asynchronous ones and ``keep_alive``) do not count.  The agent's next packet enables
it again (:mod:`dataserver.store.agents`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, update

from dataserver.rules.status import Status
from dataserver.store import ledger, schema
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql
from dataserver.store.sweeps.unknown import Types, is_agent_overdue, read_types, unindexed

#: Agents checked by one step.
BLOCK = 1_000
#: The mode of agents that are disabled when they fall silent.
_AUTODISABLE = 2


class Autodisable:
    """Checks the agents of mode 2, one block in each step."""

    def __init__(self, sql: Sql, layout: Layout, text: Callable[[int], str]) -> None:
        """``text`` gives the local time of epoch seconds."""
        self._sql = sql
        self._layout = layout
        self._text = text
        #: The last agent that the current pass has checked.
        self._after = 0

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True if there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds, as for the unknown sweep.  Raises the database's
        errors.
        """
        until, a = min(now, horizon), schema.agent.c
        query = self._candidates()
        picked = conn.execute(query.where(a.id > self._after).order_by(a.id).limit(BLOCK)).all()
        self._after = picked[-1].id if len(picked) == BLOCK else 0
        types = read_types(conn)
        silent = self._silent(conn, types, picked, until)
        if silent:
            versions = ledger.lock_versions(conn, self._sql, silent)
            # Packets may have arrived before the locks were ours.
            again = conn.execute(query.where(a.id.in_(silent))).all()
            still = self._silent(conn, types, again, until)
            conn.execute(update(schema.agent).where(a.id.in_(still)).values(disabled=1))
            ledger.raise_locked(conn, self._sql, {key: versions[key] for key in still})
        return bool(self._after)

    def _candidates(self) -> Select[Any]:
        a = schema.agent.c
        query = select(a.id, a.interval, a.contact).where(a.disabled == 0, a.mode == _AUTODISABLE)
        # Counts are up to date with every change of a status, so most agents are ruled out here.
        return query.where(a.unknown_count != 0) if self._layout.has(a.unknown_count) else query

    def _silent(
        self, conn: Connection, types: Types, agents: Sequence[Any], until: int
    ) -> list[int]:
        """Ids of the agents that are overdue and whose modules are all unknown."""
        overdue = [
            agent.id
            for agent in agents
            if is_agent_overdue(agent.contact, agent.interval, until, self._text)
        ]
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

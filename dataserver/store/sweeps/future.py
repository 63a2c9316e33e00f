"""A sweep that sets stored times in the future back to now, so that silence is noticed.

The times at which a value was processed and an agent was heard are by the server's clock.  They lie
in the future if that clock was ahead and was corrected, and in rows of a Perl server also if an
agent's clock was ahead (its states have the value's time there).  Until then no silence would be
noticed; after the sweep it is counted from now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, select, update

from dataserver.rules.times import SLACK
from dataserver.store import ledger, schema
from dataserver.store.sql import Sql

#: Rows changed by one step at most, and ids checked by one step: no index finds these rows.
BLOCK, SPAN = 1_000, 500_000

_AGENT, _STATE = schema.agent.c, schema.state.c


class FutureSweep:
    """Checks states and agents, one span in each step."""

    def __init__(self, sql: Sql, text: Callable[[int], str]) -> None:
        """``text`` gives the local time of epoch seconds."""
        self._sql = sql
        self._text = text
        #: The last id of a state that the current pass has checked.
        self._after = 0

    def sweep(self, conn: Connection, now: int, _horizon: int) -> bool:
        """One step inside the caller's transaction; True if there is more to do at once.

        ``now`` in epoch seconds.  Raises the database's errors.
        """
        return self._states(conn, now) or self._agents(conn, now)

    def _states(self, conn: Connection, now: int) -> bool:
        first = conn.scalar(select(func.min(_STATE.id)).where(_STATE.id > self._after))
        if first is None:
            self._after = 0
            return False
        query = (
            select(_STATE.id, _STATE.agent_id)
            .where(_STATE.id.between(first, first + SPAN - 1), _STATE.processed > now + SLACK)
            .order_by(_STATE.id)
            .limit(BLOCK)
        )
        found = conn.execute(query).all()
        if found:
            self._lock(conn, {agent_id for _, agent_id in found})
            ids = [state_id for state_id, _ in found]
            # Values that arrived before the locks were ours have a correct time.
            still = (_STATE.id.in_(ids), _STATE.processed > now + SLACK)
            conn.execute(update(schema.state).where(*still).values(processed=now))
        if len(found) < BLOCK:
            self._after = first + SPAN - 1
        return True

    def _agents(self, conn: Connection, now: int) -> bool:
        ahead = _AGENT.contact > self._text(now + SLACK)
        ids = list(conn.scalars(select(_AGENT.id).where(ahead).limit(BLOCK)))
        if ids:
            self._lock(conn, set(ids))
            still: tuple[Any, ...] = (_AGENT.id.in_(ids), ahead)
            conn.execute(update(schema.agent).where(*still).values(contact=self._text(now)))
        return len(ids) == BLOCK

    def _lock(self, conn: Connection, agent_ids: set[int]) -> None:
        """Lock the agents' versions first, as everywhere; caches do not hold these times."""
        ledger.lock_versions(conn, self._sql, sorted(agent_ids))

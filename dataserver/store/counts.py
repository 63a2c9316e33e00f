"""Recounts what an agent's row counts: its modules by status, and its alerts that have fired."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, select

from dataserver.rules.status import Status
from dataserver.store import ledger, schema
from dataserver.store.cache import in_chunks
from dataserver.store.layout import Layout
from dataserver.store.schema import COUNT_KEYS, STATUS_COUNT_KEYS
from dataserver.store.sql import Row, Sql

#: Agents that are recounted at the console's request in one transaction.
BLOCK = 100


def recount(
    conn: Connection, sql: Sql, agent_ids: Collection[int], *, clear_flag: bool = False
) -> None:
    """Set the counts of these agents from the states of their enabled modules.

    ``clear_flag``: clear the flag by which the console requests a recount.
    """
    if not agent_ids:
        return
    counted = {agent_id: [0] * len(STATUS_COUNT_KEYS) for agent_id in agent_ids}
    m, s = schema.module.c, schema.state.c
    joined = schema.state.join(schema.module, m.id == s.module_id)
    for ids in in_chunks(sorted(counted)):
        query = (
            select(m.agent_id, s.status, func.count())
            .select_from(joined)
            .where(m.agent_id.in_(ids), m.disabled == 0, m.server_kind != 0)
            .group_by(m.agent_id, s.status)
        )
        for agent_id, status, modules in conn.execute(query):
            if Status.NORMAL <= status <= Status.NOT_INITIALISED:
                counted[agent_id][status] += modules
    keys: tuple[str, ...] = ("id", *COUNT_KEYS)
    rows: list[Row] = [(key, *counts, sum(counts)) for key, counts in sorted(counted.items())]
    if clear_flag:
        keys = (*keys, "update_module_count")
        rows = [(*row, 0) for row in rows]
    sql.update(conn, schema.agent, keys, rows)


def recount_flagged(conn: Connection, sql: Sql, layout: Layout) -> bool:
    """Recount some of the agents for which the console requests it; True: there may be more."""
    a = schema.agent.c
    if not layout.has(a.update_module_count):
        return False
    flagged = select(a.id).where(a.update_module_count == 1).order_by(a.id)
    picked = list(conn.scalars(flagged.limit(BLOCK)))
    if not picked:
        return False
    versions = ledger.lock_versions(conn, sql, picked)
    # Locked before counting: a flag that is set from now on waits for us and is seen next time.
    rows = list(conn.scalars(flagged.where(a.id.in_(picked)).with_for_update()))
    recount(conn, sql, rows, clear_flag=True)
    # The console changed something, so caches must read these agents again.
    ledger.raise_locked(conn, sql, {key: versions[key] for key in rows})
    return bool(rows) and len(picked) == BLOCK


def recount_fired(conn: Connection, sql: Sql, layout: Layout) -> bool:
    """Count the fired alerts of some of the agents for which the console requests it.

    True: there may be more.  The server that evaluates alerts sets how often each has fired; here
    they are only counted, as the Perl server counts them: enabled alerts on enabled modules.
    """
    a, m, alert = schema.agent.c, schema.module.c, schema.alert.c
    used = (a.update_alert_count, a.fired_count, alert.module_id, alert.times_fired, alert.disabled)
    if not all(map(layout.has, used)):
        return False
    flagged = select(a.id).where(a.update_alert_count == 1).order_by(a.id)
    picked = list(conn.scalars(flagged.limit(BLOCK)))
    if not picked:
        return False
    # Locked before counting, as above.
    rows = list(conn.scalars(flagged.where(a.id.in_(picked)).with_for_update()))
    query = (
        select(m.agent_id, func.count())
        .join_from(schema.alert, schema.module, m.id == alert.module_id)
        .where(m.agent_id.in_(rows), m.disabled == 0)
        .where(alert.times_fired > 0, alert.disabled == 0)
        .group_by(m.agent_id)
    )
    fired = {row[0]: row[1] for row in conn.execute(query)}
    keys = ("id", "fired_count", "update_alert_count")
    sql.update(conn, schema.agent, keys, [(key, fired.get(key, 0), 0) for key in rows])
    return len(picked) == BLOCK

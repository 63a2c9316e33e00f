"""The ledger and the agents' versions, which make a packet count once on any number of servers.

The ledger, ``tpacket``, has one row per stored packet, written in the transaction of its values;
a packet that arrives again is found there.  ``tagent_version`` has one row per agent, locked in
the order of ids by every batch, so that two servers never work on one agent at the same time, and
each sees that the other has changed it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select

from dataserver.model import Arrival
from dataserver.rules import entities
from dataserver.rules.times import SLACK
from dataserver.store import schema
from dataserver.store.cache import AgentEntry, folded_name, in_chunks
from dataserver.store.columns import AGENT_NAME_LENGTH
from dataserver.store.sql import Row, Sql

_VERSION_KEYS = ("agent_id", "version", "newest")
_LEDGER_KEYS = ("agent_id", "time", "digest", "server", "arrived")
_HOUR, _DAY = 3_600, 86_400

#: The kinds of names that are locked in ``tname``.
KIND_AGENT, KIND_ADDRESS, KIND_SERVER = 1, 2, 3


def lock_names(conn: Connection, sql: Sql, kind: int, names: Iterable[str]) -> None:
    """Lock names that are about to be created, so that only one of several servers does it."""
    keys = sorted({hashlib.sha256(folded_name(name).encode()).digest() for name in names})
    rows = [(kind, 0, key) for key in keys]
    sql.ensure(conn, schema.unique_name, ("kind", "parent", "key"), rows)


def lock_versions(conn: Connection, sql: Sql, agent_ids: Sequence[int]) -> dict[int, Row]:
    """Lock the version rows of the agents in the order of ids; returns (version, newest) by id.

    Agents that have no row yet (new, or created by the Perl server) get one.
    """
    ordered = sorted(agent_ids)
    found = _read_versions(conn, ordered)
    missing = [agent_id for agent_id in ordered if agent_id not in found]
    if missing:
        # Two servers may do this at once: the second one waits and then finds the row.
        sql.ensure(conn, schema.agent_version, _VERSION_KEYS, [(i, 0, 0) for i in missing])
        found |= _read_versions(conn, missing)
    return found


def _read_versions(conn: Connection, agent_ids: list[int]) -> dict[int, Row]:
    c = schema.agent_version.c
    found: dict[int, Row] = {}
    for ids in in_chunks(agent_ids):
        query = (
            select(c.agent_id, c.version, c.newest)
            .where(c.agent_id.in_(ids))
            .order_by(c.agent_id)
            .with_for_update()
        )
        found.update({row[0]: (row[1], row[2]) for row in conn.execute(query).all()})
    return found


def raise_versions(conn: Connection, sql: Sql, agents: Iterable[AgentEntry]) -> None:
    """Raise the versions of these agents, so that other servers read them again."""
    rows = []
    for agent in agents:
        agent.version += 1
        rows.append((agent.id, agent.version, agent.newest))
    rows.sort()
    sql.upsert(conn, schema.agent_version, _VERSION_KEYS, rows)


def raise_locked(conn: Connection, sql: Sql, versions: Mapping[int, Row]) -> None:
    """The same for agents without entries, given the result of :func:`lock_versions`."""
    rows = [(key, version + 1, newest) for key, (version, newest) in sorted(versions.items())]
    if rows:
        sql.upsert(conn, schema.agent_version, _VERSION_KEYS, rows)


def known_packets(conn: Connection, suspects: Sequence[tuple[int, Arrival]]) -> set[Row]:
    """The packets that are in the ledger, as (agent, time, digest); given with their agents' ids.

    Packets newer than their agent's newest one are there only if its clock was ahead.
    """
    c = schema.packet.c
    by_agent: dict[int, list[int]] = {}
    for agent_id, arrival in suspects:
        by_agent.setdefault(agent_id, []).append(arrival.time or 0)
    found: set[Row] = set()
    for ids in in_chunks(sorted(by_agent)):
        times = sorted({time for agent_id in ids for time in by_agent[agent_id]})
        for some in in_chunks(times):
            query = select(c.agent_id, c.time, c.digest).where(
                c.agent_id.in_(ids), c.time.in_(some)
            )
            found.update((row[0], row[1], bytes(row[2])) for row in conn.execute(query))
    return found


def add_packets(conn: Connection, sql: Sql, rows: Sequence[Row]) -> None:
    """Add packets: (agent, time, digest, server, arrived).

    Raises IntegrityError if one is in the ledger already.
    """
    if rows:
        sql.insert(conn, schema.packet, _LEDGER_KEYS, rows)


def newest_possible(conn: Connection, agent_ids: Collection[int], limit: int) -> dict[int, int]:
    """Each agent's newest packet time up to ``limit`` that was not ahead when it arrived.

    Agents without such a packet are left out.
    """
    c = schema.packet.c
    found: dict[int, int] = {}
    for ids in in_chunks(sorted(agent_ids)):
        query = (
            select(c.agent_id, func.max(c.time))
            .where(c.agent_id.in_(ids), c.time <= c.arrived + SLACK, c.time <= limit)
            .group_by(c.agent_id)
        )
        found.update({row[0]: row[1] for row in conn.execute(query)})
    return found


def folded_until(conn: Connection, agent_ids: Collection[int]) -> dict[int, int]:
    """The end of each agent's last folded hour; packets before it cannot be recognised any more."""
    c = schema.packet_hour.c
    found: dict[int, int] = {}
    for ids in in_chunks(sorted(agent_ids)):
        query = select(c.agent_id, func.max(c.hour)).where(c.agent_id.in_(ids))
        rows = conn.execute(query.group_by(c.agent_id))
        found.update({agent_id: hour + _HOUR for agent_id, hour in rows})
    return found


def newest_times(
    conn: Connection, names: Collection[str], epoch: Callable[[Any], int]
) -> dict[str, tuple[int | None, int | None]]:
    """Newest packet time and interval of the agents that exist, by name as written."""
    a, v = schema.agent.c, schema.agent_version.c
    encoded = {entities.encode(entities.clean_name(name)): name for name in names}
    # A longer name cannot exist, and may be longer than a statement.
    stored = {key: name for key, name in encoded.items() if len(key) <= AGENT_NAME_LENGTH}
    folded = {folded_name(key): name for key, name in stored.items()}
    joined = schema.agent.outerjoin(schema.agent_version, v.agent_id == a.id)
    found: dict[str, tuple[int | None, int | None]] = {}
    for some in in_chunks(list(stored)):
        query = (
            select(a.name, v.newest, a.packet_contact, a.interval)
            .select_from(joined)
            .where(a.name.in_(some))
        )
        for name, newest, contact, interval in conn.execute(query):
            known = stored.get(name) or folded.get(folded_name(name))
            if known is not None:
                found[known] = (newest or epoch(contact) or None, interval)
    return found


def packet_times(
    conn: Connection, agent_id: int, after: int, *, only_ahead: bool = False
) -> list[int]:
    """The times, in order, of the agent's packets after ``after``.

    ``only_ahead``: only packets that were ahead of the server's clock when they arrived.
    """
    c = schema.packet.c
    query = select(c.time).where(c.agent_id == agent_id, c.time > after).order_by(c.time).distinct()
    if only_ahead:
        query = query.where(c.time > c.arrived + SLACK)
    return [row[0] for row in conn.execute(query)]


def fold(
    conn: Connection, sql: Sql, ledger_days: int, now: int, after: int = 0, limit: int = 1_000
) -> int | None:
    """Fold old rows of up to ``limit`` agents into packets per agent and hour.

    Age is counted from each agent's own newest packet, so that old files can still be stored, but
    not from one ahead of ``now`` (epoch seconds), since its clock may be corrected; and in whole
    hours, so that an agent is folded once an hour.  Processes agents in the order of ids after
    ``after``; returns the id to continue after, or None at the end.
    """
    p, v = schema.packet.c, schema.agent_version.c
    oldest = select(func.min(p.time)).where(p.agent_id == v.agent_id).scalar_subquery()
    query = (
        select(v.agent_id, v.newest, oldest)
        .where(v.agent_id > after)
        .order_by(v.agent_id)
        .limit(limit)
    )
    agents = conn.execute(query).all()
    for agent_id, newest, first in agents:
        before = min(newest, now) - ledger_days * _DAY
        before -= before % _HOUR
        if first is not None and first < before:
            _fold_agent(conn, sql, agent_id, before)
    return agents[-1][0] if len(agents) == limit else None


def _fold_agent(conn: Connection, sql: Sql, agent_id: int, before: int) -> None:
    lock_versions(conn, sql, [agent_id])
    p, h = schema.packet.c, schema.packet_hour.c
    hours: dict[int, int] = {}
    for (time,) in conn.execute(select(p.time).where(p.agent_id == agent_id, p.time < before)):
        hours[time - time % _HOUR] = hours.get(time - time % _HOUR, 0) + 1
    if not hours:
        return  # another server was faster
    known = select(h.hour, h.packets).where(h.agent_id == agent_id, h.hour.in_(list(hours)))
    for hour, packets in conn.execute(known):
        hours[hour] += packets
    rows = [(agent_id, hour, packets) for hour, packets in sorted(hours.items())]
    sql.upsert(conn, schema.packet_hour, ("agent_id", "hour", "packets"), rows)
    conn.execute(delete(schema.packet).where(p.agent_id == agent_id, p.time < before))

"""The table of refused values: parts of stored packets that could not be stored.

A batch collects what it refuses (:class:`Refusals`); :func:`write` adds it to the table in the
batch's transaction, while the versions of the agents are locked, so that counts of several servers
add up.  An agent has up to :data:`MOST_OF_AGENT` rows, one for each module and reason; further
ones are counted in one more row.  :func:`sweep` deletes rows that were not refused again for long
and bounds the table; :func:`list_refused` reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select

from dataserver.rules import entities
from dataserver.rules.refusals import Refusal, words
from dataserver.store import schema
from dataserver.store.cache import in_chunks
from dataserver.store.layout import Layout
from dataserver.store.sql import Row, Sql

#: Rows of one agent, besides the row that counts the rest, and rows of the table.
MOST_OF_AGENT, MOST = 50, 100_000
#: Seconds after which a row that was not written again is deleted; rows deleted at once.
KEPT, _BLOCK = 30 * 86_400, 1_000
#: Characters of a name and of a value that are stored.
_LONGEST_NAME, LONGEST_VALUE = 600, 200
_KEYS = ("agent_id", "key", "module", "reason", "value", "count", "first", "last")


class Noted(NamedTuple):
    """A value that was refused ``times`` times, or another part of a packet.

    ``module`` is the module's name as stored, cut, or '' for parts of no module.
    """

    agent_id: int
    module: str
    reason: Refusal
    value: str
    times: int


class Refusals:
    """What one batch refused, in order; bounded by agent like the table."""

    __slots__ = ("_by_agent",)

    def __init__(self) -> None:
        self._by_agent: dict[int, dict[tuple[str, Refusal], tuple[int, str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_agent)

    def __iter__(self) -> Iterator[Noted]:
        for agent_id, noted in self._by_agent.items():
            for (module, reason), (count, value) in noted.items():
                yield Noted(agent_id, module, reason, value, count)

    def add(self, agent_id: int, module: str, reason: Refusal, value: str, count: int) -> None:
        """Note that ``value`` was refused, the last one of ``count``."""
        noted = self._by_agent.setdefault(agent_id, {})
        key = _cut(module), reason  # as in its row: long names with the same beginning share one
        if key not in noted and len(noted) >= MOST_OF_AGENT:
            key = "", Refusal.MORE
        before = noted.get(key)
        noted[key] = count + (before[0] if before else 0), value[:LONGEST_VALUE]


def write(conn: Connection, sql: Sql, refusals: Refusals, now: int) -> list[Noted]:
    """Add ``refusals`` to the table; returns those that were refused for the first time.

    The agents' versions must be locked; ``now`` in epoch seconds.
    """
    by_agent: dict[int, list[Noted]] = {}
    for each in refusals:
        by_agent.setdefault(each.agent_id, []).append(each)
    known = _known(conn, sorted(by_agent))
    rows: list[Row] = []
    new: list[Noted] = []
    for agent_id, noted in by_agent.items():
        there = known.get(agent_id, {})
        room = max(0, MOST_OF_AGENT - len(there.keys() - {_MORE}))
        more, last_value = 0, ""
        for each in noted:
            key = _key(each.module, each.reason)
            is_new = key not in there
            if each.reason is Refusal.MORE or (is_new and not room):
                more, last_value = more + each.times, each.value
                continue
            if is_new:
                room -= 1
                new.append(each)
            rows.append(_row(each, key, there.get(key), now))
        if more:
            rest = Noted(agent_id, "", Refusal.MORE, last_value, more)
            rows.append(_row(rest, _MORE, there.get(_MORE), now))
    # Sorted by primary key, so that all writers use the same order.
    rows.sort(key=lambda row: row[:2])
    sql.upsert(conn, schema.refused, _KEYS, rows)
    return new


def stored_name(raw: str) -> str:
    """The name of a module that could not be created, as it would be stored, cut."""
    return entities.encode(entities.clean_name(raw[:_LONGEST_NAME]))


def _known(conn: Connection, agent_ids: list[int]) -> dict[int, dict[bytes, tuple[int, int]]]:
    """(count, first) of the agents' rows, by key."""
    c = schema.refused.c
    found: dict[int, dict[bytes, tuple[int, int]]] = {}
    for ids in in_chunks(agent_ids):
        query = select(c.agent_id, c.key, c.count, c.first).where(c.agent_id.in_(ids))
        for agent_id, key, count, first in conn.execute(query):
            found.setdefault(agent_id, {})[bytes(key)] = count, first
    return found


def _row(each: Noted, key: bytes, before: tuple[int, int] | None, now: int) -> Row:
    count, first = before or (0, now)
    total = count + each.times
    return each.agent_id, key, each.module, each.reason.value, each.value, total, first, now


def _key(module: str, reason: Refusal) -> bytes:
    text = f"{reason.value}\n{module}".encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=16).digest()


def _cut(name: str) -> str:
    """A stored name as long as the column, without half an entity at its end."""
    if len(name) <= _LONGEST_NAME:
        return name
    name = name[:_LONGEST_NAME]
    start = name.rfind("&")
    return name[:start] if start > name.rfind(";") else name


_MORE = _key("", Refusal.MORE)


# -- bounding the table --


def sweep(conn: Connection, now: int) -> bool:
    """Delete a block of old rows, rows of deleted agents, and the oldest rows beyond the limit.

    True if there is more to do at once.  ``now`` in epoch seconds.
    """
    c, a = schema.refused.c, schema.agent.c
    key = select(c.agent_id, c.key, c.last)
    old = key.where(c.last < now - KEPT).limit(_BLOCK)
    joined = schema.refused.outerjoin(schema.agent, a.id == c.agent_id)
    gone = key.select_from(joined).where(a.id.is_(None)).limit(_BLOCK)
    queries = [old, gone]
    count = conn.scalar(select(func.count()).select_from(schema.refused)) or 0
    if count > MOST:
        queries.append(key.order_by(c.last).limit(min(count - MOST, _BLOCK)))
    found = {tuple(row) for query in queries for row in conn.execute(query)}
    # In the order in which batches write; rows that were written again meanwhile are kept.
    for agent_id, digest, last in sorted(found):
        here = (c.agent_id == agent_id, c.key == digest, c.last == last)
        conn.execute(delete(schema.refused).where(*here))
    return len(found) >= _BLOCK


# -- reading --


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """One row, with decoded names; ``module`` is '' for parts of no module.

    ``value`` is the last one, cut; ``first`` and ``last`` are in epoch seconds.
    """

    agent_id: int
    agent: str
    alias: str
    module: str
    reason: str
    text: str
    value: str
    count: int
    first: int
    last: int


def list_refused(
    conn: Connection, layout: Layout, agent_id: int | None = None, limit: int | None = None
) -> list[RefusedRecord]:
    """The rows of all agents or of one, the newest first.

    Empty if the database, of an earlier version, does not have the table yet.
    """
    if not layout.has(schema.refused):
        return []
    c, a = schema.refused.c, schema.agent.c
    named = (c.agent_id, a.name, a.alias, c.module)
    columns = (*named, c.reason, c.value, c.count, c.first, c.last)
    query = (
        select(*columns)
        .join_from(schema.refused, schema.agent, a.id == c.agent_id)
        .order_by(c.last.desc(), c.count.desc(), c.agent_id, c.key)
    )
    if agent_id is not None:
        query = query.where(c.agent_id == agent_id)
    if limit is not None:
        query = query.limit(limit)
    return [_record(row) for row in conn.execute(query)]


def of_module(records: Sequence[RefusedRecord], name: str) -> tuple[RefusedRecord, ...]:
    """Those of an agent's records that belong to its module ``name``."""
    wanted = entities.decode(_cut(entities.encode(name)))
    return tuple(each for each in records if each.module == wanted)


def _record(row: Any) -> RefusedRecord:
    agent_id, agent, alias, module, reason, value, count, first, last = row
    return RefusedRecord(
        agent_id=agent_id,
        agent=entities.decode(agent),
        alias=entities.decode(alias or ""),
        module=entities.decode(module),
        reason=reason,
        text=words(reason),
        value=value,
        count=count,
        first=first,
        last=last,
    )

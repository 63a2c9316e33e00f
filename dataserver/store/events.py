"""Writes events in bulk, in the transaction of what they report.

Missing details are looked up: the agent's group, and a module's tags and instructions.  A module
has at most one open status event: each new one validates those before it, as the Perl server
does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, null, select, update

from dataserver.rules import entities
from dataserver.rules.events import NO_DETAILS, Event, EventDetails
from dataserver.store import columns, schema
from dataserver.store.cache import INSTRUCTIONS, about, in_chunks, tag_names
from dataserver.store.layout import Layout
from dataserver.store.sql import Row, Sql

#: The source of our events, a name that the console knows.
SOURCE = "monitoring_server"
_OPEN, _CLOSED = 0, 1
_STATUS_EVENT = "going_"
_WIDE = re.compile("[\U00010000-\U0010ffff]")
#: Bytes of a TINYTEXT.
_TINY = 255

#: Unused columns, which are empty and not NULL, as the Perl server writes them: the console's
#: search with NOT does not find rows in which they are NULL.
_UNUSED = ("user_id", "id_extra", "custom_data", "event_custom_id")
_NOTHING = ("",) * len(_UNUSED)
_KEYS = (
    "agent_id",
    "group_id",
    "status",
    "local_time",
    "text",
    "time",
    "type",
    "module_id",
    "severity",
    "tags",
    "source",
    "critical_instructions",
    "warning_instructions",
    "unknown_instructions",
    "ack_utimestamp",
    "data",
    "module_status",
    *_UNUSED,
)


class EventLog:
    """Writes events in the caller's transaction; does nothing if the database has no such table."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self._layout = layout
        self._there = [place for place, key in enumerate(_KEYS) if layout.has(schema.event.c[key])]
        self._keys = tuple(_KEYS[place] for place in self._there)
        self._writes = layout.has(schema.event)

    def write(
        self,
        conn: Connection,
        events: Sequence[Event],
        now: int,
        now_text: str,
        *,
        overtaken: Collection[int] | None = None,
    ) -> None:
        """Store ``events`` in order, and validate the events that they replace.

        ``now`` in epoch seconds and as local text; ``overtaken``: ids of modules whose earlier
        events are validated, None for the modules of ``events``.
        """
        if not self._writes or not (events or overtaken):
            return
        newest = {event.module_id: place for place, event in enumerate(events) if _replaces(event)}
        self._validate(conn, newest if overtaken is None else overtaken, now)
        if not events:
            return
        groups = self._groups(conn, {e.agent_id for e in events if e.group_id is None})
        about = self._modules(conn, {e.module_id for e in events if e.about is None})
        rows: list[Row] = []
        complete = len(self._there) == len(_KEYS)
        for place, event in enumerate(events):
            replaced = _replaces(event) and newest[event.module_id] > place
            closed = event.closed or replaced
            module = event.about or about.get(event.module_id, NO_DETAILS)
            group_id = event.group_id
            row = (
                event.agent_id,
                groups.get(event.agent_id, 0) if group_id is None else group_id,
                _CLOSED if closed else _OPEN,
                now_text,
                columns.fit(schema.event, "text", _encoded(event.text)),
                now,
                event.type,
                event.module_id,
                event.severity,
                module.tags,
                SOURCE,
                *module[1:],
                now if closed else 0,
                _tiny(event.data),
                event.module_status,
                *_NOTHING,
            )
            rows.append(row if complete else tuple(row[place] for place in self._there))
        self._sql.insert(conn, schema.event, self._keys, rows)

    def _validate(self, conn: Connection, module_ids: Collection[int], now: int) -> None:
        c = schema.event.c
        values: dict[str, Any] = {"status": _CLOSED}
        if self._layout.has(c.ack_utimestamp):
            values["ack_utimestamp"] = now
        for ids in in_chunks(sorted(module_ids)):
            conn.execute(
                update(schema.event).where(c.status == _OPEN, c.module_id.in_(ids)).values(values)
            )

    def _groups(self, conn: Connection, agent_ids: set[int]) -> dict[int, int]:
        c = schema.agent.c
        found: dict[int, int] = {}
        for ids in in_chunks(sorted(agent_ids - {0})):
            rows = conn.execute(select(c.id, c.group_id).where(c.id.in_(ids)))
            found.update((row[0], row[1] or 0) for row in rows)
        return found

    def _modules(self, conn: Connection, module_ids: set[int]) -> dict[int, EventDetails]:
        ids = sorted(module_ids - {0})
        tags = tag_names(conn, schema.module_tag.c.module_id, ids) if ids else {}
        m = schema.module.c
        wanted = [m[key] if self._layout.has(m[key]) else null() for key in INSTRUCTIONS]
        found: dict[int, EventDetails] = {}
        for some in in_chunks(ids):
            for row in conn.execute(select(m.id, *wanted).where(m.id.in_(some))):
                found[row[0]] = about(tags.get(row[0], ""), *row[1:])
        return found


def _replaces(event: Event) -> bool:
    return event.module_id != 0 and event.type.startswith(_STATUS_EVENT)


def _encoded(text: str) -> str:
    """``text`` as stored; four-byte characters as entities, since older tables hold three bytes."""
    encoded = entities.encode(text)
    if encoded.isascii():
        return encoded
    return _WIDE.sub(lambda found: f"&#x{ord(found[0]):x};", encoded)


def _tiny(data: str) -> str:
    """``data`` as stored, cut to its column but not within an entity."""
    if len(data) < _TINY:
        encoded = _encoded(data)
        if len(encoded) * 4 <= _TINY:
            return encoded
    text = ""
    for char in data[:_TINY]:
        encoded = _encoded(char)
        if len(text.encode("utf-8", "replace")) + len(encoded.encode("utf-8", "replace")) > _TINY:
            break
        text += encoded
    return text

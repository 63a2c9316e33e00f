"""What a graph of a module needs besides its history: how it is judged, and its events."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Engine, String, null, select, type_coerce

from dataserver import entities
from dataserver.status import PLAIN, Rules
from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading
from dataserver.store.standing import RULE_KEYS, rules_from


class EventMark(NamedTuple):
    """An event of a module; ``time`` in epoch seconds, ``text`` as people read it."""

    id: int
    time: int
    type: str
    severity: int
    text: str


def module_rules(engine: Engine, layout: Layout, module_id: int) -> Rules:
    """How the values of a module are judged today.  Raises StoreError."""
    m = schema.module.c
    wanted = (m[key] if layout.has(m[key]) else null().label(key) for key in RULE_KEYS)
    query = select(*wanted).where(m.id == module_id)
    with translating("read the module"), reading(engine) as conn:
        row = conn.execute(query).one_or_none()
    return PLAIN if row is None else rules_from(tuple(value or None for value in row))


def module_events(
    engine: Engine, layout: Layout, module_id: int, start: int, end: int, most: int
) -> list[EventMark]:
    """The newest ``most`` events of a module in [start, end), in order.  Raises StoreError."""
    if not layout.has(schema.event):
        return []
    e = schema.event.c
    query = (
        select(e.id, e.time, type_coerce(e.type, String()), e.severity, e.text)
        .where(e.module_id == module_id, e.time >= start, e.time < end)
        .order_by(e.time.desc(), e.id.desc())
        .limit(most)
    )
    with translating("read events"), reading(engine) as conn:
        rows = conn.execute(query).all()
    return [
        EventMark(row[0], row[1], row[2] or "", row[3], entities.decode(row[4] or ""))
        for row in reversed(rows)
    ]

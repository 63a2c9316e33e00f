"""Reads events: lists of past ones, page by page, and new ones as they arrive.

The table of events may be long, and is never read as a whole (:class:`EventList`): a time bounds
the search, and its index gives the lowest id since then.  From there rows are read in order of
id, through the primary key or the index over the agent or the module.  Each page is a transaction
of its own.

:class:`EventTail` returns each new event once and misses none.  A database assigns an id when a
row is inserted and shows the row when its transaction commits, so an event may appear after others
with higher ids.  Therefore every look begins at ``low``, below which nothing can appear any more,
and skips what was seen already.  ``low`` rises

1. over ids that were seen without a gap between them, which is the usual case: then a look
   reads only what is new;
2. over a gap, once an id above it was seen :data:`PATIENCE` seconds ago.  Ids that were used by
   a transaction that was rolled back, or that a cluster leaves out, are such gaps;
3. when more than ``_MOST`` ids above it were seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Enum,
    Row,
    Select,
    String,
    func,
    null,
    select,
    type_coerce,
)

from dataserver.errors import SchemaError
from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading

#: The types of events that Pandora FMS knows.
TYPES: tuple[str, ...] = tuple(cast(Enum, schema.event.c.type.type).enums)
#: Events in one page, and ids in one page of ids.
PAGE = 500
_IDS = 5_000
#: Events that are searched for one page, and for the first event since a time.
LOOK, _EARLIEST = 50_000, 1_000
_VALIDATED = 1
_e = schema.event.c
#: As text: a newer Pandora FMS may have types that the schema's enumeration does not know.
_TYPE: ColumnElement[Any] = type_coerce(_e.type, String())


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event.  Texts are decoded; ``time`` in epoch seconds.

    ``severity`` 0 maintenance, 1 informational, 2 normal, 3 warning, 4 critical, 5 minor,
    6 major; ``state`` 0 new, 1 validated, 2 in process.  ``agent`` (a name), ``alias`` and
    ``module`` are None if the event has none, or if they were deleted.
    """

    id: int
    time: int
    severity: int
    type: str
    state: int
    agent_id: int
    agent: str | None
    alias: str | None
    module_id: int
    module: str | None
    text: str
    data: str

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From a row of :func:`_events_query`."""
        return cls(
            id=row.id,
            time=row.time,
            severity=row.severity,
            type=row.type_text or "",
            state=row.status,
            agent_id=row.agent_id,
            agent=_decoded(row.agent_name),
            alias=_decoded(row.alias),
            module_id=row.module_id,
            module=_decoded(row.module_name),
            text=entities.decode(row.text or ""),
            data=entities.decode(row.data or ""),
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter for events; a field that is None or empty allows all.

    ``open_only``: only events that have not been validated.
    """

    agent_id: int | None = None
    module_id: int | None = None
    types: frozenset[str] = frozenset()
    severities: frozenset[int] = frozenset()
    open_only: bool = False

    def conditions(self) -> list[ColumnElement[bool]]:
        """The SQL conditions of this filter."""
        found: list[ColumnElement[bool]] = []
        if self.agent_id is not None:
            found.append(_e.agent_id == self.agent_id)
        if self.module_id is not None:
            found.append(_e.module_id == self.module_id)
        if self.types:
            found.append(_TYPE.in_(sorted(self.types)))
        if self.severities:
            found.append(_e.severity.in_(sorted(self.severities)))
        if self.open_only:
            found.append(_e.status != _VALIDATED)
        return found


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the newest first; ``older``: the id before which to continue, None at the end.

    A page may have fewer events than its limit, or none, although there are older ones.
    """

    events: tuple[EventRecord, ...]
    older: int | None


class EventList:
    """Reads the events of one database.  Raises SchemaError if it has no table of events."""

    def __init__(self, engine: Engine, layout: Layout, page: int = PAGE) -> None:
        if not layout.has(schema.event):
            raise SchemaError(f"the database has no table {schema.event.name}, so no events")
        self._engine = engine
        self._query = _events_query(layout)
        self._page = page

    def newest(self, wanted: Wanted, limit: int, since: int) -> Iterator[EventRecord]:
        """The last ``limit`` events since ``since`` (epoch seconds), the newest one last.

        Raises StoreError.
        """
        last = self.newest_id()
        with self._reading() as conn:
            first = _first_id(conn, since)
            if first is None or limit < 1:
                return
            conditions = [*wanted.conditions(), _e.time >= since, _e.id <= last]
            found = select(_e.id).where(_e.id >= first, *conditions).order_by(_e.id.desc())
            start = conn.scalar(found.limit(1).offset(limit - 1))
        after = (first if start is None else start) - 1
        while True:
            query = self._query.where(_e.id > after, *conditions).order_by(_e.id)
            page = self._read(query.limit(self._page))
            yield from page
            if len(page) < self._page:
                return
            after = page[-1].id

    def page(self, wanted: Wanted, before: int | None, limit: int, since: int) -> EventPage:
        """The last ``limit`` events since ``since`` (epoch seconds), the newest first.

        ``before``: only those with a lower id.  At most :data:`LOOK` events are searched, so that
        a filter that matches few does not read the whole table.  Raises StoreError.
        """
        with self._reading() as conn:
            first = _lowest_id(conn, since)
            if first is None:
                return EventPage((), None)
            edge = None
            if wanted.agent_id is None and wanted.module_id is None:
                # The events of one agent or module are found by its index.
                edge = conn.scalar(_below(before).order_by(_e.id.desc()).offset(LOOK).limit(1))
        low = first if edge is None else max(first, edge + 1)
        conditions = [*wanted.conditions(), _e.time >= since, _e.id >= low]
        if before is not None:
            conditions.append(_e.id < before)
        query = self._query.where(*conditions).order_by(_e.id.desc()).limit(limit + 1)
        found = self._read(query)
        if len(found) > limit:
            return EventPage(tuple(found[:limit]), found[limit - 1].id)
        return EventPage(tuple(found), low if low > first else None)

    def by_ids(self, ids: Sequence[int], wanted: Wanted) -> list[EventRecord]:
        """The events with these ids that match the filter, in order.  Raises StoreError."""
        chosen = self._query.where(_e.id.in_(ids), *wanted.conditions())
        return self._read(chosen.order_by(_e.id))

    def newest_id(self) -> int:
        """The highest id, or 0 if there are no events.  Raises StoreError."""
        with self._reading() as conn:
            return conn.scalar(select(func.max(_e.id))) or 0

    def ids_after(self, after: int) -> list[int]:
        """A page of the ids above ``after``, in order; empty at the end.  Raises StoreError."""
        query = select(_e.id).where(_e.id > after).order_by(_e.id).limit(_IDS)
        with self._reading() as conn:
            return list(conn.scalars(query))

    def _read(self, query: Select[Any]) -> list[EventRecord]:
        with self._reading() as conn:
            return [EventRecord.from_row(row) for row in conn.execute(query)]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translating("read events"), reading(self._engine) as conn:
            yield conn


def _first_id(conn: Connection, since: int) -> int | None:
    """The lowest id of the events since ``since``, or None if there are none."""
    # The count is for SQLite: for min() alone it reads the whole table in order of id.
    first, _ = conn.execute(select(func.min(_e.id), func.count()).where(_e.time >= since)).one()
    return None if first is None else int(first)


def _lowest_id(conn: Connection, since: int) -> int | None:
    """Approximately the lowest id of the events since ``since``, or None if there are none.

    Events are written as they happen, so it is among the first of them by time.
    """
    earliest = select(_e.id).where(_e.time >= since).order_by(_e.time).limit(_EARLIEST)
    found: int | None = conn.scalar(select(func.min(earliest.subquery().c.id)))
    return found


def _below(before: int | None) -> Select[Any]:
    return select(_e.id) if before is None else select(_e.id).where(_e.id < before)


def _events_query(layout: Layout) -> Select[Any]:
    a, m = schema.agent.c, schema.module.c
    joined = schema.event.outerjoin(schema.agent, a.id == _e.agent_id).outerjoin(
        schema.module, m.id == _e.module_id
    )
    return select(
        _e.id,
        _e.time,
        _e.severity,
        _TYPE.label("type_text"),
        _e.status,
        _e.agent_id,
        a.name.label("agent_name"),
        a.alias,
        _e.module_id,
        m.name.label("module_name"),
        _e.text,
        _e.data if layout.has(_e.data) else null().label("data"),
    ).select_from(joined)


def _decoded(text: str | None) -> str | None:
    return None if text is None else entities.decode(text)


# -- new events as they arrive --

#: Seconds for which a skipped id may still appear: longer than any transaction of a server lasts
#: (waits for locks, time-outs, the idle time after which the database ends it).
PATIENCE = 300.0
#: At the start, gaps among this many ids before the newest one are watched.
_WATCHED = 1_000
#: Ids that are remembered; in an event storm this many arrive within :data:`PATIENCE`.
_MOST = 50_000


class EventTail:
    """Follows the events of a database.  All ``now`` are seconds of one monotonic clock."""

    def __init__(self, events: EventList, wanted: Wanted, now: float) -> None:
        """Start after the events that exist now.  Raises StoreError."""
        self._events = events
        self._wanted = wanted
        self._newest = events.newest_id()
        self._low = max(0, self._newest - _WATCHED)
        #: Ids above ``low`` that were seen, with the time of the first look that saw them.
        self._seen = dict.fromkeys(events.ids_after(self._low), now)

    @property
    def remembered(self) -> int:
        """The number of ids held in memory."""
        return len(self._seen)

    def newest(self, limit: int, since: int, now: float) -> Iterator[EventRecord]:
        """Existing events, as :meth:`EventList.newest`; later looks do not return them again."""
        for record in self._events.newest(self._wanted, limit, since):
            if record.id > self._low:
                self._seen.setdefault(record.id, now)
            yield record

    def look(self, now: float) -> Iterator[EventRecord]:
        """The events that arrived since the last look, in order of id.

        Raises StoreError; the next look continues from there.
        """
        self._notice_loss()
        after = self._low
        while ids := self._events.ids_after(after):
            after = ids[-1]
            fresh = [key for key in ids if key not in self._seen]
            for start in range(0, len(fresh), PAGE):
                page = fresh[start : start + PAGE]
                found = self._events.by_ids(page, self._wanted)
                self._seen.update(dict.fromkeys(page, now))
                yield from found
            self._newest = max(self._newest, after)
            self._close_gaps()
            # A closed gap has forgotten ids up to ``low``, which must not be read again.
            after = max(after, self._low)
        # Only after everything was read: events that were committed during an outage come first.
        self._lose_patience(now)

    def _notice_loss(self) -> None:
        """If the newest events are gone (deleted, a backup restored), their ids are used again."""
        newest = self._events.newest_id()
        if newest < self._newest:
            self._newest = newest
            self._low = min(self._low, newest)
            self._seen = {key: time for key, time in self._seen.items() if key <= newest}

    def _close_gaps(self) -> None:
        while self._low + 1 in self._seen:
            self._low += 1
            del self._seen[self._low]
        if len(self._seen) > _MOST:
            self._rise(sorted(self._seen)[-_MOST - 1])

    def _lose_patience(self, now: float) -> None:
        old = [key for key, time in self._seen.items() if time <= now - PATIENCE]
        if old:
            self._rise(max(old))
            self._close_gaps()

    def _rise(self, low: int) -> None:
        self._low = low
        self._seen = {key: time for key, time in self._seen.items() if key > low}

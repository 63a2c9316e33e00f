"""Events, the newest first, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass

from dataserver.console.source import Source
from dataserver.store.event_list import EventList, EventRecord, Wanted

#: Events of one page.
PAGE = 100


@dataclass(frozen=True, slots=True)
class Events:
    """A page of events; ``older``: the id before which the next page lies, None: there is none."""

    events: tuple[EventRecord, ...]
    older: int | None


def events(source: Source, wanted: Wanted, before: int | None, since: int) -> Events:
    """Those since a time (epoch seconds).  Raises SchemaError (no table), StoreError."""
    store = source.store()
    with source.watched():
        found = EventList(store.engine, store.layout).before(wanted, before, PAGE + 1, since)
    older = found[PAGE - 1].id if len(found) > PAGE else None
    return Events(tuple(found[:PAGE]), older)

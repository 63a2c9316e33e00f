"""Events, the newest first, a page at a time."""

from __future__ import annotations

from dataclasses import dataclass

from dataserver.console.source import Source
from dataserver.errors import SchemaError
from dataserver.store.event_list import EventList, EventRecord, Wanted

#: Events of one page.
PAGE = 100


@dataclass(frozen=True, slots=True)
class Events:
    """A page of events; ``older``: the id before which the next page lies, None: there is none.

    ``missing``: why there are none to be looked at.
    """

    events: tuple[EventRecord, ...]
    older: int | None
    missing: str | None = None


def events(source: Source, wanted: Wanted, before: int | None, since: int) -> Events:
    """Those since a time (epoch seconds).  Raises StoreError."""
    store = source.store()
    try:
        listed = EventList(store.engine, store.layout)
    except SchemaError as error:
        return Events((), None, str(error))
    with source.watched():
        found = listed.page(wanted, before, PAGE, since)
    return Events(found.events, found.older)

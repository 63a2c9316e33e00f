"""The page of events, filtered, the newest first."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.params import source_of
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.console.value_words import severity_words
from dataserver.errors import SchemaError
from dataserver.rules.moments import moment
from dataserver.store.read.events import TYPES, EventList, EventRecord, Wanted

#: Events per page.
PAGE = 100
_SEVERITIES = tuple(severity_words(number) for number in range(7))
#: The default start of the span: of all events, and of those of one agent or module.
_SINCE, _EVER = "-7d", "2000-01-01"


@dataclass(frozen=True, slots=True)
class Events:
    """A page of events; ``older`` is the id before which the next page begins, or None.

    ``missing`` says why the database has no events, or is None.
    """

    events: tuple[EventRecord, ...]
    older: int | None
    missing: str | None = None


def events(source: Source, wanted: Wanted, before: int | None, since: int) -> Events:
    """A page of the selected events since a time (epoch seconds).  Raises StoreError."""
    store = source.store()
    try:
        listed = EventList(store.engine, store.layout)
    except SchemaError as error:
        return Events((), None, str(error))
    with source.watched():
        found = listed.page(wanted, before, PAGE, since)
    return Events(found.events, found.older)


# -- the page and its twin under /api/ --


def events_page(request: Request) -> Response:
    """The HTML page."""
    asked = _asked(request)
    wanted, before, _ = asked
    chosen = {name: params.text(request, name) for name in ("agent", "module", "type", "severity")}
    chosen |= {"open": "1" if wanted.open_only else "", "since": _since(request)}
    return page(
        request,
        "events.html",
        shown=events(source_of(request), *asked),
        chosen=chosen,
        wanted=wanted,
        is_first=before is None,
        types=TYPES,
        severities=_SEVERITIES,
        severity_words=severity_words,
    )


def events_json(request: Request) -> Response:
    """The page's record as JSON."""
    return reply(events(source_of(request), *_asked(request)))


def _asked(request: Request) -> tuple[Wanted, int | None, int]:
    source = source_of(request)
    kind = params.choice(request, "type", TYPES)
    severity = params.choice(request, "severity", _SEVERITIES)
    wanted = Wanted(
        agent_id=_id(request, "agent"),
        module_id=_id(request, "module"),
        types=frozenset([kind] if kind else ()),
        severities=frozenset([_SEVERITIES.index(severity)] if severity else ()),
        open_only=params.flag(request, "open"),
    )
    return (
        wanted,
        _id(request, "before"),
        moment(_since(request), now=source.now(), zone=source.zone),
    )


def _id(request: Request, name: str) -> int | None:
    # Zero is valid: an event without an agent has it.
    return params.integer(request, name, 0) if params.text(request, name) else None


def _since(request: Request) -> str:
    is_of_one = params.text(request, "agent") or params.text(request, "module")
    return params.text(request, "since", 40) or (_EVER if is_of_one else _SINCE)


routes: list[BaseRoute] = [
    Route("/events", events_page, methods=["GET"]),
    Route("/api/events", events_json, methods=["GET"]),
]

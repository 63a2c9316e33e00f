"""Events with filter."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.console.views import events as views
from dataserver.console.views.value_words import severity_words
from dataserver.moments import moment
from dataserver.store.event_list import TYPES, Wanted

_SEVERITIES = tuple(severity_words(number) for number in range(7))
#: Events of how long ago are looked at, where nothing is said.
_SINCE = "-7d"


def _asked(request: Request) -> tuple[Wanted, int | None, int]:
    source: Source = request.app.state.source
    kind = params.choice(request, "type", TYPES)
    severity = params.choice(request, "severity", _SEVERITIES)
    wanted = Wanted(
        agent_id=params.integer(request, "agent", 0) or None,
        module_id=params.integer(request, "module", 0) or None,
        types=frozenset([kind] if kind else ()),
        severities=frozenset([_SEVERITIES.index(severity)] if severity else ()),
        open_only=params.flag(request, "open"),
    )
    since = params.text(request, "since", 40) or _SINCE
    return (
        wanted,
        params.integer(request, "before", 0) or None,
        moment(since, now=source.now(), zone=source.zone),
    )


def events_page(request: Request) -> Response:
    """A page of them."""
    asked = _asked(request)
    query = request.query_params
    names = ("agent", "module", "type", "severity", "open", "since")
    chosen = {name: query.get(name, "") for name in names}
    return page(
        request,
        "events.html",
        shown=views.events(request.app.state.source, *asked),
        chosen={**chosen, "since": chosen["since"] or _SINCE},
        is_first="before" not in query,
        types=TYPES,
        severities=_SEVERITIES,
        severity_words=severity_words,
    )


def events_json(request: Request) -> Response:
    """The same."""
    return reply(views.events(request.app.state.source, *_asked(request)))


routes: list[BaseRoute] = [
    Route("/events", events_page, methods=["GET"]),
    Route("/api/events", events_json, methods=["GET"]),
]

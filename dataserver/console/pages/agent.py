"""One agent: its modules, its access graph, its events."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.pages.agents import GRAVEST, STATUSES
from dataserver.console.pages.module import NARROWEST, WIDEST, WIDTH
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.console.views import agent as views
from dataserver.console.views.graph_view import DAY, GraphView
from dataserver.console.views.sparks import HEIGHT, drawn
from dataserver.console.views.sparks import WIDTH as SPARK_WIDTH
from dataserver.console.views.value_words import severity_words, status_words, value_words

#: The span of the access graph at first, in seconds.
_FIRST = 7 * DAY


def _asked(request: Request) -> views.AgentDetails:
    status = params.choice(request, "status", GRAVEST)
    return views.agent(
        _source(request),
        params.path_id(request),
        params.text(request, "q"),
        STATUSES[status] if status else None,
        params.integer(request, "page", 1, 1, 1_000_000),
    )


def agent_page(request: Request) -> Response:
    """The agent."""
    source = _source(request)
    shown = _asked(request)
    view = GraphView.of(
        params.span(request, source, _FIRST),
        now=source.now(),
        is_live=request.query_params.get("to", "now") == "now",
        refresh=shown.agent.interval or 300,
        zone=source.zone,
        first=None,
    )
    return page(
        request,
        "agent.html",
        shown=shown,
        view=view,
        chosen={"q": params.text(request, "q"), "status": params.text(request, "status")},
        statuses=GRAVEST,
        status_words=status_words,
        value_words=value_words,
        severity_words=severity_words,
        drawn=drawn,
        spark=(SPARK_WIDTH, HEIGHT),
        days=views.DAYS,
    )


def agent_json(request: Request) -> Response:
    """The same for programs."""
    return reply(_asked(request))


def agent_access(request: Request) -> Response:
    """What the access graph shows."""
    source = _source(request)
    width = params.integer(request, "width", WIDTH, NARROWEST, WIDEST)
    span = params.span(request, source, _FIRST)
    return reply(views.access(source, params.path_id(request), span, width))


def _source(request: Request) -> Source:
    source: Source = request.app.state.source
    return source


routes: list[BaseRoute] = [
    Route("/agents/{id:int}", agent_page, methods=["GET"]),
    Route("/api/agents/{id:int}", agent_json, methods=["GET"]),
    Route("/api/agents/{id:int}/access", agent_access, methods=["GET"]),
]

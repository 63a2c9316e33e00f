"""The page of a module, its record, its graph and its values as a file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.console.views import module as views
from dataserver.console.views import values_file
from dataserver.console.views.graph_view import FIRST, GraphView
from dataserver.console.views.value_words import severity_words, status_words, value_words
from dataserver.store.listing import ModuleRecord

#: Columns that a graph may have, and those of one whose width is not said.
NARROWEST, WIDEST, WIDTH = 50, 4000, 1000


def module_page(request: Request) -> Response:
    """What a module is, and was."""
    source = _source(request)
    span = params.span(request, source, FIRST)
    shown = views.page(source, params.path_id(request))
    module = shown.details.module
    interval = module.interval or shown.agent.interval
    view = GraphView.of(
        span,
        now=source.now(),
        is_live=request.query_params.get("to", "now") == "now",
        refresh=interval,
        zone=source.zone,
        first=shown.details.first,
    )
    return page(
        request,
        "module.html",
        shown=shown,
        view=view,
        interval=interval,
        value=_value(module),
        state=status_words(module.status),
        pending=status_words(module.pending) if module.pending is not None else None,
        values=[value_words(change.value, module) for change in shown.changes],
        severities=[severity_words(event.severity) for event in shown.events],
    )


def module_record(request: Request) -> Response:
    """The same for programs: the record, its agent, its thresholds."""
    return reply(views.details(_source(request), params.path_id(request)))


def module_graph(request: Request) -> Response:
    """What the graph shows."""
    source = _source(request)
    width = params.integer(request, "width", WIDTH, NARROWEST, WIDEST)
    span = params.span(request, source, FIRST)
    return reply(views.graph(source, params.path_id(request), span, width))


def module_values(request: Request) -> Response:
    """The values of a span as CSV, read while they are sent."""
    source = _source(request)
    module_id = params.path_id(request)
    span = params.span(request, source, FIRST)
    views.details(source, module_id)
    name = values_file.name(module_id, span)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    media = "text/csv; charset=utf-8; header=present"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media)
    content = values_file.chunks(source, module_id, span)
    return StreamingResponse(_begun(content), headers=headers, media_type=media)


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, begun: what fails at once is still told by the answer's status."""
    return chain([next(chunks)], chunks)


def _value(module: ModuleRecord) -> str:
    return "no value yet" if module.value is None else value_words(module.value, module)


def _source(request: Request) -> Source:
    source: Source = request.app.state.source
    return source


routes: list[BaseRoute] = [
    Route("/modules/{id:int}", module_page),
    Route("/api/modules/{id:int}", module_record),
    Route("/api/modules/{id:int}/graph", module_graph),
    Route("/api/modules/{id:int}/data.csv", module_values),
]

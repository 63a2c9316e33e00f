"""The page of an agent: its modules, its access graph, its events, its refused values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.graph_view import DAY, GraphView
from dataserver.console.html import page
from dataserver.console.pages.agents import GRAVEST, STATUSES, silent
from dataserver.console.pages.module import NARROWEST, WIDEST, WIDTH
from dataserver.console.params import NotFound, source_of
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.console.sparks import HEIGHT, drawn
from dataserver.console.sparks import WIDTH as SPARK_WIDTH
from dataserver.console.value_words import severity_words, status_words, value_words
from dataserver.errors import UsageError
from dataserver.graphs.model import AccessGraph, Span, Sparkline
from dataserver.rules.status import Status
from dataserver.rules.values import Kind, type_rule
from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.events import EventList, EventRecord, Wanted
from dataserver.store.read.modules import (
    AgentRecord,
    ModuleName,
    ModuleRecord,
    module_names,
    some_modules,
)
from dataserver.store.read.modules import agent as agent_by_id
from dataserver.store.refused import RefusedRecord, list_refused

#: Modules per page, events, and how many days of events are searched.
PAGE, EVENTS, DAYS = 100, 20, 30
#: The span and the columns of a sparkline.
SPARK_SECONDS, SPARK_COLUMNS = DAY, 48
#: The initial span of the access graph, in seconds.
_FIRST = 7 * DAY


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module with the sparkline of its last day, or None if it has no numbers."""

    module: ModuleRecord
    sparkline: Sparkline | None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A refusal in the agent's packets; ``module_id`` is None if it concerns no module."""

    record: RefusedRecord
    module_id: int | None


@dataclass(frozen=True, slots=True)
class AgentDetails:
    """An agent with a page of its selected modules; pages count from 1.

    ``counts`` are the enabled modules with a matching name by status, ``total`` is the number of
    selected ones.  ``events`` are the newest, or None if the database has no table of events.
    """

    agent: AgentRecord
    silent: int | None
    counts: dict[str, int]
    modules: tuple[ModuleRow, ...]
    total: int
    page: int
    pages: int
    events: tuple[EventRecord, ...] | None
    refused: tuple[RefusedRow, ...]


def read_agent(
    source: Source, agent_id: int, text: str, status: Status | None, page: int
) -> AgentDetails:
    """An agent with its modules whose names contain ``text`` and that have ``status``.

    Only enabled modules have a status.  Raises NotFound, StoreError.
    """
    store = source.store()
    with source.watched(), translating("read the agent"), reading(store.engine) as conn:
        record = agent_by_id(conn, store.layout, store.zone, agent_id)
        if record is None:
            raise NotFound(f"there is no agent {agent_id}")
        everything = module_names(conn, store.layout, agent_id)
        text = text.casefold()
        named = [module for module in everything if text in module.name.casefold()]
        wanted = [each.id for each in named if status is None or _status(each) is status]
        pages = max(1, -(-len(wanted) // PAGE))
        page = min(page, pages)
        chosen = wanted[(page - 1) * PAGE : page * PAGE]
        shown = some_modules(conn, store.layout, store.zone, chosen) if chosen else []
        refused = list_refused(conn, store.layout, agent_id)
    ids = {module.name: module.id for module in reversed(everything)} if refused else {}
    lines = _sparklines(source, shown)
    return AgentDetails(
        agent=record,
        silent=silent(record, source.now()),
        counts=_counts(named),
        modules=tuple(ModuleRow(module, lines.get(module.id)) for module in shown),
        total=len(wanted),
        page=page,
        pages=pages,
        events=_events(source, agent_id),
        refused=tuple(RefusedRow(each, ids.get(each.module)) for each in refused),
    )


def read_access(source: Source, agent_id: int, span: Span, width: int) -> AccessGraph:
    """The times of its packets.  Raises NotFound, StoreError."""
    with source.watched():
        try:
            return source.graphs().access(agent_id, span.start, span.end, width, source.now())
        except UsageError as error:
            raise NotFound(str(error)) from error


def _status(module: ModuleName) -> Status | None:
    """The status for which the module counts, or None if it is disabled."""
    return None if module.disabled else module.status


def _counts(modules: list[ModuleName]) -> dict[str, int]:
    counts = Counter(map(_status, modules))
    return {status.name.lower(): counts[status] for status in Status}


def _sparklines(source: Source, shown: list[ModuleRecord]) -> dict[int, Sparkline]:
    numeric = [each.id for each in shown if type_rule(each.type or "").kind is not Kind.TEXT]
    now = source.now()
    with source.watched():
        return source.graphs().sparklines(numeric, now - SPARK_SECONDS, now, SPARK_COLUMNS)


def _events(source: Source, agent_id: int) -> tuple[EventRecord, ...] | None:
    store = source.store()
    if not store.layout.has(schema.event):
        return None
    since = source.now() - DAYS * DAY
    with source.watched():
        found = EventList(store.engine, store.layout)
        return found.page(Wanted(agent_id=agent_id), None, EVENTS, since).events


# -- the page and its twins under /api/ --


def agent_page(request: Request) -> Response:
    """The HTML page."""
    source = source_of(request)
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
        days=DAYS,
    )


def agent_json(request: Request) -> Response:
    """The page's record as JSON."""
    return reply(_asked(request))


def agent_access(request: Request) -> Response:
    """The access graph as JSON."""
    source = source_of(request)
    width = params.integer(request, "width", WIDTH, NARROWEST, WIDEST)
    span = params.span(request, source, _FIRST)
    return reply(read_access(source, params.path_id(request), span, width))


def _asked(request: Request) -> AgentDetails:
    status = params.choice(request, "status", GRAVEST)
    return read_agent(
        source_of(request),
        params.path_id(request),
        params.text(request, "q"),
        STATUSES[status] if status else None,
        params.integer(request, "page", 1, 1, 1_000_000),
    )


routes: list[BaseRoute] = [
    Route("/agents/{id:int}", agent_page, methods=["GET"]),
    Route("/api/agents/{id:int}", agent_json, methods=["GET"]),
    Route("/api/agents/{id:int}/access", agent_access, methods=["GET"]),
]

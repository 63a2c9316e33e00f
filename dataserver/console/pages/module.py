"""The page of a module: its record, thresholds, newest changes and events, its graph, its CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.graph_view import FIRST, GraphView
from dataserver.console.html import page
from dataserver.console.params import NotFound, source_of
from dataserver.console.replies import begun, reply
from dataserver.console.source import Source
from dataserver.console.value_words import severity_words, status_words, value_words
from dataserver.errors import UsageError
from dataserver.graphs.model import ModuleGraph, Span
from dataserver.rules.series import steps
from dataserver.rules.status import Interval, Match, Rules
from dataserver.rules.values import Kind, type_rule
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.opening import ReadingStore
from dataserver.store.read.history import EventMark, History, Point, module_events, module_rules
from dataserver.store.read.modules import AgentRecord, ModuleRecord
from dataserver.store.read.modules import agent as agent_by_id
from dataserver.store.read.modules import module as module_by_id
from dataserver.store.refused import RefusedRecord, list_refused, of_module

#: The allowed columns of a graph, and the default.
NARROWEST, WIDEST, WIDTH = 50, 4000, 1000
#: How many changes and events the page shows.
SHOWN = 20
#: How many points are read for the changes: some only repeat the value before.
_READ = 200


@dataclass(frozen=True, slots=True)
class ModuleDetails:
    """One module of an agent.  ``first`` is the time of its oldest value, or None without any.

    ``refused`` are its refused values, the newest first.
    """

    agent_id: int
    agent: str
    alias: str
    module: ModuleRecord
    thresholds: tuple[Threshold, ...]
    first: int | None
    refused: tuple[RefusedRecord, ...]


class Change(NamedTuple):
    """The module had ``value`` from ``time`` for ``seconds``; the last one until now."""

    time: int
    value: float | str
    seconds: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class ModulePage:
    """The page of a module except for its graph; changes and events newest first."""

    agent: AgentRecord
    details: ModuleDetails
    changes: tuple[Change, ...]
    events: tuple[EventMark, ...]


def read_details(source: Source, module_id: int) -> ModuleDetails:
    """A module's record.  Raises NotFound and StoreError."""
    store = source.store()
    with source.watched():
        return _read_details(store, module_id)[1]


def read_page(source: Source, module_id: int) -> ModulePage:
    """The record of the page.  Raises NotFound and StoreError."""
    store = source.store()
    now = source.now()
    with source.watched():
        agent, found = _read_details(store, module_id)
        points = History(store.engine, store.layout).newest(module_id, _READ, now)
        events = module_events(store.engine, store.layout, module_id, 0, now + 1, SHOWN)
    return ModulePage(agent, found, tuple(changes_of(points, now)), tuple(reversed(events)))


def read_graph(source: Source, module_id: int, span: Span, width: int) -> ModuleGraph:
    """A module's graph.  Raises NotFound and StoreError."""
    graphs = source.graphs()
    try:
        with source.watched():
            return graphs.module(module_id, span.start, span.end, width, source.now())
    except UsageError as exc:
        raise NotFound(exc.message) from exc


def changes_of(points: Iterable[Point], now: int, most: int = SHOWN) -> list[Change]:
    """The newest changes of value, the newest first; repeated values are not changes.

    If there may be older points than those read, the oldest value may have begun earlier: it is
    left out, unless it is the only one.
    """
    read = list(points)
    begun: list[Point] = []
    for point in read:
        if begun and begun[-1][0] == point[0]:
            # Of several points in one second the last one counts.
            begun.pop()
        if not begun or begun[-1][1] != point[1]:
            begun.append(point)
    if len(read) >= _READ and len(begun) > 1:
        del begun[0]
    found = [
        Change(time, value, until - time, is_last=False)
        for (time, value), (until, _) in pairwise(begun)
    ]
    if begun:
        time, value = begun[-1]
        found.append(Change(time, value, max(0, now - time), is_last=True))
    return found[-most:][::-1]


def _read_details(store: ReadingStore, module_id: int) -> tuple[AgentRecord, ModuleDetails]:
    with translating("look up the module"), reading(store.engine) as conn:
        found = module_by_id(conn, store.layout, store.zone, module_id)
        if found is None:
            raise NotFound(f"there is no module {module_id}")
        agent_id, module = found
        agent = agent_by_id(conn, store.layout, store.zone, agent_id)
        refused = of_module(list_refused(conn, store.layout, agent_id), module.name)
    if agent is None:
        raise NotFound(f"there is no agent {agent_id} any more")
    rules = module_rules(store.engine, store.layout, module_id)
    return agent, ModuleDetails(
        agent_id=agent_id,
        agent=agent.name,
        alias=agent.alias,
        module=module,
        thresholds=thresholds_of(rules, module.type or ""),
        first=History(store.engine, store.layout).first(module_id),
        refused=refused,
    )


# -- thresholds --


class Threshold(NamedTuple):
    """The values with which a module has ``status`` ("warning" or "critical").

    Numbers from ``low`` up to, not including, ``high`` (None: without bound), or with
    ``inverse`` all others; with ``percent`` numbers that differ from the value before by as many
    percent, down and up.  If ``pattern`` is not None, texts that it matches, or with ``inverse``
    all others.
    """

    status: str
    low: float | None = None
    high: float | None = None
    inverse: bool = False
    percent: bool = False
    pattern: str | None = None
    #: The default of a module that is up or down.
    is_down: bool = False

    @property
    def words(self) -> str:
        """The threshold in words, such as "from 80 to below 90"."""
        if self.pattern is not None:
            verb = "does not match" if self.inverse else "matches"
            return f"where the text {verb} {self.pattern}"
        if self.percent:
            return self._relative()
        if self.is_down:
            return "when it is up" if self.inverse else "when it is down (0)"
        low, high = _text(self.low), _text(self.high)
        if self.inverse:
            return f"below {low}" if self.high is None else f"below {low}, and from {high}"
        return f"from {low}" if self.high is None else f"from {low} to below {high}"

    def _relative(self) -> str:
        ways = []
        if self.low:
            ways.append(f"falls by more than {_text(self.low)} %")
        if self.high:
            ways.append(f"rises by {_text(self.high)} % or more")
        return f"where it {' or '.join(ways)} from one value to the next"


def thresholds_of(rules: Rules, type_name: str) -> tuple[Threshold, ...]:
    """The thresholds that apply to a module of this type, critical first."""
    return tuple(_thresholds(rules, type_name))


def _thresholds(rules: Rules, type_name: str) -> Iterator[Threshold]:
    rule = type_rule(type_name)
    if rule.kind is Kind.TEXT:
        yield from _of_text("critical", rules.critical_text)
        yield from _of_text("warning", rules.warning_text)
        return
    if rules.critical is None and rule.is_proc:
        down = rules.down
        yield Threshold("critical", down.low, down.high, down.inverse, is_down=True)
    else:
        yield from _of_number("critical", rules.critical)
    yield from _of_number("warning", rules.warning)


def _of_text(status: str, match: Match | None) -> Iterator[Threshold]:
    if match is not None:
        yield Threshold(status, inverse=match.inverse, pattern=match.pattern.text)


def _of_number(status: str, interval: Interval | None) -> Iterator[Threshold]:
    if interval is None:
        return
    low, high, inverse, percent = interval
    is_open = not percent and (high < low or math.isinf(high))
    yield Threshold(status, low, None if is_open else high, inverse and not percent, percent)


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.15g}"


# -- values as a CSV file, written line by line: it may be long --

#: Characters that are sent at once.
_CHUNK = 65_536
#: Characters that begin a formula in a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def file_name(module_id: int, span: Span) -> str:
    """The name of the file; it contains no text from packets."""
    return f"module-{module_id}-{span.start}-{span.end}.csv"


def file_chunks(source: Source, module_id: int, span: Span) -> Iterator[bytes]:
    """The content of the file, beginning with the value at the span's start.  Raises StoreError."""
    store = source.store()
    points = History(store.engine, store.layout).points(module_id, span.start, span.end)
    with source.watched():
        yield from encoded(steps(points, span.start, span.end), store.zone)


def encoded(points: Iterable[Point], zone: tzinfo) -> Iterator[bytes]:
    """The points as CSV (RFC 4180) in UTF-8: a head, then a line for each point."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("time", "local_time", "value"))
    for time, value in points:
        writer.writerow((time, _local(time, zone), _cell(value)))
        if text.tell() >= _CHUNK:
            yield text.getvalue().encode(errors="replace")
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode(errors="replace")


def _cell(value: float | str) -> str:
    """A cell; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return f"{value:.15g}"
    return f"'{value}" if value.startswith(_FORMULA) else value


def _local(time: int, zone: tzinfo) -> str:
    """A local time with its offset, so that a repeated hour is unambiguous."""
    try:
        return datetime.fromtimestamp(time, zone).isoformat(sep=" ")
    except (ValueError, OverflowError, OSError):
        return ""


# -- the page and its twins under /api/ --


def module_page(request: Request) -> Response:
    """The HTML page."""
    source = source_of(request)
    span = params.span(request, source, FIRST)
    shown = read_page(source, params.path_id(request))
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
    """The module, its agent and its thresholds as JSON."""
    return reply(read_details(source_of(request), params.path_id(request)))


def module_graph(request: Request) -> Response:
    """The graph as JSON."""
    source = source_of(request)
    width = params.integer(request, "width", WIDTH, NARROWEST, WIDEST)
    span = params.span(request, source, FIRST)
    return reply(read_graph(source, params.path_id(request), span, width))


def module_values(request: Request) -> Response:
    """The values of a span as CSV, read while they are sent."""
    source = source_of(request)
    module_id = params.path_id(request)
    span = params.span(request, source, FIRST)
    read_details(source, module_id)
    name = file_name(module_id, span)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    media = "text/csv; charset=utf-8; header=present"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media)
    content = file_chunks(source, module_id, span)
    return StreamingResponse(begun(content), headers=headers, media_type=media)


def _value(module: ModuleRecord) -> str:
    return "no value yet" if module.value is None else value_words(module.value, module)


routes: list[BaseRoute] = [
    Route("/modules/{id:int}", module_page),
    Route("/api/modules/{id:int}", module_record),
    Route("/api/modules/{id:int}/graph", module_graph),
    Route("/api/modules/{id:int}/data.csv", module_values),
]

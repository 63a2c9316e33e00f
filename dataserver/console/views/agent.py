"""An agent: its modules as they are now, its packets, its events."""

from __future__ import annotations

from dataclasses import dataclass

from dataserver.console.params import NotThere
from dataserver.console.source import Source
from dataserver.console.views.agents import silent
from dataserver.errors import SchemaError, UsageError
from dataserver.graphs.model import AccessGraph, Span, Sparkline
from dataserver.status import Status
from dataserver.store.errors import translating
from dataserver.store.event_list import EventList, EventRecord, Wanted
from dataserver.store.layout import reading
from dataserver.store.listing import (
    AgentRecord,
    ModuleName,
    ModuleRecord,
    module_names,
    some_modules,
)
from dataserver.store.listing import agent as agent_by_id
from dataserver.values import Kind, type_rule

#: Modules of one page, events, and days of events that are looked at.
PAGE, EVENTS, _DAYS = 100, 20, 30
_DAY = 86_400
#: The span and the columns of a sparkline.
SPARK_SECONDS, SPARK_COLUMNS = _DAY, 48


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module with its last day; None: it has no numbers."""

    module: ModuleRecord
    sparkline: Sparkline | None


@dataclass(frozen=True, slots=True)
class AgentDetails:
    """An agent with a page of those of its modules that are wanted, ``pages`` from 1.

    ``counts``: of its enabled modules by status; ``total``: of the wanted ones.
    """

    agent: AgentRecord
    silent: int | None
    counts: dict[str, int]
    modules: tuple[ModuleRow, ...]
    total: int
    page: int
    pages: int
    events: tuple[EventRecord, ...]


def agent(
    source: Source, agent_id: int, text: str, status: Status | None, page: int
) -> AgentDetails:
    """``text`` is in the modules' names.  Raises NotThere, StoreError."""
    store = source.store()
    with source.watched(), translating("read the agent"), reading(store.engine) as conn:
        record = agent_by_id(conn, store.layout, store.zone, agent_id)
        if record is None:
            raise NotThere(f"there is no agent {agent_id}")
        everything = module_names(conn, store.layout, agent_id)
        wanted = [module.id for module in everything if _fits(module, text, status)]
        pages = max(1, -(-len(wanted) // PAGE))
        page = min(page, pages)
        chosen = wanted[(page - 1) * PAGE : page * PAGE]
        shown = some_modules(conn, store.layout, store.zone, chosen) if chosen else []
    lines = _sparklines(source, shown)
    return AgentDetails(
        agent=record,
        silent=silent(record, source.now()),
        counts=_counts(everything),
        modules=tuple(ModuleRow(module, lines.get(module.id)) for module in shown),
        total=len(wanted),
        page=page,
        pages=pages,
        events=_events(source, agent_id),
    )


def access(source: Source, agent_id: int, span: Span, width: int) -> AccessGraph:
    """When its packets came.  Raises NotThere, StoreError."""
    with source.watched():
        try:
            return source.graphs().access(agent_id, span.start, span.end, width, source.now())
        except UsageError as error:
            raise NotThere(str(error)) from error


def _fits(module: ModuleName, text: str, status: Status | None) -> bool:
    return text.casefold() in module.name.casefold() and status in (None, module.status)


def _counts(everything: list[ModuleName]) -> dict[str, int]:
    counts = {status.name.lower(): 0 for status in Status}
    for module in everything:
        if module.status is not None and not module.disabled:
            counts[module.status.name.lower()] += 1
    return counts


def _sparklines(source: Source, shown: list[ModuleRecord]) -> dict[int, Sparkline]:
    numeric = [each.id for each in shown if type_rule(each.type or "").kind is not Kind.TEXT]
    now = source.now()
    with source.watched():
        return source.graphs().sparklines(numeric, now - SPARK_SECONDS, now, SPARK_COLUMNS)


def _events(source: Source, agent_id: int) -> tuple[EventRecord, ...]:
    store = source.store()
    since = source.now() - _DAYS * _DAY
    try:
        with source.watched():
            found = EventList(store.engine, store.layout)
            return found.page(Wanted(agent_id=agent_id), None, EVENTS, since).events
    except SchemaError:
        return ()

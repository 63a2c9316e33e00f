"""A module: what it is and how it is judged, its newest changes and events, its graph."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from dataserver.console.params import NotThere
from dataserver.console.source import ReadingStore, Source
from dataserver.console.views.thresholds import Threshold, thresholds_of
from dataserver.errors import UsageError
from dataserver.graphs.model import ModuleGraph, Span
from dataserver.store.errors import translating
from dataserver.store.history import History, Point
from dataserver.store.layout import reading
from dataserver.store.listing import AgentRecord, ModuleRecord
from dataserver.store.listing import agent as agent_by_id
from dataserver.store.listing import module as module_by_id
from dataserver.store.module_marks import EventMark, module_events, module_rules
from dataserver.store.refused import RefusedRecord, list_refused, of_module

#: Changes and events that the page shows.
SHOWN = 20
#: Points that are looked at for them: some only repeat the value before.
_READ = 200


@dataclass(frozen=True, slots=True)
class ModuleDetails:
    """One module of one agent.  ``first`` is the time of its oldest value, None: it has none.

    ``refused`` is what was refused of it, the newest first.
    """

    agent_id: int
    agent: str
    alias: str
    module: ModuleRecord
    thresholds: tuple[Threshold, ...]
    first: int | None
    refused: tuple[RefusedRecord, ...]


class Change(NamedTuple):
    """The module was ``value`` from ``time`` for so many seconds; the last one until now."""

    time: int
    value: float | str
    seconds: int
    is_last: bool


@dataclass(frozen=True, slots=True)
class ModulePage:
    """What the page of a module says besides its graph; changes and events newest first."""

    agent: AgentRecord
    details: ModuleDetails
    changes: tuple[Change, ...]
    events: tuple[EventMark, ...]


def details(source: Source, module_id: int) -> ModuleDetails:
    """What a module is.  Raises NotThere and StoreError."""
    store = source.store()
    with source.watched():
        return _details(store, module_id)[1]


def page(source: Source, module_id: int) -> ModulePage:
    """All that the page shows.  Raises NotThere and StoreError."""
    store = source.store()
    now = source.now()
    with source.watched():
        agent, found = _details(store, module_id)
        points = History(store.engine, store.layout).newest(module_id, _READ, now)
        events = module_events(store.engine, store.layout, module_id, 0, now + 1, SHOWN)
    return ModulePage(agent, found, tuple(changes_of(points, now)), tuple(reversed(events)))


def graph(source: Source, module_id: int, span: Span, width: int) -> ModuleGraph:
    """Its graph.  Raises NotThere and StoreError."""
    graphs = source.graphs()
    try:
        with source.watched():
            return graphs.module(module_id, span.start, span.end, width, source.now())
    except UsageError as exc:
        raise NotThere(exc.message) from exc


def changes_of(points: Iterable[Point], now: int, most: int = SHOWN) -> list[Change]:
    """The newest changes of value, the newest first; a point that repeats the last one is none.

    Where as many points as are ever read do not go back to the beginning, the oldest of them may
    have held for longer: it is left out, unless it is the only one.
    """
    read = list(points)
    begun: list[Point] = []
    for point in read:
        if begun and begun[-1][0] == point[0]:
            # Of several in one second the last one counts.
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


def _details(store: ReadingStore, module_id: int) -> tuple[AgentRecord, ModuleDetails]:
    with translating("look up the module"), reading(store.engine) as conn:
        found = module_by_id(conn, store.layout, store.zone, module_id)
        if found is None:
            raise NotThere(f"there is no module {module_id}")
        agent_id, module = found
        agent = agent_by_id(conn, store.layout, store.zone, agent_id)
        refused = of_module(list_refused(conn, store.layout, agent_id), module.name)
    if agent is None:
        raise NotThere(f"there is no agent {agent_id} any more")
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

"""The page of all agents, filtered and sorted, with their numbers by status."""

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
from dataserver.rules.status import Status
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.agents import Group, Order, WantedAgents, agent_page, groups
from dataserver.store.read.modules import AgentRecord

#: Agents per page.
PAGE = 100
#: Intervals without contact after which an agent is shown as silent.
_SILENT_AFTER = 2
STATUSES = {status.name.lower(): status for status in Status}
#: The worst first, as they are shown.
GRAVEST = ("critical", "warning", "unknown", "normal", "not_initialised")


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent; ``status`` is that of its worst module, ``silent`` as in :func:`silent`."""

    agent: AgentRecord
    status: Status
    silent: int | None


@dataclass(frozen=True, slots=True)
class Agents:
    """A page of agents; pages count from 1.

    ``counts`` are the agents of each status, ``total`` is the number of selected ones.
    """

    rows: tuple[AgentRow, ...]
    counts: dict[str, int]
    total: int
    page: int
    pages: int
    groups: tuple[Group, ...]


def read_agents(source: Source, wanted: WantedAgents, page: int) -> Agents:
    """A page of the selected agents.  Raises StoreError."""
    store = source.store()
    with source.watched(), translating("list agents"), reading(store.engine) as conn:
        found = agent_page(conn, store.layout, store.zone, wanted, (page - 1) * PAGE, PAGE)
        pages = max(1, -(-found.total // PAGE))
        if page > pages:
            page = pages
            found = agent_page(conn, store.layout, store.zone, wanted, (page - 1) * PAGE, PAGE)
        names = groups(conn)
    now = source.now()
    return Agents(
        rows=tuple(AgentRow(agent, status, silent(agent, now)) for agent, status in found.agents),
        counts={status.name.lower(): count for status, count in found.counts.items()},
        total=found.total,
        page=page,
        pages=pages,
        groups=names,
    )


def silent(agent: AgentRecord, now: int) -> int | None:
    """For how many seconds an agent has been silent, or None.

    It is silent if no packet came for two of its intervals.
    """
    if agent.contact is None or agent.disabled or not agent.interval:
        return None
    seconds = now - agent.contact
    return seconds if seconds > _SILENT_AFTER * agent.interval else None


# -- the page and its twin under /api/ --


def agents_page(request: Request) -> Response:
    """The HTML page."""
    wanted, number = _asked(request)
    chosen = {
        "q": wanted.text,
        "group": "" if wanted.group_id is None else str(wanted.group_id),
        "status": "" if wanted.status is None else wanted.status.name.lower(),
        "sort": wanted.order.value,
    }
    return page(
        request,
        "agents.html",
        shown=read_agents(source_of(request), wanted, number),
        chosen=chosen,
        statuses=GRAVEST,
        orders=[order.value for order in Order],
    )


def agents_json(request: Request) -> Response:
    """The page's record as JSON."""
    return reply(read_agents(source_of(request), *_asked(request)))


def _asked(request: Request) -> tuple[WantedAgents, int]:
    status = params.choice(request, "status", GRAVEST)
    group = params.integer(request, "group", -1)
    wanted = WantedAgents(
        text=params.text(request, "q"),
        group_id=None if group < 0 else group,
        status=STATUSES[status] if status else None,
        order=Order(params.choice(request, "sort", tuple(Order), Order.NAME)),
    )
    return wanted, params.integer(request, "page", 1, 1, 1_000_000)


routes: list[BaseRoute] = [
    Route("/agents", agents_page, methods=["GET"]),
    Route("/api/agents", agents_json, methods=["GET"]),
]

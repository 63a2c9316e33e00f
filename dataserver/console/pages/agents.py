"""The list of agents."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.rules.status import Status
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.agents import Group, Order, WantedAgents, agent_page, groups
from dataserver.store.read.modules import AgentRecord

# -- agents: a page of those that are wanted, with how many are in which status

#: Agents of one page.
PAGE = 100
#: Intervals without contact after which an agent is shown as silent.
_SILENT_AFTER = 2


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent; ``status`` is that of its worst module, ``silent`` for how many seconds (None: no).

    Silent is one of which no packet came for two of its intervals.
    """

    agent: AgentRecord
    status: Status
    silent: int | None


@dataclass(frozen=True, slots=True)
class Agents:
    """A page of agents, ``pages`` from 1; ``counts`` of all statuses, ``total`` of the chosen."""

    rows: tuple[AgentRow, ...]
    counts: dict[str, int]
    total: int
    page: int
    pages: int
    groups: tuple[Group, ...]


def read_agents(source: Source, wanted: WantedAgents, page: int) -> Agents:
    """Raises StoreError."""
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
    """For how long an agent has been silent, in seconds; None: it has not."""
    if agent.contact is None or agent.disabled or not agent.interval:
        return None
    seconds = now - agent.contact
    return seconds if seconds > _SILENT_AFTER * agent.interval else None


# -- agents --

STATUSES = {status.name.lower(): status for status in Status}
#: From the gravest, as they are shown.
GRAVEST = ("critical", "warning", "unknown", "normal", "not_initialised")


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


def agents_page(request: Request) -> Response:
    """A page of them."""
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
        shown=read_agents(request.app.state.source, wanted, number),
        chosen=chosen,
        statuses=GRAVEST,
        orders=[order.value for order in Order],
    )


def agents_json(request: Request) -> Response:
    """The same."""
    return reply(read_agents(request.app.state.source, *_asked(request)))


routes: list[BaseRoute] = [
    Route("/agents", agents_page, methods=["GET"]),
    Route("/api/agents", agents_json, methods=["GET"]),
]

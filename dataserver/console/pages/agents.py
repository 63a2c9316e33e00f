"""The list of agents."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console import params
from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.views import agents as views
from dataserver.status import Status
from dataserver.store.agent_list import Order, WantedAgents

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
        shown=views.agents(request.app.state.source, wanted, number),
        chosen=chosen,
        statuses=GRAVEST,
        orders=[order.value for order in Order],
    )


def agents_json(request: Request) -> Response:
    """The same."""
    return reply(views.agents(request.app.state.source, *_asked(request)))


routes: list[BaseRoute] = [
    Route("/agents", agents_page, methods=["GET"]),
    Route("/api/agents", agents_json, methods=["GET"]),
]

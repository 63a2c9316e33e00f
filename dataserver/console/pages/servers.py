"""Servers and instances: who is alive, what waits, and which host of a pair takes the packets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.views.servers import servers


def servers_page(request: Request) -> Response:
    """All servers on the database, and the instances of this home."""
    return page(request, "servers.html", shown=servers(request.app.state.source))


def servers_json(request: Request) -> Response:
    """The same."""
    return reply(servers(request.app.state.source))


routes: list[BaseRoute] = [
    Route("/", servers_page, methods=["GET"]),
    Route("/api/servers", servers_json, methods=["GET"]),
]

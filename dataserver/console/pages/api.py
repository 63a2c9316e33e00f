"""The index of `/api/`; docs/api.md describes the answers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver import __version__
from dataserver.console.replies import reply


def index(request: Request) -> Response:
    """The paths of the API, and the version that answers."""
    paths = [
        route.path
        for route in request.app.routes
        if isinstance(route, Route) and route.path.startswith("/api/") and route.path != "/api/"
    ]
    return reply({"version": __version__, "paths": sorted(paths)})


def nothing(request: Request) -> Response:
    """The answer to an unknown path under /api/."""
    return reply({"error": f"there is nothing at {request.url.path}; /api/ lists the paths"}, 404)


#: To be matched last.
routes: list[BaseRoute] = [
    Route("/api", index, methods=["GET"]),
    Route("/api/", index, methods=["GET"]),
    Route("/api/{rest:path}", nothing, methods=["GET"]),
]

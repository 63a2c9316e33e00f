"""The console as an ASGI application: its routes, and what every answer has in common."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Collection
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from dataserver.console.access import Access, Users
from dataserver.console.counting import Counting, Requests
from dataserver.console.failing import Failing
from dataserver.console.headers import Headers
from dataserver.console.html import page
from dataserver.console.pages import (
    agent,
    agents,
    api,
    events,
    machine,
    module,
    rejected,
    servers,
)
from dataserver.console.params import NotThere
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.errors import (
    ConfigError,
    DataserverError,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    UsageError,
)

log = logging.getLogger(__name__)

_PAGES = (servers, agents, agent, module, events, rejected, machine, api)


def create_app(
    source: Source, users: Users | None = None, hosts: Collection[str] = ()
) -> Starlette:
    """The console of ``source``.

    ``users`` are those who may look, None: whoever can reach it.  ``hosts`` are the names under
    which it answers, none: any.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        source.close()

    requests = Requests()
    app = Starlette(
        routes=[*_routes(), Mount("/static", StaticFiles(directory=_static()), name="static")],
        middleware=[
            Middleware(Headers),
            Middleware(Counting, requests=requests),
            # In here, not as Starlette's handler of exceptions: those answers get no headers.
            Middleware(Failing, answer=_failed),
            Middleware(Access, users=users, hosts=frozenset(hosts)),
        ],
        exception_handlers={DataserverError: _said, OSError: _said, HTTPException: _refused},
        lifespan=lifespan,
    )
    # It would lead to http://, also from behind a proxy that speaks https.
    app.router.redirect_slashes = False
    app.state.source = source
    app.state.requests = requests
    return app


def _routes() -> list[BaseRoute]:
    return [route for module_ in _PAGES for route in module_.routes]


def _static() -> Path:
    return Path(str(files("dataserver.console").joinpath("static")))


def _said(request: Request, error: Exception) -> Response:
    """An error of ours, in its own words."""
    if isinstance(error, NotThere):
        return _answer(request, 404, str(error))
    if isinstance(error, UsageError):
        return _answer(request, 400, str(error))
    if isinstance(error, StoreUnavailable | StoreConflict):
        return _answer(request, 503, str(error), "The database is away")
    if isinstance(error, StoreError):
        return _answer(request, 503, str(error), "The database cannot be read")
    if isinstance(error, ConfigError):
        return _answer(request, 503, str(error), "The settings cannot be used")
    why = str(error)
    if isinstance(error, OSError):
        what = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
        why = f"{what}: {error.strerror or error}"
    log.error("%s: %s", request.url.path, why)
    return _answer(request, 403 if isinstance(error, PermissionError) else 500, why)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = _answer(request, error.status_code, error.detail)
    said.headers.update(error.headers or {})
    return said


def _failed(request: Request) -> Response:
    """After an error that nobody foresaw."""
    return _answer(request, 500, "an error inside the console; its log has more")


def _answer(request: Request, status: int, why: str, title: str = "") -> Response:
    path = request.url.path
    if path.startswith("/api/") or path in ("/metrics", "/healthz"):
        return reply({"error": why}, status)
    title = title or _TITLES.get(status, "Something went wrong")
    return page(request, "error.html", status, title=title, why=why, code=status)


_TITLES = {
    400: "That cannot be asked",
    403: "The console may not look there",
    404: "There is no such page",
    405: "The console only reads",
}

"""The console as an ASGI application: its routes, and what every answer has in common."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataserver.console.access import Access, Users
from dataserver.console.counting import Counting, Requests
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
from dataserver.console.params import NotFound
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

# -- what nobody foresaw: told by the log, answered without a word of it, and never half an answ


class Failing:
    """Lets no error out; ``answer`` is given where none has begun."""

    def __init__(self, app: ASGIApp, answer: Callable[[Request], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noticed)
        except Exception as error:
            if begun:
                # The server then hangs up, so that nobody takes what came for all of it.
                _tell_broken_off(scope["path"], error.__cause__ or error)
                return
            log.error("%s failed", scope["path"], exc_info=error)
            await self._answer(Request(scope))(scope, receive, send)


def _tell_broken_off(path: str, error: BaseException) -> None:
    if isinstance(error, DataserverError | OSError):
        log.error("%s broke off: %s", path, error)
    else:
        log.error("%s broke off", path, exc_info=error)


# -- app --

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
    if isinstance(error, NotFound):
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


# -- headers of every answer: what a browser must not do with it

#: Nothing from elsewhere, no script or style inside a page, no frame around it.
#: Source: https://www.w3.org/TR/CSP3/
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: A new version may bring new files under the same names.
_STATIC = "private, max-age=300"
_REST = "no-store"
#: Answers that have or mean a file; an error would be kept as well.
_OF_A_FILE = frozenset({200, 206, 304})


class Headers:
    """Puts them on every answer, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = scope["path"].startswith("/static/")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                is_file = is_static and message["status"] in _OF_A_FILE
                headers["cache-control"] = _STATIC if is_file else _REST
            await send(message)

        await self._app(scope, receive, with_headers)

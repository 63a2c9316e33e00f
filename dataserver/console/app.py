"""The console as an ASGI application: its routes, error answers, and common headers."""

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

from dataserver.console.access import Access
from dataserver.console.counting import RequestCounter, Requests
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
from dataserver.console.users import Users
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

    ``users`` may log in; None means no login.  ``hosts`` are the host names under which it
    answers; empty means any.
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
            Middleware(RequestCounter, requests=requests),
            # Here, not as Starlette's exception handler: those answers would get no headers.
            Middleware(ErrorAnswers, answer=_failed),
            Middleware(Access, users=users, hosts=frozenset(hosts)),
        ],
        exception_handlers={
            DataserverError: _known_error,
            OSError: _known_error,
            HTTPException: _refused,
        },
        lifespan=lifespan,
    )
    # It would redirect to http://, even behind a proxy with https.
    app.router.redirect_slashes = False
    app.state.source = source
    app.state.requests = requests
    return app


def _routes() -> list[BaseRoute]:
    return [route for module_ in _PAGES for route in module_.routes]


def _static() -> Path:
    return Path(str(files("dataserver.console").joinpath("static")))


# -- errors as answers --

_TITLES = {
    400: "Bad request",
    403: "The console may not read this",
    404: "Not found",
    405: "The console is read-only",
}


class ErrorAnswers:
    """Catches unexpected errors and logs them; sends ``answer`` unless a response has begun."""

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
                # The server then closes the connection, so that the response is not taken as whole.
                _log_broken_off(scope["path"], error.__cause__ or error)
                return
            log.error("%s failed", scope["path"], exc_info=error)
            await self._answer(Request(scope))(scope, receive, send)


def _log_broken_off(path: str, error: BaseException) -> None:
    if isinstance(error, DataserverError | OSError):
        log.error("%s broke off: %s", path, error)
    else:
        log.error("%s broke off", path, exc_info=error)


def _known_error(request: Request, error: Exception) -> Response:
    """The answer to an error of ours, with its message."""
    if isinstance(error, NotFound):
        return _answer(request, 404, str(error))
    if isinstance(error, UsageError):
        return _answer(request, 400, str(error))
    if isinstance(error, StoreUnavailable | StoreConflict):
        return _answer(request, 503, str(error), "The database is unavailable")
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
    answer = _answer(request, error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _failed(request: Request) -> Response:
    """The answer to an unexpected error."""
    return _answer(request, 500, "internal error of the console; see its log")


def _answer(request: Request, status: int, why: str, title: str = "") -> Response:
    path = request.url.path
    if path.startswith("/api/") or path in ("/metrics", "/healthz"):
        return reply({"error": why}, status)
    title = title or _TITLES.get(status, "Something went wrong")
    return page(request, "error.html", status, title=title, why=why, code=status)


# -- headers --

#: Nothing from other sites, no inline script or style, no frame around it.
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
#: Short, since a new version may have new files under the same names.
_STATIC = "private, max-age=300"
_REST = "no-store"
#: Answers that may be cached; errors must not be.
_OF_A_FILE = frozenset({200, 206, 304})


class Headers:
    """Sets these headers on every answer, also on errors."""

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

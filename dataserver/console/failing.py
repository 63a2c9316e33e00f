"""What nobody foresaw: told by the log, answered without a word of it, and never half an answer."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataserver.errors import DataserverError

log = logging.getLogger(__name__)


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

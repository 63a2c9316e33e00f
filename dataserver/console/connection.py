"""A browser's connection, closed where the browser is too slow: each takes up one of a number.

Source: https://www.uvicorn.org/server-behavior/
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

#: Connections, and requests at the same time, from which on a browser is told to come again.
MOST = 200
#: As many again are not even told so: the process has no more than 1,024 files.
_TOO_MANY = 2 * MOST
#: Seconds that a request may take to be asked, and an answer to get on by some tens of KB.
_ASKING, _TAKING = 20.0, 60.0


class Connection(H11Protocol):
    """As uvicorn's, with these bounds."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins the wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > _TOO_MANY:
            transport.abort()
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Ends it with the request's head."""
        super().data_received(data)
        self._await_request()

    def on_response_complete(self) -> None:
        """Begins the wait for the next one."""
        super().on_response_complete()
        self._await_request()

    def pause_writing(self) -> None:
        """Begins the wait for a browser that does not take its answer."""
        super().pause_writing()
        self._taking = self.loop.call_later(_TAKING, self.transport.abort)

    def resume_writing(self) -> None:
        """Ends it."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waits."""
        for timer in (self._asking, self._taking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        # None before the first request, whatever its type says.
        cycle: RequestResponseCycle | None = self.cycle
        is_waiting = cycle is None or cycle.response_complete
        if self._asking is not None and not is_waiting:
            self._asking.cancel()
            self._asking = None
        elif self._asking is None and is_waiting and not self.transport.is_closing():
            self._asking = self.loop.call_later(_ASKING, self.transport.abort)

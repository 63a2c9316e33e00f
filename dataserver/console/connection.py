"""A browser's connection, which is closed if the browser is too slow: their number is limited.

Source: https://www.uvicorn.org/server-behavior/
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

#: With more connections or simultaneous requests, a browser gets 503.
MOST = 200
#: With more connections, new ones are closed at once: the process has at most 1,024 files.
_TOO_MANY = 2 * MOST
#: Seconds in which a request must be complete, and in which the browser must read some tens of KB
#: of the answer.
_ASKING, _TAKING = 20.0, 60.0


class Connection(H11Protocol):
    """uvicorn's protocol with these limits."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        if len(self.connections) > _TOO_MANY:
            transport.abort()
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Stop waiting once the request's head is complete."""
        super().data_received(data)
        self._await_request()

    def on_response_complete(self) -> None:
        """Start waiting for the next request."""
        super().on_response_complete()
        self._await_request()

    def pause_writing(self) -> None:
        """Start waiting for a browser that does not read its answer."""
        super().pause_writing()
        self._taking = self.loop.call_later(_TAKING, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting for it."""
        super().resume_writing()
        if self._taking is not None:
            self._taking.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all waiting."""
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

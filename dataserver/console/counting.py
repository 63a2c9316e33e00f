"""The console's own metrics: requests by route and status code, and their durations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataserver.runtime.metrics import Histogram

#: Upper bounds of the durations' buckets, in seconds.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Requests:
    """The counters; only the event loop's thread writes them."""

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, int]] = Counter()
        self.seconds = Histogram(_BOUNDS)

    def add(self, route: str, code: int) -> None:
        """Count an answer of this route; "" if the path has no route."""
        self._answers[route, code] += 1

    def lines(self) -> Iterator[str]:
        """The metrics in Prometheus' text format."""
        yield "# HELP dataserver_console_requests_total Answers of this console."
        yield "# TYPE dataserver_console_requests_total counter"
        for (route, code), count in sorted(self._answers.items()):
            labels = f'route="{route}",code="{code}"'
            yield f"dataserver_console_requests_total{{{labels}}} {count}"
        name = "dataserver_console_request_seconds"
        yield f"# HELP {name} How long answers took."
        yield f"# TYPE {name} histogram"
        count = 0
        for bound, count in self.seconds.cumulative():
            shown = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f'{name}_bucket{{le="{shown}"}} {count}'
        yield f"{name}_sum {self.seconds.total:.6f}"
        # The count of the last bucket: there may be more by now.
        yield f"{name}_count {count}"


class RequestCounter:
    """Counts each answer, also errors."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._requests.add(_route(scope), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            self._requests.seconds.observe(time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """The route's pattern, not the path, of which there may be any number."""
    route = scope.get("route")
    return route.path if isinstance(route, Route | Mount) else ""

"""What programs ask: is the console well, and the figures of all instances for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from dataserver.console.exposition import merged
from dataserver.console.source import Source
from dataserver.errors import DataserverError
from dataserver.store.errors import translating
from dataserver.store.layout import reading

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
#: Bytes of an instance's figures that are read: there are some 10 KB.
_LARGEST = 1 << 20


def healthz(request: Request) -> Response:
    """200 where the database can be read, 503 where not."""
    well = _database_is_up(request.app.state.source)
    if well:
        return PlainTextResponse("ok\n")
    return PlainTextResponse("the database cannot be read\n", 503)


def metrics(request: Request) -> Response:
    """The figures of all instances of the home, and the console's own."""
    source: Source = request.app.state.source
    up = int(_database_is_up(source))
    lines = [
        *merged(_texts(source)),
        *request.app.state.requests.lines(),
        "# HELP dataserver_console_database_up Whether this console can read the database.",
        "# TYPE dataserver_console_database_up gauge",
        f"dataserver_console_database_up {up}",
    ]
    return PlainTextResponse("\n".join(lines) + "\n", media_type=_PROMETHEUS)


def _texts(source: Source) -> Iterator[tuple[str, str]]:
    """What each instance last wrote; of one that ended the counters are still true."""
    for name in source.home.instance_names():
        with suppress(OSError), source.home.instance(name).metrics.open("rb") as file:
            yield name, file.read(_LARGEST).decode("utf-8", "replace")


def _database_is_up(source: Source) -> bool:
    try:
        store = source.store()
        with source.watched(), translating("ask the database"), reading(store.engine) as conn:
            conn.exec_driver_sql("SELECT 1")
    except DataserverError:
        return False
    return True


routes: list[BaseRoute] = [
    Route("/healthz", healthz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]

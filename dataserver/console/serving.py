"""Serving the console: where it listens, who has to log in, and ending in good order.

Source: https://www.uvicorn.org/
"""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import uvicorn

from dataserver.console.app import create_app
from dataserver.console.connection import MOST, Connection
from dataserver.console.source import Source
from dataserver.console.users import Users
from dataserver.errors import DataserverError, UsageError

#: Seconds that answers under way may take after SIGTERM.
_GRACE = 5
#: How far behind the servers it stands in the queue for processors (0 to 19).
_NICE = 10
#: Connections that wait to be taken.
_BACKLOG = 128
#: Names of this machine for itself.
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Address(NamedTuple):
    """Where to listen: an address or a name, and a port (0: any free one)."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """For a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


def parse_address(text: str) -> Address:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (all addresses); UsageError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    is_number = port.isascii() and port.isdecimal() and len(port) <= 5
    if not colon or not is_number or int(port) > 65_535:
        raise UsageError(f"{text!r} is no HOST:PORT", hint="write it like 127.0.0.1:8080")
    return Address(host or "::", int(port))


def serve(
    source: Source,
    address: Address,
    users_file: Path | None,
    names: Collection[str],
    started: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; ``started`` is told the address, with its real port.

    ``names`` are further names under which it answers (behind a proxy).  Raises UsageError where
    others could reach it and nobody has to log in, ConfigError for the users file,
    DataserverError where the address cannot be had.
    """
    users = Users(users_file) if users_file is not None else None
    listening = _listen(address)
    with listening:
        bound = Address(address.host, listening.getsockname()[1])
        if users is None and not _is_loopback(listening.getsockname()[0]):
            raise UsageError(
                f"{address.host} can be reached from elsewhere, so whoever looks must log in",
                hint="make a users file with `htpasswd -B -c FILE NAME` and name it with --users",
            )
        # Who logs in is known; else only names that nobody else can point here.
        hosts = _LOCAL_NAMES | {name.lower() for name in (address.host, *names)}
        server = _Server(_config(create_app(source, users, hosts if users is None else ())))
        server.tell = lambda: started(bound.url)
        # Where processors are scarce packets go first, and whoever looks waits a little.
        with suppress(PermissionError):  # a sandbox may forbid even this; its unit says it then
            os.nice(max(0, _NICE - os.nice(0)))
        # What is there now stays: looking for garbage in it would cost more than most answers.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says when it answers."""

    tell: Callable[[], None]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order, and not by the signal, as uvicorn would after that."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then says so."""
        await super().startup(sockets)
        if self.started:
            self.tell()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # Starlette's type of an application is a wider one
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        http=Connection,
        loop="asyncio",
        # Else it looks for a number of them in the environment.
        workers=1,
        limit_concurrency=MOST,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=32 * 1024,
    )


def _listen(address: Address) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "no host can be called so"
        raise UsageError(f"{address.host[:80]!r} is no address of this machine: {why}") from exc
    family, kind, protocol, _, where = found[0]
    try:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as exc:
        raise DataserverError(
            f"cannot listen on {address.host} port {address.port}: {os.strerror(exc.errno or 0)}",
            hint="choose another with --listen HOST:PORT",
        ) from exc
    return listening


def _is_loopback(host: str) -> bool:
    found = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)

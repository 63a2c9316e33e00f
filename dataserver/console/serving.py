"""Serving the console: the listening socket, whether a login is needed, graceful shutdown.

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

#: Seconds that current answers may take after SIGTERM.
_GRACE = 5
#: Its nice value, so that servers get processors first (0 to 19).
_NICE = 10
#: Connections that wait to be accepted.
_BACKLOG = 128
#: Names of this machine for itself.
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Address(NamedTuple):
    """Where to listen: an address or a host name, and a port (0: any free one)."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL for a browser."""
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
        raise UsageError(f"{text!r} is not HOST:PORT", hint="write it like 127.0.0.1:8080")
    return Address(host or "::", int(port))


def serve(
    source: Source,
    address: Address,
    users_file: Path | None,
    names: Collection[str],
    started: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; ``started`` gets the URL, with the real port.

    ``names`` are further host names under which it answers (behind a proxy).  Raises UsageError if
    others could reach it without a login, ConfigError for the users file, DataserverError if it
    cannot listen on the address.
    """
    users = Users(users_file) if users_file is not None else None
    listening = _listen(address)
    with listening:
        bound = Address(address.host, listening.getsockname()[1])
        if users is None and not _is_loopback(listening.getsockname()[0]):
            raise UsageError(
                f"{address.host} can be reached from other machines, so a login is required",
                hint="create a users file with `htpasswd -B -c FILE NAME`; name it with --users",
            )
        # Without a login only names that nobody else can point here.
        hosts = _LOCAL_NAMES | {name.lower() for name in (address.host, *names)}
        server = _Server(_config(create_app(source, users, hosts if users is None else ())))
        server.on_started = lambda: started(bound.url)
        # If processors are scarce, packets have priority over pages.
        with suppress(PermissionError):  # a sandbox may forbid it; its unit sets it then
            os.nice(max(0, _NICE - os.nice(0)))
        # Existing objects stay: collecting garbage among them would cost more than most answers.
        gc.collect()
        gc.freeze()
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which calls ``on_started`` once it answers."""

    on_started: Callable[[], None]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully, and exit normally, not by the signal as uvicorn does."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call ``on_started``."""
        await super().startup(sockets)
        if self.started:
            self.on_started()


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
        # Otherwise the environment may set it.
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
        why = exc.strerror if isinstance(exc, OSError) else "it is not a valid host name"
        raise UsageError(f"{address.host[:80]!r} is not an address of this machine: {why}") from exc
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

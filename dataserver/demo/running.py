"""A running demo: a server, a console, and packets that keep coming until it is stopped."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from dataserver.demo.children import Child, Children, ShutdownSignal
from dataserver.demo.home import DemoHome
from dataserver.demo.model import File, Sender
from dataserver.demo.uploading import Uploader
from dataserver.errors import NotRunning

#: The default address of the console.
HOST, PORT = "127.0.0.1", 8080
#: Seconds between two checks of the clock, and between two updates of the demo's state.
_LOOK, _NOTE = 1.0, 60
#: Seconds in which the console has to answer.
_PATIENCE = 60.0
#: Including the line end, so that half of an address does not match.
_ADDRESS = re.compile(r"(https?://[^\s\"',;]+)[^\n]*\n")
#: Wildcard addresses, and the address under which they can be reached.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def port_is_free(host: str = HOST, port: int = PORT) -> bool:
    """Whether a console could listen there."""
    with socket.socket() as sock:
        # As servers do: connections in TIME_WAIT do not count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


class Running:
    """A running demo; its processes are in ``children``, which outlives it."""

    def __init__(
        self,
        demo: DemoHome,
        children: Children,
        shutdown: ShutdownSignal,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._demo = demo
        self._children = children
        self._shutdown = shutdown
        self._environment = environment
        self._clock = clock

    def start(self, name: str, *arguments: str) -> Child:
        """Start ``dataserver NAME ARGUMENTS`` on the demo's home.  Raises OSError."""
        command = ["--home", str(self._demo.home.root), name, *arguments]
        log = self._demo.var / f"{name}.log"
        return self._children.add(Child(name, command, log, self._environment))

    def check(self) -> None:
        """Raise NotRunning if a process has ended."""
        self._children.check()

    def address(self, console: Child) -> str | None:
        """The console's URL, once it answers, or None if stopped before that.

        Raises NotRunning if it does not answer, or if a process has ended.
        """
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            self.check()
            found = _ADDRESS.search(console.log.read_text("utf-8", errors="replace"))
            if found is not None and _answers(found[1]):
                return found[1].rstrip("/") + "/"
            if self._shutdown.wait(0.1):
                return None
        raise NotRunning(
            f"the console does not answer: {console.last_line() or 'it printed nothing'}",
            hint=f"see {console.log}",
        )

    def keep_sending(self, senders: Sequence[Sender], uploader: Uploader) -> None:
        """Upload each packet when its time comes, until the demo is stopped.

        Raises NotRunning if a process has ended, OSError if nothing can be uploaded.
        """
        sent = noted = self._demo.state.until
        try:
            while not self._shutdown.is_requested:
                self.check()
                now = int(self._clock())
                if now > sent:
                    uploader.send(_packets(senders, sent, now))
                    sent = now
                if sent - noted > _NOTE:
                    self._demo.advance(sent)
                    noted = sent
                self._shutdown.wait(_LOOK)
        finally:
            self._demo.advance(sent)


def _packets(senders: Sequence[Sender], start: int, end: int) -> list[File]:
    """All packets sent after ``start`` and until ``end``, in order of time."""
    found = [
        (time, sender.packet(time)) for sender in senders for time in sender.agent.times(start, end)
    ]
    return [file for _, file in sorted(found)]


def _answers(url: str) -> bool:
    """Whether a server answers HTTP there, with any status."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or HOST, parts.port or 80
        connection = http.client.HTTPConnection(_ANY.get(host, host), port, timeout=5)
    except ValueError:
        return False
    try:
        connection.request("GET", "/healthz", headers={"Host": f"{HOST}:{port}"})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True

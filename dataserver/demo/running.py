"""A demo that runs: a server, a console, and packets that keep coming until it is to end."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from dataserver.demo.children import Child, Children, Ending
from dataserver.demo.home import DemoHome
from dataserver.demo.model import File, Sender
from dataserver.demo.uploading import Uploader
from dataserver.errors import NotRunning

#: Where the console listens unless somebody asks for another place.
HOST, PORT = "127.0.0.1", 8080
#: Seconds between two looks at the clock, and between two notes of how far it is.
_LOOK, _NOTE = 1.0, 60
#: Seconds in which the console has to answer.
_PATIENCE = 60.0
#: With the end of its line, so that no half of an address is taken for one.
_ADDRESS = re.compile(r"(https?://[^\s\"',;]+)[^\n]*\n")
#: Addresses that mean every one of this machine.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def port_is_free(host: str = HOST, port: int = PORT) -> bool:
    """Whether a console could listen there."""
    with socket.socket() as sock:
        # As servers do it: what an earlier one left in TIME_WAIT does not count.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


class Running:
    """One running demo; its processes are in ``children``, which outlives it."""

    def __init__(
        self,
        demo: DemoHome,
        children: Children,
        ending: Ending,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._demo = demo
        self._children = children
        self._ending = ending
        self._environment = environment
        self._clock = clock

    def start(self, name: str, *arguments: str) -> Child:
        """Start ``dataserver NAME ARGUMENTS`` on the demo's home.  Raises OSError."""
        command = ["--home", str(self._demo.home.root), name, *arguments]
        log = self._demo.var / f"{name}.log"
        return self._children.add(Child(name, command, log, self._environment))

    def check(self) -> None:
        """Raise NotRunning where a process ended."""
        self._children.check()

    def address(self, console: Child) -> str | None:
        """Where the console answers, once it does; None: told to end before that.

        Raises NotRunning where it does not answer, or where a process ended.
        """
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            self.check()
            found = _ADDRESS.search(console.log.read_text("utf-8", errors="replace"))
            if found is not None and _answers(found[1]):
                return found[1].rstrip("/") + "/"
            if self._ending.wait(0.1):
                return None
        raise NotRunning(
            f"the console does not answer: {console.last_word() or 'it said nothing'}",
            hint=f"{console.log} has what it said",
        )

    def keep_sending(self, senders: Sequence[Sender], uploader: Uploader) -> None:
        """Upload each packet when its time comes, until it is to end.

        Raises NotRunning where a process ended, OSError where nothing can be uploaded.
        """
        sent = noted = self._demo.state.until
        try:
            while not self._ending.asked:
                self.check()
                now = int(self._clock())
                if now > sent:
                    uploader.send(_packets(senders, sent, now))
                    sent = now
                if sent - noted > _NOTE:
                    self._demo.advance(sent)
                    noted = sent
                self._ending.wait(_LOOK)
        finally:
            self._demo.advance(sent)


def _packets(senders: Sequence[Sender], start: int, end: int) -> list[File]:
    """All that is sent after ``start`` and until ``end``, in order of time."""
    found = [
        (time, sender.packet(time)) for sender in senders for time in sender.agent.times(start, end)
    ]
    return [file for _, file in sorted(found)]


def _answers(url: str) -> bool:
    """Whether somebody speaks HTTP there, whatever he says."""
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

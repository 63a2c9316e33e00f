"""Real processes of instances: started, listened to, signalled; one file descriptor each way.

Of each process three descriptors are watched: what it prints (a pipe), what it tells
(a socket as systemd offers it, see :mod:`dataserver.sd_notify`), and its end (a pidfd).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler

from dataserver import sd_notify
from dataserver.config.paths import Home
from dataserver.fleet.model import Instance, log_file
from dataserver.fleet.supervision.supervisor import Ended, Message, Notified

#: What is read of a pipe at once, and the longest line that is kept whole, in bytes.
_CHUNK = 64 * 1024
#: How much of a last word is kept, in characters.
_LAST = 500
#: pid, uid and gid of a sender (struct ucred of unix(7)).
_CREDENTIALS = struct.Struct("3i")


#: Is given what the processes print: an instance's name, and a line without its end.
Hears = Callable[[str, str], None]


@dataclass(slots=True, eq=False)
class Child:
    """One process of an instance."""

    name: str
    popen: subprocess.Popen[bytes]
    pidfd: int
    ear: socket.socket
    ready: bool = False
    #: The beginning of a line whose end has not come yet.
    rest: bytes = b""
    last: str = ""

    @property
    def pid(self) -> int:
        """Its number."""
        return self.popen.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it has ended."""
        # Through the pidfd: never to another process that got its number.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Processes:
    """Starts the processes of one home's instances and turns what they do into messages.

    ``tell`` gets the messages, ``hear`` what is printed.  ``environment`` is what they get, but
    for what concerns only the process itself.
    """

    def __init__(
        self,
        home: Home,
        environment: Mapping[str, str],
        selector: selectors.BaseSelector,
        tell: Callable[[Message], None],
        hear: Hears,
    ) -> None:
        self._home = home
        self._environment = {
            key: value for key, value in environment.items() if key not in sd_notify.VARIABLES
        }
        self._selector = selector
        self._tell = tell
        self._hear = hear

    def __call__(self, instance: Instance) -> Child:
        """Start a process of ``instance``; OSError where that cannot be."""
        ear, address = _listen()
        try:
            popen = subprocess.Popen(
                self._command(instance),
                env={**self._environment, sd_notify.VARIABLE: address},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal is for the supervisor, who stops them in good order.
                start_new_session=True,
            )
        except OSError:
            ear.close()
            raise
        child = Child(instance.name, popen, os.pidfd_open(popen.pid), ear)
        assert popen.stdout is not None
        os.set_blocking(popen.stdout.fileno(), False)
        for watched, react in (
            (popen.stdout.fileno(), self._print),
            (ear.fileno(), self._listen),
            (child.pidfd, self._end),
        ):
            self._selector.register(watched, selectors.EVENT_READ, (react, child))
        return child

    def _command(self, instance: Instance) -> list[str]:
        # -P: not the current directory, which is anybody's.
        python = [sys.executable, "-P", "-m", "dataserver"]
        run = ["run", instance.name, "--child-of", str(os.getpid())]
        return [*python, "--home", str(self._home.root), *run]

    # -- what happens ----------------------------------------------------------------

    def _print(self, child: Child) -> None:
        if not self._drain(child, once=True):
            self._selector.unregister(_pipe(child))

    def _listen(self, child: Child) -> None:
        for message in _messages(child.ear, child.pid):
            words = message.split("\n")
            ready = "READY=1" in words and not child.ready
            child.ready |= ready
            if ready or "WATCHDOG=1" in words:
                self._tell(Notified(child.name, child.pid, ready))

    def _end(self, child: Child) -> None:
        code = child.popen.wait()
        self._listen(child)
        self._drain(child)
        if child.rest:
            self._say(child, child.rest)
        for watched in (_pipe(child), child.ear.fileno(), child.pidfd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        assert child.popen.stdout is not None
        child.popen.stdout.close()
        child.ear.close()
        self._tell(Ended(child.name, child.pid, code, child.last if code > 0 else ""))
        os.close(child.pidfd)

    def _drain(self, child: Child, *, once: bool = False) -> bool:
        """Read what it printed until now; False: it prints nothing any more."""
        while True:
            try:
                some = os.read(_pipe(child), _CHUNK)
            except BlockingIOError:
                return True
            if not some:
                return False
            *lines, child.rest = (child.rest + some).split(b"\n")
            for line in lines:
                self._say(child, line)
            if len(child.rest) > _CHUNK:
                self._say(child, child.rest)
                child.rest = b""
            if once:
                return True

    def _say(self, child: Child, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if text.strip():
            child.last = text.strip().removeprefix("dataserver: ")[:_LAST]
        self._hear(child.name, text)


def _pipe(child: Child) -> int:
    assert child.popen.stdout is not None
    return child.popen.stdout.fileno()


def _listen() -> tuple[socket.socket, str]:
    """A socket for one child, and what to call it in $NOTIFY_SOCKET.

    Abstract: it needs no file, so a full disk makes nobody mute, and it is gone with us.
    """
    name = f"dataserver-{uuid.uuid4().hex}"
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ear.bind(f"\0{name}")
    return ear, f"@{name}"


def _messages(ear: socket.socket, pid: int) -> Iterator[str]:
    """What came from the process ``pid``; anybody on this machine may write to the socket."""
    space = socket.CMSG_SPACE(_CREDENTIALS.size)
    while True:
        try:
            data, ancillary, _, _ = ear.recvmsg(4096, space)
        except BlockingIOError:
            return
        for level, kind, content in ancillary:
            sender = (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
            if sender and _CREDENTIALS.unpack(content)[0] == pid:
                yield data.decode("utf-8", "replace")


# -- what supervised instances say, kept in ``var/NAME/log`` up to a size

#: Bytes of a log file; when it is full it becomes ``log.1``, in place of the one before.
LARGEST = 10 * 2**20


class _Log(RotatingFileHandler):
    """One file; what cannot be written (a full disk) is not."""

    def _open(self) -> io.TextIOWrapper:
        # A pipe in its place must not hold up who supervises all.
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NONBLOCK, 0o666)

        return open(self.baseFilename, "a", encoding=self.encoding, opener=opener)

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the line was heard all the same."""


class Journals:
    """The logs of a home's instances; each line goes on to ``hear``."""

    def __init__(self, home: Home, hear: Hears, largest: int = LARGEST) -> None:
        self._home = home
        self._hear = hear
        self._largest = largest
        self._logs: dict[str, _Log] = {}

    def write(self, name: str, line: str) -> None:
        """Keep one line of the instance ``name``."""
        log = self._log(name)
        if log is not None:
            log.emit(logging.makeLogRecord({"msg": line}))
        # Whoever read our output may be gone: no reason to end, and all instances with us.
        with contextlib.suppress(OSError):
            self._hear(name, line)

    def keep(self, names: Container[str]) -> None:
        """Close the logs of all but ``names``: an open one keeps its disk space."""
        for name in [name for name in self._logs if name not in names]:
            self._logs.pop(name).close()

    def _log(self, name: str) -> _Log | None:
        paths = self._home.instance(name)
        path = log_file(paths)
        # What may not be looked at now goes on into the file that is open.
        with contextlib.suppress(OSError):
            # Removed with its instance, perhaps, and spawned anew.
            if name in self._logs and not path.exists():
                self._logs.pop(name).close()
            # Nothing is made anew for one whose folder is gone.
            if name not in self._logs and paths.folder.exists():
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                self._logs[name] = _Log(
                    path, maxBytes=self._largest, backupCount=1, encoding="utf-8"
                )
        return self._logs.get(name)

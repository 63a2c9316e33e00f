"""The processes of instances as the supervisor starts them, and the logs of what they print.

Three descriptors of each process are watched: its output (a pipe), its notifications (a socket as
systemd provides it, see :mod:`dataserver.sd_notify`), and its end (a pidfd).
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

#: Called with each line that a process prints: the instance's name, and the line without its end.
LineHandler = Callable[[str, str], None]
#: How much is read from a pipe at once, and the longest line that is not split, in bytes.
_CHUNK = 64 * 1024
#: How much of the last line is kept, in characters.
_LAST = 500
#: pid, uid and gid of a sender (struct ucred of unix(7)).
_CREDENTIALS = struct.Struct("3i")


@dataclass(slots=True, eq=False)
class Child:
    """One process of an instance."""

    name: str
    popen: subprocess.Popen[bytes]
    pidfd: int
    notify_socket: socket.socket
    ready: bool = False
    #: The beginning of an incomplete line.
    rest: bytes = b""
    last: str = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        # Through the pidfd: never to another process with a reused pid.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Processes:
    """Starts the processes of a home's instances and turns what they do into messages.

    ``on_message`` gets the messages, ``on_line`` the printed lines.  The processes get
    ``environment`` except for the variables of our own service manager.
    """

    def __init__(
        self,
        home: Home,
        environment: Mapping[str, str],
        selector: selectors.BaseSelector,
        on_message: Callable[[Message], None],
        on_line: LineHandler,
    ) -> None:
        self._home = home
        self._environment = {
            key: value for key, value in environment.items() if key not in sd_notify.VARIABLES
        }
        self._selector = selector
        self._on_message = on_message
        self._on_line = on_line

    def __call__(self, instance: Instance) -> Child:
        """Start a process of ``instance``; OSError."""
        notify_socket, address = _notify_socket()
        try:
            popen = subprocess.Popen(
                self._command(instance),
                env={**self._environment, sd_notify.VARIABLE: address},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C on the terminal is for the supervisor, which stops them gracefully.
                start_new_session=True,
            )
        except OSError:
            notify_socket.close()
            raise
        child = Child(instance.name, popen, os.pidfd_open(popen.pid), notify_socket)
        assert popen.stdout is not None
        os.set_blocking(popen.stdout.fileno(), False)
        for watched, react in (
            (popen.stdout.fileno(), self._print),
            (notify_socket.fileno(), self._read_notifications),
            (child.pidfd, self._end),
        ):
            self._selector.register(watched, selectors.EVENT_READ, (react, child))
        return child

    def _command(self, instance: Instance) -> list[str]:
        # -P: do not import from the current directory, which may be anyone's.
        python = [sys.executable, "-P", "-m", "dataserver"]
        run = ["run", instance.name, "--child-of", str(os.getpid())]
        return [*python, "--home", str(self._home.root), *run]

    # -- events ------------------------------------------------------------------------

    def _print(self, child: Child) -> None:
        if not self._drain(child, once=True):
            self._selector.unregister(_pipe(child))

    def _read_notifications(self, child: Child) -> None:
        for message in _messages(child.notify_socket, child.pid):
            words = message.split("\n")
            ready = "READY=1" in words and not child.ready
            child.ready |= ready
            if ready or "WATCHDOG=1" in words:
                self._on_message(Notified(child.name, child.pid, ready))

    def _end(self, child: Child) -> None:
        code = child.popen.wait()
        self._read_notifications(child)
        self._drain(child)
        if child.rest:
            self._line(child, child.rest)
        for watched in (_pipe(child), child.notify_socket.fileno(), child.pidfd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        assert child.popen.stdout is not None
        child.popen.stdout.close()
        child.notify_socket.close()
        self._on_message(Ended(child.name, child.pid, code, child.last if code > 0 else ""))
        os.close(child.pidfd)

    def _drain(self, child: Child, *, once: bool = False) -> bool:
        """Read its output so far; False at the end of the output."""
        while True:
            try:
                some = os.read(_pipe(child), _CHUNK)
            except BlockingIOError:
                return True
            if not some:
                return False
            *lines, child.rest = (child.rest + some).split(b"\n")
            for line in lines:
                self._line(child, line)
            if len(child.rest) > _CHUNK:
                self._line(child, child.rest)
                child.rest = b""
            if once:
                return True

    def _line(self, child: Child, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace")
        if text.strip():
            child.last = text.strip().removeprefix("dataserver: ")[:_LAST]
        self._on_line(child.name, text)


def _pipe(child: Child) -> int:
    assert child.popen.stdout is not None
    return child.popen.stdout.fileno()


def _notify_socket() -> tuple[socket.socket, str]:
    """A socket for one child, and its address for $NOTIFY_SOCKET.

    It is abstract: it needs no file, so it works on a full disk and ends with this process.
    """
    name = f"dataserver-{uuid.uuid4().hex}"
    notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    notify_socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notify_socket.bind(f"\0{name}")
    return notify_socket, f"@{name}"


def _messages(notify_socket: socket.socket, pid: int) -> Iterator[str]:
    """The messages of process ``pid``; any process on this machine may write to the socket."""
    space = socket.CMSG_SPACE(_CREDENTIALS.size)
    while True:
        try:
            data, ancillary, _, _ = notify_socket.recvmsg(4096, space)
        except BlockingIOError:
            return
        for level, kind, content in ancillary:
            sender = (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
            if sender and _CREDENTIALS.unpack(content)[0] == pid:
                yield data.decode("utf-8", "replace")


# -- logs: var/NAME/log, kept up to a size --

#: Bytes of a log file; when it is full it becomes ``log.1``, in place of the one before.
LARGEST = 10 * 2**20


class _Log(RotatingFileHandler):
    """One log file; lines that cannot be written, on a full disk, are dropped."""

    def _open(self) -> io.TextIOWrapper:
        # A pipe in its place must not block the supervisor.
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NONBLOCK, 0o666)

        return open(self.baseFilename, "a", encoding=self.encoding, opener=opener)

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: the line was passed on all the same."""


class Journals:
    """The logs of a home's instances; each line is passed on to ``on_line``."""

    def __init__(self, home: Home, on_line: LineHandler, largest: int = LARGEST) -> None:
        self._home = home
        self._on_line = on_line
        self._largest = largest
        self._logs: dict[str, _Log] = {}

    def write(self, name: str, line: str) -> None:
        """Write one line of the instance ``name`` and pass it on."""
        log = self._log(name)
        if log is not None:
            log.emit(logging.makeLogRecord({"msg": line}))
        # The reader of our output may have ended: no reason to stop all instances.
        with contextlib.suppress(OSError):
            self._on_line(name, line)

    def keep(self, names: Container[str]) -> None:
        """Close the logs of all but ``names``: an open one keeps its disk space."""
        for name in [name for name in self._logs if name not in names]:
            self._logs.pop(name).close()

    def _log(self, name: str) -> _Log | None:
        paths = self._home.instance(name)
        path = log_file(paths)
        # If the folder cannot be read now, the open file is used.
        with contextlib.suppress(OSError):
            # The instance may have been removed and created again.
            if name in self._logs and not path.exists():
                self._logs.pop(name).close()
            # Nothing is created for an instance that was removed.
            if name not in self._logs and paths.folder.exists():
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                self._logs[name] = _Log(
                    path, maxBytes=self._largest, backupCount=1, encoding="utf-8"
                )
        return self._logs.get(name)

"""Ways in which a packet comes into a drop directory, and the one who takes it from there.

Real servers on loopback, each with its own configuration, keys and port, started and ended
here; and a :class:`Receiver` that does what the worker does with files, without a database.
"""

from __future__ import annotations

import ftplib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dataserver.packet.parse import ends_complete
from dataserver.spool.directory import Spool
from dataserver.spool.incomplete import IncompleteFiles
from dataserver.spool.watch import Watch
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

with warnings.catch_warnings():
    # It stands on asyncore, which Python 3.11 has and warns about.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

#: Where sshd insists on separating its privileges when it is started by root.
_PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass(slots=True)
class Receiver:
    """Waits for the bell or a short timer, scans, reads, and takes what is complete.

    As the worker does, it stores a packet before its file leaves.  A writer may touch a file
    just then (scp cuts each to its length after the last byte, which gives it a new time): it
    stays, is read once more, and is known by then.
    """

    spool: Spool
    bell: Watch
    taken: dict[str, bytes] = field(default_factory=dict)
    #: How often a file was found that was only begun, by name.
    partial: Counter[str] = field(default_factory=Counter)
    #: How often a packet was read again that had been taken.
    again: int = 0
    waiting: IncompleteFiles = field(
        default_factory=lambda: IncompleteFiles(PATIENCE, monotonic=time.monotonic, clock=time.time)
    )

    def look(self) -> None:
        """One scan: take every complete file."""
        for file in self.spool.scan():
            if not self.waiting.worth_reading(file):
                continue
            reading = self.spool.read(file)
            if reading.content is None:
                self.partial[file.name] += 1
            elif not ends_complete(reading.content):
                self.partial[file.name] += 1
                self.waiting.add(reading.file)
            else:
                self.waiting.forget(file)
                self._store(file.name, reading.content)
                self.spool.done(reading.file)

    def _store(self, name: str, content: bytes) -> None:
        known = self.taken.setdefault(name, content)
        if known is not content:
            self.again += 1
            # A line end may have come after the last byte that counts.
            assert known.rstrip() == content.rstrip(), f"two packets are called {name}"

    def look_until(self, condition: Callable[[], object], what: str) -> None:
        """Look whenever the bell rings, until ``condition()`` is true."""

        def is_true() -> bool:
            self.look()
            if condition():
                return True
            self.bell.wait(0.05)
            return False

        wait_until(is_true, lambda: f"{what}; there are {sorted(self.taken)}", pause=0)

    def take(self, count: int) -> None:
        """Look until ``count`` packets are there."""
        self.look_until(lambda: len(self.taken) >= count, f"{count} packets")


@dataclass(frozen=True, slots=True)
class SshServer:
    """A running sshd: its process, its port, and the options with which a client reaches it."""

    pid: int
    port: int
    user: str
    options: tuple[str, ...]


@contextmanager
def ssh_server(directory: Path, port: int | None = None) -> Iterator[SshServer]:
    """An sshd of our own on loopback, for the user who runs the tests.

    The second one in the same ``directory`` has the same keys.
    """
    directory.mkdir(exist_ok=True)
    for name in ("host", "client"):
        if not (directory / name).exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name))
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    port = port or free_port()
    (directory / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory / 'host'}\n"
        f"AuthorizedKeysFile {directory / 'client.pub'}\nStrictModes no\nPidFile none\n"
        "UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n"
    )
    command = [_program("sshd"), "-D", "-e", "-f", str(directory / "sshd_config")]
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        wait_for_port(port, process)
        yield SshServer(process.pid, port, getpass.getuser(), _client_options(directory))
    finally:
        process.terminate()
        process.wait()


def _client_options(directory: Path) -> tuple[str, ...]:
    settings = (
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "IdentitiesOnly=yes",
        f"IdentityFile={directory / 'client'}",
        # A sixth of the default's work, which is not what is tested.
        "KexAlgorithms=curve25519-sha256",
    )
    return ("-F", "/dev/null", *(part for setting in settings for part in ("-o", setting)))


@contextmanager
def ftp_server(root: Path) -> Iterator[int]:
    """An FTP server of our own on loopback, serving ``root``; gives its port."""
    authorizer = DummyAuthorizer()
    authorizer.add_user("agent", "secret", str(root), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            server.serve_forever(timeout=0.05, blocking=False, handle_exit=False)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.address[1]
    finally:
        stopping.set()
        thread.join()
        server.close_all()


def ftp_put(port: int, source: Path, name: str, half_way: Callable[[], object]) -> None:
    """Upload by FTP, in pieces; ``half_way`` is called when half of it is sent."""
    size = source.stat().st_size
    with ftplib.FTP() as ftp, source.open("rb") as file:
        ftp.connect("127.0.0.1", port)
        ftp.login("agent", "secret")
        ftp.storbinary(f"STOR {name}", _Interrupted(file, half_way), blocksize=size // 2 + 1)


@dataclass(slots=True)
class _Interrupted:
    """A file whose reader has something else to do between two pieces."""

    file: BinaryIO
    between: Callable[[], object]

    def read(self, size: int) -> bytes:
        if self.file.tell():
            self.between()
        return self.file.read(size)


#: Passes on what it reads; after so many bytes it waits while a file is there.
_GATE = """\
#!{python} -IS
import os, select, subprocess, sys, time
ssh = subprocess.Popen([{ssh!r}, *sys.argv[1:]], stdin=subprocess.PIPE, bufsize=0)
end = os.pidfd_open(ssh.pid)
left = {size}
while True:
    # scp gives a socket for both directions, and ssh makes it one that does not block.
    if end in select.select([0, end], [], [])[0]:
        break
    piece = os.read(0, min(left, 65536) or 65536)
    if not piece:
        break
    try:
        ssh.stdin.write(piece)
    except BrokenPipeError:
        break
    left -= min(left, len(piece))
    if not left and os.path.exists({closed!r}):
        held = {closed!r} + "-" + str(os.getpid())
        open(held, "w").close()
        while os.path.exists({closed!r}) and ssh.poll() is None:
            time.sleep(0.02)
        os.unlink(held)
ssh.stdin.close()
sys.exit(ssh.wait())
"""


class Gate:
    """Stands in for ssh, and holds back what comes after the first bytes while it is closed.

    scp and sftp take it with ``-S``, rsync with ``-e``.  So it is certain that a file is half
    there, however slow or fast the machine is.
    """

    def __init__(self, directory: Path, size: int) -> None:
        directory.mkdir()
        self.program = directory / "gate"
        self._closed = directory / "closed"
        script = _GATE.format(
            python=sys.executable, ssh=_program("ssh"), size=size, closed=str(self._closed)
        )
        self.program.write_text(script)
        self.program.chmod(0o755)

    def close(self) -> None:
        """No upload gets to its end from now on."""
        self._closed.touch()

    @property
    def held(self) -> int:
        """How many uploads wait half-way now."""
        return len(list(self._closed.parent.glob("closed-*")))

    def open(self) -> None:
        """All that was held back goes on."""
        self._closed.unlink(missing_ok=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server that was started accepts connections."""

    def is_listening() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except OSError:
            return False
        return True

    wait_until(
        is_listening, f"a server on port {port}", alive=lambda: process.poll() is None, pause=0.02
    )


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert path is not None, f"{name} is not installed"
    return path


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

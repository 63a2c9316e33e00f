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
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dataserver.packet import ends_complete
from dataserver.spool.directory import Spool
from dataserver.spool.doorbell import Doorbell
from dataserver.spool.waiting import Waiting

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
    """Waits for the bell or a short timer, scans, reads, and takes what is complete."""

    spool: Spool
    bell: Doorbell
    taken: dict[str, bytes] = field(default_factory=dict)
    #: How often a file was found that was only begun.
    partial: int = 0
    waiting: Waiting = field(
        default_factory=lambda: Waiting(60, monotonic=time.monotonic, clock=time.time)
    )

    def look(self) -> None:
        """One scan: take every complete file."""
        for file in self.spool.scan():
            if not self.waiting.worth_reading(file):
                continue
            reading = self.spool.read(file)
            if reading.content is None:
                self.partial += 1
            elif not ends_complete(reading.content):
                self.partial += 1
                self.waiting.add(reading.file)
            else:
                self.waiting.forget(file)
                assert file.name not in self.taken, f"{file.name} came twice"
                self.taken[file.name] = reading.content
                assert self.spool.done(reading.file)

    def take(self, count: int, patience: float = 60) -> None:
        """Go on until ``count`` packets are there; a test that hangs ends after ``patience``."""
        self.look()
        deadline = time.monotonic() + patience
        while len(self.taken) < count and time.monotonic() < deadline:
            self.bell.wait(0.05)
            self.look()


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


def ftp_put(port: int, source: Path, name: str, pause: float) -> None:
    """Upload by FTP, a piece at a time with pauses in between."""
    with ftplib.FTP() as ftp, source.open("rb") as file:
        ftp.connect("127.0.0.1", port)
        ftp.login("agent", "secret")
        ftp.storbinary(f"STOR {name}", _Slowly(file, pause), blocksize=_piece(source))


@dataclass(slots=True)
class _Slowly:
    """A file whose reader has to wait a little for each piece."""

    file: BinaryIO
    pause: float

    def read(self, size: int) -> bytes:
        time.sleep(self.pause)
        return self.file.read(size)


def _piece(source: Path) -> int:
    return source.stat().st_size // 8 + 1


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], patience: float = 30) -> None:
    """Wait until a server that was started accepts connections."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nobody listens on port {port}")


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert path is not None, f"{name} is not installed"
    return path


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

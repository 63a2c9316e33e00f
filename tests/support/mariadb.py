"""A private MariaDB server in a directory of its own, for one process and gone with it.

Usable without pytest::

    with MariaDB(Path("/tmp/somewhere")) as server:
        url = server.create("mine")
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import MySQLdb

#: As a careful administrator runs it (each commit on disk), but small.
OPTIONS = (
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=128M",
    "--innodb-log-file-size=48M",
    "--skip-log-bin",
    "--skip-name-resolve",
)
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


class MariaDB:
    """One server; ``options`` are appended to its command line (the last one wins)."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        return self.directory / "sock"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server is not running"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def __enter__(self) -> MariaDB:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    # -- life ------------------------------------------------------------------

    def start(self) -> None:
        """Start (installing the system tables the first time) and wait until it answers."""
        if not self.data.exists():
            self._install()
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        # PDEATHSIG: the server dies with the test's process, however that ends.
        command = [
            *("setpriv", "--pdeathsig", "KILL", "mariadbd", "--no-defaults"),
            f"--datadir={self.data}",
            f"--user={getpass.getuser()}",
            f"--socket={self.socket}",
            # A starting server removes what it takes for leftovers in its folder for temporary
            # tables, so each needs one of its own.
            f"--tmpdir={temporary}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            *OPTIONS,
            *self.options,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_ready()

    def stop(self) -> None:
        """End it in good order, or by force when it does not follow."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Start again on the same port with the same data, after a kill or a stop."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def stop_cont(self) -> Iterator[None]:
        """Hanging inside the block: SIGSTOP, then SIGCONT."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            self._wait_stopped()
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def _wait_stopped(self) -> None:
        """Until none of its threads runs any more: the signal reaches them one by one."""
        deadline = time.monotonic() + 10
        while any(
            path.read_text("utf-8", "replace").rpartition(")")[2].split()[0] != "T"
            for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
        ):
            if time.monotonic() > deadline:
                raise TimeoutError("the database server does not stop")
            time.sleep(0.001)

    def remove(self) -> None:
        """Stop it and delete all it had."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- databases -------------------------------------------------------------

    def url(self, database: str) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, options: str = "CHARACTER SET utf8mb4") -> str:
        """An empty database; its URL."""
        self.execute(f"CREATE DATABASE {database} {options}")
        return self.url(database)

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database}")

    def execute(self, *statements: str, database: str = "") -> None:
        """Run statements one by one, beside whatever is being tested."""
        with contextlib.closing(self.connect(database)) as conn:
            cursor = conn.cursor()
            for statement in statements:
                cursor.execute(statement)
            conn.commit()

    def connect(self, database: str = "", **options: object) -> MySQLdb.Connection:
        """A bare driver's connection, without anything of ours."""
        return MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            database=database,
            charset="utf8mb4",
            connect_timeout=10,
            **options,
        )

    # -- starting --------------------------------------------------------------

    def _install(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.data}",
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-log-file-size=48M",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                break
            with contextlib.suppress(MySQLdb.OperationalError):
                self.connect().close()
                return
            time.sleep(0.02)
        self.stop()
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"MariaDB did not start:\n{tail}")


def _free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

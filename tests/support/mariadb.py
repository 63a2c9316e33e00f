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
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import MySQLdb

from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, wait_until

#: As a careful administrator runs it (each commit is written through), but small.
OPTIONS = (
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=128M",
    "--innodb-log-file-size=48M",
    "--skip-log-bin",
    "--skip-name-resolve",
)
_MEMORY = Path("/dev/shm")
#: Bytes that must be free there.
_ROOM = 2 << 30


class MariaDB:
    """One server; ``options`` are appended to its command line (the last one wins)."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def _temporary(self) -> Path:
        return self.directory / "tmp"

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
        # A starting server removes what it takes for leftovers in its folder for temporary
        # tables, also of a server that is being installed: so each needs one of its own.
        self._temporary.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            self._install()
        # PDEATHSIG: the server dies with the test's process, however that ends.
        command = [
            *("setpriv", "--pdeathsig", "KILL", "mariadbd", "--no-defaults"),
            f"--datadir={self.data}",
            f"--user={getpass.getuser()}",
            f"--socket={self.socket}",
            f"--tmpdir={self._temporary}",
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
            self.process.wait(PATIENCE)
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

        def all_are() -> bool:
            return all(
                path.read_text("utf-8", "replace").rpartition(")")[2].split()[0] == "T"
                for path in Path(f"/proc/{self.pid}/task").glob("*/stat")
            )

        wait_until(all_are, "the database server to be stopped", pause=0.001)

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
        done = subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--tmpdir={self._temporary}",
                f"--datadir={self.data}",
                f"--user={getpass.getuser()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-log-file-size=48M",
            ],
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"MariaDB was not installed:\n{done.stdout[-2000:]}"

    def _wait_ready(self) -> None:
        refused = ""

        def answers() -> bool:
            nonlocal refused
            try:
                self.connect().close()
            except MySQLdb.OperationalError as error:
                refused = str(error)
                return False
            return True

        def why() -> str:
            return f"MariaDB to start: {refused}\n{self.log.read_text(errors='replace')[-2000:]}"

        try:
            wait_until(answers, why, alive=lambda: self.running, pause=0.02)
        except AssertionError:
            self.stop()
            raise


def in_memory() -> str | None:
    """A directory in memory for what a test server writes, or None where there is none.

    What is written there outlives the death of a process, which is all that tests do to a
    database server, but costs no disk's time.
    """
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return None
    is_roomy = found.f_bavail * found.f_frsize >= _ROOM and os.access(_MEMORY, os.W_OK)
    return str(_MEMORY) if is_roomy else None

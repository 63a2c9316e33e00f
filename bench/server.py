"""The server under measurement, run as a user runs it: the installed command, a home, a database.

Nothing that the server says about itself is used: time, CPU and memory are taken from outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.live import STALLED, Live, tail
from bench.proc import Usage


def installed() -> list[str]:
    """The command as installed beside this Python."""
    return [str(Path(sys.executable).with_name("dataserver"))]


class Server:
    """A home with its drop directory, and the command that works on it."""

    def __init__(self, command: Sequence[str], home: Path, database: str) -> None:
        self.data_in = home / "data_in"
        self._command = [*command, "--home", str(home)]
        self._log = home.with_suffix(".log")
        self._environment = {
            **os.environ,
            "DATASERVER_DATABASE": database,
            "DATASERVER_DATA_IN": str(self.data_in),
            "DATASERVER_TIMEZONE": "UTC",
        }
        self._finish([*command, "init", str(home)])
        self.data_in.mkdir(exist_ok=True)

    def once(self) -> Usage:
        """Take in what lies in the directory, from the start of the process to its end."""
        return self._finish([*self._command, "run", "--once"])

    @contextmanager
    def live(self) -> Iterator[Live]:
        """A server in the background, ended by SIGTERM, and with this process in any case."""
        process = self._start(["setpriv", "--pdeathsig", "KILL", *self._command, "run"])
        try:
            yield Live(process, self.data_in, self._log)
        finally:
            process.terminate()
            try:
                process.wait(STALLED)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            try:
                return subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)
            except OSError as error:
                raise BenchError(f"cannot run {command[0]}: {error.strerror}") from error

    def _finish(self, command: Sequence[str]) -> Usage:
        """Run a command to its end, with what the kernel counted for it.

        The peak of memory includes what this process had when it forked, which is less than
        the server needs: the limit and its libraries run in a process of their own.
        """
        start = time.monotonic()
        process = self._start(command)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BenchError(f"{' '.join(command)} exited {process.returncode}: {tail(self._log)}")
        return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)

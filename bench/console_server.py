"""A console under measurement: the installed command as a process of its own, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import BenchError
from bench.live import tail

#: Seconds for a console to start, and for one answer.
PATIENCE = 120.0
_LOOK = 0.02


class Console:
    """One console of a home, on a free port; it is ended with the block, and with this process."""

    def __init__(self, command: Sequence[str], home: Path, database: str, number: int = 0) -> None:
        self._log = home.with_name(f"{home.name}-console-{number}.log")
        self._command = ["setpriv", "--pdeathsig", "KILL", *command, "--home", str(home)]
        self._command += ["console", "--listen", "127.0.0.1:0"]
        self._environment = {
            **os.environ,
            "DATASERVER_DATABASE": database,
            "DATASERVER_TIMEZONE": "UTC",
        }
        self.port = 0

    def __enter__(self) -> Console:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment
            )
        deadline = time.monotonic() + PATIENCE
        while not self.port:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise BenchError(f"the console does not start: {tail(self._log)}")
            found = re.search(r"http://127\.0\.0\.1:(\d+)\S*\n", tail(self._log) + "\n")
            self.port = int(found[1]) if found else 0
            time.sleep(_LOOK)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def times(self, path: str, runs: int) -> tuple[list[float], bytes]:
        """Ask ``runs`` times, one after the other, after once for nothing.

        Returns: the seconds from each request to the last byte of its answer, and the last answer.
        Raises: BenchError where one is not 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        seconds: list[float] = []
        body = b""
        try:
            for _ in range(runs + 1):
                start = time.perf_counter()
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                seconds.append(time.perf_counter() - start)
                if response.status != http.HTTPStatus.OK:
                    raise BenchError(f"{path} gave {response.status}: {tail(self._log)}")
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{path} was not answered: {error}") from error
        finally:
            connection.close()
        return seconds[1:], body

    def json(self, path: str) -> Any:
        """One answer of the API.  Raises: BenchError."""
        _, body = self.times(path, 0)
        return json.loads(body)

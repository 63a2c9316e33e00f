"""A server that runs in the background: files are put into its directory and watched.

The server unlinks a file after the commit that holds its values, so a file is never gone
before it is stored: what is measured here is at least the time to the commit.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench import proc
from bench.errors import BenchError
from bench.proc import Usage

#: Seconds without any file taken in after which a measurement is given up.
STALLED = 60.0

#: Seconds between two looks at what is awaited.
LOOK = 0.002


class Live:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], data_in: Path, log: Path) -> None:
        self._process = process
        self._data_in = data_in
        self._log = log

    def take(self, files: Sequence[Path]) -> Usage:
        """Move files in, as fast as it goes, and wait until the last of them is gone."""
        start, cpu = time.monotonic(), self._cpu()
        for file in files:
            file.rename(self._data_in / file.name)
        self._await_gone([self._data_in / file.name for file in files])
        return self._since(start, cpu)

    def trickle(self, files: Sequence[Path], rate: float) -> tuple[Usage, list[float]]:
        """Write files under their final names, ``rate`` a second, and wait until all are gone.

        Returns: the usage, and for each file the seconds from its completion to its end.
        """
        contents = [file.read_bytes() for file in files]
        completed: dict[Path, float] = {}
        latencies: list[float] = []
        start, cpu = time.monotonic(), self._cpu()
        for number, (file, content) in enumerate(zip(files, contents, strict=True)):
            while time.monotonic() < start + number / rate:
                latencies += _ended(completed)
                time.sleep(LOOK)
            target = self._data_in / file.name
            target.write_bytes(content)
            completed[target] = time.monotonic()
        deadline = time.monotonic() + STALLED
        while completed:
            latencies += _ended(completed)
            self._pause(deadline)
        return self._since(start, cpu), latencies

    def _cpu(self) -> float:
        return proc.cpu_seconds(self._process.pid)

    def _since(self, start: float, cpu: float) -> Usage:
        seconds = time.monotonic() - start
        return Usage(seconds, self._cpu() - cpu, proc.peak_rss(self._process.pid))

    def _await_gone(self, files: Sequence[Path]) -> None:
        """Wait for each file in turn: a burst costs one look a file, not a scan a look."""
        deadline = time.monotonic() + STALLED
        for file in files:
            while file.exists():
                self._pause(deadline)
                if not file.exists():
                    deadline = time.monotonic() + STALLED

    def _pause(self, deadline: float) -> None:
        if self._process.poll() is not None:
            raise BenchError(f"the server left: {tail(self._log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"the server takes nothing in any more: {tail(self._log)}")
        time.sleep(LOOK)


def _ended(completed: dict[Path, float]) -> list[float]:
    """Drop the files that are gone; how long each took."""
    gone = [path for path in completed if not path.exists()]
    now = time.monotonic()
    return [now - completed.pop(path) for path in gone]


def tail(log: Path) -> str:
    """The last that the server said."""
    return log.read_text(errors="replace")[-2000:].strip()

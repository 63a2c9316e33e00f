"""The processes of a demo: a supervisor and a console, which end with it, however it ends.

Run as a program, this module becomes such a process: the kernel keeps what
:mod:`dataserver.lifeline` requests through exec(2).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from dataserver.errors import NotRunning
from dataserver.lifeline import die_with_parent

#: Seconds for a graceful end.
PATIENCE = 15.0
#: Bytes of a log's end in which its last line is searched.
_LAST = 4_096
#: Seconds between two checks whether they have ended.
_LOOK = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Child:
    """A ``dataserver`` command, whose output goes into the file ``log``."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        command = [sys.executable, "-P", "-m", "dataserver.demo.children", str(os.getpid())]
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [*command, *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C on the terminal is for the demo, which ends them gracefully.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise NotRunning if it has ended."""
        code = self._popen.poll()
        if code is not None:
            line = self.last_line() or "it printed nothing"
            raise NotRunning(f"the demo's `dataserver {self.name}` ended ({_how(code)}): {line}")

    def last_line(self) -> str:
        """The last line that it printed."""
        with self.log.open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _LAST))
            lines = output.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self._popen.terminate()

    def kill(self) -> None:
        """Kill it; SIGKILL loses no packets (commit, then unlink)."""
        self._popen.kill()
        self._popen.wait()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None


class Children:
    """All processes of the demo; at the end of the block all have ended.

    They are stopped gracefully, unless that takes too long or ``hurry()`` returns true.
    """

    def __init__(self, hurry: Callable[[], bool]) -> None:
        self._hurry = hurry
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for child in self._children:
            child.terminate()
        until = time.monotonic() + PATIENCE
        while not all(child.ended for child in self._children):
            if self._hurry() or time.monotonic() > until:
                break
            time.sleep(_LOOK)
        for child in self._children:
            child.kill()

    def add(self, child: Child) -> Child:
        """Add a process."""
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise NotRunning if one has ended."""
        for child in self._children:
            child.check()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


# -- signals that end the demo --


class ShutdownSignal:
    """In the block, SIGTERM, SIGINT and SIGHUP request the end instead of ending the process.

    For the main thread.
    """

    def __init__(self) -> None:
        self._times = 0
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup = -1
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    @property
    def is_requested(self) -> bool:
        """Whether the end was requested."""
        return self._times > 0

    @property
    def is_urgent(self) -> bool:
        """Whether the end was requested again."""
        return self._times > 1

    def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the request; whether the end is requested."""
        if not self.is_requested and select.select([self._reader], [], [], seconds)[0]:
            self._reader.recv(4_096)
        return self.is_requested

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._times += 1


# -- ``python -m dataserver.demo.children PARENT ARGUMENTS``: a child that ends with PARENT --


def main(parent: str, *arguments: str) -> None:
    """Become ``dataserver ARGUMENTS``."""
    die_with_parent(int(parent))
    # -P: do not import from the current directory, which may be anyone's.
    command = [sys.executable, "-P", "-m", "dataserver", *arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The processes of a demo: a supervisor and a console, which end with it, however it ends."""

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
from dataserver.lifeline import end_with

#: Seconds for ending in good order.
PATIENCE = 15.0
#: Bytes of a log's end in which its last word is looked for.
_LAST = 4_096
#: Seconds between two looks whether they have ended.
_LOOK = 0.05


class Child:
    """One ``dataserver`` command; what it says goes into the file ``log``."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        command = [sys.executable, "-P", "-m", "dataserver.demo.children", str(os.getpid())]
        with log.open("wb") as said:
            self._popen = subprocess.Popen(
                [*command, *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                # Ctrl-C on the terminal is for the demo, which ends them in good order.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise NotRunning where it has ended."""
        code = self._popen.poll()
        if code is not None:
            word = self.last_word() or "it said nothing"
            raise NotRunning(f"the demo's `dataserver {self.name}` ended ({_how(code)}): {word}")

    def last_word(self) -> str:
        """The last line that it said."""
        with self.log.open("rb") as said:
            said.seek(max(0, said.seek(0, os.SEEK_END) - _LAST))
            lines = said.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self._popen.terminate()

    def kill(self) -> None:
        """End it; SIGKILL loses nothing (commit, then unlink)."""
        self._popen.kill()
        self._popen.wait()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._popen.poll() is not None


class Children:
    """All of them; at the end of the block none is left.

    They end in good order, unless that takes too long or ``hurry()`` says so.
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
        """Look after one more."""
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise NotRunning where one has ended."""
        for child in self._children:
            child.check()


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


# -- ``python -m dataserver.demo.children PARENT ARGUMENTS``: a ``dataserver`` that ends with PA
#
# The kernel keeps what :mod:`dataserver.lifeline` asks for through exec(2), so this becomes the
# command itself, whatever that is.


def main(parent: str, *arguments: str) -> None:
    """Become ``dataserver ARGUMENTS``."""
    end_with(int(parent))
    # -P: not the current directory, which is anybody's.
    command = [sys.executable, "-P", "-m", "dataserver", *arguments]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])


# -- being told to end: signals as something to wait for

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ending:
    """Inside of the block, SIGTERM, SIGINT and SIGHUP ask for the end instead of being it.

    For the main thread.
    """

    def __init__(self) -> None:
        self._times = 0
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._wakeup = -1
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._ear.close()
        self._mouth.close()

    @property
    def asked(self) -> bool:
        """Whether somebody asked for the end."""
        return self._times > 0

    @property
    def is_urgent(self) -> bool:
        """Whether somebody asked again."""
        return self._times > 1

    def wait(self, seconds: float) -> bool:
        """Wait so long at most, or until somebody asks for the end; whether he did."""
        if not self.asked and select.select([self._ear], [], [], seconds)[0]:
            self._ear.recv(4_096)
        return self.asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._times += 1

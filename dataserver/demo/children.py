"""The processes of a demo: a supervisor and a console, which end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dataserver.errors import NotRunning

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
        command = [sys.executable, "-P", "-m", "dataserver.demo.child", str(os.getpid())]
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

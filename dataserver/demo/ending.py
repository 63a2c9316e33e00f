"""Being told to end: signals as something to wait for."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Any, Self

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

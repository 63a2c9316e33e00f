"""The one line that ``dataserver run`` and ``up`` keep up to date on a terminal."""

from __future__ import annotations

import logging
from threading import RLock
from typing import IO

from dataserver.rules.moments import duration_text
from dataserver.runtime.heartbeat import Phase, Status

#: Moves to the beginning of the line and erases it.
_ERASE = "\r\x1b[2K"


def line(status: Status, width: int) -> str:
    """The figures of one instance in at most ``width`` characters."""
    counters, gauges = status.counters, status.gauges
    share = 100 * counters["stored"] / counters["samples"] if counters["samples"] else 0
    parts = [
        status.phase,
        f"{counters['packets']} packets ({status.packets_per_second:.0f}/s)",
        f"{counters['samples']} values ({status.values_per_second:.0f}/s)",
        f"{share:.0f} % stored",
        f"queue {gauges['queue']}",
    ]
    if gauges["queue"]:
        parts.append(f"oldest {duration_text(gauges['oldest_age_seconds'])}")
    if rejected := sum(counters["rejected"].values()):
        parts.append(f"rejected {rejected}")
    if status.phase == Phase.WAITING_FOR_DATABASE and status.database_error:
        parts.append(status.database_error)
    return " | ".join(parts)[:width]


class LiveLine:
    """Redraws the line in place; messages that are logged meanwhile go above it."""

    def __init__(self, stream: IO[str], columns: int) -> None:
        self._stream = stream
        # A line as wide as the terminal would wrap.
        self._width = max(columns - 1, 20)
        self._shown = ""
        self._lock = RLock()

    def update(self, status: Status) -> None:
        """Show the figures of one instance."""
        self.show(line(status, self._width))

    def show(self, text: str) -> None:
        """Show ``text``, cut to the width of the line."""
        with self._lock:
            self._shown = text[: self._width]
            self._stream.write(_ERASE + self._shown)
            self._stream.flush()

    def above(self, text: str) -> None:
        """Print a line, and the live line again below it."""
        with self._lock:
            self._stream.write(f"{_ERASE}{text}\n{self._shown}")
            self._stream.flush()

    def finish(self) -> None:
        """Keep the last state on the screen and go to the next line."""
        with self._lock:
            if self._shown:
                self._stream.write("\n")
                self._stream.flush()
            self._shown = ""


class LiveLineHandler(logging.Handler):
    """Logs to a terminal whose last line is the live one."""

    def __init__(self, live: LiveLine) -> None:
        super().__init__()
        self._live = live

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message above the live line."""
        try:
            self._live.above(self.format(record))
        except Exception:  # noqa: BLE001 (logging must not break what it logs)
            self.handleError(record)

"""What supervised instances say, kept in ``var/NAME/log`` up to a size."""

from __future__ import annotations

import contextlib
import logging
from logging.handlers import RotatingFileHandler

from dataserver.fleet.model import log_file
from dataserver.fleet.processes import Hears
from dataserver.home import Home

#: Bytes of a log file; when it is full it becomes ``log.1``, in place of the one before.
LARGEST = 10 * 2**20


class _Log(RotatingFileHandler):
    """One file; what cannot be written (a full disk) is not."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing: the line was heard all the same."""


class Journals:
    """The logs of a home's instances; each line goes on to ``hear``."""

    def __init__(self, home: Home, hear: Hears, largest: int = LARGEST) -> None:
        self._home = home
        self._hear = hear
        self._largest = largest
        self._logs: dict[str, _Log] = {}

    def write(self, name: str, line: str) -> None:
        """Keep one line of the instance ``name``."""
        log = self._log(name)
        if log is not None:
            log.emit(logging.makeLogRecord({"msg": line}))
        # Whoever read our output may be gone: no reason to end, and all instances with us.
        with contextlib.suppress(OSError):
            self._hear(name, line)

    def _log(self, name: str) -> _Log | None:
        path = log_file(self._home.instance(name))
        log = self._logs.get(name)
        # Removed with its instance, perhaps, and spawned anew.
        if log is not None and not path.exists():
            self._logs.pop(name).close()
            log = None
        if log is None:
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                log = _Log(path, maxBytes=self._largest, backupCount=1, encoding="utf-8")
                self._logs[name] = log
        return log

"""What supervised instances say, kept in ``var/NAME/log`` up to a size."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Container
from logging.handlers import RotatingFileHandler

from dataserver.fleet.model import log_file
from dataserver.fleet.supervision.processes import Hears
from dataserver.home import Home

#: Bytes of a log file; when it is full it becomes ``log.1``, in place of the one before.
LARGEST = 10 * 2**20


class _Log(RotatingFileHandler):
    """One file; what cannot be written (a full disk) is not."""

    def _open(self) -> io.TextIOWrapper:
        # A pipe in its place must not hold up who supervises all.
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NONBLOCK, 0o666)

        return open(self.baseFilename, "a", encoding=self.encoding, opener=opener)

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

    def keep(self, names: Container[str]) -> None:
        """Close the logs of all but ``names``: an open one keeps its disk space."""
        for name in [name for name in self._logs if name not in names]:
            self._logs.pop(name).close()

    def _log(self, name: str) -> _Log | None:
        paths = self._home.instance(name)
        path = log_file(paths)
        # What may not be looked at now goes on into the file that is open.
        with contextlib.suppress(OSError):
            # Removed with its instance, perhaps, and spawned anew.
            if name in self._logs and not path.exists():
                self._logs.pop(name).close()
            # Nothing is made anew for one whose folder is gone.
            if name not in self._logs and paths.folder.exists():
                path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
                self._logs[name] = _Log(
                    path, maxBytes=self._largest, backupCount=1, encoding="utf-8"
                )
        return self._logs.get(name)

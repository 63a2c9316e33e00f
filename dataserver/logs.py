"""Formatting of log messages: JSON lines, or short lines for a terminal; passwords are masked.

Details are passed as ``logger.info("rejected", extra={"reason": "clock"})``; they become
fields of the JSON object, or ``key=value`` after the message.  (Names that every record
has anyway, such as ``module`` and ``name``, are refused by logging itself.)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from dataserver.config.kinds import masked

#: The name of the package's root logger.
NAME = "dataserver"
#: Attributes that every record has; all others were passed as ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object per message: time (UTC), level, message, ``always``, then the details."""

    def __init__(self, always: Mapping[str, object]) -> None:
        super().__init__()
        self._always = dict(always)

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``, without a line end."""
        line: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": masked(record.getMessage()),
            **self._always,
            **_details(record),
        }
        if record.exc_info:
            line["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class TerminalLines(logging.Formatter):
    """``HH:MM:SS level: message (key=value, ...)``, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``, followed by any traceback."""
        details = {key: value for key, value in _details(record).items() if value is not None}
        given = ", ".join(f"{key}={value}" for key, value in details.items())
        message = masked(record.getMessage()) + (f" ({given})" if given else "")
        clock = _time(record).astimezone().strftime("%H:%M:%S")
        line = f"{clock} {record.levelname.lower()}: {printable(message)}"
        if record.exc_info:
            line += "\n" + masked(self.formatException(record.exc_info))
        return line


def terminal_line(line: str, prefix: str = "") -> str:
    """A line of :class:`JsonLines` formatted for a terminal; any other line only escaped."""
    try:
        found = json.loads(line)
        when = datetime.fromisoformat(found.pop("time")).astimezone().strftime("%H:%M:%S")
        level, message = found.pop("level"), found.pop("message")
    # The last two: nested too deeply; a time out of range in this time zone.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return printable(prefix + line)
    found.pop("instance", None)
    traceback = found.pop("traceback", None)
    given = ", ".join(f"{key}={value}" for key, value in found.items() if value is not None)
    text = printable(f"{when} {prefix}{level}: {message}" + (f" ({given})" if given else ""))
    if traceback:
        text += "".join(f"\n{printable(each)}" for each in str(traceback).split("\n"))
    return text


def set_up(level: str, handler: logging.Handler, formatter: logging.Formatter) -> None:
    """Send messages of ``level`` and above to ``handler``, replacing any earlier set-up."""
    handler.setFormatter(formatter)
    logger = logging.getLogger(NAME)
    logger.handlers[:] = [handler]
    logger.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """From now on, drop messages below ``level``."""
    logging.getLogger(NAME).setLevel(level.upper())


def printable(text: str) -> str:
    """``text`` with every non-printable character escaped: safe on a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _details(record: logging.LogRecord) -> dict[str, object]:
    return {
        key: masked(value) if isinstance(value, str) else value
        for key, value in record.__dict__.items()
        if key not in _STANDARD
    }

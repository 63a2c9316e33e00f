"""Checks that the file of an SQLite database is still the one that was opened, and intact.

An open SQLite file can be moved, deleted or replaced by a backup without an error: later writes
then go into a file that cannot be found again, and a log (``-wal``) that belongs to another file
damages the file next to it.  So

1.  the identity of the file that a server uses is recorded next to it (``NAME.identity``);
2.  each transaction checks that the file is still there under its name (:func:`identity`);
3.  a server does not create a new file if a recorded one is missing;
4.  a file that replaced the recorded one, or that is newer than its log, is checked before
    anything is written to it.

Source: https://www.sqlite.org/howtocorrupt.html, sections 1.2 to 1.4 and 2.2.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from dataserver.errors import StoreUnavailable

log = logging.getLogger(__name__)

#: Device and inode.
Identity = tuple[int, int]

#: Instructions of SQLite's virtual machine between two calls of a progress handler.
_STEPS = 100_000
#: Seconds between two log messages about a long check.
_LOG_EVERY = 10.0
#: What to do about a damaged file.
RESTORING = "restore a backup: stop all instances, remove the files -wal and -shm beside it first"


def identity(path: Path) -> Identity | None:
    """The identity of the file with this name, or None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def record(path: Path) -> None:
    """Record that this file is the database; if that fails (disk full), only log it."""
    now, record_path = identity(path), _record_path(path)
    if now is None or _recorded(path) == now[1]:
        return
    temporary = record_path.with_name(f".{record_path.name}.new")
    try:
        temporary.write_text(json.dumps({"inode": now[1]}) + "\n", "utf-8")
        temporary.replace(record_path)
    except OSError as error:
        log.debug("cannot record which file the database is: %s", error)


def forget_missing(path: Path) -> None:
    """If the recorded file is missing, allow a new one to be created in its place."""
    if identity(path) is None:
        _record_path(path).unlink(missing_ok=True)


def must_not_be_missing(path: Path) -> None:
    """Raise StoreUnavailable if the recorded file is missing."""
    if identity(path) is None and _recorded(path) is not None:
        raise StoreUnavailable(
            f"the database file {path} is missing: it was moved or deleted",
            hint="put it back, or run: dataserver db create (which starts with an empty one)",
        )


def check_before_use(path: Path, step: Callable[[], object] = lambda: None) -> None:
    """Make sure that the file can be used; ``step`` is called now and then during a check.

    Raises StoreUnavailable if the recorded file is missing or the file is damaged.
    """
    must_not_be_missing(path)
    known, now = _recorded(path), identity(path)
    if now is None:
        return
    if (known is not None and known != now[1]) or _is_newer_than_its_log(path):
        log.info("checking the database file %s: it was replaced or not closed properly", path)
        if problem := damage(path, step):
            raise StoreUnavailable(
                f"the database file {path} is damaged: {problem}", hint=RESTORING
            )


def damage(path: Path, step: Callable[[], object] = lambda: None) -> str | None:
    """The first fault found by SQLite's integrity check, or None; changes nothing."""
    started = logged = time.monotonic()

    def progress() -> int:
        nonlocal logged
        step()
        now = time.monotonic()
        if now - logged >= _LOG_EVERY:
            logged = now
            log.info("checking the database file %s for %d s", path, now - started)
        return 0

    try:
        # Read-only, so that the log of another file is not written into this one; and if there is
        # no log, as an immutable file, so that none is created.
        uri = f"file:{quote(str(path))}?mode=ro"
        if not path.with_name(f"{path.name}-wal").exists():
            uri += "&immutable=1"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as raw:
            raw.set_progress_handler(progress, _STEPS)
            rows = raw.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        return str(error)
    found = str(rows[0][0]) if rows else "no answer"
    return None if found == "ok" else found.splitlines()[-1]


def _is_newer_than_its_log(path: Path) -> bool:
    with suppress(OSError):
        return path.with_name(f"{path.name}-wal").stat().st_mtime_ns < path.stat().st_mtime_ns
    return False


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.identity")


def _recorded(path: Path) -> int | None:
    """The recorded inode, or None; not the device, whose number may change with a reboot."""
    try:
        return int(json.loads(_record_path(path).read_text("utf-8"))["inode"])
    except (OSError, ValueError, TypeError, KeyError):
        return None

"""Sending signals to the process that runs an instance, however it was started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from dataserver.config.paths import Paths
from dataserver.errors import DataserverError
from dataserver.spool.lock import holder


def send(paths: Paths, number: signal.Signals) -> int | None:
    """Signal the process that holds the instance's lock; its pid, or None if none holds it.

    The lock contains a pid.  Once a pidfd is open, so that the pid cannot be reused, we check
    that this process has the lock open.  Raises DataserverError if it cannot be signalled, OSError
    if the lock cannot be read.
    """
    pid = holder(paths.var)
    if pid is None:
        return None
    try:
        fd = os.pidfd_open(pid)
    except (OSError, ValueError) as exc:
        # It has just ended, or is in another container.
        if holder(paths.var) is None:
            return None
        raise _unreachable(paths, pid) from exc
    try:
        if not _has_open(pid, paths.lock):
            if holder(paths.var) is None:
                return None
            raise _unreachable(paths, pid)
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return None
    except PermissionError as exc:
        raise DataserverError(
            f"{paths.name} is run by process {pid}, which user {os.geteuid()} may not signal",
            hint="run this as the user who started it",
        ) from exc
    finally:
        os.close(fd)
    return pid


def _unreachable(paths: Paths, pid: int) -> DataserverError:
    process = f"process {pid}" if pid else "another process"
    return DataserverError(
        f"{paths.name} is run by {process}, which cannot be signalled from here",
        hint="it may be in another container or another user's: stop it there",
    )


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process has this file open, according to proc(5); PermissionError."""
    wanted = path.stat()
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except FileNotFoundError:
        return False
    for number in numbers:
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), wanted):
                return True
    return False

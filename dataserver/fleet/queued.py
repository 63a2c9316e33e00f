"""What lies in an instance's directories, counted from outside: packets, and what else it left."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dataserver.fleet.model import log_file
from dataserver.home import Paths
from dataserver.spool.files import is_packet_name
from dataserver.spool.lock import LOCK_FILE
from dataserver.spool.reasons import is_id

#: Directory entries that are looked at where a bound is asked for.
BOUND = 10_000


class Queue(NamedTuple):
    """Packets in a directory, complete or not; ``oldest`` in epoch seconds.

    ``more``: it holds more entries than were looked at.
    """

    files: int
    oldest: float | None
    more: bool = False


def queue(folder: Path, bound: int | None = None) -> Queue:
    """The packets in ``folder``, of its first ``bound`` entries.

    Raises OSError where it cannot be listed.
    """
    times: list[float] = []
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number == bound:
                return Queue(len(times), min(times, default=None), more=True)
            if not is_packet_name(entry.name):
                continue
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    times.append(entry.stat(follow_symlinks=False).st_mtime)
    return Queue(len(times), min(times, default=None))


def rejected(paths: Paths) -> int:
    """How many packets of the instance were set aside; OSError."""
    return sum(
        name.endswith(".data") and is_id(name.removesuffix(".data"))
        for name in _names(paths.rejected)
    )


def leaving(paths: Paths) -> int:
    """How many packets were on their way out when the instance was killed; OSError."""
    return sum(map(is_packet_name, _names(paths.var / "leaving")))


def foreign(paths: Paths) -> list[str]:
    """The names of what lies in ``var/NAME`` and is not of an instance's making; OSError."""
    log = log_file(paths).name
    files = (paths.heartbeat, paths.status, paths.metrics, paths.rejected)
    own = {LOCK_FILE, "leaving", log, f"{log}.1", *(file.name for file in files)}
    own |= {f".{file.name}.new" for file in files}
    return sorted(name for name in _names(paths.var) if name not in own)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []

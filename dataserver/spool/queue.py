"""The queue, counted without reading a packet: by another process, or beside the main loop."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dataserver.spool.files import is_packet_name

#: Directory entries that are looked at where a bound is asked for.
BOUND = 10_000


class Queue(NamedTuple):
    """Packets in a directory, complete or not; ``oldest`` in epoch seconds.

    ``more``: it holds more entries than were looked at.
    """

    files: int
    oldest: float | None
    more: bool = False


def count_queue(folder: Path, bound: int | None = None) -> Queue:
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

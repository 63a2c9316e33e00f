"""Counting the packets in a drop directory, without locking it or reading them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dataserver.spool.files import is_packet_name

#: The usual bound: directory entries that are counted where the exact number does not matter.
BOUND = 10_000


class Queue(NamedTuple):
    """The number of packets in a directory, complete or not.

    ``oldest`` is the oldest one's modification time (epoch seconds), or None if there is no
    packet.  ``more``: the directory has more entries than were counted.
    """

    files: int
    oldest: float | None
    more: bool = False


def count_queue(folder: Path, bound: int | None = None) -> Queue:
    """Count the packets in ``folder``, among its first ``bound`` entries if given.

    Raises OSError if it cannot be listed.
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

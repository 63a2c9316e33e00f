"""Entries of the drop directory that are not ours: each named once in the log, and no more.

Nothing is done about them.  The number of names remembered is bounded, so a directory
full of foreign files costs neither memory nor a log of its own size.
"""

from __future__ import annotations

import logging
import os

from dataserver.spool.files import CHECKSUM_NAME

log = logging.getLogger(__name__)

#: Foreign names that belong there: Pandora's folders for agents, and our own README.
EXPECTED = frozenset({"conf", "md5", "collections", "README", "README.md"})


class Oddities:
    """Remembers which entries were spoken of; ``limit`` names at most."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._named: set[str] = set()

    def see(self, entry: os.DirEntry[str], *, named_like_packet: bool) -> None:
        """Take note of an entry that is not a packet; warns the first time."""
        name = entry.name
        if name in self._named or len(self._named) > self._limit:
            return
        if named_like_packet:
            self._warn(name, "%a in data_in has a packet's name but is no regular file: not opened")
        elif not _is_expected(name):
            self._warn(name, "%a in data_in is no packet (NAME.NUMBER.data): not touched")

    def _warn(self, name: str, message: str) -> None:
        self._named.add(name)
        if len(self._named) > self._limit:
            log.warning(
                "more than %d entries in data_in are no packets: no more is said of them",
                self._limit,
            )
        else:
            log.warning(message, name)


def _is_expected(name: str) -> bool:
    return name.startswith(".") or name in EXPECTED or CHECKSUM_NAME.fullmatch(name) is not None

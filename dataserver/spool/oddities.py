"""Entries of the drop directory that are not ours: each named once in the log, and no more.

Nothing is done about them.  The number of names remembered is bounded, so a directory
full of foreign files costs neither memory nor a log of its own size.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

#: Foreign names that belong there: the folders that Pandora itself makes in its spool, for
#: agents' configurations, collections, locks, remote commands, flows and the like, and our README.
EXPECTED = frozenset(
    {"agent", "collections", "commands", "conf", "discovery", "md5", "netflow", "sflow", "trans"}
    | {"README", "README.md"}
)
#: How the Perl server renames a packet that it cannot read, and leaves it.
BAD_XML = ".data_BADXML"


class Oddities:
    """Remembers which entries were spoken of; ``limit`` names at most."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._named: set[str] = set()
        self._has_told_bad_xml = False

    @property
    def is_full(self) -> bool:
        """Whether no more is said of foreign names."""
        return len(self._named) > self._limit

    def see(self, name: str, *, named_like_packet: bool) -> None:
        """Take note of an entry that is neither a packet nor expected; warns the first time."""
        if name in self._named or self.is_full:
            return
        if named_like_packet:
            self._warn(name, "%a in data_in has a packet's name but is no regular file: not opened")
        else:
            self._warn(name, "%a in data_in is no packet (NAME.NUMBER.data): not touched")

    def see_bad_xml(self, count: int) -> None:
        """Take note of packets that a Perl server could not read; warns the first time."""
        if count and not self._has_told_bad_xml:
            self._has_told_bad_xml = True
            log.warning(
                "%d files in data_in are named *%s: packets that the Perl server could not read; "
                "not touched (`dataserver packet show FILE` says what is wrong with one)",
                count,
                BAD_XML,
            )

    def _warn(self, name: str, message: str) -> None:
        self._named.add(name)
        if self.is_full:
            log.warning(
                "more than %d entries in data_in are no packets: no more is said of them",
                self._limit,
            )
        else:
            log.warning(message, name)

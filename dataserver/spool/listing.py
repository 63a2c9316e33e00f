"""One look at the drop directory: which of its entries are packet files, in which order.

An entry that is no packet costs little more than the system call that lists it: its name's end
is looked at, nothing else.  A directory that holds many of them and no packet is not even listed
again for as long as its own times say that no name came or went.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from dataserver.spool.files import CHECKSUM_NAME, PACKET_NAME, SpoolFile, oldest_first
from dataserver.spool.oddities import BAD_XML, EXPECTED, Oddities

#: With fewer foreign entries than this, listing costs next to nothing.
_MANY = 1_000
#: Seconds for which a directory's times must have stood before they prove anything: longer than
#: the steps in which any file system counts time.
_SETTLED = 3.0
#: Seconds after which it is listed in any case, for a file system that does not keep such times.
_AT_LEAST = 30.0


class _Stamp(NamedTuple):
    """What a directory says of itself; each name that comes or goes changes its times."""

    inode: int
    mtime_ns: int
    ctime_ns: int


class Listing:
    """Lists, and remembers what it has warned about.

    ``has_checksums`` is True once a ``.checksum`` file was seen: where there never was one,
    nobody need look for it beside every packet.  ``foreign`` counts the entries that are neither
    packets nor expected.  ``monotonic`` gives seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.has_checksums = False
        self.foreign = 0
        self._oddities = Oddities()
        self._monotonic = monotonic
        self._stamp: _Stamp | None = None
        #: When this stamp was first seen; when the directory was listed and held many foreign
        #: entries and no packet (both monotonic seconds, minus infinity: it did not).
        self._stamped = 0.0
        self._barren = float("-inf")

    def look(self, fd: int) -> tuple[list[SpoolFile], dict[str, str]]:
        """The packet files of the directory ``fd``, oldest first, and those that failed.

        The latter by name, with the reason: an entry of which the file system knows nothing
        must not keep the others from being seen.  Raises OSError for the directory itself.
        """
        now = self._monotonic()
        if self._is_as_it_was(fd, now):
            return [], {}
        found: list[SpoolFile] = []
        failed: dict[str, str] = {}
        foreign = bad_xml = 0
        with os.scandir(fd) as listed:
            for entry in listed:
                name = entry.name
                if name.endswith(BAD_XML):
                    bad_xml += 1
                    continue
                if not name.endswith(".data"):
                    foreign += self._is_foreign(name)
                    continue
                try:
                    file = self._judge(entry)
                except FileNotFoundError:
                    continue  # gone since it was listed
                except OSError as error:
                    failed[name] = str(error.strerror)
                    continue
                if file is not None:
                    found.append(file)
                elif not name.startswith("."):
                    foreign += 1
        self.foreign = foreign + bad_xml
        self._oddities.see_bad_xml(bad_xml)
        is_barren = self.foreign >= _MANY and not found and not failed
        self._barren = now if is_barren else float("-inf")
        found.sort(key=oldest_first)
        return found, failed

    def _is_as_it_was(self, fd: int, now: float) -> bool:
        """Whether no name can have come since a listing that found no packet."""
        info = os.fstat(fd)
        stamp = _Stamp(info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        if stamp != self._stamp:
            self._stamp, self._stamped = stamp, now
            return False
        # What came after the listing got a later time than what had stood for so long before it.
        return self._barren - self._stamped >= _SETTLED and now - self._barren < _AT_LEAST

    def _judge(self, entry: os.DirEntry[str]) -> SpoolFile | None:
        """A directory entry as a packet file, None where it is none."""
        name = entry.name
        match = PACKET_NAME.fullmatch(name)
        if match is None or not entry.is_file(follow_symlinks=False):
            if not name.startswith("."):
                self._oddities.see(name, named_like_packet=match is not None)
            return None
        info = entry.stat(follow_symlinks=False)
        return SpoolFile(name, match[1], int(match[2]), info.st_size, info.st_mtime_ns, info.st_ino)

    def _is_foreign(self, name: str) -> bool:
        """Whether an entry that is no packet is not expected there either."""
        if name.startswith(".") or name in EXPECTED:
            return False
        if name.endswith(".checksum") and CHECKSUM_NAME.fullmatch(name):
            self.has_checksums = True
            return False
        if not self._oddities.is_full:
            self._oddities.see(name, named_like_packet=False)
        return True

"""One look at the drop directory: which of its entries are packet files, in which order."""

from __future__ import annotations

import os

from dataserver.spool.files import CHECKSUM_NAME, PACKET_NAME, SpoolFile, oldest_first
from dataserver.spool.oddities import Oddities


class Listing:
    """Lists, and remembers what it has warned about.

    ``has_checksums`` is True once a ``.checksum`` file was seen: where there never was one,
    nobody need look for it beside every packet.
    """

    def __init__(self) -> None:
        self.has_checksums = False
        self._oddities = Oddities()

    def look(self, fd: int) -> tuple[list[SpoolFile], dict[str, str]]:
        """The packet files of the directory ``fd``, oldest first, and those that failed.

        The latter by name, with the reason: an entry of which the file system knows nothing
        must not keep the others from being seen.  Raises OSError for the directory itself.
        """
        found: list[SpoolFile] = []
        failed: dict[str, str] = {}
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    file = self._judge(entry)
                except FileNotFoundError:
                    continue  # gone since it was listed
                except OSError as error:
                    failed[entry.name] = str(error.strerror)
                    continue
                if file is not None:
                    found.append(file)
        found.sort(key=oldest_first)
        return found, failed

    def _judge(self, entry: os.DirEntry[str]) -> SpoolFile | None:
        """A directory entry as a packet file, None where it is none."""
        name = entry.name
        match = PACKET_NAME.fullmatch(name)
        if match is None or not entry.is_file(follow_symlinks=False):
            self._oddities.see(entry, named_like_packet=match is not None)
            if not self.has_checksums and CHECKSUM_NAME.fullmatch(name):
                self.has_checksums = True
            return None
        info = entry.stat(follow_symlinks=False)
        return SpoolFile(name, match[1], int(match[2]), info.st_size, info.st_mtime_ns, info.st_ino)

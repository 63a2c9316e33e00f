"""The drop directory: list it, read a file of it, acknowledge a file, set one aside.

Everything is done relative to one descriptor of the directory, so that a path that is
replaced under our feet cannot lead elsewhere; no link is followed, nothing but a regular
file is read.  Of a file that has left, nothing is kept here: a name means nothing, what was
read is known by its identity (inode, size, modification time) and by its content.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from dataserver.errors import PacketError, Reason, SpoolError, SpoolReplaced
from dataserver.failpoints import reach
from dataserver.packet import ends_complete
from dataserver.spool import checksums
from dataserver.spool.content import mark_of, read_whole
from dataserver.spool.files import Reading, SpoolFile, Unreadable, Vanished, checksum_name
from dataserver.spool.leaving import Leaving
from dataserver.spool.listing import Listing
from dataserver.spool.moves import READ_FLAGS, RETRY_PREFIX, open_directory, unlink_if_there
from dataserver.spool.rejected import Rejected

#: A file read this soon after it was written may be written again within one tick of the
#: kernel's file clock (10 ms at most), with the same size: then only its content can tell.
_TICK_NS = 20_000_000
#: How much longer than what was read a file may be and still be that packet (line ends).
_TAIL = 4096
#: open(2) on what a listed file has become: gone, a link, a socket or device without driver.
_NO_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV})


class Spool:
    """One drop directory.

    ``max_packet`` in bytes; ``checksum`` says whether ``.checksum`` files are looked at;
    ``rejected`` is where files are set aside; a folder ``leaving`` beside it is the private
    directory through which acknowledged files go (see :mod:`.leaving`).  ``clock_ns`` gives
    nanoseconds since the epoch, to be compared with file times.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_packet: int,
        checksum: Literal["ignore", "verify"],
        rejected: Rejected,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self._max_packet = max_packet
        self._verify = checksum == "verify"
        self._rejected = rejected
        self._leaving = Leaving(rejected.path.with_name("leaving"))
        self._clock_ns = clock_ns
        self._fd: int | None = None
        self._listing = Listing()
        self._unreadable: dict[str, str] = {}

    @property
    def unreadable(self) -> MappingProxyType[str, str]:
        """Files that could not be read, by name, with the reason; they are tried again."""
        return MappingProxyType(self._unreadable)

    @property
    def foreign(self) -> int:
        """Entries that are neither packets nor expected, by the last listing."""
        return self._listing.foreign

    def recover(self) -> int:
        """Tidy up after a crash: put back what was leaving, remove halves; how many files.

        Only for the process that holds the locks, before its first scan.  Raises SpoolError.
        """
        fd = self._directory()
        try:
            count = self._leaving.recover(dir_fd=fd) + self._rejected.recover()
            for name in os.listdir(fd):
                if name.startswith(RETRY_PREFIX):
                    count += unlink_if_there(name, dir_fd=fd)
        except OSError as error:
            raise self._unusable("tidy up", error) from error
        return count

    def scan(self) -> list[SpoolFile]:
        """Every packet file that is there, complete or not, oldest first.

        Raises SpoolError where the directory is missing, unreadable or was replaced.
        """
        fd = self._directory()
        try:
            self._must_be_the_same(fd)
            found, failed = self._listing.look(fd)
        except OSError as error:
            raise self._unusable("list", error) from error
        if self._unreadable or failed:
            known = self._unreadable
            self._unreadable = {f.name: known[f.name] for f in found if f.name in known} | failed
        return found

    def read(self, file: SpoolFile) -> Reading:
        """Read a listed file whole.

        Raises Vanished and Unreadable (nothing is wrong with the packet), or PacketError:
        ``too-large`` (not read), ``checksum`` (only of a complete packet, in mode verify).
        """
        try:
            fd = os.open(file.name, READ_FLAGS, dir_fd=self._directory())
            try:
                reading = self._read(file, fd)
            finally:
                os.close(fd)
            self._check(reading)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise Vanished(f"{file.name!a} is no file any more") from error
            raise self._cannot_read(file, error) from error
        self._unreadable.pop(file.name, None)
        return reading

    def done(self, file: SpoolFile) -> bool:
        """Unlink a file whose packet is committed, and the checksum beside it.

        False: the name now holds another packet, which is left (see :mod:`.leaving` for
        how sure that is).  Raises SpoolError where the file cannot be removed.
        """
        reach("before-unlink")
        try:
            gone = self._remove(file)
        except OSError as error:
            raise self._unusable(f"remove {file.name!a} from", error) from error
        reach("after-unlink")
        return gone

    def reject(
        self, file: SpoolFile, reason: Reason, detail: str, *, agent: str | None = None
    ) -> bool:
        """Set a file aside, whole and durably, with its reason and its checksum file.

        False: the name now holds another packet, which is left, or nothing.  Raises
        SpoolError where there is no room or no right; then the file stays.
        """
        fd = self._directory()
        try:
            expected = self._as_read(file)
            if expected is None:
                return False
            return self._rejected.take(
                self._rejected.record(file.name, expected, reason, detail, agent),
                expected,
                dir_fd=fd,
                remove=lambda: self._leaving.remove(file.name, expected, dir_fd=fd),
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(
                f"cannot set {file.name!a} aside in {self._rejected.path}: {error.strerror}",
                hint="it stays in data_in and is tried again; check space and rights there",
            ) from error

    def close(self) -> None:
        """Release the descriptors; the next use opens them again."""
        self._leaving.close()
        self._rejected.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _directory(self) -> int:
        """The descriptor; SpoolError where the path leads nowhere."""
        try:
            if self._fd is None:
                self._fd = open_directory(self.path)
        except OSError as error:
            raise self._unusable("open", error) from error
        return self._fd

    def _must_be_the_same(self, fd: int) -> None:
        """SpoolError where the path leads to another directory than the one we opened."""
        if not os.path.samestat(os.stat(self.path), os.fstat(fd)):
            raise SpoolReplaced(
                f"the drop directory {self.path} was replaced by another one",
                hint="a restart uses the new one; packets in the old one are not read any more",
            )

    def _unusable(self, doing: str, error: OSError) -> SpoolError:
        return SpoolError(
            f"cannot {doing} the drop directory {self.path}: {error.strerror}",
            hint="check that it exists and that this user may read, write and enter it",
        )

    def _read(self, file: SpoolFile, fd: int) -> Reading:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Vanished(f"{file.name!a} is no regular file any more")
        if before.st_size > self._max_packet:
            raise PacketError(
                Reason.TOO_LARGE, f"{before.st_size} bytes, at most {self._max_packet} are taken"
            )
        content = read_whole(fd, before.st_size)
        after = os.fstat(fd)
        read = SpoolFile(
            file.name,
            file.stem,
            file.number,
            after.st_size,
            after.st_mtime_ns,
            after.st_ino,
            mark_of(content),
            abs(self._clock_ns() - after.st_mtime_ns) < _TICK_NS,
        )
        quiet = before.st_mtime_ns == after.st_mtime_ns and len(content) == after.st_size
        return Reading(read, content if quiet else None)

    def _check(self, reading: Reading) -> None:
        """In mode verify, compare a complete packet with its checksum file."""
        if not self._verify or reading.content is None or not ends_complete(reading.content):
            return
        name = checksum_name(reading.file.name)
        checksums.verify(reading.content, checksums.read_checksum(name, dir_fd=self._directory()))

    def _cannot_read(self, file: SpoolFile, error: OSError) -> Unreadable:
        first = file.name not in self._unreadable
        self._unreadable[file.name] = str(error.strerror)
        return Unreadable(
            f"cannot read {file.name!a}: {error.strerror}",
            first=first,
            hint="it stays, and is taken when it becomes readable",
        )

    def _remove(self, file: SpoolFile) -> bool:
        fd = self._directory()
        try:
            expected = self._as_read(file)
        except FileNotFoundError:
            return True
        if expected is None:
            return False
        if self._listing.has_checksums or self._verify:
            # Before its packet: a crash in between leaves a packet, not a stray checksum.
            unlink_if_there(checksum_name(file.name), dir_fd=fd)
        return self._leaving.remove(file.name, expected, dir_fd=fd)

    def _as_read(self, file: SpoolFile) -> os.stat_result | None:
        """How the file looks now if it still is the one that was read, else None.

        The same inode whose size or time changed (an uploader setting the time at the end,
        a line end after the closing tag), or that is too fresh for its time to prove
        anything, is judged by its content.
        """
        fd = self._directory()
        found = os.stat(file.name, dir_fd=fd, follow_symlinks=False)
        if found.st_ino != file.inode or not stat.S_ISREG(found.st_mode):
            return None
        unchanged = found.st_size == file.size and found.st_mtime_ns == file.mtime_ns
        if unchanged and not file.fresh:
            return found
        return found if self._same_content(file, found) else None

    def _same_content(self, file: SpoolFile, found: os.stat_result) -> bool:
        if file.mark is None or found.st_size > file.size + _TAIL:
            return False
        fd = os.open(file.name, READ_FLAGS, dir_fd=self._directory())
        try:
            return mark_of(read_whole(fd, found.st_size)) == file.mark
        finally:
            os.close(fd)

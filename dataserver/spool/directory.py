"""The drop directory: list it, read a file of it, acknowledge a file, reject one.

Every file operation is relative to one descriptor of the directory, so a path that is replaced
meanwhile cannot lead elsewhere; links are not followed, and only regular files are read.
Nothing is remembered of a file that has left: its name may be used again.  A file that was read
is recognized by its identity (inode, size, modification time) and its content.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Self

from dataserver.errors import PacketError, Reason, SpoolError, SpoolReplaced
from dataserver.failpoints import reach
from dataserver.packet.parse import ends_complete
from dataserver.spool.files import (
    CHECKSUM_NAME,
    PACKET_NAME,
    READ_FLAGS,
    RETRY_PREFIX,
    Reading,
    SpoolFile,
    Unreadable,
    Vanished,
    checksum_name,
    oldest_first,
    open_directory,
    read_checksum,
    unlink_if_there,
    verify_checksum,
)
from dataserver.spool.rejected import Rejected
from dataserver.spool.remove import Removal

log = logging.getLogger(__name__)

#: A file read this soon after it was written may be written again within one tick of the
#: kernel's file clock (10 ms at most), with the same size: then only its content can tell.
_TICK_NS = 20_000_000
#: Bytes by which a file may have grown since it was read and still be that packet (line ends).
_TAIL = 4096
#: Errors of open(2) if a listed file is gone, or is a link, or a socket or device without driver.
_NO_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV})


class Spool:
    """One drop directory.

    ``max_packet`` in bytes; ``checksum`` says whether ``.checksum`` files are verified;
    ``rejected`` is the folder that rejected files are moved to; a folder ``leaving`` beside it is
    the private directory through which acknowledged files leave (see :mod:`.remove`).
    ``clock_ns`` gives nanoseconds since the epoch, to be compared with file times.
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
        self._removal = Removal(rejected.path.with_name("leaving"))
        self._clock_ns = clock_ns
        self._fd: int | None = None
        self._listing = Listing()
        self._unreadable: dict[str, str] = {}

    @property
    def unreadable(self) -> MappingProxyType[str, str]:
        """Files that could not be read, by name, with the reason; reading them is retried."""
        return MappingProxyType(self._unreadable)

    @property
    def foreign(self) -> int:
        """Number of entries in the last listing that are neither packets nor expected."""
        return self._listing.foreign

    def recover(self) -> int:
        """Clean up after a crash and return the number of files put back or removed.

        Puts back files that were leaving and removes partial ones.  Only for the process that
        holds the locks, before its first scan.  Raises SpoolError.
        """
        fd = self._directory()
        try:
            count = self._removal.recover(dir_fd=fd) + self._rejected.recover()
            for name in os.listdir(fd):
                if name.startswith(RETRY_PREFIX):
                    count += unlink_if_there(name, dir_fd=fd)
        except OSError as error:
            raise self._unusable("clean up", error) from error
        return count

    def scan(self) -> list[SpoolFile]:
        """List every packet file, complete or not, oldest first.

        Raises SpoolError if the directory is missing, unreadable or was replaced.
        """
        fd = self._directory()
        try:
            self._check_not_replaced(fd)
            found, failed = self._listing.scan(fd)
        except OSError as error:
            raise self._unusable("list", error) from error
        if self._unreadable or failed:
            known = self._unreadable
            self._unreadable = {f.name: known[f.name] for f in found if f.name in known} | failed
        return found

    def read(self, file: SpoolFile) -> Reading:
        """Read the whole content of a listed file.

        Raises Vanished or Unreadable (the packet may be fine), or PacketError: ``too-large``
        (the file is not read), ``checksum`` (only of a complete packet, in mode verify).
        """
        try:
            fd = os.open(file.name, READ_FLAGS, dir_fd=self._directory())
            try:
                reading = self._read(file, fd)
            finally:
                os.close(fd)
            self._verify_checksum(reading)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise Vanished(f"{file.name!a} is gone, or no longer a regular file") from error
            raise self._cannot_read(file, error) from error
        self._unreadable.pop(file.name, None)
        return reading

    def done(self, file: SpoolFile) -> bool:
        """Acknowledge a committed packet: unlink its file and the checksum file beside it.

        Returns False if the name now belongs to another packet, which is left alone
        (:mod:`.remove` says how reliably that is seen).  Raises SpoolError if the file cannot be
        removed.
        """
        reach("before-unlink")
        try:
            removed = self._remove(file)
        except OSError as error:
            raise self._unusable(f"remove {file.name!a} from", error) from error
        reach("after-unlink")
        return removed

    def reject(
        self, file: SpoolFile, reason: Reason, detail: str, *, agent: str | None = None
    ) -> bool:
        """Move a file to the rejected ones, durably, with its reason and its checksum file.

        Returns False if the file is gone, or if the name now belongs to another packet, which is
        left alone.  Raises SpoolError if the file cannot be moved (no space, no permission); then
        it stays.
        """
        fd = self._directory()
        try:
            expected = self._stat_if_same(file)
            if expected is None:
                return False
            return self._rejected.add(
                self._rejected.new_record(file.name, expected, reason, detail, agent),
                expected,
                dir_fd=fd,
                remove=lambda: self._removal.remove(file.name, expected, dir_fd=fd),
            )
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(
                f"cannot move {file.name!a} to {self._rejected.path}: {error.strerror}",
                hint="it stays in data_in and is tried again; check free space and permissions "
                "there",
            ) from error

    def close(self) -> None:
        """Release the descriptors; the next use opens them again."""
        self._removal.close()
        self._rejected.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _directory(self) -> int:
        """The directory's descriptor; raises SpoolError if it cannot be opened."""
        try:
            if self._fd is None:
                self._fd = open_directory(self.path)
        except OSError as error:
            raise self._unusable("open", error) from error
        return self._fd

    def _check_not_replaced(self, fd: int) -> None:
        """Raise SpoolReplaced if the path leads to another directory than the one opened."""
        if not os.path.samestat(os.stat(self.path), os.fstat(fd)):
            raise SpoolReplaced(
                f"the drop directory {self.path} was replaced by another one",
                hint="a restart uses the new one; packets in the old one are no longer read",
            )

    def _unusable(self, action: str, error: OSError) -> SpoolError:
        return SpoolError(
            f"cannot {action} the drop directory {self.path}: {error.strerror}",
            hint="check that it exists and that this user may read, write and enter it",
        )

    def _read(self, file: SpoolFile, fd: int) -> Reading:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise Vanished(f"{file.name!a} is no longer a regular file")
        if before.st_size > self._max_packet:
            raise PacketError(
                Reason.TOO_LARGE, f"{before.st_size} bytes, at most {self._max_packet} are allowed"
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
        is_unchanged = before.st_mtime_ns == after.st_mtime_ns and len(content) == after.st_size
        return Reading(read, content if is_unchanged else None)

    def _verify_checksum(self, reading: Reading) -> None:
        """In mode verify, compare a complete packet with its checksum file."""
        if not self._verify or reading.content is None or not ends_complete(reading.content):
            return
        name = checksum_name(reading.file.name)
        verify_checksum(reading.content, read_checksum(name, dir_fd=self._directory()))

    def _cannot_read(self, file: SpoolFile, error: OSError) -> Unreadable:
        is_first = file.name not in self._unreadable
        self._unreadable[file.name] = str(error.strerror)
        return Unreadable(
            f"cannot read {file.name!a}: {error.strerror}",
            first=is_first,
            hint="it stays in data_in and is stored once it is readable",
        )

    def _remove(self, file: SpoolFile) -> bool:
        fd = self._directory()
        try:
            expected = self._stat_if_same(file)
        except FileNotFoundError:
            return True
        if expected is None:
            return False
        if self._listing.has_checksums or self._verify:
            # Before its packet: a crash in between leaves a packet, not a stray checksum.
            unlink_if_there(checksum_name(file.name), dir_fd=fd)
        return self._removal.remove(file.name, expected, dir_fd=fd)

    def _stat_if_same(self, file: SpoolFile) -> os.stat_result | None:
        """The file's stat if it still is the one that was read, else None.

        The content decides if the inode is the same but size or time changed (an uploader that
        sets the time at the end, a line end after the closing tag), or if the file is too fresh
        for its time to prove anything.
        """
        fd = self._directory()
        found = os.stat(file.name, dir_fd=fd, follow_symlinks=False)
        if found.st_ino != file.inode or not stat.S_ISREG(found.st_mode):
            return None
        is_unchanged = found.st_size == file.size and found.st_mtime_ns == file.mtime_ns
        if is_unchanged and not file.fresh:
            return found
        return found if self._has_same_content(file, found) else None

    def _has_same_content(self, file: SpoolFile, found: os.stat_result) -> bool:
        if file.mark is None or found.st_size > file.size + _TAIL:
            return False
        fd = os.open(file.name, READ_FLAGS, dir_fd=self._directory())
        try:
            return mark_of(read_whole(fd, found.st_size)) == file.mark
        finally:
            os.close(fd)


# -- reading a file, and telling one content from another --


def read_whole(fd: int, size: int) -> bytes:
    """Read all bytes up to ``size`` and one more, which shows that the file has grown."""
    content = os.read(fd, size + 1)
    if len(content) == size:
        return content
    pieces = [content]
    left = size + 1 - len(content)
    while left > 0 and (piece := os.read(fd, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def mark_of(content: bytes) -> int:
    """A checksum of ``content`` that ignores white space after the closing tag.

    It is the same in every process (Python's own hash is not): one process reads a file, another
    compares it.  A CRC takes a third of the time of a cryptographic hash, and only matters for
    an inode that looks the same but was written a moment ago.
    """
    return zlib.crc32(content.rstrip())


# -- listing the packet files of the directory --

#: With fewer foreign entries than this, listing costs next to nothing.
_MANY = 1_000
#: Seconds for which a directory's times must have stood before they prove anything: longer than
#: the steps in which any file system counts time.
_SETTLED = 3.0
#: Seconds after which it is listed in any case, for a file system that does not keep such times.
_AT_LEAST = 30.0

#: Foreign names that are expected: the folders that Pandora itself makes in its spool, for
#: agents' configurations, collections, locks, remote commands, flows and the like, and our README.
EXPECTED = frozenset(
    {"agent", "collections", "commands", "conf", "discovery", "md5", "netflow", "sflow", "trans"}
    | {"README", "README.md"}
)
#: The end of the name that the Perl server gives to a packet that it cannot parse.
BAD_XML = ".data_BADXML"


class _Stamp(NamedTuple):
    """A directory's own identity and times, which change with each name that comes or goes."""

    inode: int
    mtime_ns: int
    ctime_ns: int


class Listing:
    """Finds the packet files among the entries of the directory.

    An entry that is not a packet costs little more than the system call that lists it: only the
    end of its name is looked at.  A directory that holds many of them and no packet is not even
    listed again while its own times show that no name came or went.

    ``has_checksums`` is True once a ``.checksum`` file was seen: before that, none need be looked
    for beside every packet.  ``foreign`` counts the entries that are neither packets nor expected.
    ``monotonic`` gives seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.has_checksums = False
        self.foreign = 0
        self._unexpected = UnexpectedEntries()
        self._monotonic = monotonic
        self._stamp: _Stamp | None = None
        #: When this stamp was first seen (monotonic seconds).
        self._stamped = 0.0
        #: When the directory was listed and held many foreign entries and no packet (monotonic
        #: seconds; minus infinity if the last listing was different).
        self._barren = float("-inf")

    def scan(self, fd: int) -> tuple[list[SpoolFile], dict[str, str]]:
        """The packet files of the directory ``fd``, oldest first, and those that failed.

        The latter by name, with the reason: an entry that the file system cannot stat must not
        hide the others.  Raises OSError if the directory itself cannot be listed.
        """
        now = self._monotonic()
        if self._is_unchanged(fd, now):
            return [], {}
        found: list[SpoolFile] = []
        failed: dict[str, str] = {}
        foreign = bad_xml = 0
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(BAD_XML):
                    bad_xml += 1
                    continue
                if not name.endswith(".data"):
                    foreign += self._is_foreign(name)
                    continue
                try:
                    file = self._packet_file(entry)
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
        self._unexpected.report_bad_xml(bad_xml)
        is_barren = self.foreign >= _MANY and not found and not failed
        self._barren = now if is_barren else float("-inf")
        found.sort(key=oldest_first)
        return found, failed

    def _is_unchanged(self, fd: int, now: float) -> bool:
        """Whether no name can have come since a listing that found no packet."""
        info = os.fstat(fd)
        stamp = _Stamp(info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
        if stamp != self._stamp:
            self._stamp, self._stamped = stamp, now
            return False
        # The times had stood long enough before the listing that any later name changes them.
        return self._barren - self._stamped >= _SETTLED and now - self._barren < _AT_LEAST

    def _packet_file(self, entry: os.DirEntry[str]) -> SpoolFile | None:
        """A directory entry as a packet file, or None if it is not one."""
        name = entry.name
        match = PACKET_NAME.fullmatch(name)
        if match is None or not entry.is_file(follow_symlinks=False):
            if not name.startswith("."):
                self._unexpected.report(name, named_like_packet=match is not None)
            return None
        info = entry.stat(follow_symlinks=False)
        return SpoolFile(name, match[1], int(match[2]), info.st_size, info.st_mtime_ns, info.st_ino)

    def _is_foreign(self, name: str) -> bool:
        """Whether an entry that is not a packet is unexpected, too."""
        if name.startswith(".") or name in EXPECTED:
            return False
        if name.endswith(".checksum") and CHECKSUM_NAME.fullmatch(name):
            self.has_checksums = True
            return False
        if not self._unexpected.is_full:
            self._unexpected.report(name, named_like_packet=False)
        return True


class UnexpectedEntries:
    """Logs each unexpected entry of the drop directory once; such entries are left alone.

    At most ``limit`` names are logged and remembered, so a directory full of foreign files
    costs neither memory nor a log of its own size.
    """

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._reported: set[str] = set()
        self._has_reported_bad_xml = False

    @property
    def is_full(self) -> bool:
        """Whether no further names are logged."""
        return len(self._reported) > self._limit

    def report(self, name: str, *, named_like_packet: bool) -> None:
        """Log an entry that is neither a packet nor expected, the first time it is seen."""
        if name in self._reported or self.is_full:
            return
        self._reported.add(name)
        if len(self._reported) > self._limit:
            log.warning(
                "more than %d entries in data_in are not packets; further ones are not logged",
                self._limit,
            )
        elif named_like_packet:
            log.warning(
                "%a in data_in is named like a packet but is not a regular file: not opened", name
            )
        else:
            log.warning("%a in data_in is not a packet (NAME.NUMBER.data): left alone", name)

    def report_bad_xml(self, count: int) -> None:
        """Log the number of packets that a Perl server could not parse, the first time."""
        if count and not self._has_reported_bad_xml:
            self._has_reported_bad_xml = True
            log.warning(
                "%d files in data_in are named *%s, packets that the Perl server could not parse: "
                "left alone (`dataserver packet show FILE` says what is wrong with one)",
                count,
                BAD_XML,
            )

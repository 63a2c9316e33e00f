"""The drop directory: list it, read a file of it, acknowledge a file, set one aside.

Everything is done relative to one descriptor of the directory, so that a path that is
replaced under our feet cannot lead elsewhere; no link is followed, nothing but a regular
file is read.  Of a file that has left, nothing is kept here: a name means nothing, what was
read is known by its identity (inode, size, modification time) and by its content.
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
from dataserver.spool import files
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
    unlink_if_there,
)
from dataserver.spool.rejected import Rejected
from dataserver.spool.remove import Removal

# -- entries of the drop directory that are not ours: each named once in the log, and no more
#
# Nothing is done about them.  The number of names remembered is bounded, so a directory
# full of foreign files costs neither memory nor a log of its own size.

log = logging.getLogger(__name__)

#: Foreign names that belong there: the folders that Pandora itself makes in its spool, for
#: agents' configurations, collections, locks, remote commands, flows and the like, and our README.
EXPECTED = frozenset(
    {"agent", "collections", "commands", "conf", "discovery", "md5", "netflow", "sflow", "trans"}
    | {"README", "README.md"}
)
#: How the Perl server renames a packet that it cannot read, and leaves it.
BAD_XML = ".data_BADXML"


class UnexpectedEntries:
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


# -- directory --

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
        self._leaving = Removal(rejected.path.with_name("leaving"))
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
        files.verify(reading.content, files.read_checksum(name, dir_fd=self._directory()))

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


# -- one look at the drop directory: which of its entries are packet files, in which order
#
# An entry that is no packet costs little more than the system call that lists it: its name's end
# is looked at, nothing else.  A directory that holds many of them and no packet is not even listed
# again for as long as its own times say that no name came or went.

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
        self._oddities = UnexpectedEntries()
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


# -- the bytes of a file: reading them whole, and telling one content from another


def read_whole(fd: int, size: int) -> bytes:
    """All bytes up to ``size`` and one more, so that a file that grew is seen to have grown."""
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
    """What tells one content from another, whatever white space follows the closing tag.

    The same in every process (Python's own hash is not): one reads a file, another asks
    whether it still is what was read.  A CRC takes a third of the time of a cryptographic
    hash, and is asked only about an inode that looks the same but was written a moment ago.
    """
    return zlib.crc32(content.rstrip())

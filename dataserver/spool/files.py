"""Packet files: their names and identity, moving and writing them safely, their checksums.

A packet is a regular file named ``STEM.NUMBER.data`` or ``STEM_NUMBER.data``; beside it there may
be ``STEM.NUMBER.checksum``.  A name that starts with a dot is an uploader's temporary name
(rsync, FTP servers with hidden stores) and never a packet.

Nothing is overwritten, and no other process ever sees a half-written file under its final name.
All names are relative to directory descriptors, so a path that is replaced meanwhile cannot lead
elsewhere; functions that take one raise OSError as the system calls do.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataserver.errors import DataserverError, PacketError, Reason

#: ``fullmatch`` gives the stem and the number.
PACKET_NAME = re.compile(r"(?!\.)(.*)[._]([0-9]+)\.data", re.DOTALL)
CHECKSUM_NAME = re.compile(r"(?!\.).*[._][0-9]+\.checksum", re.DOTALL)


class SpoolFile(NamedTuple):
    """One packet file and its identity, as the scan found it or as it was read.

    ``name`` is the name in the directory (bytes that are not UTF-8 as surrogate escapes),
    ``stem`` the part before the number, ``size`` in bytes, ``mtime_ns`` in nanoseconds
    since the epoch.  ``mark`` is a checksum of the content, or None before it was read.
    ``fresh``: it was read so soon after it was written that an equal modification time
    proves nothing (the kernel's file clock ticks in steps of up to 10 ms).
    """

    name: str
    stem: str
    number: int
    size: int
    mtime_ns: int
    inode: int
    mark: int | None = None
    fresh: bool = False


#: Oldest first: modification time, then number, then name.
oldest_first = itemgetter(
    SpoolFile._fields.index("mtime_ns"),
    SpoolFile._fields.index("number"),
    SpoolFile._fields.index("name"),
)


class Reading(NamedTuple):
    """The result of :meth:`Spool.read`.

    ``file`` carries the identity as read: pass this one to ``done``, ``reject`` and
    ``IncompleteFiles``.  ``content`` is None if the file changed while it was being read: it is
    still being written, and is read again with the next scan.
    """

    file: SpoolFile
    content: bytes | None


class Vanished(DataserverError):
    """A listed file is gone, or is no longer a regular file: it is skipped."""


class Unreadable(DataserverError):
    """A file cannot be read (permissions, I/O): it stays, and is tried again with every scan.

    ``first`` is True for the first failure in a row: the one to log.
    """

    def __init__(self, message: str, *, first: bool, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.first = first


def is_packet_name(name: str) -> bool:
    """Whether a directory entry of this name is a packet, if it is a regular file."""
    # The cheap test first: it settles most names in a directory full of foreign ones.
    return name.endswith(".data") and PACKET_NAME.fullmatch(name) is not None


def checksum_name(packet_name: str) -> str:
    """The name of the checksum file that may be beside a packet."""
    return packet_name.removesuffix(".data") + ".checksum"


# -- directories, moving files and writing them --

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_COPY_BLOCK = 1 << 20

#: Prefix of the temporary name of a packet that is being copied back into the drop directory.
RETRY_PREFIX = ".retry-"

_libc = ctypes.CDLL(None, use_errno=True)


def open_directory(path: Path) -> int:
    """A descriptor of the directory ``path``, not inherited by child programs."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_directory(path: Path) -> int:
    """Like :func:`open_directory`; creates a missing one, readable by its owner and group."""
    path.mkdir(mode=0o750, parents=True, exist_ok=True)
    return open_directory(path)


def same_mount(one: int, other: int) -> bool:
    """Whether a file can be renamed from one directory to the other.

    Both must be on one file system and reached through the same mount of it: under systemd's
    ``ReadWritePaths=`` and in containers, one file system is mounted several times.
    """
    return os.fstat(one).st_dev == os.fstat(other).st_dev and _mount(one) == _mount(other)


def _mount(fd: int) -> str:
    """The id of a descriptor's mount (proc(5)), or empty if it is unknown."""
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")
    except OSError:
        return ""
    return info.partition("mnt_id:")[2].partition("\n")[0].strip()


def rename_new(src: str, dst: str, *, src_fd: int, dst_fd: int) -> None:
    """Rename within one file system; raises FileExistsError if ``dst`` exists.

    renameat2(2) does it in one step; on a file system that does not support its flag (NFS), a
    hard link is made and the old name removed afterwards.
    """
    result = _libc.renameat2(src_fd, os.fsencode(src), dst_fd, os.fsencode(dst), _RENAME_NOREPLACE)
    if result == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), src, None, dst)
    os.link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)
    os.unlink(src, dir_fd=src_fd)


def move_new(src: str, dst: str, *, src_fd: int, dst_fd: int) -> None:
    """Like :func:`rename_new`, but across mounts by a durable copy.

    A copy that a crash leaves unfinished has a name that begins with :data:`RETRY_PREFIX`.
    """
    if same_mount(src_fd, dst_fd):
        rename_new(src, dst, src_fd=src_fd, dst_fd=dst_fd)
        return
    # Without its own name in it, which may be as long as a name can be.
    temporary = f"{RETRY_PREFIX}{secrets.token_hex(8)}"
    copy_durably(src, temporary, src_fd=src_fd, dst_fd=dst_fd)
    try:
        rename_new(temporary, dst, src_fd=dst_fd, dst_fd=dst_fd)
    except OSError:
        unlink_if_there(temporary, dir_fd=dst_fd)
        raise
    os.fsync(dst_fd)
    os.unlink(src, dir_fd=src_fd)


def put_back(src: str, name: str, *, src_fd: int, dst_fd: int) -> str:
    """Move a packet that was renamed by mistake back; returns the name it got.

    If a third packet has taken the name meanwhile, it gets a new one with the same number, which
    is the only part of a packet's name that matters.
    """
    try:
        move_new(src, name, src_fd=src_fd, dst_fd=dst_fd)
    except FileExistsError:
        match = PACKET_NAME.fullmatch(name)
        number = match[2][:20] if match else "0"
        name = f"again-{secrets.token_hex(8)}.{number}.data"
        move_new(src, name, src_fd=src_fd, dst_fd=dst_fd)
    return name


def write_durably(name: str, content: bytes, *, dir_fd: int) -> None:
    """Write a new file, complete or not at all, that survives a power loss.

    The caller syncs the directory, once for all files that it writes there.
    """
    part = f"{name}.part"
    with _new_file(part, dir_fd) as file:
        file.write(content)
    os.rename(part, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def copy_durably(src: str, dst: str, *, src_fd: int, dst_fd: int) -> os.stat_result:
    """Copy a regular file to a new name on another file system, with its times.

    Holes stay holes: with one request an uploader can make a sparse file of a terabyte, which
    must not fill the other disk.

    Returns the stat of the source, taken after its last byte was read.
    """
    with open(os.open(src, READ_FLAGS, dir_fd=src_fd), "rb", buffering=0) as source:
        with _new_file(dst, dst_fd) as target:
            for begin, end in _extents(source.fileno()):
                source.seek(begin)
                target.seek(begin)
                _copy(source, target, end - begin)
            copied = os.fstat(source.fileno())
            target.truncate(copied.st_size)
        os.utime(dst, ns=(copied.st_atime_ns, copied.st_mtime_ns), dir_fd=dst_fd)
    return copied


class _Extent(NamedTuple):
    """A part of a file that has data, in bytes from the file's beginning."""

    begin: int
    end: int


def _extents(fd: int) -> Iterator[_Extent]:
    """The parts of a file that are not holes (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    end = 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole, or nothing, up to the end
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield _Extent(begin, end)


def _copy(source: FileIO, target: BinaryIO, length: int) -> None:
    while length > 0 and (block := source.read(min(length, _COPY_BLOCK))):
        target.write(block)
        length -= len(block)


@contextmanager
def _new_file(name: str, dir_fd: int) -> Iterator[BinaryIO]:
    """A new file that is durable when the block ends, and removed if the block fails."""
    fd = os.open(name, _CREATE_FLAGS, 0o640, dir_fd=dir_fd)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
    except BaseException:
        # Mostly on a full disk, which leftovers would fill further with every attempt.
        unlink_if_there(name, dir_fd=dir_fd)
        raise


def sync_file(name: str, *, dir_fd: int) -> None:
    """Make the content of an existing file survive a power loss."""
    fd = os.open(name, READ_FLAGS, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink_if_there(name: str, *, dir_fd: int) -> bool:
    """Unlink a file; returns False if there was none of that name."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


# -- the ``.checksum`` files of 1.x agents --

#: Longer than a file name and a sum: only these first bytes of a checksum file are read.
_CHECKSUM_BYTES = 4096

_MD5 = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{32}(?![0-9A-Za-z])")
_LINE_ENDS = (b"", b"\n", b"\r\n")


def read_checksum(name: str, *, dir_fd: int) -> bytes | None:
    """The first bytes of a checksum file, or None if it is missing or not a regular file.

    Raises OSError if it exists and cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            return None
        fd = os.open(name, READ_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, _CHECKSUM_BYTES)
    finally:
        os.close(fd)


def verify_checksum(content: bytes, checksum: bytes | None) -> None:
    """Raise PacketError (``checksum``) if the content does not match its checksum file.

    The file holds the output of ``md5sum`` or "No valid checksum", and is uploaded before the
    packet.  A packet passes if its file is missing or contains no checksum.

    The packet is complete with its closing tag; the line end after it may still be on its
    way, so the sum may also be that of the content with a line end added.
    """
    announced = _MD5.search(checksum or b"")
    if announced is None:
        return
    wanted = announced[0].decode("ascii").lower()
    sums = [hashlib.md5(content + end, usedforsecurity=False).hexdigest() for end in _LINE_ENDS]
    if wanted not in sums:
        raise PacketError(
            Reason.CHECKSUM, f"the MD5 sum is {sums[0]}, its checksum file says {wanted}"
        )

"""Moving and writing files so that nothing is overwritten and nothing half done is seen.

Names are relative to directory descriptors, so that a path that changes under our feet
cannot lead elsewhere.  Every function raises OSError as the system calls do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataserver.spool.files import PACKET_NAME

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_COPY_BLOCK = 1 << 20

#: How the name of a packet on its way back begins while it is copied into the drop directory.
RETRY_PREFIX = ".retry-"

_libc = ctypes.CDLL(None, use_errno=True)


def open_directory(path: Path) -> int:
    """A descriptor of the directory ``path``, not inherited by programs we start."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def make_directory(path: Path) -> int:
    """Like :func:`open_directory`, created (readable by its owner and group) where missing."""
    path.mkdir(mode=0o750, parents=True, exist_ok=True)
    return open_directory(path)


def same_mount(one: int, other: int) -> bool:
    """Whether a file can be renamed from one directory to the other.

    They have to be on one file system, and reached by one mount of it: under systemd's
    ``ReadWritePaths=``, and in containers, one file system is mounted several times.
    """
    return os.fstat(one).st_dev == os.fstat(other).st_dev and _mount(one) == _mount(other)


def _mount(fd: int) -> str:
    """The number of a descriptor's mount (proc(5)); empty where it cannot be told."""
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text("ascii")
    except OSError:
        return ""
    return info.partition("mnt_id:")[2].partition("\n")[0].strip()


def rename_new(src: str, dst: str, *, src_fd: int, dst_fd: int) -> None:
    """Rename within one file system; FileExistsError where ``dst`` is taken.

    renameat2(2) does it in one step; where the file system does not know its flag (NFS),
    a hard link does, and the old name goes afterwards.
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
    """As :func:`rename_new`, also where renaming cannot do it: then by a copy, which is durable.

    What a crash leaves of it begins with :data:`RETRY_PREFIX`.
    """
    if same_mount(src_fd, dst_fd):
        rename_new(src, dst, src_fd=src_fd, dst_fd=dst_fd)
        return
    # Not with its own name in it: that may be as long as names can be.
    passing = f"{RETRY_PREFIX}{secrets.token_hex(8)}"
    copy_durably(src, passing, src_fd=src_fd, dst_fd=dst_fd)
    try:
        rename_new(passing, dst, src_fd=dst_fd, dst_fd=dst_fd)
    except OSError:
        unlink_if_there(passing, dir_fd=dst_fd)
        raise
    os.fsync(dst_fd)
    os.unlink(src, dir_fd=src_fd)


def put_back(src: str, name: str, *, src_fd: int, dst_fd: int) -> str:
    """Give a packet that was renamed by mistake its place again; returns the name it got.

    Where a third packet has taken the name meanwhile it gets one of its own, with the same
    number: the name of a packet means nothing but that.
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
    """Write a new file under its final name, whole or not at all; it survives a power loss.

    The caller syncs the directory, once for all that it writes there.
    """
    part = f"{name}.part"
    with _new_file(part, dir_fd) as file:
        file.write(content)
    os.rename(part, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def copy_durably(src: str, dst: str, *, src_fd: int, dst_fd: int) -> os.stat_result:
    """Copy a regular file to a new name on another file system, with its times.

    Holes stay holes: with one request an uploader can make a file of a terabyte that takes no
    room, and that must not fill the other disk.

    Returns the stat of what was copied, taken after the last byte was read.
    """
    with open(os.open(src, READ_FLAGS, dir_fd=src_fd), "rb", buffering=0) as source:
        with _new_file(dst, dst_fd) as target:
            for begin, end in _pieces(source.fileno()):
                source.seek(begin)
                target.seek(begin)
                _copy(source, target, end - begin)
            copied = os.fstat(source.fileno())
            target.truncate(copied.st_size)
        os.utime(dst, ns=(copied.st_atime_ns, copied.st_mtime_ns), dir_fd=dst_fd)
    return copied


class _Piece(NamedTuple):
    """Where a file has data, in bytes from its beginning."""

    begin: int
    end: int


def _pieces(fd: int) -> Iterator[_Piece]:
    """The parts of a file that are not holes (lseek(2), SEEK_DATA and SEEK_HOLE)."""
    end = 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # nothing but a hole, or nothing at all, up to the end
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield _Piece(begin, end)


def _copy(source: FileIO, target: BinaryIO, length: int) -> None:
    while length > 0 and (some := source.read(min(length, _COPY_BLOCK))):
        target.write(some)
        length -= len(some)


@contextmanager
def _new_file(name: str, dir_fd: int) -> Iterator[BinaryIO]:
    """A new file that is durable when the block ends, and gone where the block fails."""
    fd = os.open(name, _CREATE_FLAGS, 0o640, dir_fd=dir_fd)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
    except BaseException:
        # A full disk above all: what is left would fill it further with every attempt.
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
    """Unlink; False where there was nothing of that name."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True

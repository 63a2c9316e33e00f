"""Locks: one process per instance, and one process per drop directory.

Both locks are flock(2) on an inode: the file ``lock`` in the instance's directory, and the
drop directory itself, so that two instances that reach it by different paths, through links
or bind mounts, exclude each other too.  The kernel releases them when the process ends, however
it ends, so there are no stale locks.

flock and not lockf: the latter cannot lock a directory, and is lost as soon as any part of
the process closes any descriptor of the file.  An flock is shared with forked children, so
they close the descriptors at once.  On NFS, where flock needs a file open for writing, the
drop directory cannot be locked; that is logged as a warning, and the instance's lock still holds.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from weakref import WeakSet

from dataserver.errors import LockedError, SpoolError

log = logging.getLogger(__name__)

LOCK_FILE = "lock"

_UNSUPPORTED = frozenset({errno.EBADF, errno.EISDIR, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP})


class InstanceLock:
    """The locks of the instance ``name``: its directory (created if missing) and ``data_in``."""

    def __init__(self, name: str, directory: Path, data_in: Path) -> None:
        self._name = name
        self._directory = directory
        self._data_in = data_in
        self._fds: list[int] = []

    def acquire(self) -> None:
        """Acquire both locks or neither.

        Raises LockedError naming the process that holds one, or SpoolError if a path cannot be
        locked.
        """
        try:
            self._lock_instance()
            self._lock_data_in()
        except OSError as error:
            self.release()
            raise SpoolError(
                f"cannot lock {error.filename}: {error.strerror}",
                hint="check that it exists and that this user may write there",
            ) from error
        except BaseException:
            self.release()
            raise
        _held.add(self)

    def release(self) -> None:
        """Release both; does nothing if they are not held."""
        _held.discard(self)
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _lock_instance(self) -> None:
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._fds.append(fd)
        if not _flock_patiently(fd):
            raise LockedError(
                f"instance {self._name} is already run by {_holder_text(fd)}",
                hint="stop that process first",
            )
        # The number is only informative; on a full disk the lock holds without it.
        with suppress(OSError):
            os.truncate(fd, 0)
            os.write(fd, b"%d\n" % os.getpid())

    def _lock_data_in(self) -> None:
        fd = os.open(self._data_in, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds.append(fd)
        try:
            free = _flock(fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning(
                "the file system of %s does not support locks (%s): make sure that no other "
                "instance uses this directory",
                self._data_in,
                error.strerror,
            )
            return
        if not free:
            raise LockedError(
                f"the drop directory {self._data_in} is already used by {_holder_text(fd)}",
                hint="give every instance a data_in of its own",
            )


def holder(directory: Path) -> int | None:
    """The id of the process that holds the lock of an instance's directory, or None if it is free.

    0 if the lock is held but its holder's id is unknown.  The lock is only taken for a moment.
    """
    try:
        fd = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # A shared lock, so that two processes may ask at the same time.
        return None if _flock(fd, fcntl.LOCK_SH) else _pid_of_holder(fd) or 0
    finally:
        os.close(fd)


def _flock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock_patiently(fd: int) -> bool:
    """Like :func:`_flock`, waiting out the moment for which :func:`holder` has a shared lock."""
    for _ in range(4):
        if _flock(fd):
            return True
        time.sleep(0.02)
    return False


def _holder_text(fd: int) -> str:
    pid = _pid_of_holder(fd)
    return f"process {pid}" if pid else "another process"


def _pid_of_holder(fd: int) -> int | None:
    return _pid_by_kernel(fd) or _pid_in_file(fd)


def _pid_by_kernel(fd: int) -> int | None:
    """The process with an exclusive flock on this inode (/proc/locks, proc(5)), None if unknown."""
    info = os.fstat(fd)
    wanted = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            _, kind, _, access, pid, inode, *_ = line.split()
            if (kind, access, inode) == ("FLOCK", "WRITE", wanted) and int(pid) > 0:
                return int(pid)
    return None


def _pid_in_file(fd: int) -> int | None:
    """The process id that the holder wrote into its lock file, or None for a directory."""
    try:
        return int(os.pread(fd, 20, 0))
    except (OSError, ValueError):
        return None


_held: WeakSet[InstanceLock] = WeakSet()


def _release_in_child() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)

"""Instances that are being created or removed have temporary names, which no instance can have.

One command at a time creates or removes instances.  Each begins by cleaning up after a command
that was killed: an instance that was being created is erased; one that was being removed is
erased too, unless it contains packets.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dataserver.config.paths import Home, Paths
from dataserver.errors import LockedError, UsageError
from dataserver.fleet.model import log_file
from dataserver.fleet.ownership import configured
from dataserver.spool.files import is_packet_name, open_directory
from dataserver.spool.lock import LOCK_FILE
from dataserver.spool.queue import count_queue
from dataserver.spool.rejected import is_id

NEW = ".new-"
REMOVED = ".removed-"
#: How often a lock is tried, every twentieth of a second.
_TRIES = 200


@contextmanager
def changing(home: Home) -> Iterator[None]:
    """Hold the lock of a command that creates or removes instances.

    Raises UsageError if ``home`` is not a home, LockedError if another command takes too long,
    OSError.
    """
    try:
        fd = open_directory(home.instances)
    except FileNotFoundError:
        home.existing()  # raises: it names what is missing
        raise
    try:
        if not flock_patiently(fd, _TRIES):
            raise LockedError(
                f"another command is creating or removing an instance in {home.instances}",
                hint="try again when it has finished",
            )
        _tidy(home)
        yield
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def _tidy(home: Home) -> None:
    for name in os.listdir(home.instances):
        path = home.instances / name
        if name.startswith(NEW):
            erase(path)
        elif name.startswith(REMOVED):
            _finish(path, _packets_in(home, name))
    # Without access to var, the next command with access does it.
    with suppress(FileNotFoundError, PermissionError):
        for name in os.listdir(home.var):
            if name.startswith(REMOVED):
                _finish(home.var / name, count_rejected(Paths(home.root, name)) > 0)


def _finish(path: Path, packets: bool) -> None:
    """Erase ``path``, or give it its name back if ``packets`` would be lost."""
    if not packets:
        erase(path)
        return
    try:
        move(path, path.with_name(path.name.removeprefix(REMOVED)))
    except FileExistsError as exc:
        raise UsageError(
            f"{path} contains packets of an instance that was being removed; its name is in use",
            hint="move the packets to where they belong, then remove the folder",
        ) from exc


def _packets_in(home: Home, name: str) -> bool:
    """Whether the folder of an instance that was being removed contains its queue."""
    folder = home.instances / name
    before = home.instances / name.removeprefix(REMOVED)
    part = own_part(before, configured(Paths(home.root, name)), folder)
    try:
        return part is not None and count_queue(folder / part).files > 0
    except FileNotFoundError:
        return False


def own_part(folder: Path, data_in: Path, now_at: Path | None = None) -> Path | None:
    """The path of ``data_in`` relative to the instance's ``folder``, or None if it is elsewhere.

    ``now_at`` is where the folder has been moved to.  A path that leads through a link is
    elsewhere.
    """
    place = now_at or folder
    if place.is_symlink():
        return None
    path = Path(os.path.normpath(data_in))
    for base in (place, folder):
        if base in path.parents:
            part = path.relative_to(base)
            return part if (place / part).resolve() == place.resolve() / part else None
    return None


# -- moving and removing --


def flock_patiently(fd: int, tries: int) -> bool:
    """Take the exclusive flock of ``fd``; False if others held it during all tries."""
    for number in range(tries):
        if number:
            time.sleep(0.05)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return True  # this file system has no locks
        return True
    return False


def move(source: Path, target: Path) -> None:
    """Rename a directory or link; FileExistsError if the new name is in use."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    source.rename(target)


def erase(path: Path) -> None:
    """Remove a directory with its content, or a link without its target; OSError."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


# -- what an instance leaves behind besides its queue --


def count_rejected(paths: Paths) -> int:
    """The number of the instance's rejected packets; OSError."""
    return sum(
        name.endswith(".data") and is_id(name.removesuffix(".data"))
        for name in _names(paths.rejected)
    )


def count_leaving(paths: Paths) -> int:
    """The number of packets that were being acknowledged when the instance was killed; OSError."""
    return sum(map(is_packet_name, _names(paths.var / "leaving")))


def foreign_names(paths: Paths) -> list[str]:
    """The entries of ``var/NAME`` that no instance creates; OSError."""
    log = log_file(paths).name
    files = (paths.heartbeat, paths.status, paths.metrics, paths.rejected)
    own = {LOCK_FILE, "leaving", log, f"{log}.1", *(file.name for file in files)}
    own |= {f".{file.name}.new" for file in files}
    return sorted(name for name in _names(paths.var) if name not in own)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []

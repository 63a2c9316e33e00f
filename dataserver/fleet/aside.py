"""Instances that are being made or removed lie aside, under names that no instance has.

One command at a time makes or removes one.  Each begins by tidying up after one that was killed:
what was being made goes, what was being removed goes too, unless packets are in it.
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

# -- what an instance leaves behind besides its queue, counted from outside


def rejected(paths: Paths) -> int:
    """How many packets of the instance were set aside; OSError."""
    return sum(
        name.endswith(".data") and is_id(name.removesuffix(".data"))
        for name in _names(paths.rejected)
    )


def leaving(paths: Paths) -> int:
    """How many packets were on their way out when the instance was killed; OSError."""
    return sum(map(is_packet_name, _names(paths.var / "leaving")))


def foreign(paths: Paths) -> list[str]:
    """The names of what lies in ``var/NAME`` and is not of an instance's making; OSError."""
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


# -- aside --

NEW = ".new-"
REMOVED = ".removed-"
#: How often, each a twentieth of a second apart, a lock is tried.
_TRIES = 200


@contextmanager
def changing(home: Home) -> Iterator[None]:
    """The time in which one command changes which instances there are.

    Raises UsageError where ``home`` is none, LockedError where another command takes too long,
    OSError.
    """
    try:
        fd = open_directory(home.instances)
    except FileNotFoundError:
        home.existing()  # says what is missing
        raise
    try:
        if not flock_patiently(fd, _TRIES):
            raise LockedError(
                f"another command is making or removing an instance in {home.instances}",
                hint="try again when it is done",
            )
        _tidy(home)
        yield
        with suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def flock_patiently(fd: int, tries: int) -> bool:
    """Take the exclusive flock of ``fd``; False where others kept it through all tries."""
    for number in range(tries):
        if number:
            time.sleep(0.05)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return True  # such a file system has no locks: then nobody keeps anybody out
        return True
    return False


def move(source: Path, target: Path) -> None:
    """Rename a directory or link; FileExistsError where the name is taken."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
    source.rename(target)


def erase(path: Path) -> None:
    """Remove a directory with all that is in it, or a link without what it leads to; OSError."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def _tidy(home: Home) -> None:
    for name in os.listdir(home.instances):
        path = home.instances / name
        if name.startswith(NEW):
            erase(path)
        elif name.startswith(REMOVED):
            _finish(path, _packets_in(home, name))
    # Whoever may not look there leaves it to the next one.
    with suppress(FileNotFoundError, PermissionError):
        for name in os.listdir(home.var):
            if name.startswith(REMOVED):
                _finish(home.var / name, bool(rejected(Paths(home.root, name))))


def _finish(path: Path, packets: bool) -> None:
    """Go on removing ``path``; put it back where packets would be lost."""
    if not packets:
        erase(path)
        return
    try:
        move(path, path.with_name(path.name.removeprefix(REMOVED)))
    except FileExistsError as exc:
        raise UsageError(
            f"{path} holds packets of an instance that was being removed, and its name is taken",
            hint="move them to where they belong, then remove it",
        ) from exc


def _packets_in(home: Home, name: str) -> bool:
    """Whether a folder that was being removed has packets of its own."""
    folder = home.instances / name
    before = home.instances / name.removeprefix(REMOVED)
    part = own_part(before, configured(Paths(home.root, name)), folder)
    try:
        return part is not None and count_queue(folder / part).files > 0
    except FileNotFoundError:
        return False


def own_part(folder: Path, data_in: Path, now_at: Path | None = None) -> Path | None:
    """Where in the instance's ``folder`` its ``data_in`` is; None: it is not its own part.

    ``now_at`` is where the folder has been moved to.  What is reached through a link is
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

"""The owner, group and mode of a drop directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import SpoolError
from dataserver.uploads import accounts
from dataserver.uploads.accounts import DATA_IN_MODE, SERVICE_USER, UPLOAD_GROUP

#: Never given to the server, nor anything in them, even if an instance names it as its data_in.
_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr")
#: Never given to the server themselves, though folders in them may be.
_SHARED = frozenset(
    {"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var"}
    | {f"/var/{name}" for name in ("cache", "lib", "log", "mail", "spool", "tmp")}
)


def untouchable(home: Home, data_in: Path) -> bool:
    """Whether ``data_in`` is a system directory, whose owner must not be changed."""
    real = Path(os.path.realpath(data_in))
    system = any(real.is_relative_to(folder) for folder in _SYSTEM) or os.fspath(real) in _SHARED
    return system or real in Path(os.path.realpath(home.root)).parents


def prepare_data_in(path: Path) -> None:
    """Give the drop directory ``path`` the owner and mode that uploads need.

    Does nothing on a machine without the upload group.  Another user than root can only set group
    and mode of its own directory, if it is in the group.  Raises SpoolError if ``path`` is not a
    directory, or a link: in a folder that others may write to, it could lead root elsewhere.
    """
    ids = accounts.ids()
    if ids is None:
        return
    uid, gid = ids
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise SpoolError(
            f"the rights of {path} cannot be set: {exc.strerror}",
            hint="it must be a directory, not a link to one",
        ) from exc
    try:
        if os.geteuid() == 0:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, DATA_IN_MODE)
        else:
            _prepare_own(fd, gid)
    finally:
        os.close(fd)


def _prepare_own(fd: int, gid: int) -> None:
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, DATA_IN_MODE)
    except PermissionError:
        return  # `dataserver check` reports it


def problems(path: Path) -> Iterator[str]:
    """The problems of the drop directory ``path`` on a machine that accepts uploads."""
    ids = accounts.ids()
    if ids is None:
        return
    try:
        found = path.lstat()
    except OSError:
        return  # reported before: the folder does not exist
    remedy = f"chown {SERVICE_USER}:{UPLOAD_GROUP} {path} && chmod {DATA_IN_MODE:o} {path}"
    if stat.S_ISLNK(found.st_mode):
        yield f"{path} is a link; have data_in name the directory itself"
    elif (found.st_uid, found.st_gid) != ids:
        wanted = f"{SERVICE_USER} ({ids[0]}) and group {UPLOAD_GROUP} ({ids[1]})"
        yield f"{path} belongs to {found.st_uid} and {found.st_gid}, not to {wanted}; {remedy}"
    elif (mode := stat.S_IMODE(found.st_mode)) != DATA_IN_MODE:
        yield f"{path} has mode {mode:o}, not {DATA_IN_MODE:o}; {remedy}"

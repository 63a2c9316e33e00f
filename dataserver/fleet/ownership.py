"""Which instance owns a drop directory: no two instances may share one.

Directories are compared by device and inode, each with all of its parents, so that links and bind
mounts cannot make one directory look like two.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dataserver.config.load import load, read_toml
from dataserver.config.paths import Home, Paths
from dataserver.errors import DataserverError, UsageError
from dataserver.runtime.heartbeat import Status

#: Device and inode, or the path if it does not exist or cannot be read.
_Key = tuple[int, int] | str
#: Folders of a home into which agents must not write.
_KEPT = ("var", "uploads", "keepalived")


def check(home: Home, name: str, data_in: Path, others: Iterable[Paths]) -> None:
    """Raise UsageError unless ``data_in`` (absolute) can be the instance ``name``'s own.

    ``others`` are the instances of the home; of broken ones, what can be read counts.
    """
    lineage = _lineage(data_in)
    _check_home(home, data_in, lineage)
    for other in others:
        if other.name == name:
            continue
        for claim in claims(other):
            if relation := _relation(lineage, _lineage(claim)):
                raise _refusal(data_in, f"{relation} that of instance {other.name}, {claim}")
        if _key(other.folder) in lineage:
            raise _refusal(data_in, f"lies in the folder of instance {other.name}")
    if _key(home.instances) in lineage and _key(home.instances / name) not in lineage[1:]:
        raise _refusal(data_in, f"lies in {home.instances}, but not below {name}")


def configured(paths: Paths) -> Path:
    """The instance's drop directory according to its own file, without following links.

    It is the default if the file does not set it, or cannot be read.
    """
    raw: object = None
    with suppress(OSError, ValueError):
        raw = read_toml(paths.config).get("data_in")
    usable = isinstance(raw, str) and raw and "\0" not in raw
    return paths.folder / (str(raw) if usable else "data_in")


def claims(paths: Paths) -> list[Path]:
    """The drop directories that an instance uses or may use, even with broken settings."""
    try:
        return [load(paths, {}).data_in]
    except (DataserverError, OSError):
        found = [configured(paths)]
    # The one with which it was started, if it still runs.
    with suppress(OSError):
        status = Status.read(paths.status)
        found += [Path(status.data_in)] if status else []
    return found


def same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same directory."""
    return _lineage(one)[0] == _lineage(other)[0]


def _check_home(home: Home, data_in: Path, lineage: list[_Key]) -> None:
    for folder in (home.root, home.instances, home.var):
        if lineage[0] in _lineage(folder):
            raise _refusal(data_in, f"holds the data server's own {folder}")
    for kept in _KEPT:
        if _key(home.root / kept) in lineage:
            raise _refusal(data_in, f"lies in {home.root / kept}, which is not for agents")


def _refusal(data_in: Path, why: str) -> UsageError:
    return UsageError(
        f"{data_in} cannot be a data_in: it {why}", hint="choose a directory of its own"
    )


def _relation(mine: list[_Key], other: list[_Key]) -> str | None:
    if mine[0] == other[0]:
        return "is"
    if other[0] in mine:
        return "lies inside"
    if mine[0] in other:
        return "lies around"
    return None


def _lineage(path: Path) -> list[_Key]:
    """The keys of a directory and all of its parents."""
    real = Path(os.path.realpath(path))
    return [_key(each) for each in (real, *real.parents)]


def _key(path: Path) -> _Key:
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    return info.st_dev, info.st_ino

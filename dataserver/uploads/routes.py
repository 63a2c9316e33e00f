"""The paths to which agents upload, and the drop directories behind them.

In the chroot of the upload account a drop directory is found by its path below the home; in the
old protocol also by an entry of ``uploads/paths``.  An alias is an additional path, such as that
of a Perl server: a link in the chroot, and an entry in the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import MAIN, Home, is_name
from dataserver.errors import DataserverError, UsageError
from dataserver.templates import File
from dataserver.uploads.keys import uploads_folder

_PATH = re.compile(r"(/[A-Za-z0-9._@+-]+)+")
#: Folders of a home in which an alias would be mistaken for something else.
_TAKEN = frozenset({"data_in", "instances", "keepalived", "uploads"})
_HEAD = """\
# Paths to which agents upload: path, instance, directory. `uploads/receive` reads this file.
# Written by `dataserver uploads setup`, which keeps the aliases. To remove an alias, remove its
# line here and the link of that name in the home. instances/NAME/data_in needs no line.
"""


@dataclass(frozen=True, slots=True)
class Route:
    """One path to which agents upload."""

    path: str
    instance: str
    #: The drop directory, absolute and without links.
    directory: Path
    #: Whether it is an additional path, made by ``--alias``.
    alias: bool = False

    @property
    def line(self) -> str:
        """The line of ``uploads/paths``."""
        return f"{self.path} {self.instance} {self.directory}"


def paths_file(home: Home, routes: Iterable[Route], others: Iterable[str] = ()) -> File:
    """``uploads/paths`` with the routes that need a line, and the lines ``others``."""
    lines = [each.line for each in routes if each.path != f"/instances/{each.instance}/data_in"]
    text = _HEAD + "".join(f"{line}\n" for line in [*lines, *others])
    return File(uploads_folder(home) / "paths", text)


def inside(home: Home, directory: Path) -> str | None:
    """The path of ``directory`` in the chroot, or None if it is not below the home."""
    root, real = os.path.realpath(home.root), os.path.realpath(directory)
    return real[len(root) :] if real.startswith(root + "/") else None


def natural(home: Home, drop_directories: Mapping[str, Path]) -> list[Route]:
    """The route that each instance has without aliases; ``drop_directories`` by instance."""
    routes = []
    for name, directory in drop_directories.items():
        real = Path(os.path.realpath(directory))
        route = Route(inside(home, directory) or str(real), name, real)
        if any(character in str(real) for character in "\n\r"):
            raise UsageError(f"the path of the drop directory of {name} contains a line end")
        routes.append(route)
    return routes


def kept_aliases(home: Home) -> list[tuple[str, str]]:
    """Path and instance of the aliases in ``uploads/paths``."""
    words = (line.split(" ", 2) for line in _entries(home))
    return [
        (path, instance)
        for path, instance, directory in words
        if path != directory and is_alias(path)
    ]


def lines_of(home: Home, instance: str) -> list[str]:
    """The lines of an instance in ``uploads/paths``."""
    return [line for line in _entries(home) if line.split(" ", 2)[1] == instance]


def _entries(home: Home) -> list[str]:
    try:
        text = (uploads_folder(home) / "paths").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = (line for line in text.split("\n") if not line.startswith("#"))
    return [line for line in lines if len(line.split(" ", 2)) == 3]


def is_alias(path: str) -> bool:
    """Whether the path is a valid alias."""
    try:
        return parse_alias(path)[0] == path
    except UsageError:
        return False


def parse_alias(text: str) -> tuple[str, str]:
    """``PATH`` or ``PATH=INSTANCE`` as path and instance (default: main); UsageError."""
    path, _, instance = text.partition("=")
    path = path.rstrip("/")
    parts = path.split("/")[1:]
    if not _PATH.fullmatch(path) or {".", ".."} & set(parts):
        raise UsageError(
            f"invalid alias {text[:200]!r}",
            hint="give the absolute path to which agents upload, of letters, digits and ._@+-",
        )
    in_var = parts[0] == "var" and (len(parts) < 3 or is_name(parts[1]))
    if parts[0] in _TAKEN or in_var:
        raise UsageError(
            f"alias {path} is reserved for files of the home",
            hint="have these agents upload to the path of the drop directory in the home",
        )
    return path, instance or MAIN


def with_aliases(routes: Sequence[Route], aliases: Iterable[tuple[str, str]]) -> list[Route]:
    """``routes`` and the aliases that are not among them; UsageError for an invalid alias."""
    directories = {route.instance: route.directory for route in routes}
    known = {route.path: route for route in routes}
    known |= {str(route.directory): route for route in routes}
    result = list(routes)
    for path, instance in aliases:
        if instance not in directories:
            raise UsageError(
                f"alias {path} is for the instance {instance!r}, which does not exist or is broken",
                hint=f"there is: {', '.join(directories)}",
            )
        if (other := known.get(path)) is not None:
            if other.instance != instance:
                raise UsageError(
                    f"{path} leads to the instance {other.instance} already, not to {instance}",
                    hint="choose another path",
                )
            continue
        route = Route(path, instance, directories[instance], alias=True)
        known[path] = route
        result.append(route)
    return result


def mounted(home: Home, routes: Iterable[Route], outside: Route) -> bool:
    """Whether a drop directory outside of the home is mounted in it at one of its paths."""
    names = (each.path for each in routes if each.instance == outside.instance)
    return any(_same(f"{home.root}{name}", outside.directory) for name in names)


def _same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def link(home: Home, route: Route) -> bool | None:
    """Create the link of an alias in the home, unless it exists; whether it was created.

    None if the drop directory is not in the home.  Each folder is opened relative to the one
    before, following no link: ``var/`` belongs to the service user, who could lead root elsewhere.
    Raises DataserverError if something else has the name.
    """
    target = inside(home, route.directory)
    if target is None:
        return None
    *parents, name = route.path.split("/")[1:]
    text = "../" * len(parents) + target.lstrip("/")
    fd = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for parent in parents:
            fd = _enter(fd, parent)
        if name not in os.listdir(fd):
            os.symlink(text, name, dir_fd=fd)
            return True
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode) or os.readlink(name, dir_fd=fd) != text:
            raise UsageError(
                f"{home.root}{route.path} exists already and is not a link to {target}",
                hint="move it away, or choose another alias",
            )
        return False
    except OSError as exc:
        raise DataserverError(
            f"the link {home.root}{route.path} cannot be created: {exc.strerror}",
            hint="no part of its path may be a file or a link",
        ) from exc
    finally:
        os.close(fd)


def _enter(folder: int, name: str) -> int:
    """Open the directory ``name`` in ``folder``, created if missing; closes ``folder``."""
    try:
        if name not in os.listdir(folder):
            os.mkdir(name, 0o755, dir_fd=folder)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        entered = os.open(name, flags, dir_fd=folder)
    except OSError as exc:
        raise DataserverError(f"cannot enter folder {name} of an alias: {exc.strerror}") from exc
    os.close(folder)
    return entered


def link_problems(home: Home, routes: Iterable[Route]) -> Iterator[str]:
    """The problems of the links of aliases, each as one line with its remedy."""
    for route in routes:
        if not route.alias or inside(home, route.directory) is None:
            continue
        if os.path.realpath(f"{home.root}{route.path}") != str(route.directory):
            yield (
                f"{home.root}{route.path} does not lead to {route.directory}; "
                "run `dataserver uploads setup --install` as root"
            )

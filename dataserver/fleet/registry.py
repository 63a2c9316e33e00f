"""The folders of ``instances/``: which there are, which are meant to run, which changed.

An instance is meant to run unless its folder holds the marker ``disabled``.  Looking is cheap,
since the supervisor does it twice a second: two or three calls of stat(2) for each folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from dataserver.config.paths import INSTANCE_CONFIG_NAME, Home, Paths, check_name, is_name
from dataserver.errors import UsageError
from dataserver.fleet.model import Instance

#: In an instance's folder: it is meant not to run.
MARKER = "disabled"

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Registry:
    """The instances of a home, as their folders have it."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def instances(self) -> list[Instance]:
        """All there are, in order of name.

        One whose folder cannot be read is among them, and meant to run as far as is known.
        Raises OSError where ``instances/`` itself cannot be listed: that says of no instance
        that it is gone.
        """
        with os.scandir(self.home.instances) as entries:
            names = sorted(entry.name for entry in entries if is_name(entry.name))
        shared = _state(os.fspath(self.home.config))
        found = (self._look(name, shared) for name in names)
        return [instance for instance in found if instance is not None]

    def get(self, name: str) -> Instance:
        """The instance ``name``; UsageError where there is none, or the name is no good."""
        check_name(name)
        instance = self._look(name, _state(os.fspath(self.home.config)))
        if instance is not None:
            return instance
        self.home.existing(name)
        # It came between two looks.
        raise UsageError(f"there is no instance {name!r} in {self.home.root}")

    def create(self, name: str, data_in: Path | None, values: Mapping[str, str]) -> Instance:
        """Make an instance, enabled.

        ``data_in`` is its drop directory (made where missing; relative to the current directory),
        None: one in its folder.  ``values`` are settings as text.  Raises UsageError, ConfigError,
        or DataserverError where it cannot be written; then nothing is left of it.
        """
        # Imported here: the supervisor only looks.
        from dataserver.fleet import aside, creation  # noqa: PLC0415

        paths = self.home.instance(name)
        with aside.changing(self.home):
            others = [instance.paths for instance in self.instances()]
            creation.create(self.home, paths, _absolute(data_in), values, others)
        return self.get(name)

    def remove(self, name: str, *, force: bool = False) -> list[str]:
        """Remove an instance that does not run, with all that it left; what stays, in words.

        Raises UsageError where it has packets (``force``: they go too) or is not to be removed,
        LockedError where it runs, DataserverError where something cannot be removed.
        """
        from dataserver.fleet import aside, removal  # noqa: PLC0415 (as above)

        with aside.changing(self.home):
            paths = self.get(name).paths
            others = [other.paths for other in self.instances() if other.name != name]
            return removal.remove(paths, others, force=force)

    def _look(self, name: str, shared: str) -> Instance | None:
        """The instance ``name`` as it is now; None where there is none."""
        paths = Paths(self.home.root, name)
        folder = os.fspath(paths.folder)
        own = _state(os.path.join(folder, INSTANCE_CONFIG_NAME))
        if not own:
            return None
        return Instance(
            paths=paths,
            # Where it cannot be told, what runs is left to run.
            enabled=not os.path.lexists(os.path.join(folder, MARKER)),
            fingerprint=f"{own} {shared}",
        )


def enable(paths: Paths) -> None:
    """Have the instance run, and be tried anew where it had failed; OSError."""
    (paths.folder / MARKER).unlink(missing_ok=True)
    os.utime(paths.config)


def disable(paths: Paths) -> None:
    """Have the instance not run, until it is enabled again; OSError."""
    (paths.folder / MARKER).touch(mode=0o644)


def _absolute(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = Path.cwd() / path
    # What is no way back up keeps its links: they may be meant.
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def _state(path: str) -> str:
    """What changes when the file does; empty: there is none.

    A file that cannot be looked at has a state too: another one when that is mended.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        # A link that leads nowhere is a file that cannot be read, not none.
        absent = error.errno in _ABSENT and not os.path.islink(path)
        return "" if absent else f"error {error.errno}"
    return f"{info.st_ino}-{info.st_size}-{info.st_mtime_ns}"

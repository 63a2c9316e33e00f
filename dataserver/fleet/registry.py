"""The folders of ``instances/``: which instances exist, are enabled, or have changed.

An instance is enabled unless its folder contains the marker ``disabled``.  Listing is cheap, since
the supervisor does it twice a second: two or three calls of stat(2) for each folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from dataserver.config.paths import INSTANCE_CONFIG_NAME, Home, Paths, check_name, is_name
from dataserver.errors import UsageError
from dataserver.fleet.model import Instance

#: The file in an instance's folder that disables it.
MARKER = "disabled"

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})


class Registry:
    """The instances of a home according to their folders."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def instances(self) -> list[Instance]:
        """All instances, in order of name.

        One whose folder cannot be read is included, as enabled.  Raises OSError if ``instances/``
        itself cannot be listed: then no instance counts as removed.
        """
        with os.scandir(self.home.instances) as entries:
            names = sorted(entry.name for entry in entries if is_name(entry.name))
        shared = _state(os.fspath(self.home.config))
        found = (self._look(name, shared) for name in names)
        return [instance for instance in found if instance is not None]

    def get(self, name: str) -> Instance:
        """The instance ``name``; UsageError if it does not exist or the name is invalid."""
        check_name(name)
        instance = self._look(name, _state(os.fspath(self.home.config)))
        if instance is not None:
            return instance
        self.home.existing(name)
        # It was created since we looked.
        raise UsageError(f"there is no instance {name!r} in {self.home.root}")

    def create(self, name: str, data_in: Path | None, values: Mapping[str, str]) -> Instance:
        """Create an instance, enabled.

        ``data_in`` is its drop directory (created if missing; relative to the current directory),
        or None for one in its folder.  ``values`` are settings as text.  Raises UsageError,
        ConfigError, or DataserverError if it cannot be written; then nothing is left behind.
        """
        # Imported here: the supervisor only lists instances.
        from dataserver.fleet import aside, creation  # noqa: PLC0415

        paths = self.home.instance(name)
        with aside.changing(self.home):
            others = [instance.paths for instance in self.instances()]
            creation.create(self.home, paths, _absolute(data_in), values, others)
        return self.get(name)

    def remove(self, name: str, *, force: bool = False) -> list[str]:
        """Remove an instance that does not run, with all its files; returns what is kept.

        Raises UsageError if it has packets (with ``force`` they are deleted) or must not be
        removed, LockedError if it runs, DataserverError if something cannot be removed.
        """
        from dataserver.fleet import aside, removal  # noqa: PLC0415 (as above)

        with aside.changing(self.home):
            paths = self.get(name).paths
            others = [other.paths for other in self.instances() if other.name != name]
            return removal.remove(paths, others, force=force)

    def _look(self, name: str, shared: str) -> Instance | None:
        """The instance ``name`` as it is now, or None if it does not exist."""
        paths = Paths(self.home.root, name)
        folder = os.fspath(paths.folder)
        own = _state(os.path.join(folder, INSTANCE_CONFIG_NAME))
        if not own:
            return None
        return Instance(
            paths=paths,
            # If it cannot be read, a running instance goes on.
            enabled=not os.path.lexists(os.path.join(folder, MARKER)),
            fingerprint=f"{own} {shared}",
        )


def enable(paths: Paths) -> None:
    """Enable the instance, and have it started again if it had failed; OSError."""
    (paths.folder / MARKER).unlink(missing_ok=True)
    os.utime(paths.config)


def disable(paths: Paths) -> None:
    """Disable the instance until it is enabled again; OSError."""
    (paths.folder / MARKER).touch(mode=0o644)


def _absolute(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = Path.cwd() / path
    # A path without ".." keeps its links: they may be intended.
    return Path(os.path.realpath(path)) if ".." in path.parts else path


def _state(path: str) -> str:
    """A text that changes when the file does; empty if it does not exist.

    A file that cannot be read has a state too, which changes when that is fixed.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        # A dangling link counts as a file that cannot be read.
        absent = error.errno in _ABSENT and not os.path.islink(path)
        return "" if absent else f"error {error.errno}"
    return f"{info.st_ino}-{info.st_size}-{info.st_mtime_ns}"

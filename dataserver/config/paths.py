"""Paths: the home directory, its instances and their files in ``var/``.

Reads only the list of instances, and creates nothing.  The layout::

    HOME/dataserver.toml                 settings shared by all instances
    HOME/instances/NAME/instance.toml    settings of this instance
    HOME/var/NAME/                       files that the running instance writes
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataserver.errors import UsageError

CONFIG_NAME = "dataserver.toml"
INSTANCE_CONFIG_NAME = "instance.toml"
#: The default home.
SYSTEM_HOME = Path("/var/lib/dataserver")
#: The default instance of commands.
MAIN = "main"

#: Folders of ``instances/`` that are not instances.
RESERVED_NAMES = frozenset({"units", "spool"})
MAX_NAME_LENGTH = 64
# Names are part of paths and of systemd unit names, so nothing may need quoting or escaping.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Paths:
    """The files and folders of one instance."""

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        """``instances/NAME``: the instance's settings, and by default its ``data_in``."""
        return self.home / "instances" / self.name

    @property
    def config(self) -> Path:
        """The instance's settings."""
        return self.folder / INSTANCE_CONFIG_NAME

    @property
    def var(self) -> Path:
        """``var/NAME``: the files that the running instance writes."""
        return self.home / "var" / self.name

    @property
    def heartbeat(self) -> Path:
        """Written every second while the instance runs."""
        return self.var / "heartbeat.json"

    @property
    def status(self) -> Path:
        """What ``dataserver status`` shows."""
        return self.var / "status.json"

    @property
    def metrics(self) -> Path:
        """Metrics for Prometheus."""
        return self.var / "metrics.prom"

    @property
    def rejected(self) -> Path:
        """The folder of rejected packets and their reasons."""
        return self.var / "rejected"

    @property
    def lock(self) -> Path:
        """Held by the process that runs this instance."""
        return self.var / "lock"


@dataclass(frozen=True, slots=True)
class Home:
    """The home directory of an installation (absolute)."""

    root: Path

    @property
    def config(self) -> Path:
        """The settings shared by all instances."""
        return self.root / CONFIG_NAME

    @property
    def instances(self) -> Path:
        """The folder that holds one folder per instance."""
        return self.root / "instances"

    @property
    def var(self) -> Path:
        """The folder for the files that running instances write."""
        return self.root / "var"

    def instance(self, name: str = MAIN) -> Paths:
        """The paths of the instance ``name``, which need not exist; UsageError if it is invalid."""
        check_name(name)
        return Paths(self.root, name)

    def existing(self, name: str = MAIN) -> Paths:
        """The paths of the instance ``name``; UsageError if it has no configuration file."""
        paths = self.instance(name)
        if paths.config.is_file():
            return paths
        if os.path.lexists(paths.config):
            raise UsageError(
                f"{paths.config} is not a file",
                hint="put the instance's settings there, or remove its folder",
            )
        names = self.instance_names()
        if names:
            raise UsageError(
                f"there is no instance {name!r} in {self.root}",
                hint=f"existing instances: {', '.join(names)}",
            )
        raise UsageError(
            f"{self.root} is not a dataserver home: it contains no instances",
            hint="create one with `dataserver init DIR`, or choose one with --home DIR",
        )

    def instance_names(self) -> list[str]:
        """The names of all instances that have a configuration file, sorted."""
        found = self.instances.glob(f"*/{INSTANCE_CONFIG_NAME}")
        return sorted(path.parent.name for path in found if is_name(path.parent.name))


def is_name(name: str) -> bool:
    """Whether ``name`` is a valid name of an instance."""
    return (
        len(name) <= MAX_NAME_LENGTH
        and _NAME.fullmatch(name) is not None
        and name not in RESERVED_NAMES
    )


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` is a valid name of an instance."""
    if is_name(name):
        return
    if name in RESERVED_NAMES:
        raise UsageError(f"instance name {name!r} is reserved", hint="choose another one")
    raise UsageError(
        f"invalid instance name {name[:80]!r}",
        hint=f"use 1 to {MAX_NAME_LENGTH} of a-z, 0-9, _ and -, beginning with a letter or digit",
    )


def find(explicit: Path | None, environment: Mapping[str, str], current: Path) -> Home:
    """The home to use: ``--home``, $DATASERVER_HOME, the current directory, or the system's.

    ``explicit`` is the value of ``--home``, ``current`` the current directory, which is
    a home if it contains ``dataserver.toml``.  The result may not exist.
    """
    named = explicit or (Path(text) if (text := environment.get("DATASERVER_HOME")) else None)
    if named is not None:
        # Not resolved: a home behind a symbolic link keeps the name it was given.
        return Home(current / named)
    if (current / CONFIG_NAME).is_file():
        return Home(current)
    return Home(SYSTEM_HOME)

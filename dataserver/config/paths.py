"""Where everything is: the home directory, its instances and what they leave in ``var/``.

Only names paths; makes and reads nothing but the list of instances.  The layout::

    HOME/dataserver.toml                 settings shared by all instances
    HOME/instances/NAME/instance.toml    what differs in this one
    HOME/var/NAME/                       what running it leaves behind
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
#: The home of an installation that says nothing else.
SYSTEM_HOME = Path("/var/lib/dataserver")
#: The instance that commands mean when none is named.
MAIN = "main"

#: Folders of ``instances/`` that are not instances.
RESERVED_NAMES = frozenset({"units", "spool"})
MAX_NAME_LENGTH = 64
# Part of paths and of systemd unit names: nothing there needs quoting or escaping.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one instance: what it is made of and what it leaves behind."""

    home: Path
    name: str

    @property
    def folder(self) -> Path:
        """``instances/NAME``: everything that makes this instance what it is."""
        return self.home / "instances" / self.name

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.folder / INSTANCE_CONFIG_NAME

    @property
    def var(self) -> Path:
        """``var/NAME``: everything that running leaves behind."""
        return self.home / "var" / self.name

    @property
    def heartbeat(self) -> Path:
        """Written every second while it runs."""
        return self.var / "heartbeat.json"

    @property
    def status(self) -> Path:
        """What ``dataserver status`` shows."""
        return self.var / "status.json"

    @property
    def metrics(self) -> Path:
        """The same for Prometheus."""
        return self.var / "metrics.prom"

    @property
    def rejected(self) -> Path:
        """The packets set aside, with their reasons."""
        return self.var / "rejected"

    @property
    def lock(self) -> Path:
        """Held by the process that runs this instance."""
        return self.var / "lock"


@dataclass(frozen=True, slots=True)
class Home:
    """One installation's directory (absolute)."""

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
        """The folder for everything that running leaves behind."""
        return self.root / "var"

    def instance(self, name: str = MAIN) -> Paths:
        """The paths of the instance ``name``, which need not exist; UsageError for a bad name."""
        check_name(name)
        return Paths(self.root, name)

    def existing(self, name: str = MAIN) -> Paths:
        """The paths of the instance ``name``; UsageError where it has no configuration file."""
        paths = self.instance(name)
        if paths.config.is_file():
            return paths
        if os.path.lexists(paths.config):
            raise UsageError(
                f"{paths.config} is no file",
                hint="put the instance's settings there, or remove its folder",
            )
        names = self.instance_names()
        if names:
            raise UsageError(
                f"there is no instance {name!r} in {self.root}",
                hint=f"there is: {', '.join(names)}",
            )
        raise UsageError(
            f"{self.root} is no home of a data server (it has no instances)",
            hint="make one with `dataserver init DIR`, or name one with --home DIR",
        )

    def instance_names(self) -> list[str]:
        """The instances that have a configuration file, in order of name."""
        found = self.instances.glob(f"*/{INSTANCE_CONFIG_NAME}")
        return sorted(path.parent.name for path in found if is_name(path.parent.name))


def is_name(name: str) -> bool:
    """Whether an instance may be called so."""
    return (
        len(name) <= MAX_NAME_LENGTH
        and _NAME.fullmatch(name) is not None
        and name not in RESERVED_NAMES
    )


def check_name(name: str) -> None:
    """Raise UsageError unless an instance may be called ``name``."""
    if is_name(name):
        return
    if name in RESERVED_NAMES:
        raise UsageError(f"instance name {name!r} is reserved", hint="choose another one")
    raise UsageError(
        f"instance name {name[:80]!r} is no good",
        hint=f"use 1 to {MAX_NAME_LENGTH} of a-z, 0-9, _ and -, beginning with a letter or digit",
    )


def find(explicit: Path | None, environment: Mapping[str, str], current: Path) -> Home:
    """The home that is meant: ``--home``, $DATASERVER_HOME, here, or the system's.

    ``explicit`` is the value of ``--home``, ``current`` the current directory, which is
    a home if it holds ``dataserver.toml``.  Whether the result exists is not looked at.
    """
    named = explicit or (Path(text) if (text := environment.get("DATASERVER_HOME")) else None)
    if named is not None:
        # Not resolved: a home behind a symbolic link keeps the name it was given.
        return Home(current / named)
    if (current / CONFIG_NAME).is_file():
        return Home(current)
    return Home(SYSTEM_HOME)

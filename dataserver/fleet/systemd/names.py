"""What systemd's files for us are called, and where they are."""

from __future__ import annotations

from pathlib import Path

#: Where an administrator's units are (systemd.unit(5)).
UNITS = Path("/etc/systemd/system")
#: All instances together.
TARGET = "dataserver.target"
#: Runs all instances, each as its NAME.
TEMPLATE = UNITS / "dataserver@.service"
#: Directories, their owners and modes (tmpfiles.d(5)).
TMPFILES_FILE = Path("/etc/tmpfiles.d/dataserver.conf")
#: There while systemd runs the machine (sd_booted(3)).
RUNS = Path("/run/systemd/system")


def unit(name: str) -> str:
    """The unit of an instance.  A name has nothing that systemd would escape."""
    return f"dataserver@{name}.service"


def drop_in_path(name: str) -> Path:
    """Where it stands what the instance ``name`` may reach outside of the home."""
    return UNITS / f"{unit(name)}.d" / "paths.conf"

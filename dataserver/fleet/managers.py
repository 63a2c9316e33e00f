"""The manager of a home's instances: systemd, ``dataserver up``, or none."""

from __future__ import annotations

from pathlib import Path

from dataserver.config.paths import Home
from dataserver.fleet.model import Manager
from dataserver.fleet.supervision.manager import BySupervisor

#: As RUNS in dataserver.fleet.systemd.names, which is not imported unless it is needed.
_SYSTEMD_RUNS = Path("/run/systemd/system")


def manager_of(home: Home) -> Manager | None:
    """The manager that runs the instances of ``home`` now, or None if there is none."""
    if _SYSTEMD_RUNS.is_dir():
        # Imported here: it is not needed on a machine without systemd.
        from dataserver.fleet.systemd.manager import Systemd  # noqa: PLC0415

        if Systemd.applies(home):
            return Systemd(home)
    supervisor = BySupervisor(home)
    return supervisor if supervisor.alive() else None

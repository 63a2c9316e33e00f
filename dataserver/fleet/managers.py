"""Who runs the instances of a home: systemd, ``dataserver up``, or nobody."""

from __future__ import annotations

from pathlib import Path

from dataserver.config.paths import Home
from dataserver.fleet.model import Manager
from dataserver.fleet.supervision.manager import BySupervisor

_SYSTEMD_RUNS = Path("/run/systemd/system")


def manager_of(home: Home) -> Manager | None:
    """Whoever runs the instances of ``home`` now; None: nobody does."""
    if _SYSTEMD_RUNS.is_dir():
        # Imported here: where systemd does not run the machine, nobody needs it.
        from dataserver.fleet.systemd.manager import Systemd  # noqa: PLC0415

        if Systemd.applies(home):
            return Systemd(home)
    supervisor = BySupervisor(home)
    return supervisor if supervisor.alive() else None

"""Who runs the instances of a home: systemd, ``dataserver up``, or nobody."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from dataserver.fleet.by_supervisor import BySupervisor
from dataserver.fleet.model import Manager
from dataserver.home import Home

_SYSTEMD_RUNS = Path("/run/systemd/system")
_SYSTEMCTL = "dataserver.fleet.systemctl"


def manager_of(home: Home) -> Manager | None:
    """Whoever runs the instances of ``home`` now; None: nobody does."""
    if _SYSTEMD_RUNS.is_dir() and find_spec(_SYSTEMCTL):
        systemd = importlib.import_module(_SYSTEMCTL).Systemd
        if systemd.applies(home):
            return cast(Manager, systemd(home))
    supervisor = BySupervisor(home)
    return supervisor if supervisor.alive() else None

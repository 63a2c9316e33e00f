"""What an instance leaves behind besides its queue, counted from outside."""

from __future__ import annotations

import os
from pathlib import Path

from dataserver.fleet.model import log_file
from dataserver.home import Paths
from dataserver.spool.files import is_packet_name
from dataserver.spool.lock import LOCK_FILE
from dataserver.spool.reasons import is_id


def rejected(paths: Paths) -> int:
    """How many packets of the instance were set aside; OSError."""
    return sum(
        name.endswith(".data") and is_id(name.removesuffix(".data"))
        for name in _names(paths.rejected)
    )


def leaving(paths: Paths) -> int:
    """How many packets were on their way out when the instance was killed; OSError."""
    return sum(map(is_packet_name, _names(paths.var / "leaving")))


def foreign(paths: Paths) -> list[str]:
    """The names of what lies in ``var/NAME`` and is not of an instance's making; OSError."""
    log = log_file(paths).name
    files = (paths.heartbeat, paths.status, paths.metrics, paths.rejected)
    own = {LOCK_FILE, "leaving", log, f"{log}.1", *(file.name for file in files)}
    own |= {f".{file.name}.new" for file in files}
    return sorted(name for name in _names(paths.var) if name not in own)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []

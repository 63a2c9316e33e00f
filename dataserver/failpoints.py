"""Failpoints: places where a test can make the process die as in a power failure.

``DATASERVER_FAILPOINT=NAME`` (or ``NAME:N``, the N-th time) in the environment makes the
process kill itself with SIGKILL when it reaches that place: no handler runs, no buffer is
flushed, nothing is cleaned up.  Without the variable a failpoint costs one comparison.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

VARIABLE = "DATASERVER_FAILPOINT"


@dataclass(slots=True)
class _Armed:
    """The armed failpoint, if any, and after how many passes it kills."""

    name: str | None
    left: int


def _parse(setting: str) -> _Armed:
    """Parse ``NAME`` or ``NAME:N``; raises ValueError if N is not a positive number."""
    name, _, times = setting.partition(":")
    left = int(times or 1)
    if left < 1:
        raise ValueError(f"{VARIABLE}={setting}: the number after the colon must be 1 or more")
    return _Armed(name or None, left)


_armed = _parse(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """Mark the failpoint ``name`` as reached: kills the process if it is the armed one."""
    if _armed.name != name:
        return
    _armed.left -= 1
    if _armed.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

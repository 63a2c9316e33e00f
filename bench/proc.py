"""What a process has used: the record, and how to read it from ``/proc`` (see proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")

#: Places of utime and stime in ``stat``, counted after the parenthesis that closes the name.
_UTIME, _STIME = 11, 12


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of the clock, seconds of CPU, bytes of memory at the peak."""

    seconds: float
    cpu: float
    rss: int


def cpu_seconds(pid: int) -> float:
    """CPU time of all the threads of a process, user and system, in steps of a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def peak_rss(pid: int) -> int:
    """The most memory that a process ever had resident, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")

"""Whether this host is fit to hold the address: the facts about each instance, and the verdict.

The rules are here and, for keepalived, in the templates ``check-health.j2`` and ``check-drop.j2``:
shell scripts, since the check runs every second or two and must not start Python.  A test compares
the two.

An instance is sick if it is dead, stuck, stopped, or short of disk space: the host's priority is
lowered, so that one of two sick hosts still holds the address.  If no file can be created in a drop
directory, the host is at fault and gives up the address: agents then keep their packets.  Waiting
for the database is not a sickness, since the other host could not use it either.

An orderly restart does not move the address: a stopped instance is healthy for
:data:`STOPPED_GRACE`, a starting one for as long as a loop may take (two minutes, or longer if the
database may take longer to answer), and keepalived tolerates one or two failed checks (``fall``).
An instance that crashes repeatedly is dead between its starts, and is not healthy again before
several checks in a row have passed (``rise``).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from errno import EISDIR, ELOOP, ENOENT, ENXIO
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from uuid import uuid4

from dataserver.config.paths import Paths
from dataserver.runtime.heartbeat import (
    STALE_AFTER,
    Beat,
    Phase,
    Status,
    Trouble,
    process_start,
    uptime,
)

#: How long a stopped instance counts as being restarted (seconds).
STOPPED_GRACE = 5.0
#: The folder in which the check writes its result, and remembers which folders were low.
STATE_DIR = Path("/run/dataserver-keepalived")
#: Bytes of the test file in a drop directory: about a packet.
_SAMPLE = 4096
#: More blocks or inodes than any disk has.
_HUGE = 10**16
#: How much is read from files of keepalived's programs: their account may write anything there.
_MOST_BYTES = 1 << 16
#: The latest time (epoch seconds) that can be shown, in the year 5138.
LATEST = 1e11
_RESULTS = MappingProxyType(
    {"check-health": {"healthy", "waiting", "sick"}, "check-drop": {"takes", "fault"}}
)


class Verdict(StrEnum):
    """From healthy to unfit; a host has the worst verdict of its instances."""

    HEALTHY = "healthy"
    WAITING = "waiting for database"
    SICK = "sick"
    FAULT = "fault"


_ORDER = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for a verdict."""

    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Room:
    """The free share of the file system of a folder: of blocks or of inodes, the smaller one."""

    folder: str
    #: None if it cannot be read.
    percent: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Percent of space free: below ``warn`` a folder is low, and stays so until above ``ok``."""

    warn: int = 5
    ok: int = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one instance."""

    name: str
    #: None if it is missing or invalid.
    beat: Beat | None
    #: When the process of the beat's pid started (clock ticks since boot); None if it is gone.
    started: int | None
    #: Seconds since boot when the facts were gathered.
    uptime: float
    rooms: tuple[Room, ...] = ()
    #: Why no file can be created in the drop directory, or None.
    drop_error: str | None = None
    #: Why the database cannot be used, or None.
    database_error: str | None = None
    #: Why packets cannot be stored though the database can be used, or None.
    storing_error: str | None = None
    #: Which alerts are not evaluated; None if there are none, or that was accepted.
    alerts: str | None = None
    #: Why the clock of this host seems to be behind, or None.
    clock: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one instance, with all reasons."""

    instance: str
    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the reasons."""
        return worst(reason.verdict for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Checked:
    """The last result of one of the scripts.

    ``result`` is "healthy", "waiting" or "sick" of check-health, "takes" or "fault" of check-drop;
    ``uptime`` is its time in seconds since boot; ``low`` names folders as INSTANCE:FOLDER.
    """

    result: str
    uptime: float
    text: str
    low: frozenset[str]

    @property
    def age(self) -> float | None:
        """Its age in seconds, or None if the clock cannot be read."""
        now = uptime()
        return None if now is None else now - self.uptime


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict; healthy if there is none."""
    return max(verdicts, key=_ORDER.index, default=Verdict.HEALTHY)


def judge(facts: Facts, limits: Limits, low: Collection[str] = ()) -> Health:
    """The health according to the facts; ``low`` names folders that were low before."""
    reasons = []
    if facts.drop_error is not None:
        reasons.append(Reason(Verdict.FAULT, f"data_in takes no files: {facts.drop_error}"))
    if process := _judge_process(facts):
        reasons.append(process)
    if facts.storing_error is not None and not process:
        # The twin runs the same code on the same database: no reason to move the address.
        reasons.append(Reason(Verdict.WAITING, f"storing fails: {facts.storing_error}"))
    if facts.alerts is not None and not process:
        # Only reported: packets are stored, and the twin does not evaluate alerts either.
        reasons.append(Reason(Verdict.HEALTHY, f"alerts are not evaluated: {facts.alerts}"))
    if facts.clock is not None and not process:
        reasons.append(Reason(Verdict.HEALTHY, f"this host's clock seems behind: {facts.clock}"))
    for room in facts.rooms:
        limit = limits.ok + 1 if f"{facts.name}:{room.folder}" in low else limits.warn
        if room.percent is None:
            text = f"{room.folder}: cannot tell how full it is"
            reasons.append(Reason(Verdict.SICK, text))
        elif room.percent < limit:
            text = f"{room.folder} is nearly full: {room.percent} % free"
            reasons.append(Reason(Verdict.SICK, text))
    return Health(facts.name, tuple(reasons))


def _judge_process(facts: Facts) -> Reason | None:
    beat = facts.beat
    if beat is None or beat.uptime is None or beat.process_start is None:
        return Reason(Verdict.SICK, "no heartbeat that can be read")
    # Ahead of the clock: written before the last boot, or in another container.
    age = abs(facts.uptime - beat.uptime)
    if beat.phase is Phase.STOPPED:
        return Reason(Verdict.SICK, "stopped") if age > STOPPED_GRACE else None
    if facts.started != beat.process_start:
        return Reason(Verdict.SICK, f"dead: process {beat.pid} is gone")
    if age > STALE_AFTER:
        return Reason(Verdict.SICK, f"stuck: no heartbeat for {int(age)} s")
    if beat.phase is Phase.WAITING_FOR_DATABASE:
        why = f": {facts.database_error}" if facts.database_error else ""
        return Reason(Verdict.WAITING, f"waiting for the database{why}")
    if beat.phase is Phase.STARTING and beat.phase_seconds > beat.stuck_after:
        return Reason(Verdict.SICK, f"still starting after {int(beat.phase_seconds)} s")
    if not beat.moves:
        text = f"stuck: its loop has not moved for {int(beat.loop_seconds)} s"
        return Reason(Verdict.SICK, text)
    return None


# -- gathering facts ----------------------------------------------------------------


def gather(paths: Paths, data_in: Path) -> Facts:
    """Gather the facts about an instance; creates a small file in ``data_in`` and removes it.

    Raises OSError if the heartbeat cannot be read: that says nothing about the instance.
    """
    beat = Beat.read(paths.heartbeat)
    if beat is not None and not _is_sound(beat):
        beat = None
    status = Status.read(paths.status) if beat else None
    if status is not None and beat is not None and status.run != beat.run:
        status = None
    return Facts(
        name=paths.name,
        beat=beat,
        started=process_start(beat.pid) if beat else None,
        uptime=uptime() or 0.0,
        rooms=(Room("data_in", _percent_free(data_in)), Room("var", _percent_free(paths.var))),
        drop_error=_drop_error(data_in),
        database_error=status.database_error if status else None,
        storing_error=status.trouble(Trouble.STORING) if status else None,
        alerts=status.trouble(Trouble.ALERTS) if status else None,
        clock=status.trouble(Trouble.CLOCK) if status else None,
    )


def read_result(script: str, state_dir: Path = STATE_DIR) -> Checked | None:
    """The last result of "check-health" or "check-drop", or None if it is missing or invalid.

    Raises OSError if it cannot be read.
    """
    values = read_left(state_dir / script.removeprefix("check-"))
    try:
        seen = float(values["uptime"])
        low = frozenset(values.get("low", "").split())
        checked = Checked(values["result"], seen, values["text"], low)
    except (KeyError, ValueError):
        return None
    # Written so that NaN is outside too.
    return checked if checked.result in _RESULTS[script] and 0 <= seen < LATEST else None


def read_left(path: Path) -> dict[str, str]:
    """The lines ``KEY=VALUE`` of a file of keepalived's programs; empty if it is not a file.

    Raises OSError if it cannot be read.
    """
    # Without following a link or waiting for a pipe.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            is_file = S_ISREG(os.fstat(file.fileno()).st_mode)
            text = file.read(_MOST_BYTES).decode("utf-8", "replace") if is_file else ""
    except OSError as error:
        # A directory cannot be opened as a file, a socket not at all.
        if error.errno in {ENOENT, ELOOP, EISDIR, ENXIO}:
            return {}
        raise
    return dict(line.partition("=")[::2] for line in text.split("\n"))


def _is_sound(beat: Beat) -> bool:
    """Whether its numbers are numbers: the file may contain anything."""
    numbers = (beat.phase_seconds, beat.loop_seconds, beat.stuck_after, beat.uptime)
    return all(type(n) is int and n >= 0 for n in (beat.pid, beat.process_start)) and all(
        type(n) in {int, float} and n >= 0 for n in numbers if n is not None
    )


def _percent_free(folder: Path) -> int | None:
    try:
        info = os.statvfs(folder)
    except OSError:
        return None
    if max(info.f_blocks, info.f_bfree) >= _HUGE:
        percent = 100  # There is no limit.
    elif info.f_bavail >= _HUGE:
        percent = 0  # Negative: blocks reserved for root are in use.
    else:
        # As in df: blocks reserved for root count neither as free nor as part of the total.
        total = info.f_blocks - info.f_bfree + info.f_bavail
        percent = 100 * info.f_bavail // total if total > 0 else 100
    # CephFS reports -1 free inodes: there is no limit.
    if info.f_files and max(info.f_files, info.f_ffree) < _HUGE:
        percent = min(percent, 100 * info.f_ffree // info.f_files)
    return percent


def _drop_error(data_in: Path) -> str | None:
    """Why no file can be created in the directory, or None."""
    # A name that the server ignores and that cannot be guessed, so no link can be prepared.
    path = data_in / f".check-drop.{uuid4()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except PermissionError as error:
        return f"{error.strerror} for user {os.geteuid()}"
    except OSError as error:
        return error.strerror
    try:
        left = _SAMPLE
        while left:
            left -= os.write(fd, bytes(left))
    except OSError as error:
        return error.strerror
    finally:
        os.close(fd)
        error_of_removal = _remove(path)
    return error_of_removal


def _remove(path: Path) -> str | None:
    try:
        path.unlink()
    except OSError as error:
        return f"files can be made but not removed: {error.strerror}"
    return None

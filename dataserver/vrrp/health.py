"""Is this host fit to hold the address?  What is seen of each instance, and what that means.

The rules stand here and, for keepalived, in the templates ``check-health.j2`` and
``check-drop.j2``: a shell, since the check runs every second or two and must not start Python.
A test holds the two against each other.

An instance is sick that is dead, stuck, stopped, or short of space: the host's priority is lowered,
so that of two sick hosts one still holds the address.  Where a drop directory takes no file at
all the host is at fault and gives the address up: agents then keep their packets.  Waiting for
the database is no sickness, since the other host would have none either.

An orderly restart moves nothing: one that said goodbye is well for :data:`STOPPED_GRACE`, one that
starts for as long as a loop may stand still (two minutes, or longer where the database may take
longer to answer), and a check that fails once or twice is forgiven by keepalived (``fall``).  One
that crashes again and again is dead between its starts, and is not well again before several
checks in a row have passed (``rise``).
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

#: For so long after it said goodbye an instance counts as being restarted (seconds).
STOPPED_GRACE = 5.0
#: Where the check leaves its result, and remembers what was low.
STATE_DIR = Path("/run/dataserver-keepalived")
#: Bytes that a drop directory has to take: about a packet.
_SAMPLE = 4096
#: No disk has so many blocks or inodes.
_HUGE = 10**16
#: Of what the programs of keepalived leave behind no more is read: whoever runs them may write
#: there what he likes.
_MOST_BYTES = 1 << 16
#: Seconds: greater ones are of no time that could be shown (the year 5138).
LATEST = 1e11
_RESULTS = MappingProxyType(
    {"check-health": {"healthy", "waiting", "sick"}, "check-drop": {"takes", "fault"}}
)


class Verdict(StrEnum):
    """From well to unfit; what a host is, is the worst of its instances."""

    HEALTHY = "healthy"
    WAITING = "waiting for database"
    SICK = "sick"
    FAULT = "fault"


_ORDER = tuple(Verdict)


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be."""

    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Room:
    """What is free in the file system of a folder, in percent: of blocks or of inodes, the less."""

    folder: str
    #: None: it cannot be told.
    percent: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Percent of space free: below ``warn`` a folder is low, and stays so until above ``ok``."""

    warn: int = 5
    ok: int = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one instance."""

    name: str
    #: None: there is none that can be read.
    beat: Beat | None
    #: When the process of the beat's number started (clock ticks since boot); None: it is gone.
    started: int | None
    #: Seconds since boot when this was seen.
    uptime: float
    rooms: tuple[Room, ...] = ()
    #: Why no file could be made in the drop directory; None: one could.
    drop_error: str | None = None
    #: Why the database cannot be used, where that is known.
    database_error: str | None = None
    #: Why packets cannot be stored though the database can be used; None: all can.
    storing_error: str | None = None
    #: Which alerts are not evaluated; None: none, or that was accepted.
    alerts: str | None = None
    #: Why the clock of this host seems to be behind; None: it does not.
    clock: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """One instance's state, with all the reasons for it."""

    instance: str
    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of the reasons."""
        return worst(reason.verdict for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one of the scripts left behind for :func:`read_result`.

    ``result`` is "healthy", "waiting" or "sick" of check-health, "takes" or "fault" of check-drop;
    ``uptime`` is when, in seconds since boot; ``low`` names folders as INSTANCE:FOLDER.
    """

    result: str
    uptime: float
    text: str
    low: frozenset[str]

    @property
    def age(self) -> float | None:
        """For how long it has stood, in seconds; None where the clock cannot be read."""
        now = uptime()
        return None if now is None else now - self.uptime


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some; none at all is healthy."""
    return max(verdicts, key=_ORDER.index, default=Verdict.HEALTHY)


def judge(facts: Facts, limits: Limits, low: Collection[str] = ()) -> Health:
    """What the facts mean; ``low`` names the folders that were low, as INSTANCE:FOLDER."""
    reasons = []
    if facts.drop_error is not None:
        reasons.append(Reason(Verdict.FAULT, f"data_in takes no files: {facts.drop_error}"))
    if process := _judge_process(facts):
        reasons.append(process)
    if facts.storing_error is not None and not process:
        # The twin runs the same code on the same database: no reason to move the address.
        reasons.append(Reason(Verdict.WAITING, f"storing fails: {facts.storing_error}"))
    if facts.alerts is not None and not process:
        # Said, and no more: packets are stored, and the twin evaluates none either.
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


# -- looking ------------------------------------------------------------------------


def gather(paths: Paths, data_in: Path) -> Facts:
    """See how an instance does; makes a small file in ``data_in`` and removes it.

    Raises OSError where the heartbeat may not be read: that says nothing about the instance.
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
    """What "check-health" or "check-drop" found last; None: nothing that can be read.

    Raises OSError where it may not be read.
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
    """The lines ``KEY=VALUE`` of a file that a program of keepalived left; none if it is no file.

    Raises OSError where it may not be read.
    """
    # Neither a link is followed nor a pipe waited for.
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
    """Whether its numbers are numbers: the file may hold anything."""
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
        percent = 100  # It has no limit.
    elif info.f_bavail >= _HUGE:
        percent = 0  # Less than nothing: what only root may use is being used.
    else:
        # As df has it: what only root may use counts neither as free nor as a part of the whole.
        total = info.f_blocks - info.f_bfree + info.f_bavail
        percent = 100 * info.f_bavail // total if total > 0 else 100
    # CephFS has -1 for the free ones: as many as one likes.
    if info.f_files and max(info.f_files, info.f_ffree) < _HUGE:
        percent = min(percent, 100 * info.f_ffree // info.f_files)
    return percent


def _drop_error(data_in: Path) -> str | None:
    """Why the directory takes no file; None: it does."""
    # A name that the server leaves alone and that nobody can guess: no link can lie in wait.
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

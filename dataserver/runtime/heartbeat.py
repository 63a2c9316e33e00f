"""What a running instance says about itself: its heartbeat and its status file.

Both are JSON in ``var/NAME/``, replaced whole by a rename, so that a reader never
sees half of one.  The heartbeat is one line, written every second by a thread of its
own: it goes on while the main loop waits for a slow database, and says for how long the
loop has not moved.  With each one, whoever started the process is told that it is well, also
where the disk takes no heartbeat any more.  ``status.json`` is written by the main loop: what it
holds is :class:`Status`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dataserver.sd_notify import Notify

#: How often the heartbeat is written, in seconds.
INTERVAL = 1.0
#: A heartbeat older than this is none: its writer is dead or stopped (seconds).
STALE_AFTER = 10.0
#: A main loop that has not moved for so long is stuck, unless it waits for the database (seconds).
STUCK_AFTER = 120.0
#: Whoever started the process is told that it is ready after so long at most (seconds): until
#: then a database that will not do can still be told as a start that failed.
_READY_AFTER = 5.0
#: Seconds: greater ones are of no time that could be shown (the year 5138).
_LARGEST = 1e11


class Phase(StrEnum):
    """What the main loop is doing."""

    STARTING = "starting"
    SCANNING = "scanning"
    STORING = "storing"
    WAITING_FOR_DATABASE = "waiting for database"
    IDLE = "idle"
    STOPPING = "stopping"
    STOPPED = "stopped"


class State(StrEnum):
    """What can be told of an instance from outside."""

    RUNNING = "running"
    STUCK = "stuck"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat.  Times are epoch seconds, durations seconds."""

    pid: int
    #: The process's start, in clock ticks since boot: tells a reused pid apart.
    process_start: int | None
    #: Random name of this run.
    run: str
    phase: Phase
    phase_since: float
    #: For how long it has been in this phase, by a clock that nobody sets.
    phase_seconds: float
    #: Grows with every step of the main loop.
    beat: int
    #: For how long it has not grown.
    loop_seconds: float
    time: float
    #: After so long without a step it is stuck.
    stuck_after: float = STUCK_AFTER
    #: Seconds since the machine's boot when it was written: a clock that nobody sets, and one
    #: that a shell can read.  None: an older version wrote it.
    uptime: float | None = None

    @classmethod
    def read(cls, path: Path) -> Beat | None:
        """The heartbeat in ``path``; None where there is none, or one of another version.

        Raises OSError where it may not be read: that says nothing about the instance.
        """
        data = _read(path)
        try:
            _must_be_numbers(data, "phase_since", "loop_seconds", "time", "stuck_after")
            return cls(**{**data, "phase": Phase(data["phase"])}) if data else None
        except (TypeError, ValueError, KeyError):
            return None

    def state(self, now: float) -> State:
        """What this heartbeat, read at ``now`` (epoch seconds), says of its process."""
        if self.phase is Phase.STOPPED:
            return State.STOPPED
        started = process_start(self.pid)
        if started is None or started != self.process_start:
            return State.DEAD
        if abs(now - self.time) > STALE_AFTER:
            return State.STUCK
        return State.RUNNING if self.moves else State.STUCK

    @property
    def moves(self) -> bool:
        """Whether the main loop moves as it should."""
        # Waiting for the database may take any time: nobody could do better.
        waiting = self.phase is Phase.WAITING_FOR_DATABASE
        return waiting or self.loop_seconds <= self.stuck_after


class Heartbeat:
    """Writes a :class:`Beat` every second until it is stopped.

    ``enter`` and ``step`` are called by the main loop and only set attributes; so may be
    ``stuck_after``, the seconds after which a loop that has not moved is stuck.  ``notify`` tells
    whoever started the process, in the words of sd_notify(3).  ``beside`` is called by its thread
    after each beat.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        notify: Notify = lambda _: None,
        beside: Callable[[], object] = lambda: None,
    ) -> None:
        self.stuck_after = STUCK_AFTER
        self._beside = beside
        self._notify = notify
        self._ready = False
        self._path = path
        self._run = run
        self._interval = interval
        self._clock = clock
        self._monotonic = monotonic
        self._process_start = process_start(os.getpid())
        # One tuple each, so that the writing thread never sees half of a change.
        self._phase = (Phase.STARTING, clock(), monotonic())
        self._step = (0, monotonic())
        self._began = monotonic()
        self._wake = Event()
        self._stopped = False
        self._thread = Thread(target=self._write_until_stopped, name="heartbeat", daemon=True)

    @property
    def phase(self) -> Phase:
        """What the main loop is doing."""
        return self._phase[0]

    def start(self) -> None:
        """Write the first beat, then go on in a thread."""
        self._began = self._monotonic()
        self._write()
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        """The main loop begins to do something else; the same phase again only counts a step."""
        if phase is not self._phase[0]:
            self._phase = (phase, self._clock(), self._monotonic())
            if not self._ready:
                self._wake.set()  # whoever started us waits for that
        self.step()

    def step(self) -> None:
        """The main loop moved."""
        self._step = (self._step[0] + 1, self._monotonic())

    def stop(self) -> None:
        """End the thread and leave a last beat that says so."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.enter(Phase.STOPPED)
        self._write()

    def current(self) -> Beat:
        """The beat as it would be written now."""
        phase, since, since_monotonic = self._phase
        count, stepped = self._step
        now = self._monotonic()
        return Beat(
            pid=os.getpid(),
            process_start=self._process_start,
            run=self._run,
            phase=phase,
            phase_since=round(since, 3),
            phase_seconds=round(now - since_monotonic, 3),
            beat=count,
            loop_seconds=round(now - stepped, 3),
            time=round(self._clock(), 3),
            stuck_after=self.stuck_after,
            uptime=uptime(),
        )

    def _write_until_stopped(self) -> None:
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            if self._stopped:
                return
            self._write()
            self._beside()

    def _write(self) -> None:
        beat = self.current()
        self._tell(beat)
        try:
            write_atomic(self._path, json.dumps(asdict(beat)) + "\n")
        except OSError:
            # A full disk must not end the heartbeat: the file's age tells, and the
            # main loop meets the same error where it can say so.
            return

    def _tell(self, beat: Beat) -> None:
        lines = [f"STATUS={beat.phase}"]
        if not self._ready:
            waited = self._monotonic() - self._began >= _READY_AFTER
            self._ready = waited or beat.phase is not Phase.STARTING
            lines += ["READY=1"] * self._ready
        if beat.moves:
            lines.append("WATCHDOG=1")
        if beat.phase in (Phase.STOPPING, Phase.STOPPED):
            lines.append("STOPPING=1")
        self._notify("\n".join(lines))


class Trouble(StrEnum):
    """What may be wrong besides the database; the words of the status file and of commands."""

    #: The drop directory cannot be used.
    DATA_IN = "data_in"
    #: Packets fail to be stored though the database can be used.
    STORING = "storing"
    #: A changed configuration cannot be used; the one before is in force.
    CONFIGURATION = "configuration"
    #: Alerts are defined, which this server does not evaluate: a warning, packets are stored.
    ALERTS = "alerts"
    #: This server's clock seems to be behind: a warning, packets are stored.
    CLOCK = "clock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything that ``dataserver status`` shows.  Times are epoch seconds."""

    instance: str
    server_name: str
    version: str
    pid: int
    run: str
    started: float
    written: float
    phase: str
    data_in: str
    #: The database's URL, without its password.
    database: str
    #: Why the database could not be used at the last try; None: it could.
    database_error: str | None = None
    #: Since when it could not be used.
    database_down_since: float | None = None
    #: What else is wrong, by what it is about (:class:`Trouble`).
    troubles: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Over the last minute.
    packets_per_second: float = 0.0
    values_per_second: float = 0.0
    last_packet_agent: str | None = None
    last_packet_time: float | None = None
    #: :func:`dataserver.runtime.metrics.as_dict` of the counters and gauges.
    counters: dict[str, Any] = field(default_factory=dict)
    gauges: dict[str, Any] = field(default_factory=dict)
    #: Names of files that cannot be opened, each with the reason; bounded by the writer.
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """The status in ``path``; None where there is none, or one of another version.

        Raises OSError where it may not be read.
        """
        data = _read(path)
        known = {each.name for each in fields(cls)}
        try:
            _must_be_numbers(data, "started", "written", "packets_per_second", "values_per_second")
            # A newer version's additions are left out rather than refused.
            return cls(**{key: data[key] for key in data if key in known}) if data else None
        except (TypeError, ValueError):
            return None

    def trouble(self, what: Trouble) -> str | None:
        """Why, where this is wrong."""
        found = self.troubles.get(what)
        return str(found.get("error")) if isinstance(found, dict) else None

    def write(self, path: Path) -> None:
        """Replace ``path`` with this; OSError where it cannot be."""
        write_atomic(path, json.dumps(asdict(self), indent=1) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``: readers see the old or the new, whole.

    Not synced to disk: after a power cut nobody needs the heartbeat of before.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def process_start(pid: int) -> int | None:
    """When the process ``pid`` started (clock ticks since boot); None: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the command's name in parentheses and may hold anything.
    rest = stat.rpartition(")")[2].split()
    state, start = rest[0], rest[19]
    return None if state == "Z" else int(start)


def uptime() -> float | None:
    """Seconds since the machine's boot, sleep included; None where they cannot be told.

    From the file from which a shell reads it, not from CLOCK_BOOTTIME: a container may have been
    given a /proc/uptime of its own (lxcfs).
    """
    try:
        return float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _must_be_numbers(data: Mapping[str, object] | None, *keys: str) -> None:
    """Raise ValueError where one of them is there and neither a number nor a plausible one."""
    for key in keys:
        value = data.get(key, 0) if data else 0
        if not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise ValueError(key)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None

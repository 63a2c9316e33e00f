"""What a running instance publishes about itself: its heartbeat and its status file.

Both are JSON in ``var/NAME/`` and are replaced by a rename, so that a reader never sees half of
one.  The heartbeat (:class:`Beat`) is one line.  A thread of its own (:class:`Heartbeat`) writes it
every second, also while the main loop waits for a slow database, and it contains for how long the
loop has not moved.  With each heartbeat the process's manager (systemd or the supervisor) is
notified that the process is well, even if a full disk takes no more heartbeats.  ``status.json``
(:class:`Status`) is all that ``dataserver status`` shows.
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
#: A heartbeat older than this is stale: its writer is dead or stopped (seconds).
STALE_AFTER = 10.0
#: A main loop that has not moved for this time (seconds) is stuck, unless it waits for the
#: database.
STUCK_AFTER = 120.0
#: The manager is notified that the process is ready after this time at the latest (seconds); until
#: then an unsuitable database still counts as a failed start.
_READY_AFTER = 5.0
#: Greater times than this cannot be shown (epoch seconds; the year 5138).
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
    """The state of an instance as seen from outside."""

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
    #: A random name for this run.
    run: str
    phase: Phase
    phase_since: float
    #: For how long it has been in this phase, by the monotonic clock.
    phase_seconds: float
    #: Grows with every step of the main loop.
    beat: int
    #: For how long ``beat`` has not grown.
    loop_seconds: float
    time: float
    #: A main loop that has made no step for this time is stuck.
    stuck_after: float = STUCK_AFTER
    #: Seconds since the machine's boot when it was written: this clock is never set, and a shell
    #: can read it.  None if an older version wrote the heartbeat.
    uptime: float | None = None

    @classmethod
    def read(cls, path: Path) -> Beat | None:
        """The heartbeat in ``path``, or None if there is none or another version's.

        Raises OSError if it may not be read, which says nothing about the instance.
        """
        data = _read(path)
        try:
            _must_be_numbers(data, "phase_since", "loop_seconds", "time", "stuck_after")
            return cls(**{**data, "phase": Phase(data["phase"])}) if data else None
        except (TypeError, ValueError, KeyError):
            return None

    def state(self, now: float) -> State:
        """The state of the process, from this heartbeat read at ``now`` (epoch seconds)."""
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
        # Waiting for the database may take any time.
        waiting = self.phase is Phase.WAITING_FOR_DATABASE
        return waiting or self.loop_seconds <= self.stuck_after


class Heartbeat:
    """Writes a :class:`Beat` every second until it is stopped.

    ``enter`` and ``step`` are called by the main loop and only set attributes; so may be
    ``stuck_after``, the seconds after which a loop that has not moved is stuck.  ``notify`` sends a
    message of sd_notify(3) to the manager.  ``beside`` is called by the thread after each beat.
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
        """Write the first beat, then continue in a thread."""
        self._began = self._monotonic()
        self._write()
        self._thread.start()

    def enter(self, phase: Phase) -> None:
        """The main loop begins something else; the same phase again only counts a step."""
        if phase is not self._phase[0]:
            self._phase = (phase, self._clock(), self._monotonic())
            if not self._ready:
                self._wake.set()  # the manager waits for the notification
        self.step()

    def step(self) -> None:
        """The main loop moved."""
        self._step = (self._step[0] + 1, self._monotonic())

    def stop(self) -> None:
        """End the thread and write a last beat that says so."""
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
        self._notify_manager(beat)
        try:
            write_atomic(self._path, json.dumps(asdict(beat)) + "\n")
        except OSError:
            # A full disk must not end the heartbeat: readers see the file's age, and the main loop
            # meets the same error and reports it.
            return

    def _notify_manager(self, beat: Beat) -> None:
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
    """What may be wrong besides the database; the values are those of the status file."""

    #: The drop directory cannot be used.
    DATA_IN = "data_in"
    #: Packets fail to be stored though the database can be used.
    STORING = "storing"
    #: A changed configuration cannot be used; the previous one stays in force.
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
    #: Why the database could not be used at the last try, or None if it could.
    database_error: str | None = None
    #: Since when it could not be used, or None.
    database_down_since: float | None = None
    #: What else is wrong, by :class:`Trouble`: ``error`` and ``since``.
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
        """The status in ``path``, or None if there is none or another version's.

        Raises OSError if it may not be read.
        """
        data = _read(path)
        known = {each.name for each in fields(cls)}
        try:
            _must_be_numbers(data, "started", "written", "packets_per_second", "values_per_second")
            # Fields of a newer version are ignored.
            return cls(**{key: data[key] for key in data if key in known}) if data else None
        except (TypeError, ValueError):
            return None

    def trouble(self, what: Trouble) -> str | None:
        """The reason of this trouble, or None if all is well with it."""
        found = self.troubles.get(what)
        return str(found.get("error")) if isinstance(found, dict) else None

    def write(self, path: Path) -> None:
        """Replace ``path`` with this status.  Raises OSError."""
        write_atomic(path, json.dumps(asdict(self), indent=1) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``: readers see either the old or the new content, whole.

    Not synced to disk: after a power cut the old heartbeat is of no use.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def process_start(pid: int) -> int | None:
    """When the process ``pid`` started (clock ticks since boot), or None if it is not running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the command's name in parentheses and may hold anything.
    rest = stat.rpartition(")")[2].split()
    state, start = rest[0], rest[19]
    return None if state == "Z" else int(start)


def uptime() -> float | None:
    """Seconds since the machine's boot, sleep included, or None if unknown.

    Read from the same file as a shell would, not from CLOCK_BOOTTIME: a container may have a
    /proc/uptime of its own (lxcfs).
    """
    try:
        return float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _must_be_numbers(data: Mapping[str, object] | None, *keys: str) -> None:
    """Raise ValueError if one of these values is present but is not a plausible number."""
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

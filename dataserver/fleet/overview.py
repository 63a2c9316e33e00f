"""The state of each instance, from files and its manager, without asking it or the database.

The sources are its folder (enabled? valid settings?), its manager, its lock, its heartbeat and
its status file: each may be missing, old or unreadable without hiding the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from dataserver.config.load import load
from dataserver.errors import DataserverError
from dataserver.fleet.model import Instance, Managed, RunState
from dataserver.fleet.ownership import configured
from dataserver.rules.moments import duration_text
from dataserver.runtime.heartbeat import Beat, Phase, State, Status, Trouble
from dataserver.spool.lock import holder
from dataserver.spool.queue import BOUND, Queue, count_queue

_T = TypeVar("_T")


class Condition(StrEnum):
    """The state of an instance, in the words of ``dataserver instances list``."""

    RUNNING = "running"
    STARTING = "starting"
    WAITING_FOR_DATABASE = "waiting for database"
    #: Its process exists and makes no progress.
    STUCK = "stuck"
    STOPPING = "stopping"
    #: It ended by itself and will be restarted after a pause.
    WAITING_TO_RESTART = "waiting to restart"
    #: It ended too often, or cannot start; it is not restarted.
    FAILED = "failed"
    #: It is enabled, and no manager has started it.
    STOPPED = "stopped"
    DISABLED = "disabled"
    #: Its configuration is invalid.
    BROKEN = "broken"
    #: Its process died, and nothing will restart it.
    DEAD = "dead"
    #: This user may not read its files.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """One instance.  Times are epoch seconds; None means unknown or absent."""

    name: str
    state: Condition
    #: Why it is in this state, or what else is wrong, in one line.
    detail: str | None
    enabled: bool
    #: Whether its process was started by the manager, or None without a process.
    supervised: bool | None
    pid: int | None
    since: float | None
    #: Packets in the drop directory, complete or not.
    queue: int | None
    #: Whether there are more than were counted.
    queue_more: bool
    #: The time of the oldest of them.
    oldest: float | None
    #: The number of packets that are held until their agent's backlog has settled, and until when.
    held: int | None
    held_until: float | None
    packets_per_second: float | None
    restarts: int | None
    data_in: str | None
    #: The phase of its main loop.
    phase: str | None
    database_error: str | None

    @property
    def runs(self) -> bool:
        """Whether it processes packets, or only waits for the database."""
        return self.state in (Condition.RUNNING, Condition.WAITING_FOR_DATABASE)


def overview(
    instances: Iterable[Instance],
    managed: Mapping[str, Managed],
    now: float,
    environment: Mapping[str, str],
) -> list[Row]:
    """A row for each instance; ``managed`` is what the manager knows about them.

    ``now`` is epoch seconds, ``environment`` may contain settings.  Problems of an instance never
    raise an error.
    """
    return [
        _row(_Known(instance, managed.get(instance.name), environment), now)
        for instance in instances
    ]


class _Known:
    """All that is known about one instance."""

    def __init__(
        self, instance: Instance, managed: Managed | None, environment: Mapping[str, str]
    ) -> None:
        self.instance = instance
        self.managed = managed
        #: Why a source could not be read.
        self.hidden: str | None = None
        self.holder = self._look(lambda paths: holder(paths.var))
        self.beat = self._look(lambda paths: Beat.read(paths.heartbeat))
        self.status = self._look(lambda paths: Status.read(paths.status))
        self.broken: str | None = None
        self.data_in = configured(instance.paths)
        try:
            self.data_in = load(instance.paths, environment).data_in
        except (DataserverError, OSError) as exc:
            self.broken = str(exc)

    def _look(self, look: Callable[..., _T | None]) -> _T | None:
        try:
            return look(self.instance.paths)
        except OSError as exc:
            self.hidden = f"{exc.filename}: {exc.strerror}"
            return None

    @property
    def pid(self) -> int | None:
        """Its process."""
        if self.holder:
            return self.holder
        # 0: a process whose pid is not in the lock.
        if self.managed is not None and self.managed.pid is not None:
            return self.managed.pid
        return self.beat.pid if self.holder == 0 and self.beat else None

    @property
    def supervised(self) -> bool | None:
        """As :attr:`Row.supervised`."""
        if self.pid is None:
            return None
        return self.managed is not None and self.managed.pid == self.pid


def _row(known: _Known, now: float) -> Row:
    condition, detail = _condition(known, now)
    pid, managed = known.pid, known.managed
    beat = known.beat if known.beat and known.beat.pid == pid else None
    status = known.status if known.status and known.status.pid == pid else None
    runs = condition is Condition.RUNNING and status is not None
    queue = _queue_reported(status) if runs and status else _queue_counted(known)
    held, held_until = _held(status) if runs and status else (None, None)
    if held and held_until:
        left = duration_text(held_until - now)
        text = f"{held} of the queue held for {left}, until their agent's backlog has settled"
        detail = f"{detail}; {text}" if detail else text
    return Row(
        name=known.instance.name,
        state=condition,
        detail=detail,
        enabled=known.instance.enabled,
        supervised=known.supervised,
        pid=pid,
        since=_since(known, status),
        queue=queue.files if queue else None,
        queue_more=queue.more if queue else False,
        oldest=queue.oldest if queue else None,
        held=held,
        held_until=held_until,
        packets_per_second=status.packets_per_second if status else None,
        restarts=managed.restarts if managed else None,
        data_in=status.data_in if status else str(known.data_in),
        phase=beat.phase if beat else None,
        database_error=status.database_error if status else None,
    )


def _condition(known: _Known, now: float) -> tuple[Condition, str | None]:
    if known.holder is not None:
        return _of_process(known, now)
    if known.managed is not None and known.managed.state in _MANAGED:
        condition = _MANAGED[known.managed.state]
        if condition is Condition.FAILED and known.broken:
            return Condition.BROKEN, known.broken
        return condition, known.managed.detail
    if known.broken:
        return Condition.BROKEN, known.broken
    if known.hidden:
        return Condition.UNKNOWN, known.hidden
    if not known.instance.enabled:
        return Condition.DISABLED, None
    beat = known.beat.state(now) if known.beat else State.STOPPED
    # Without its lock it does not run, whatever its heartbeat says, except for the moment in
    # which it reloads its configuration.
    return {
        State.RUNNING: (Condition.STARTING, None),
        State.STUCK: (Condition.STUCK, None),
        State.DEAD: (Condition.DEAD, "its process died and nothing will restart it"),
        State.STOPPED: (Condition.STOPPED, known.managed.detail if known.managed else None),
    }[beat]


def _of_process(known: _Known, now: float) -> tuple[Condition, str | None]:
    """The condition of an instance whose lock is held."""
    beat = known.beat if known.beat and known.beat.pid == known.pid else None
    # Its next start would fail.
    detail = known.broken or known.hidden
    if known.managed is not None and known.managed.state is RunState.STOPPING:
        return Condition.STOPPING, detail
    if beat is None or beat.phase in (Phase.STARTING, Phase.STOPPED):
        return Condition.STARTING, detail
    if beat.phase is Phase.STOPPING:
        return Condition.STOPPING, detail
    if beat.state(now) is not State.RUNNING:
        return Condition.STUCK, "its process exists but makes no progress"
    if beat.phase is Phase.WAITING_FOR_DATABASE:
        error = known.status.database_error if known.status else None
        return Condition.WAITING_FOR_DATABASE, error or detail
    return Condition.RUNNING, detail or _troubles(known)


def _troubles(known: _Known) -> str | None:
    """The troubles that a running instance reports."""
    status = known.status if known.status and known.status.pid == known.pid else None
    if status is None:
        return None
    found = ((what, status.trouble(what)) for what in Trouble)
    return "; ".join(f"{what}: {text}" for what, text in found if text) or None


#: States that the manager reports of an instance whose lock is free; the others mean nothing then.
_MANAGED: Mapping[RunState, Condition] = {
    RunState.STARTING: Condition.STARTING,
    RunState.RUNNING: Condition.RUNNING,
    RunState.STOPPING: Condition.STOPPING,
    RunState.WAITING: Condition.WAITING_TO_RESTART,
    RunState.HELD: Condition.WAITING_TO_RESTART,
    RunState.FAILED: Condition.FAILED,
}


def _since(known: _Known, status: Status | None) -> float | None:
    """Since when its process runs; without a process, since when it is in its state."""
    if status is not None:
        return status.started
    if known.managed is not None:
        return known.managed.since
    return known.beat.time if known.beat else None


def _queue_reported(status: Status) -> Queue | None:
    """The queue as the instance itself counted it."""
    try:
        files = int(status.gauges["queue"])
        oldest = status.written - float(status.gauges["oldest_age_seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    return Queue(files, oldest if files else None)


def _held(status: Status) -> tuple[int | None, float | None]:
    """The number of held files, and until when; None from an older version."""
    try:
        held = int(status.gauges["held"])
        until = float(status.gauges["held_until_time_seconds"])
    except (KeyError, TypeError, ValueError):
        return None, None
    return held, until if held else None


def _queue_counted(known: _Known) -> Queue | None:
    """The queue counted now, if the instance does not count it itself."""
    with suppress(OSError):
        return count_queue(known.data_in, BOUND)
    return None

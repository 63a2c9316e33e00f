"""When each instance is started, stopped, killed and given up: messages in, processes out.

The supervisor does no I/O of its own: the clock and the creation of processes are passed in, and
everything that happens comes as a message, so that a history of events can be replayed.  What each
stage does on each event is in one table, :data:`TABLE`; other events are ignored in that stage.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from dataserver.errors import ConfigError, LockedError, UsageError
from dataserver.fleet.model import Instance, Managed, RunState

log = logging.getLogger(__name__)
#: Seconds within which a process has to send its first notification, also on a loaded machine.
START_LIMIT = 90.0
#: How many start at a time: a hundred at once would starve each other.
STARTS = 8
#: Seconds until an instance that waits for its turn to start is tried again.
TURN = 0.25
#: Seconds without a notification after which a process is stuck (it sends one each second).
SILENCE_LIMIT = 30.0
#: Seconds from SIGTERM to SIGKILL: more than the default of ``database_timeout``.
STOP_LIMIT = 45.0
#: Seconds before a restart: after the first failure, and at most.
PAUSE = (1.0, 60.0)
#: Failures in a row after which an instance is given up.
FAILURES = 10
#: Seconds of readiness after which the count of failures starts again from zero.
HEALTHY = 60.0
#: A process that ended by itself with exit code 0 within this time (seconds) has failed too.
BRIEF = 5.0
#: A gap between two ticks (seconds) that means that this process itself was stopped.
OVERSLEPT = 5.0
#: Exit codes after which only a change of the configuration can help.
_PERMANENT = frozenset({UsageError.exit_code, ConfigError.exit_code})


# -- what the supervisor starts, and the messages that it gets --


class Process(Protocol):
    """One process of an instance."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""


class Spawn(Protocol):
    """Starts processes."""

    def __call__(self, instance: Instance) -> Process:
        """Start a process, whose notifications and end come as messages; OSError."""


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """The complete list of instances."""

    instances: Sequence[Instance]


@dataclass(frozen=True, slots=True)
class Notified:
    """A process notified that it is alive; ``ready``: for the first time."""

    name: str
    pid: int
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A process ended with ``code``, or by signal ``-code``; ``last`` is its last line."""

    name: str
    pid: int
    code: int
    last: str = ""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop all instances; the second one kills them."""


Message = InstancesListed | Notified | Ended | Shutdown


# -- the supervisor --


class Stage(Enum):
    """The stage of an instance."""

    IDLE = auto()
    STARTING = auto()
    RUNNING = auto()
    #: SIGTERM was sent, since it is no longer wanted.
    STOPPING = auto()
    #: SIGKILL was sent, since it was stuck.
    KILLED = auto()
    #: It will be restarted after a pause.
    PAUSING = auto()
    #: Another process holds its lock.
    HELD = auto()
    FAILED = auto()


class Event(Enum):
    """What may happen to an instance."""

    WANTED = auto()
    UNWANTED = auto()
    CHANGED = auto()
    READY = auto()
    #: A time limit or a pause is over.
    DUE = auto()


_SHOWN: Mapping[Stage, RunState] = {
    Stage.IDLE: RunState.STOPPED,
    Stage.STARTING: RunState.STARTING,
    Stage.RUNNING: RunState.RUNNING,
    Stage.STOPPING: RunState.STOPPING,
    Stage.KILLED: RunState.STOPPING,
    Stage.PAUSING: RunState.WAITING,
    Stage.HELD: RunState.HELD,
    Stage.FAILED: RunState.FAILED,
}


@dataclass(slots=True)
class _Child:
    """The state of one instance.  Times are monotonic seconds, except ``since`` (epoch)."""

    instance: Instance
    since: float
    wanted: bool = False
    stage: Stage = Stage.IDLE
    process: Process | None = None
    #: When DUE comes, or None for never.
    due: float | None = None
    #: When its process became ready, or None if it is not ready.
    ready: float | None = None
    #: The fingerprint of the configuration that its process has read.
    known: str = ""
    #: Whether its configuration changed, or a start was requested, since its process started.
    asked: bool = False
    failures: int = 0
    #: How often in a row its lock, or that of its drop directory, was held: not a failure.
    holds: int = 0
    starts: int = 0
    detail: str | None = None

    @property
    def name(self) -> str:
        return self.instance.name


class Supervisor:
    """Keeps one process for each enabled instance.

    ``holder(instance)`` is the pid that holds its lock, or None; ``clock`` gives epoch seconds,
    ``monotonic`` monotonic seconds.
    """

    def __init__(
        self,
        spawn: Spawn,
        holder: Callable[[Instance], int | None],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._spawn = spawn
        self._holder = holder
        self._clock = clock
        self._monotonic = monotonic
        self._children: dict[str, _Child] = {}
        self._shutting_down = False
        self._looked = monotonic()

    @property
    def finished(self) -> bool:
        """Whether all processes have ended after a shutdown."""
        return self._shutting_down and not any(c.process for c in self._children.values())

    def snapshot(self) -> dict[str, Managed]:
        """The states of all instances, by name."""
        return {name: _managed(child) for name, child in sorted(self._children.items())}

    def due(self) -> float | None:
        """When the next event is due (monotonic), or None."""
        return min((c.due for c in self._children.values() if c.due is not None), default=None)

    def tick(self) -> None:
        """Handle what is due; to be called after all pending messages were passed in."""
        now = self._monotonic()
        gap, self._looked = now - self._looked, now
        for child in self._children.values():
            if child.due is None:
                continue
            if gap > OVERSLEPT:
                # This process was stopped: notifications of that time may not have arrived yet.
                child.due += gap
            if child.due <= now:
                self._handle(child, Event.DUE)

    def react(self, message: Message) -> None:
        """Handle a message."""
        match message:
            case InstancesListed(instances):
                self._list({instance.name: instance for instance in instances})
            case Notified(name, pid, ready):
                self._notified(self._child_for(name, pid), ready)
            case Ended(name, pid):
                self._ended(self._child_for(name, pid), message)
            case Shutdown():
                self._shut_down()

    # -- messages ------------------------------------------------------------------

    def _list(self, listed: Mapping[str, Instance]) -> None:
        if self._shutting_down:
            return
        for name in sorted(self._children.keys() - listed.keys()):
            child = self._children[name]
            self._want(child, False)
            if child.process is None:
                del self._children[name]
        for name, instance in sorted(listed.items()):
            child = self._children.setdefault(name, _Child(instance, self._clock()))
            changed = child.instance.fingerprint != instance.fingerprint
            child.instance = instance
            self._want(child, instance.enabled)
            if changed:
                child.asked = True
                self._handle(child, Event.CHANGED)

    def _want(self, child: _Child, wanted: bool) -> None:
        if child.wanted is not wanted:
            child.wanted = wanted
            self._handle(child, Event.WANTED if wanted else Event.UNWANTED)

    def _notified(self, child: _Child | None, ready: bool) -> None:
        if child is None:
            return
        if ready:
            self._handle(child, Event.READY)
        if child.stage in (Stage.STARTING, Stage.RUNNING):
            child.due = self._monotonic() + SILENCE_LIMIT

    def _shut_down(self) -> None:
        again, self._shutting_down = self._shutting_down, True
        for _, child in sorted(self._children.items()):
            self._want(child, False)
            if again and child.process is not None:
                child.process.send(signal.SIGKILL)

    def _ended(self, child: _Child | None, message: Ended) -> None:
        if child is None:
            return
        stage, ready = child.stage, child.ready
        child.process = child.ready = child.due = None
        if not child.wanted or stage is Stage.STOPPING:
            log.info("%s stopped", child.name)
            self._go_idle(child)
            if child.wanted:  # again, while it was stopping
                self._start(child)
            return
        ran = 0.0 if ready is None else self._monotonic() - ready
        if ran >= HEALTHY:
            child.failures = 0
        why = "was stuck, and killed" if stage is Stage.KILLED else _why(message)
        if child.asked:
            # It failed or was stopped with its old configuration: start with a clean record.
            log.info("%s %s; it has been changed or restarted", child.name, why)
            self._restart_fresh(child)
        elif message.code == LockedError.exit_code:
            self._fail(child, why, Stage.HELD)
        elif message.code in _PERMANENT:
            self._give_up(child, why)
        elif message.code == 0 and ran >= BRIEF:
            log.info("%s ended normally, but not by request of this supervisor", child.name)
            self._start(child)
        else:
            self._fail(child, why, Stage.PAUSING)

    def _fail(self, child: _Child, why: str, stage: Stage) -> None:
        """Try again after a pause, or give up after too many failures."""
        if stage is Stage.HELD:
            child.holds += 1
        else:
            child.failures += 1
            child.holds = 0
        if child.failures >= FAILURES:
            self._give_up(child, f"{why}, {child.failures} times in a row")
            return
        tries = child.holds or child.failures
        pause = min(PAUSE[0] * 2.0 ** min(tries - 1, 16), PAUSE[1])
        self._enter(child, stage, why, pause)
        log.warning("%s %s; next try in %g s", child.name, why, pause)

    def _give_up(self, child: _Child, why: str) -> None:
        self._enter(child, Stage.FAILED, why)
        log.error(
            "giving up %s: it %s; it is started again when its configuration changes, or with "
            "`dataserver instances start %s`",
            child.name,
            why,
            child.name,
        )

    # -- actions of TABLE ------------------------------------------------------------

    def _start(self, child: _Child) -> None:
        """Start its process, unless another process holds its lock."""
        child.known, child.asked = child.instance.fingerprint, False
        holder = self._holder(child.instance)
        if holder is not None:
            if child.stage is not Stage.HELD:
                log.warning("%s is run by process %d; waiting for its end", child.name, holder)
            why = f"is run by process {holder}, not by this supervisor"
            self._enter(child, Stage.HELD, why, PAUSE[0])
            return
        if sum(each.stage is Stage.STARTING for each in self._children.values()) >= STARTS:
            self._enter(child, Stage.PAUSING, "waits until others have started", TURN)
            return
        try:
            child.process = self._spawn(child.instance)
        except OSError as error:
            self._fail(child, f"cannot be started: {error.strerror or error}", Stage.PAUSING)
            return
        child.starts += 1
        self._enter(child, Stage.STARTING, None, START_LIMIT)
        log.info("%s started as process %d", child.name, child.process.pid)

    def _restart_fresh(self, child: _Child) -> None:
        """Start it after a change of its configuration or on request, with no failures counted."""
        child.failures = child.holds = 0
        self._start(child)

    def _run(self, child: _Child) -> None:
        child.ready, child.holds = self._monotonic(), 0
        self._enter(child, Stage.RUNNING, None, SILENCE_LIMIT)
        if child.known != child.instance.fingerprint:
            self._reread(child)

    def _reread(self, child: _Child) -> None:
        child.known = child.instance.fingerprint
        self._send(child, signal.SIGHUP)

    def _stop(self, child: _Child) -> None:
        self._enter(child, Stage.STOPPING, None, STOP_LIMIT)
        self._send(child, signal.SIGTERM)

    def _stop_now(self, child: _Child) -> None:
        log.warning("%s does not stop; it is killed, which loses no packets", child.name)
        child.due = None
        self._send(child, signal.SIGKILL)

    def _kill(self, child: _Child) -> None:
        log.error("%s is stuck: no notification for too long; it is killed", child.name)
        self._enter(child, Stage.KILLED, "stuck, and killed")
        self._send(child, signal.SIGKILL)

    def _go_idle(self, child: _Child) -> None:
        child.failures = child.holds = 0
        self._enter(child, Stage.IDLE)

    # -- the machinery -------------------------------------------------------------

    def _child_for(self, name: str, pid: int) -> _Child | None:
        """The child whose current process this is, or None for an earlier process."""
        child = self._children.get(name)
        if child is None or child.process is None or child.process.pid != pid:
            return None
        return child

    def _handle(self, child: _Child, event: Event) -> None:
        act = TABLE.get((child.stage, event))
        if act is not None:
            act(self, child)

    def _enter(
        self, child: _Child, stage: Stage, detail: str | None = None, due_in: float | None = None
    ) -> None:
        child.stage, child.since, child.detail = stage, self._clock(), detail
        child.due = None if due_in is None else self._monotonic() + due_in

    def _send(self, child: _Child, number: signal.Signals) -> None:
        if child.process is not None:
            child.process.send(number)

    #: The action of each stage on each event; the end of a process is handled by ``_ended``.
    TABLE: Mapping[tuple[Stage, Event], Callable[[Supervisor, _Child], None]] = {
        (Stage.IDLE, Event.WANTED): _start,
        (Stage.STARTING, Event.READY): _run,
        (Stage.STARTING, Event.UNWANTED): _stop,
        (Stage.STARTING, Event.DUE): _kill,
        (Stage.RUNNING, Event.CHANGED): _reread,
        (Stage.RUNNING, Event.UNWANTED): _stop,
        (Stage.RUNNING, Event.DUE): _kill,
        (Stage.STOPPING, Event.DUE): _stop_now,
        (Stage.PAUSING, Event.DUE): _start,
        (Stage.PAUSING, Event.CHANGED): _restart_fresh,
        (Stage.PAUSING, Event.UNWANTED): _go_idle,
        (Stage.HELD, Event.DUE): _start,
        (Stage.HELD, Event.CHANGED): _restart_fresh,
        (Stage.HELD, Event.UNWANTED): _go_idle,
        (Stage.FAILED, Event.CHANGED): _restart_fresh,
        (Stage.FAILED, Event.UNWANTED): _go_idle,
    }


TABLE = Supervisor.TABLE


def _managed(child: _Child) -> Managed:
    return Managed(
        state=_SHOWN[child.stage],
        pid=child.process.pid if child.process else None,
        since=child.since,
        restarts=max(child.starts - 1, 0),
        detail=child.detail,
    )


def _why(message: Ended) -> str:
    if message.code >= 0:
        how = f"ended with exit code {message.code}"
    else:
        try:
            how = f"was ended by {signal.Signals(-message.code).name}"
        except ValueError:
            how = f"was ended by signal {-message.code}"
    return f"{how} ({message.last})" if message.last else how

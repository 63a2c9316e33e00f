"""Which instance is started, stopped, killed and given up when: messages in, processes out.

Pure but for the processes: time and their creation are passed in, and whatever happens comes as
a message, so that a history of events can be replayed.  What each stage makes of each event is
in one table, :data:`TABLE`; an event that is not there for a stage means nothing to it.
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

# -- what the supervisor is told, and what it starts: messages in, processes out


class Process(Protocol):
    """One process of an instance."""

    @property
    def pid(self) -> int:
        """Its number."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it has ended."""


class Spawn(Protocol):
    """Starts processes."""

    def __call__(self, instance: Instance) -> Process:
        """Start one; OSError where that cannot be.  All that it says comes as messages."""


@dataclass(frozen=True, slots=True)
class InstancesListed:
    """All instances that there are."""

    instances: Sequence[Instance]


@dataclass(frozen=True, slots=True)
class Notified:
    """A process said that it is well; ``ready``: for the first time."""

    name: str
    pid: int
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """A process ended: with ``code``, or by signal ``-code``; ``last`` is its last word."""

    name: str
    pid: int
    code: int
    last: str = ""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop everything; said again: at once."""


Message = InstancesListed | Notified | Ended | Shutdown


# -- supervisor --

log = logging.getLogger(__name__)

#: Seconds within which a process has to say its first word; starting takes a loaded machine long.
START_LIMIT = 90.0
#: So many start at a time, the others after them: a hundred at once would starve each other.
STARTS = 8
#: Seconds until one that has to wait for its turn asks again.
TURN = 0.25
#: Seconds without a word after which a process is stuck (it says one each second).
SILENCE_LIMIT = 30.0
#: Seconds from SIGTERM to SIGKILL: more than the default of ``database_timeout``.
STOP_LIMIT = 45.0
#: Seconds before it is started again: after the first failure, and at most.
PAUSE = (1.0, 60.0)
#: So many failures in a row, and it is given up.
FAILURES = 10
#: A process that was ready for so long (seconds) had not failed to start: counting begins anew.
HEALTHY = 60.0
#: One that left in good order, unasked, sooner than this (seconds) failed all the same.
BRIEF = 5.0
#: A gap between two looks at the clock (seconds) in which we must have been stopped ourselves.
OVERSLEPT = 5.0
#: Exit codes that trying again cannot change: only a change of the configuration can.
_HOPELESS = frozenset({UsageError.exit_code, ConfigError.exit_code})


class Stage(Enum):
    """Where an instance stands."""

    IDLE = auto()
    STARTING = auto()
    RUNNING = auto()
    #: SIGTERM was sent, since it is not wanted any more.
    STOPPING = auto()
    #: SIGKILL was sent, since it was stuck.
    KILLED = auto()
    #: It is started again after a pause.
    PAUSING = auto()
    #: Another process has its lock.
    HELD = auto()
    FAILED = auto()


class Event(Enum):
    """What may happen to an instance."""

    WANTED = auto()
    UNWANTED = auto()
    CHANGED = auto()
    READY = auto()
    #: What was waited for did not come in time, or a pause is over.
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
    """What is known of one instance.  Times are monotonic seconds, but ``since`` (epoch)."""

    instance: Instance
    since: float
    wanted: bool = False
    stage: Stage = Stage.IDLE
    process: Process | None = None
    #: When DUE comes; None: never.
    due: float | None = None
    #: When its process became ready; None: it is not.
    ready: float | None = None
    #: The fingerprint of what its process has read.
    known: str = ""
    #: Its configuration changed, or somebody asked for it, since its process was started.
    asked: bool = False
    failures: int = 0
    #: So often in a row it found its lock, or that of its drop directory, taken: no failure.
    holds: int = 0
    starts: int = 0
    detail: str | None = None

    @property
    def name(self) -> str:
        return self.instance.name


class Supervisor:
    """Keeps one process for each enabled instance.

    ``holder(instance)`` is the process that has its lock (None: nobody), ``clock`` gives epoch
    seconds, ``monotonic`` seconds that nobody sets.
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
        self._leaving = False
        self._looked = monotonic()

    @property
    def finished(self) -> bool:
        """Whether everything has ended, as it was told to."""
        return self._leaving and not any(c.process for c in self._children.values())

    def snapshot(self) -> dict[str, Managed]:
        """How things stand, by name."""
        return {name: _managed(child) for name, child in sorted(self._children.items())}

    def due(self) -> float | None:
        """When something is due (monotonic); None: nothing is."""
        return min((c.due for c in self._children.values() if c.due is not None), default=None)

    def tick(self) -> None:
        """Time has passed; to be called when all that was said meanwhile has been told."""
        now = self._monotonic()
        gap, self._looked = now - self._looked, now
        for child in self._children.values():
            if child.due is None:
                continue
            if gap > OVERSLEPT:
                # We were stopped ourselves: what they said meanwhile may not all be here yet.
                child.due += gap
            if child.due <= now:
                self._happen(child, Event.DUE)

    def react(self, message: Message) -> None:
        """Do what a message asks for."""
        match message:
            case InstancesListed(instances):
                self._list({instance.name: instance for instance in instances})
            case Notified(name, pid, ready):
                self._told(self._of(name, pid), ready)
            case Ended(name, pid):
                self._ended(self._of(name, pid), message)
            case Shutdown():
                self._leave()

    # -- messages ------------------------------------------------------------------

    def _list(self, listed: Mapping[str, Instance]) -> None:
        if self._leaving:
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
                self._happen(child, Event.CHANGED)

    def _want(self, child: _Child, wanted: bool) -> None:
        if child.wanted is not wanted:
            child.wanted = wanted
            self._happen(child, Event.WANTED if wanted else Event.UNWANTED)

    def _told(self, child: _Child | None, ready: bool) -> None:
        if child is None:
            return
        if ready:
            self._happen(child, Event.READY)
        if child.stage in (Stage.STARTING, Stage.RUNNING):
            child.due = self._monotonic() + SILENCE_LIMIT

    def _leave(self) -> None:
        again, self._leaving = self._leaving, True
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
            self._rest(child)
            if child.wanted:  # again, while it was leaving
                self._start(child)
            return
        ran = 0.0 if ready is None else self._monotonic() - ready
        if ran >= HEALTHY:
            child.failures = 0
        why = "was stuck, and killed" if stage is Stage.KILLED else _why(message)
        if child.asked:
            # As it was, it failed, or somebody told it to leave: as it is now, it did neither.
            log.info("%s %s; it has been changed or restarted", child.name, why)
            self._anew(child)
        elif message.code == LockedError.exit_code:
            self._fail(child, why, Stage.HELD)
        elif message.code in _HOPELESS:
            self._give_up(child, why)
        elif message.code == 0 and ran >= BRIEF:
            log.info(
                "%s left in good order without having been told by this supervisor", child.name
            )
            self._start(child)
        else:
            self._fail(child, why, Stage.PAUSING)

    def _fail(self, child: _Child, why: str, stage: Stage) -> None:
        """It is not as it should be: try again after a pause, or give up."""
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
            "%s is given up: it %s; tried again when its configuration changes, or with "
            "`dataserver instances start %s`",
            child.name,
            why,
            child.name,
        )

    # -- what is done, by TABLE ------------------------------------------------------

    def _start(self, child: _Child) -> None:
        """Start its process, unless another one has its lock."""
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

    def _anew(self, child: _Child) -> None:
        """Its configuration changed, or somebody asks for it: forget what was before."""
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
        log.warning("%s does not leave; it is killed, which loses nothing", child.name)
        child.due = None
        self._send(child, signal.SIGKILL)

    def _kill(self, child: _Child) -> None:
        log.error("%s is stuck: nothing heard of it for too long; it is killed", child.name)
        self._enter(child, Stage.KILLED, "stuck, and killed")
        self._send(child, signal.SIGKILL)

    def _rest(self, child: _Child) -> None:
        child.failures = child.holds = 0
        self._enter(child, Stage.IDLE)

    # -- the machinery -------------------------------------------------------------

    def _of(self, name: str, pid: int) -> _Child | None:
        """The child whose present process this is; None: a word from one that is gone."""
        child = self._children.get(name)
        if child is None or child.process is None or child.process.pid != pid:
            return None
        return child

    def _happen(self, child: _Child, event: Event) -> None:
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

    #: What each stage makes of each event; what a process's end leads to is in ``_ended``.
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
        (Stage.PAUSING, Event.CHANGED): _anew,
        (Stage.PAUSING, Event.UNWANTED): _rest,
        (Stage.HELD, Event.DUE): _start,
        (Stage.HELD, Event.CHANGED): _anew,
        (Stage.HELD, Event.UNWANTED): _rest,
        (Stage.FAILED, Event.CHANGED): _anew,
        (Stage.FAILED, Event.UNWANTED): _rest,
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

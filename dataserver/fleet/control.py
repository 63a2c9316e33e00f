"""Starting, stopping and restarting instances, and waiting until they have done so."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dataserver.errors import DataserverError, NotRunning
from dataserver.fleet import by_hand
from dataserver.fleet.model import Instance, Manager
from dataserver.fleet.overview import Condition, Row, overview
from dataserver.fleet.registry import Registry, disable, enable
from dataserver.runtime.heartbeat import process_start

#: Seconds between two looks.
_PAUSE = 0.1
#: An instance that has been waiting to restart, or has failed, for so long (seconds) since we
#: asked does not come up: the first pauses of whoever runs it are shorter.
_SETTLED = 2.0

_DOWN = frozenset(
    {
        Condition.STOPPED,
        Condition.DISABLED,
        Condition.BROKEN,
        Condition.DEAD,
        Condition.FAILED,
        Condition.UNKNOWN,
    }
)
_NOT_UP = frozenset({Condition.WAITING_TO_RESTART, Condition.FAILED, Condition.BROKEN})


class Target(Enum):
    """What an instance was asked for."""

    UP = "running"
    DOWN = "stopped"


@dataclass(slots=True)
class Request:
    """One instance on its way to what it was asked for."""

    name: str
    aim: Target
    #: The process that has to end: of a restart, or one that was told by hand.
    before: int | None = None
    #: What it was last seen in, and when (monotonic seconds).
    seen: tuple[object, float] | None = None

    def reached(self, row: Row) -> bool:
        """Whether it has got there."""
        if self.before is not None and process_start(self.before) is not None:
            return False
        if self.aim is Target.UP:
            # The row may have been read before that process ended.
            return row.runs and row.pid != self.before
        return row.state in _DOWN and row.pid is None

    def hopeless(self, row: Row, now: float) -> bool:
        """Whether it will not get there by itself; ``now`` is monotonic seconds."""
        state = (row.state, row.since, row.restarts)
        if self.seen is None or self.seen[0] != state:
            self.seen = state, now
        settled = now - self.seen[1] >= _SETTLED
        return self.aim is Target.UP and row.pid is None and row.state in _NOT_UP and settled


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one; ``row`` is None where it is gone."""

    goal: Request
    row: Row | None
    reached: bool


class Control:
    """The instances of a home and whoever runs them (``manager``; None: nobody does)."""

    def __init__(
        self,
        registry: Registry,
        manager: Manager | None,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.registry = registry
        self.manager = manager
        self._environment = environment
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def rows(self, instances: Sequence[Instance]) -> list[Row]:
        """How they do; DataserverError where whoever runs them does not answer."""
        managed = self.manager.states(instances) if self.manager else {}
        return overview(instances, managed, self._clock(), self._environment)

    def start(self, instance: Instance) -> Request:
        """Have it run.  Raises NotRunning where nobody would start it, other DataserverErrors."""
        if self.manager is not None:
            self.manager.start(instance)
            return Request(instance.name, Target.UP)
        _change(enable, instance)
        [row] = self.rows([instance])
        if row.pid is None:
            raise NotRunning(
                f"{instance.name} is enabled, but nothing runs this home",
                hint="`dataserver up` does",
            )
        return Request(instance.name, Target.UP)

    def stop(self, instance: Instance) -> Request:
        """Have it not run, whoever started it; DataserverError."""
        [row] = self.rows([instance])
        if self.manager is not None:
            self.manager.stop(instance)
        else:
            _change(disable, instance)
        if row.supervised:
            return Request(instance.name, Target.DOWN)
        try:
            told = by_hand.send(instance.paths, signal.SIGTERM)
        except OSError as exc:
            raise DataserverError(
                f"who runs {instance.name} cannot be told: {exc.filename}: {exc.strerror}"
            ) from exc
        return Request(instance.name, Target.DOWN, before=told)

    def restart(self, instance: Instance) -> Request:
        """Have it end in good order and start again; DataserverError."""
        if self.manager is None:
            return self._restart_by_nobody(instance)
        return Request(instance.name, Target.UP, before=self.manager.restart(instance))

    def _restart_by_nobody(self, instance: Instance) -> Request:
        [row] = self.rows([instance])
        if row.pid is None:
            return self.start(instance)
        raise NotRunning(
            f"{instance.name} is run by process {row.pid}, and nobody would start it again",
            hint=f"`dataserver instances stop {instance.name}`, then `dataserver up`",
        )

    def wait(
        self,
        goals: Sequence[Request],
        seconds: float,
        progress: Callable[[Sequence[Request]], None],
    ) -> Iterator[Outcome]:
        """What becomes of each, as it becomes known; all within ``seconds``.

        ``progress`` is told, again and again, who is waited for.
        """
        pending = {goal.name: goal for goal in goals}
        deadline = self._monotonic() + seconds
        while pending:
            instances = [i for i in self._listed() if i.name in pending]
            rows = {row.name: row for row in self.rows(instances)}
            now = self._monotonic()
            for name, goal in list(pending.items()):
                row = rows.get(name)
                reached = row is not None and goal.reached(row)
                lost = row is None or goal.hopeless(row, now) or now >= deadline
                if reached or lost:
                    del pending[name]
                    yield Outcome(goal, row, reached)
            if pending:
                progress(list(pending.values()))
                self._sleep(_PAUSE)

    def _listed(self) -> list[Instance]:
        try:
            return self.registry.instances()
        except OSError as exc:
            raise DataserverError(
                f"cannot list {self.registry.home.instances}: {exc.strerror}"
            ) from exc


def _change(change: Callable[..., None], instance: Instance) -> None:
    try:
        change(instance.paths)
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} cannot be changed: {exc.filename}: {exc.strerror}",
            hint=f"{instance.paths.folder} has to be writable for this user",
        ) from exc

"""Starting, stopping and restarting instances, and waiting for the outcome."""

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

#: Seconds between two checks.
_PAUSE = 0.1
#: Seconds after which an instance that is waiting to restart, or has failed, counts as not
#: starting: the first pauses of the supervisor and systemd are shorter.
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
    """The requested state of an instance."""

    UP = "running"
    DOWN = "stopped"


@dataclass(slots=True)
class Request:
    """An instance on its way to the requested state."""

    name: str
    target: Target
    #: The process that has to end: before a restart, or one that was signalled directly.
    before: int | None = None
    #: The state in which it was last seen, and since when (monotonic seconds).
    seen: tuple[object, float] | None = None

    def reached(self, row: Row) -> bool:
        """Whether the instance has reached the requested state."""
        if self.before is not None and process_start(self.before) is not None:
            return False
        if self.target is Target.UP:
            # The row may have been read before that process ended.
            return row.runs and row.pid != self.before
        return row.state in _DOWN and row.pid is None

    def cannot_succeed(self, row: Row, now: float) -> bool:
        """Whether it will not reach that state by itself; ``now`` is monotonic seconds."""
        state = (row.state, row.since, row.restarts)
        if self.seen is None or self.seen[0] != state:
            self.seen = state, now
        settled = now - self.seen[1] >= _SETTLED
        return self.target is Target.UP and row.pid is None and row.state in _NOT_UP and settled


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request; ``row`` is None if the instance no longer exists."""

    request: Request
    row: Row | None
    reached: bool


class Control:
    """Control over the instances of a home; ``manager`` is None if none runs the home."""

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
        """The state of each instance; DataserverError if the manager does not answer."""
        managed = self.manager.states(instances) if self.manager else {}
        return overview(instances, managed, self._clock(), self._environment)

    def start(self, instance: Instance) -> Request:
        """Start the instance; NotRunning if no manager would start it, other DataserverErrors."""
        if self.manager is not None:
            self.manager.start(instance)
            return Request(instance.name, Target.UP)
        _change(enable, instance)
        [row] = self.rows([instance])
        if row.pid is None:
            raise NotRunning(
                f"{instance.name} is enabled, but nothing runs this home",
                hint="start it with `dataserver up`",
            )
        return Request(instance.name, Target.UP)

    def stop(self, instance: Instance) -> Request:
        """Stop the instance, however it was started; DataserverError."""
        [row] = self.rows([instance])
        if self.manager is not None:
            self.manager.stop(instance)
        else:
            _change(disable, instance)
        if row.supervised:
            return Request(instance.name, Target.DOWN)
        try:
            signalled = by_hand.send(instance.paths, signal.SIGTERM)
        except OSError as exc:
            raise DataserverError(
                f"cannot find out which process runs {instance.name}: "
                f"{exc.filename}: {exc.strerror}"
            ) from exc
        return Request(instance.name, Target.DOWN, before=signalled)

    def restart(self, instance: Instance) -> Request:
        """Restart the instance gracefully; DataserverError."""
        if self.manager is not None:
            return Request(instance.name, Target.UP, before=self.manager.restart(instance))
        [row] = self.rows([instance])
        if row.pid is None:
            return self.start(instance)
        raise NotRunning(
            f"{instance.name} is run by process {row.pid}, and no manager would restart it",
            hint=f"`dataserver instances stop {instance.name}`, then `dataserver up`",
        )

    def wait(
        self,
        requests: Sequence[Request],
        seconds: float,
        progress: Callable[[Sequence[Request]], None],
    ) -> Iterator[Outcome]:
        """The outcome of each request as it becomes known; all within ``seconds``.

        ``progress`` is called repeatedly with the pending requests.
        """
        pending = {request.name: request for request in requests}
        deadline = self._monotonic() + seconds
        while pending:
            instances = [i for i in self._listed() if i.name in pending]
            rows = {row.name: row for row in self.rows(instances)}
            now = self._monotonic()
            for name, request in list(pending.items()):
                row = rows.get(name)
                reached = row is not None and request.reached(row)
                lost = row is None or request.cannot_succeed(row, now) or now >= deadline
                if reached or lost:
                    del pending[name]
                    yield Outcome(request, row, reached)
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

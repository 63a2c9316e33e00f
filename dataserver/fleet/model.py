"""Instances as records, and the interface of the managers that run them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dataserver.config.paths import Home, Paths
from dataserver.runtime.heartbeat import process_start, write_atomic


class RunState(StrEnum):
    """The state of an instance according to its manager."""

    #: It is not meant to run.
    STOPPED = "stopped"
    #: Its process exists and is not ready yet.
    STARTING = "starting"
    RUNNING = "running"
    #: Its process was asked to end and has not ended yet.
    STOPPING = "stopping"
    #: It ended by itself and will be restarted after a pause.
    WAITING = "waiting"
    #: It ended too often; it is not restarted until it is started by hand or changed.
    FAILED = "failed"
    #: A process that the supervisor did not start holds its lock.
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Instance:
    """One folder below ``instances/``."""

    paths: Paths
    #: It has no marker ``disabled``: it is meant to run.
    enabled: bool
    #: Changes whenever the instance's own settings change, or it is to be started.
    fingerprint: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.paths.name


@dataclass(frozen=True, slots=True)
class Managed:
    """What a manager knows about an instance.  ``since`` is epoch seconds."""

    state: RunState
    pid: int | None = None
    since: float | None = None
    #: How often it was restarted because it had ended or was stuck.
    restarts: int = 0
    #: Why it is not running, in one line, or None.
    detail: str | None = None


class Manager(Protocol):
    """What runs the instances of a home: systemd, or ``dataserver up``.

    Requests return before they take effect; errors are DataserverErrors.
    """

    #: Its name in messages.
    name: str

    def start(self, instance: Instance) -> None:
        """Start the instance, now and after each boot; a failed one is started again."""

    def stop(self, instance: Instance) -> None:
        """Stop the instance until it is started again."""

    def restart(self, instance: Instance) -> int | None:
        """Restart the instance gracefully; start it if it does not run.

        Returns the pid of the process that was asked to end, or None if there was none.
        """

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """The states of the instances by name; unknown instances are missing."""

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """The last ``lines`` of its log without line ends; with ``follow`` new ones, for ever."""


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """The content of ``var/supervisor.json``.  Times are epoch seconds."""

    pid: int
    #: As :func:`dataserver.runtime.heartbeat.process_start`: detects a reused pid.
    process_start: int | None
    started: float
    written: float
    instances: Mapping[str, Managed] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote this still runs."""
        return self.process_start is not None and process_start(self.pid) == self.process_start

    @classmethod
    def read(cls, path: Path) -> SupervisorState | None:
        """The state in ``path``, or None if the file is missing or of another version."""
        try:
            data = json.loads(path.read_text("utf-8"))
            instances = {
                name: Managed(**{**each, "state": RunState(each["state"])})
                for name, each in data.pop("instances").items()
            }
            return cls(**data, instances=instances)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Replace ``path`` with this state; OSError."""
        write_atomic(path, json.dumps(asdict(self), indent=1) + "\n")


def supervisor_file(home: Home) -> Path:
    """The file into which the supervisor writes its state."""
    return home.var / "supervisor.json"


def log_file(paths: Paths) -> Path:
    """The log of an instance that the supervisor runs; the older part has the suffix ``.1``."""
    return paths.var / "log"

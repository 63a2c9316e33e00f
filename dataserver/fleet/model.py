"""What is known of instances: what their folders say, and what runs them."""

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
    """What whoever runs an instance says of it."""

    #: It is meant not to run.
    STOPPED = "stopped"
    #: Its process is there and not ready yet.
    STARTING = "starting"
    RUNNING = "running"
    #: Told to leave, not gone yet.
    STOPPING = "stopping"
    #: It ended by itself and is started again after a pause.
    WAITING = "waiting"
    #: It ended too often; nothing more is tried until it is started by hand or changed.
    FAILED = "failed"
    #: Another process, not one of the supervisor's, has its lock.
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Instance:
    """One folder below ``instances/``."""

    paths: Paths
    #: Without the marker ``disabled``: it is meant to run.
    enabled: bool
    #: Another one whenever the instance's own settings, or the wish to start it, changed.
    fingerprint: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.paths.name


@dataclass(frozen=True, slots=True)
class Managed:
    """What whoever runs an instance knows of it.  ``since`` is epoch seconds."""

    state: RunState
    pid: int | None = None
    since: float | None = None
    #: How often it was started again because it had ended or was stuck.
    restarts: int = 0
    #: Why it is not running, in one line; None where there is nothing to say.
    detail: str | None = None


class Manager(Protocol):
    """Whoever runs the instances of a home: systemd, or ``dataserver up``.

    Requests return when they were made, not when they took effect; errors are
    DataserverErrors.
    """

    #: What to call it.
    name: str

    def start(self, instance: Instance) -> None:
        """Have it run, now and after a restart of the machine; one that failed is tried anew."""

    def stop(self, instance: Instance) -> None:
        """Have it not run, until it is started again."""

    def restart(self, instance: Instance) -> int | None:
        """Have it end in good order and start again; start it where it does not run.

        Returns the process that was told to end; None: there was none.
        """

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """What it knows of them, by name; one that it does not know is missing."""

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """The last ``lines`` of what it said, without line ends; then, what it says, for ever."""


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """What the supervisor last wrote into ``var/supervisor.json``.  Times are epoch seconds."""

    pid: int
    #: As :func:`dataserver.runtime.heartbeat.process_start`: tells a reused pid apart.
    process_start: int | None
    started: float
    written: float
    instances: Mapping[str, Managed] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether the process that wrote this is still there."""
        return self.process_start is not None and process_start(self.pid) == self.process_start

    @classmethod
    def read(cls, path: Path) -> SupervisorState | None:
        """The state in ``path``; None where there is none, or one of another version."""
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
        """Replace ``path`` with this; OSError where it cannot be."""
        write_atomic(path, json.dumps(asdict(self), indent=1) + "\n")


def supervisor_file(home: Home) -> Path:
    """Where the supervisor says how things stand."""
    return home.var / "supervisor.json"


def log_file(paths: Paths) -> Path:
    """Where the supervisor keeps what an instance says; the part before it ends in ``.1``."""
    return paths.var / "log"

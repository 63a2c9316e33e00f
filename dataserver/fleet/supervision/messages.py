"""What the supervisor is told, and what it starts: messages in, processes out."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dataserver.fleet.model import Instance


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
class Listed:
    """All instances that there are."""

    instances: Sequence[Instance]


@dataclass(frozen=True, slots=True)
class Told:
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
class Leave:
    """Stop everything; said again: at once."""


Message = Listed | Told | Ended | Leave

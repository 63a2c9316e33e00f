"""Packets that could not be stored: which of them wait, and when one is rejected.

A packet that fails by itself may be the cause, or only the first to meet a fault of the
database or of this program.  What tells them apart is a packet of another agent that is stored
afterwards: it proves that both work.  So a packet that failed

1.  stays in the drop directory, passed over, and is tried again after growing pauses;
2.  is tried again as soon as a packet of another agent was stored after its first failure;
3.  is rejected only if it fails then.  A failure of this program's own code rejects at most
    :data:`INTERNAL_PER_HOUR` packets an hour: the others wait for it to be repaired.

So no uploader can stop the server, and no fault of ours empties the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from dataserver.model import Arrival

#: Packets that are rejected in an hour because of an internal error.
INTERNAL_PER_HOUR = 20
#: Seconds between two tries of one packet: the first pause, and the longest.
PAUSES = (5.0, 300.0)
_HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one packet could not be stored; ``internal``: by a fault of this program."""

    reason: str
    internal: bool


@dataclass(slots=True)
class _Entry:
    agent: str
    #: How many packets had been stored when it failed first.
    stored: int
    tries: int
    next_try: float
    failure: Failure
    #: It was tried since a packet of another agent was stored.
    tried_again: bool = False


class Failing:
    """The packets that wait, by what identifies their files; times in monotonic seconds."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """``clock`` gives epoch seconds."""
        self._clock = clock
        self._monotonic = monotonic
        self._entries: dict[Hashable, _Entry] = {}
        #: Epoch seconds since which there has been at least one of them.
        self.since: float | None = None
        self._stored = 0
        #: The agent of the packet stored last, and the number of the last one of any other agent.
        self._newest_agent: str | None = None
        self._newest_other = 0
        self._internal: deque[float] = deque()

    def __len__(self) -> int:
        """How many packets wait."""
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        """Whether the packet of this file failed and waits."""
        return key in self._entries

    @property
    def failure(self) -> Failure | None:
        """The failure of the packet that has waited longest."""
        first = next(iter(self._entries.values()), None)
        return first.failure if first else None

    @property
    def any_internal(self) -> bool:
        """Whether a packet waits because of a fault of this program."""
        return any(entry.failure.internal for entry in self._entries.values())

    def stored(self, agents: Iterable[str]) -> None:
        """Packets of these agents were stored, in a transaction that is committed."""
        for agent in agents:
            if agent != self._newest_agent:
                self._newest_agent, self._newest_other = agent, self._stored
            self._stored += 1

    def add(self, key: Hashable, arrival: Arrival, failure: Failure) -> bool:
        """Note that a packet failed by itself; whether it is to be rejected now."""
        agent = name_of(arrival)
        entry = self._entries.get(key)
        if entry is None:
            if not self._entries:
                self.since = self._clock()
            entry = _Entry(agent, self._stored, 0, 0.0, failure)
            self._entries[key] = entry
        elif self._is_proven(entry):
            if self._may_reject(failure):
                self.forget(key)
                return True
            entry.tried_again = True
        pause = min(PAUSES[0] * 2.0 ** min(entry.tries, 16), PAUSES[1])
        entry.tries += 1
        entry.failure = failure
        entry.next_try = self._monotonic() + pause
        return False

    def forget(self, key: Hashable) -> None:
        """The packet was stored, rejected or replaced, or its file is gone."""
        self._entries.pop(key, None)
        if not self._entries:
            self.since = None

    def retain(self, keys: set[Hashable]) -> None:
        """Forget all packets but these."""
        for key in self._entries.keys() - keys:
            self.forget(key)

    def is_due(self, key: Hashable) -> bool:
        """Whether a packet is to be tried now; one that never failed always is."""
        entry = self._entries.get(key)
        if entry is None or self._monotonic() >= entry.next_try:
            return True
        return self.deserves_retry(key)

    def deserves_retry(self, key: Hashable) -> bool:
        """Whether a packet failed before the one that proves it was stored, and not since."""
        entry = self._entries.get(key)
        return entry is not None and not entry.tried_again and self._is_proven(entry)

    def is_proven(self, key: Hashable) -> bool:
        """Whether the packet itself is known to be the cause."""
        entry = self._entries.get(key)
        return entry is not None and self._is_proven(entry)

    def next_due(self) -> float | None:
        """Seconds until one is to be tried again; None where none waits."""
        if not self._entries:
            return None
        now = self._monotonic()
        return max(0.0, min(entry.next_try for entry in self._entries.values()) - now)

    def _is_proven(self, entry: _Entry) -> bool:
        if self._newest_agent is None:
            return False
        newest = self._stored if entry.agent != self._newest_agent else self._newest_other
        return newest > entry.stored

    def _may_reject(self, failure: Failure) -> bool:
        if not failure.internal:
            return True
        now = self._monotonic()
        while self._internal and self._internal[0] <= now - _HOUR:
            self._internal.popleft()
        if len(self._internal) >= INTERNAL_PER_HOUR:
            return False
        self._internal.append(now)
        return True


def name_of(arrival: Arrival) -> str:
    """The agent of a packet, or the server that sent it."""
    return arrival.packet.agent_name or arrival.packet.server_name or ""

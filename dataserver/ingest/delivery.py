"""Getting a batch into the database, whatever the database does.

A conflict is tried again at once, an absent database waited for.  With any other error of the
database, and with an error of our own code, the batch is halved until the packet is found that
fails by itself; all others are stored.  Whether that one waits or is rejected is decided by
:mod:`dataserver.ingest.delivery`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dataserver.errors import (
    PacketError,
    Reason,
    StoreConflict,
    StoreError,
    StoreReplaced,
    StoreUnavailable,
)
from dataserver.model import Arrival
from dataserver.store.admission import Outcome
from dataserver.store.changes import Tally

# -- packets that could not be stored: which of them wait, and when one is rejected
#
# A packet that fails by itself may be the cause, or only the first to meet a fault of the
# database or of this program.  What tells them apart is a packet of another agent that is stored
# afterwards: it proves that both work.  So a packet that failed
#
# 1.  stays in the drop directory, passed over, and is tried again after growing pauses;
# 2.  is tried again as soon as a packet of another agent was stored after its first failure;
# 3.  is rejected only if it fails then.  A failure of this program's own code rejects at most
#     :data:`INTERNAL_PER_HOUR` packets an hour: the others wait for it to be repaired.
#
# So no uploader can stop the server, and no fault of ours empties the queue.

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


# -- delivery --

log = logging.getLogger(__name__)

#: Seconds between tries: the first, and the longest.
CONFLICT_WAIT = (0.01, 1.0)
AWAY_WAIT = (0.25, 5.0)
#: A conflict that persists so many times is waited out like an absent database.
CONFLICTS = 20
#: An error's text may hold a value of any length.
_LONGEST = 300

#: Tracebacks of internal errors that are remembered as logged.
_LOGGED = 100

#: What became of each packet; None: it could not be stored, and stays in the drop directory.
Delivered = list[tuple[Arrival, Outcome | None]]

_T = TypeVar("_T")


class Records(Protocol):
    """What records a batch: the store, or a test's stand-in."""

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        """See :meth:`dataserver.store.recorder.Recorder.record`."""


class Stopped(Exception):
    """The worker was told to stop while it waited; nothing of the batch was taken in."""


class Delivery:
    """Records batches with retries.

    ``pause(seconds)`` waits and returns True when the worker is to stop.  ``trouble(error,
    seconds)`` is called with every failed try and how long after the first one began that was,
    ``well(tally)`` with every success.  ``patient`` False: an absent
    database is an error (``--once``).  ``failing`` keeps the packets that wait; ``key`` gives
    what identifies an arrival's file, None where it has none: such a packet is never kept.
    """

    def __init__(
        self,
        recorder: Records,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], bool],
        trouble: Callable[[StoreError, float], None],
        well: Callable[[Tally], None],
        failing: Failing | None = None,
        key: Callable[[Arrival], Hashable] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        patient: bool = True,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._pause = pause
        self._trouble = trouble
        self._well = well
        self._failing = Failing(clock, monotonic) if failing is None else failing
        self._key = key
        self._monotonic = monotonic
        self._patient = patient
        self._logged: set[str] = set()

    def insist(self, action: Callable[[], _T]) -> _T:
        """What ``action``, a transaction, gives, however often it has to be tried.

        Raises Stopped, StoreRefused, and StoreUnavailable where it is not to wait.
        """
        away = conflicts = 0
        began = self._monotonic()
        while True:
            try:
                return action()
            except StoreConflict as error:
                conflicts += 1
                self._trouble(error, self._monotonic() - began)
                wait = _growing(CONFLICT_WAIT if conflicts < CONFLICTS else AWAY_WAIT, conflicts)
            except StoreUnavailable as error:
                if not self._patient:
                    raise
                away += 1
                self._trouble(error, self._monotonic() - began)
                wait = _growing(AWAY_WAIT, away)
            if self._pause(wait):
                raise Stopped

    def deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        """Record ``arrivals``; what became of each.

        Raises Stopped, and StoreUnavailable where it is not to wait.  What was recorded of a
        halved batch before that is found in the ledger the next time.
        """
        new: Sequence[Arrival] = arrivals
        failed: list[Arrival] = []
        if self._failing:
            failed = [each for each in arrivals if self._key(each) in self._failing]
            new = [each for each in arrivals if self._key(each) not in self._failing]
        delivered = self._deliver(new) if new else []
        # By themselves, and after the others: their batch would only be halved again.
        for arrival in sorted(failed, key=_order):
            delivered += self._deliver([arrival])
        if not self._failing:
            return delivered
        return [each for pair in delivered for each in self._again(*pair)]

    def _again(self, arrival: Arrival, outcome: Outcome | None) -> Delivered:
        """Try once more what failed before a packet was stored that proves it the cause."""
        if outcome is None and self._failing.deserves_retry(self._key(arrival)):
            return self._deliver([arrival])
        return [(arrival, outcome)]

    def _deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        try:
            return self._record(arrivals)
        except (StoreUnavailable, StoreReplaced, Stopped):
            raise
        except StoreError as error:
            self._trouble(error, 0.0)
            return self._halved(arrivals, Failure(error.message[:_LONGEST], internal=False))
        except Exception as error:  # noqa: BLE001 - no input may stop the server
            if len(arrivals) == 1:
                self._log(error)
            why = f"internal error while storing it: {type(error).__name__}: {error}"
            return self._halved(arrivals, Failure(why[:_LONGEST], internal=True))

    def _halved(self, arrivals: Sequence[Arrival], failure: Failure) -> Delivered:
        """Deliver each half of ``arrivals``; a single packet waits, or is rejected."""
        if len(arrivals) > 1:
            # In order of agent and time, so that no agent's packets change places.
            ordered = sorted(arrivals, key=_order)
            middle = len(ordered) // 2
            return self._deliver(ordered[:middle]) + self._deliver(ordered[middle:])
        (arrival,) = arrivals
        key = self._key(arrival)
        if key is None or self._failing.add(key, arrival, failure):
            error = PacketError(Reason.REFUSED, failure.reason)
            return [(arrival, Outcome(error=error))]
        return [(arrival, None)]

    def _log(self, error: Exception) -> None:
        """Log an internal error with its traceback, each one once."""
        text = repr(error)[:_LONGEST]
        if text in self._logged:
            return
        if len(self._logged) >= _LOGGED:
            self._logged.clear()
        self._logged.add(text)
        log.error("internal error while storing a packet: please report it", exc_info=error)

    def _record(self, arrivals: Sequence[Arrival]) -> Delivered:
        outcomes, tally = self.insist(lambda: self._recorder.record(arrivals, int(self._clock())))
        self._well(tally)
        pairs = list(zip(arrivals, outcomes, strict=True))
        # A packet that was known already, or is rejected, proves nothing: no values were written.
        self._failing.stored(
            name_of(arrival)
            for arrival, outcome in pairs
            if not outcome.duplicate and outcome.error is None
        )
        if self._failing:
            for arrival in arrivals:
                self._failing.forget(self._key(arrival))
        return list(pairs)


def _order(arrival: Arrival) -> tuple[str, float, int, bytes]:
    # As the store does it: what has no time only creates, and goes last.
    time = float("inf") if arrival.time is None else arrival.time
    return arrival.packet.agent_name, time, arrival.number, arrival.packet.digest


def _growing(bounds: tuple[float, float], tries: int) -> float:
    first, longest = bounds
    return min(first * 2.0 ** min(tries - 1, 16), longest)

"""Storing a batch, whatever the database does.

A transaction that conflicts is retried at once, and an unavailable database is waited for.  On any
other error of the database, and on an error in our own code, the batch is halved until the packet
that fails on its own is found; all others are stored.

A packet that fails on its own may be the cause, or only the first to meet a fault of the database
or of this program.  What tells them apart is a packet of another agent that is stored afterwards:
it proves that both work.  So a packet that failed (:class:`FailingPackets`)

1.  stays in the drop directory, is skipped, and is retried after growing pauses;
2.  is retried as soon as a packet of another agent was stored after its first failure;
3.  is rejected only if that retry fails.  Failures of our own code reject at most
    :data:`INTERNAL_PER_HOUR` packets an hour: the others wait until it is repaired.

So no uploader can stop the server, and no fault of ours empties the queue.
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

log = logging.getLogger(__name__)

#: Seconds between two tries, after a conflict and while the database is unavailable: the first
#: pause, and the longest.
CONFLICT_PAUSES = (0.01, 1.0)
OUTAGE_PAUSES = (0.25, 5.0)
#: After this many conflicts in a row the pauses are those of an unavailable database.
CONFLICTS_BEFORE_OUTAGE = 20
#: Seconds between two tries of a packet that failed: the first pause, and the longest.
FAILED_PACKET_PAUSES = (5.0, 300.0)
#: At most this many packets an hour are rejected because of an internal error.
INTERNAL_PER_HOUR = 20
_HOUR = 3_600.0
#: Characters of an error's text that are kept: it may contain a value of any length.
_LONGEST = 300
#: Internal errors that are remembered as logged.
_LOGGED = 100

#: The outcome of each packet, or None if it could not be stored and stays in the drop directory.
Delivered = list[tuple[Arrival, Outcome | None]]

_T = TypeVar("_T")


class BatchRecorder(Protocol):
    """What stores a batch: the store's recorder, or a substitute in tests."""

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        """See :meth:`dataserver.store.recorder.Recorder.record`."""


class Stopped(Exception):
    """The worker was stopped while it waited; nothing of the batch was stored."""


class Delivery:
    """Stores batches, with retries.

    ``pause(seconds)`` waits and returns True if the worker is to stop.  ``on_failure(error,
    seconds)`` is called after each failed try, with the time since the first try began;
    ``on_success(tally)`` after each commit.  With ``patient`` False an unavailable database is an
    error (``--once``).  ``failing`` keeps the packets that failed; ``key`` identifies an arrival's
    file, or gives None for an arrival without a file, which is never kept.
    """

    def __init__(
        self,
        recorder: BatchRecorder,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], bool],
        on_failure: Callable[[StoreError, float], None],
        on_success: Callable[[Tally], None],
        failing: FailingPackets | None = None,
        key: Callable[[Arrival], Hashable] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
        patient: bool = True,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._pause = pause
        self._on_failure = on_failure
        self._on_success = on_success
        self._failing = FailingPackets(clock, monotonic) if failing is None else failing
        self._key = key
        self._monotonic = monotonic
        self._patient = patient
        self._logged: set[str] = set()

    def deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        """Store ``arrivals`` and return the outcome of each.

        Raises Stopped, StoreReplaced, and StoreUnavailable if not ``patient``.  Whatever part of a
        halved batch was stored before is found in the ledger the next time.
        """
        new: Sequence[Arrival] = arrivals
        failed: list[Arrival] = []
        if self._failing:
            failed = [each for each in arrivals if self._key(each) in self._failing]
            new = [each for each in arrivals if self._key(each) not in self._failing]
        delivered = self._deliver(new) if new else []
        # One by one and after the others: their batch would only be halved again.
        for arrival in sorted(failed, key=_order):
            delivered += self._deliver([arrival])
        if not self._failing:
            return delivered
        return [each for pair in delivered for each in self._deliver_again(*pair)]

    def retry(self, action: Callable[[], _T]) -> _T:
        """Call ``action``, a transaction, until it succeeds, and return its result.

        Raises Stopped, StoreReplaced, StoreRefused, StoreLacking, and StoreUnavailable if not
        ``patient``.
        """
        outages = conflicts = 0
        began = self._monotonic()
        while True:
            try:
                return action()
            except StoreConflict as error:
                conflicts += 1
                self._on_failure(error, self._monotonic() - began)
                persists = conflicts >= CONFLICTS_BEFORE_OUTAGE
                wait = _growing(OUTAGE_PAUSES if persists else CONFLICT_PAUSES, conflicts)
            except StoreUnavailable as error:
                if not self._patient:
                    raise
                outages += 1
                self._on_failure(error, self._monotonic() - began)
                wait = _growing(OUTAGE_PAUSES, outages)
            if self._pause(wait):
                raise Stopped

    def _deliver_again(self, arrival: Arrival, outcome: Outcome | None) -> Delivered:
        """Retry a packet if one that was stored since its failure proves it to be the cause."""
        if outcome is None and self._failing.deserves_retry(self._key(arrival)):
            return self._deliver([arrival])
        return [(arrival, outcome)]

    def _deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        try:
            return self._record(arrivals)
        except (StoreUnavailable, StoreReplaced, Stopped):
            raise
        except StoreError as error:
            self._on_failure(error, 0.0)
            return self._halve(arrivals, Failure(error.message[:_LONGEST], internal=False))
        except Exception as error:  # noqa: BLE001 - no input may stop the server
            if len(arrivals) == 1:
                self._log(error)
            why = f"internal error while storing it: {type(error).__name__}: {error}"
            return self._halve(arrivals, Failure(why[:_LONGEST], internal=True))

    def _record(self, arrivals: Sequence[Arrival]) -> Delivered:
        outcomes, tally = self.retry(lambda: self._recorder.record(arrivals, int(self._clock())))
        self._on_success(tally)
        pairs = list(zip(arrivals, outcomes, strict=True))
        # A duplicate or a rejected packet proves nothing: no values were written.
        self._failing.note_stored(
            sender(arrival)
            for arrival, outcome in pairs
            if not outcome.duplicate and outcome.error is None
        )
        if self._failing:
            for arrival in arrivals:
                self._failing.forget(self._key(arrival))
        return list(pairs)

    def _halve(self, arrivals: Sequence[Arrival], failure: Failure) -> Delivered:
        """Deliver each half of ``arrivals``; a single packet waits or is rejected."""
        if len(arrivals) > 1:
            # In order of agent and time, so that the order of an agent's packets stays the same.
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


def sender(arrival: Arrival) -> str:
    """The agent of a packet, or the server that sent it."""
    return arrival.packet.agent_name or arrival.packet.server_name or ""


def _order(arrival: Arrival) -> tuple[str, float, int, bytes]:
    # The store's order: a packet without a time only creates its agent, and goes last.
    time = float("inf") if arrival.time is None else arrival.time
    return arrival.packet.agent_name, time, arrival.number, arrival.packet.digest


def _growing(pauses: tuple[float, float], tries: int) -> float:
    first, longest = pauses
    return min(first * 2.0 ** min(tries - 1, 16), longest)


# -- packets that failed and wait --


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a packet could not be stored; ``internal``: because of a fault of this program."""

    reason: str
    internal: bool


@dataclass(slots=True)
class _Entry:
    agent: str
    #: How many packets had been stored when it first failed.
    stored: int
    tries: int
    next_try: float
    failure: Failure
    #: Whether it was tried since a packet of another agent was stored.
    tried_again: bool = False


class FailingPackets:
    """The packets that failed and wait, by the keys of their files.

    ``clock`` gives epoch seconds, ``monotonic`` the seconds of all other times.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._entries: dict[Hashable, _Entry] = {}
        #: Since when at least one packet has been waiting (epoch seconds), or None.
        self.since: float | None = None
        self._stored = 0
        #: The agent of the last packet stored, and the number of the last one of another agent.
        self._newest_agent: str | None = None
        self._newest_other = 0
        #: When packets were rejected because of internal errors, in the last hour.
        self._internal: deque[float] = deque()

    def __len__(self) -> int:
        """How many packets wait."""
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        """Whether the packet of this file failed and waits."""
        return key in self._entries

    @property
    def failure(self) -> Failure | None:
        """The failure of the packet that has waited longest, or None if none waits."""
        first = next(iter(self._entries.values()), None)
        return first.failure if first else None

    @property
    def any_internal(self) -> bool:
        """Whether a packet waits because of a fault of this program."""
        return any(entry.failure.internal for entry in self._entries.values())

    def note_stored(self, agents: Iterable[str]) -> None:
        """Packets of these agents were stored, in a transaction that is committed."""
        for agent in agents:
            if agent != self._newest_agent:
                self._newest_agent, self._newest_other = agent, self._stored
            self._stored += 1

    def add(self, key: Hashable, arrival: Arrival, failure: Failure) -> bool:
        """Note that a packet failed on its own; returns whether to reject it now."""
        entry = self._entries.get(key)
        if entry is None:
            if not self._entries:
                self.since = self._clock()
            entry = _Entry(sender(arrival), self._stored, 0, 0.0, failure)
            self._entries[key] = entry
        elif self._is_proven(entry):
            if self._may_reject(failure):
                self.forget(key)
                return True
            entry.tried_again = True
        first, longest = FAILED_PACKET_PAUSES
        pause = min(first * 2.0 ** min(entry.tries, 16), longest)
        entry.tries += 1
        entry.failure = failure
        entry.next_try = self._monotonic() + pause
        return False

    def forget(self, key: Hashable) -> None:
        """The packet was stored, rejected or replaced, or its file is gone."""
        self._entries.pop(key, None)
        if not self._entries:
            self.since = None

    def forget_missing(self, keys: set[Hashable]) -> None:
        """Forget all packets except those of these files."""
        for key in self._entries.keys() - keys:
            self.forget(key)

    def is_due(self, key: Hashable) -> bool:
        """Whether to try this packet now; always True for one that has not failed."""
        entry = self._entries.get(key)
        if entry is None or self._monotonic() >= entry.next_try:
            return True
        return self.deserves_retry(key)

    def deserves_retry(self, key: Hashable) -> bool:
        """Whether the packet is proven to be the cause, but was not tried since that proof."""
        entry = self._entries.get(key)
        return entry is not None and not entry.tried_again and self._is_proven(entry)

    def is_proven(self, key: Hashable) -> bool:
        """Whether the packet itself is known to be the cause."""
        entry = self._entries.get(key)
        return entry is not None and self._is_proven(entry)

    def next_due(self) -> float | None:
        """Seconds until the next retry, or None if no packet waits."""
        if not self._entries:
            return None
        now = self._monotonic()
        return max(0.0, min(entry.next_try for entry in self._entries.values()) - now)

    def _is_proven(self, entry: _Entry) -> bool:
        """Whether a packet of another agent was stored since this one first failed."""
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

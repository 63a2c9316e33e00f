"""Getting a batch into the database, whatever the database does.

A conflict is tried again at once, an absent database waited for, and a packet that the
database refuses is found by halving the batch, and rejected alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from dataserver.errors import (
    PacketError,
    Reason,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from dataserver.model import Arrival
from dataserver.store.batch import Tally
from dataserver.store.recorder import Outcome

log = logging.getLogger(__name__)

#: Seconds between tries: the first, and the longest.
CONFLICT_WAIT = (0.01, 1.0)
AWAY_WAIT = (0.25, 5.0)
#: A conflict that persists so many times is waited out like an absent database.
CONFLICTS = 20

Delivered = list[tuple[Arrival, Outcome]]

_T = TypeVar("_T")


class Records(Protocol):
    """What records a batch: the store, or a test's stand-in."""

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        """See :meth:`dataserver.store.recorder.Recorder.record`."""


class Stopped(Exception):
    """The worker was told to stop while it waited; nothing of the batch was taken in."""


class Delivery:
    """Records batches with retries.

    ``pause(seconds)`` waits and returns True when the worker is to stop.  ``trouble(error)``
    is told of every failed try, ``well()`` of every success.  ``patient`` False: an absent
    database is an error (``--once``).
    """

    def __init__(
        self,
        recorder: Records,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], bool],
        trouble: Callable[[StoreError], None],
        well: Callable[[Tally], None],
        patient: bool = True,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._pause = pause
        self._trouble = trouble
        self._well = well
        self._patient = patient

    def insist(self, action: Callable[[], _T]) -> _T:
        """What ``action``, a transaction, gives, however often it has to be tried.

        Raises Stopped, StoreRefused, and StoreUnavailable where it is not to wait.
        """
        away = conflicts = 0
        while True:
            try:
                return action()
            except StoreConflict as error:
                conflicts += 1
                self._trouble(error)
                wait = _growing(CONFLICT_WAIT if conflicts < CONFLICTS else AWAY_WAIT, conflicts)
            except StoreUnavailable as error:
                if not self._patient:
                    raise
                away += 1
                self._trouble(error)
                wait = _growing(AWAY_WAIT, away)
            if self._pause(wait):
                raise Stopped

    def deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        """Record ``arrivals``; what became of each.

        Raises Stopped, and StoreUnavailable where it is not to wait.  What was recorded of a
        halved batch before that is found in the ledger the next time.
        """
        try:
            return self._record(arrivals)
        except StoreRefused as error:
            self._trouble(error)
            if len(arrivals) == 1:
                packet_error = PacketError(Reason.REFUSED, error.message)
                return [(arrivals[0], Outcome(error=packet_error))]
            # In order of agent and time, so that no agent's packets change places.
            ordered = sorted(arrivals, key=lambda a: (a.packet.agent_name, a.time or 0, a.number))
            middle = len(ordered) // 2
            return self.deliver(ordered[:middle]) + self.deliver(ordered[middle:])

    def _record(self, arrivals: Sequence[Arrival]) -> Delivered:
        outcomes, tally = self.insist(lambda: self._recorder.record(arrivals, int(self._clock())))
        self._well(tally)
        return list(zip(arrivals, outcomes, strict=True))


def _growing(bounds: tuple[float, float], tries: int) -> float:
    first, longest = bounds
    return min(first * 2.0 ** min(tries - 1, 16), longest)

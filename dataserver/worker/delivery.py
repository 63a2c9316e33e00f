"""Getting a batch into the database, whatever the database does.

A conflict is tried again at once, an absent database waited for, and a packet that the
database refuses is found by halving the batch, and rejected alone.  So is a packet over which
our own code stumbles: that is our fault, but to stop at it would stop us again at every start.
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
from dataserver.store.admission import Outcome
from dataserver.store.batch import Tally

log = logging.getLogger(__name__)

#: Seconds between tries: the first, and the longest.
CONFLICT_WAIT = (0.01, 1.0)
AWAY_WAIT = (0.25, 5.0)
#: A conflict that persists so many times is waited out like an absent database.
CONFLICTS = 20
#: After so many packets in a row over which our own code stumbled it is not the packets: from
#: then on each costs a wait, so that not everything is set aside before somebody looks.
STUMBLES = 10

#: An error's text may hold a value of any length.
_LONGEST = 300

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
        #: Packets over which our own code stumbled, since the last one that went through.
        self._stumbles = 0

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
        except (StoreError, Stopped) as error:
            if not isinstance(error, StoreRefused):
                raise
            self._trouble(error)
            return self._halved(arrivals, error.message)
        except Exception as error:  # noqa: BLE001 - no input may stop the server
            if len(arrivals) == 1:
                self._stumbled(error)
            return self._halved(arrivals, f"storing it fails: {type(error).__name__}: {error}")

    def _halved(self, arrivals: Sequence[Arrival], why: str) -> Delivered:
        """Deliver each half of ``arrivals``; a single packet is rejected, and ``why``."""
        if len(arrivals) == 1:
            return [(arrivals[0], Outcome(error=PacketError(Reason.REFUSED, why[:_LONGEST])))]
        # In order of agent and time, so that no agent's packets change places.
        ordered = sorted(arrivals, key=_order)
        middle = len(ordered) // 2
        return self.deliver(ordered[:middle]) + self.deliver(ordered[middle:])

    def _stumbled(self, error: Exception) -> None:
        log.error("a packet that cannot be stored, by a fault of ours", exc_info=error)
        self._stumbles += 1
        if self._stumbles > STUMBLES and self._patient and self._pause(AWAY_WAIT[1]):
            raise Stopped from error

    def _record(self, arrivals: Sequence[Arrival]) -> Delivered:
        outcomes, tally = self.insist(lambda: self._recorder.record(arrivals, int(self._clock())))
        self._stumbles = 0
        self._well(tally)
        return list(zip(arrivals, outcomes, strict=True))


def _order(arrival: Arrival) -> tuple[str, float, int, bytes]:
    # As the store does it: what has no time only creates, and goes last.
    time = float("inf") if arrival.time is None else arrival.time
    return arrival.packet.agent_name, time, arrival.number, arrival.packet.digest


def _growing(bounds: tuple[float, float], tries: int) -> float:
    first, longest = bounds
    return min(first * 2.0 ** min(tries - 1, 16), longest)

"""Finds out which clock is wrong: an agent's, if its packets are ahead, or the server's own.

If an agent's packets were ahead of the server's clock and are not any more, its clock was
corrected: its packets then count as current, although they are older than those before.  But if
most agents are ahead, the server's clock is wrong, and nothing is concluded about agents.
The data is kept in memory by each process; after an hour of packets it is complete again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Seconds for which an agent's latest packet counts, and how many agents are remembered.
_WINDOW, _MOST = 3_600.0, 100_000
#: Fewer agents than this say nothing about the server's clock.
_ENOUGH = 3
#: Notes that are kept until they are taken.
_NOTES = 1_000


class Note(NamedTuple):
    """An agent's clock was found to be ahead, or was corrected after that (``put_right``).

    ``agent`` is its name as stored, ``seconds`` is how far ahead its newest packet was.
    """

    agent: str
    seconds: int
    put_right: bool


class Clocks:
    """The clocks of the agents that sent packets in the last hour."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._monotonic = monotonic
        self._most = most
        #: The time of each agent's latest packet, and whether that was ahead; oldest first.
        self._heard: dict[int, tuple[float, bool]] = {}
        #: The number of agents whose latest packet was ahead.
        self.ahead = 0
        #: Notes of committed transactions, until they are taken.
        self._notes: list[Note] = []

    @property
    def agents(self) -> int:
        """The number of agents that sent packets with a time of their own in the last hour."""
        return len(self._heard)

    @property
    def own_is_behind(self) -> bool:
        """Whether most of at least three agents are ahead, so that the server's clock is wrong."""
        return len(self._heard) >= _ENOUGH and 2 * self.ahead > len(self._heard)

    def hear(self, latest: Mapping[int, bool]) -> None:
        """Set, by agent's id, whether its latest packet is ahead."""
        now, heard = self._monotonic(), self._heard
        for agent_id, is_ahead in latest.items():
            before = heard.pop(agent_id, None)
            self.ahead += is_ahead - (before is not None and before[1])
            heard[agent_id] = (now, is_ahead)
        while heard:
            oldest = next(iter(heard))
            when, was_ahead = heard[oldest]
            if when >= now - _WINDOW and len(heard) <= self._most:
                break
            del heard[oldest]
            self.ahead -= was_ahead

    def add(self, notes: list[Note]) -> None:
        """Add the notes of a committed transaction."""
        self._notes += notes[: _NOTES - len(self._notes)]

    def take(self) -> list[Note]:
        """The notes added since the last call."""
        taken, self._notes = self._notes, []
        return taken

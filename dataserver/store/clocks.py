"""Whose clock is wrong: an agent's, where its packets lie ahead, or the server's own.

An agent whose packets lie ahead of the server's clock, and then do not any more, was put right:
its present packets count as present, however old they look beside those of before.  But where
most agents are ahead, the clock that is wrong is the server's, and nothing is concluded from it.
Kept in memory, by process: an hour later all of it is known again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Seconds for which an agent's latest packet counts, and how many agents are remembered.
_WINDOW, _MOST = 3_600.0, 100_000
#: Fewer agents than this prove nothing of the server's clock.
_ENOUGH = 3
#: Notes that wait to be taken.
_NOTES = 1_000


class Note(NamedTuple):
    """An agent's clock was found to be ahead, or put right after it had been.

    ``agent`` is its name as stored, ``seconds`` how far ahead its newest packet was.
    """

    agent: str
    seconds: int
    put_right: bool


class Clocks:
    """What the packets of the last hour say of clocks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._monotonic = monotonic
        self._most = most
        #: When each agent was heard last, and whether its latest packet was ahead; oldest first.
        self._heard: dict[int, tuple[float, bool]] = {}
        #: How many agents' latest packets were ahead.
        self.ahead = 0
        #: What happened in committed transactions, until it is taken.
        self._notes: list[Note] = []

    @property
    def agents(self) -> int:
        """How many agents were heard in the last hour whose packets tell their own time."""
        return len(self._heard)

    @property
    def own_is_behind(self) -> bool:
        """Most of at least three agents are ahead, so it is the server's clock that is wrong."""
        return len(self._heard) >= _ENOUGH and 2 * self.ahead > len(self._heard)

    def hear(self, latest: Mapping[int, bool]) -> None:
        """Note, by agent's id, whether its latest packet is ahead."""
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
        """The transaction that found these is committed."""
        self._notes += notes[: _NOTES - len(self._notes)]

    def take(self) -> list[Note]:
        """What was found since the last call."""
        taken, self._notes = self._notes, []
        return taken

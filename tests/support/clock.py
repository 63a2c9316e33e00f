"""Time that only the test moves."""

from __future__ import annotations


class Clock:
    """A clock in seconds that stands still until it is moved.

    Stands in for ``time.time``, ``time.monotonic`` and, called with a connection, the
    database's clock.  With ``step`` it moves on by so much each time it is read.
    """

    def __init__(self, now: float = 1_000.0, *, step: float = 0.0) -> None:
        self.now = now
        self.step = step

    def __call__(self, *_: object) -> float:
        self.now += self.step
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Clocks:
    """The wall clock and the monotonic clock of one machine."""

    def __init__(self, wall: float = 1_700_000_000.0, monotonic: float = 500.0) -> None:
        self.wall = Clock(wall)
        self.monotonic = Clock(monotonic)

    def advance(self, seconds: float) -> None:
        """Let time pass; to set the wall clock or to suspend the machine, move one alone."""
        self.wall.advance(seconds)
        self.monotonic.advance(seconds)

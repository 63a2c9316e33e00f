"""Holding an agent's packets back until its backlog has settled.

After an outage an agent sends what it buffered in random order.  A packet that comes more
than one and a half intervals after the one before it shows that some are missing: the files
of its stem (that is, of its agent) are left alone until none came for ``settle`` seconds, or
for ``settle_max`` in all, and then taken together, in order.  Nothing but memory is needed:
after a restart the gap shows itself again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataserver.model import Arrival

#: Intervals without a packet from which on some are thought missing.
GAP = 1.5
_DEFAULT_INTERVAL = 300


@dataclass(slots=True)
class _Hold:
    since: float
    last: float
    files: int


class Holds:
    """The stems held back; times are monotonic seconds, given by the caller."""

    def __init__(self, settle: float, settle_max: float) -> None:
        self._settle = settle
        self._settle_max = settle_max
        self._held: dict[str, _Hold] = {}

    def __len__(self) -> int:
        """How many files are held back."""
        return sum(hold.files for hold in self._held.values())

    def hold(self, stem: str, files: int, now: float) -> None:
        """Leave the stem alone from now on; it has ``files`` files."""
        if stem not in self._held:
            self._held[stem] = _Hold(now, now, files)

    def keeps(self, stem: str, files: int, now: float) -> bool:
        """Whether the stem, found with ``files`` files by a scan, is still to be left alone."""
        hold = self._held.get(stem)
        if hold is None:
            return False
        if files != hold.files:
            hold.files, hold.last = files, now
        return now < self._due(hold)

    def release(self, stem: str) -> bool:
        """The stem is being taken in; whether it had been held."""
        return self._held.pop(stem, None) is not None

    def retain(self, stems: set[str]) -> None:
        """Forget stems whose files are all gone."""
        self._held = {stem: hold for stem, hold in self._held.items() if stem in stems}

    def next_due(self) -> float | None:
        """When the next one is due; None: nothing is held."""
        return min(map(self._due, self._held.values()), default=None)

    def _due(self, hold: _Hold) -> float:
        return min(hold.last + self._settle, hold.since + self._settle_max)


def has_gap(arrivals: Sequence[Arrival], newest: int | None, interval: int | None) -> bool:
    """Whether packets seem to be missing before or between ``arrivals`` of one agent.

    ``newest`` is the time of the agent's newest packet taken in, ``interval`` the agent's, in
    seconds; each None where the agent is not known.
    """
    times = sorted(arrival.time for arrival in arrivals if arrival.time is not None)
    if not times:
        return False
    allowed = GAP * (_told_interval(arrivals[-1]) or interval or _DEFAULT_INTERVAL)
    before = newest if newest else times[0]
    for time in times:
        if time - before > allowed:
            return True
        before = max(before, time)
    return False


def _told_interval(arrival: Arrival) -> int | None:
    text = (arrival.packet.interval or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None

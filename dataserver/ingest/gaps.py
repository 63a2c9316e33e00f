"""Holding an agent's packets back until its backlog has settled.

After an outage an agent sends what it buffered in random order.  A packet that comes more
than one and a half intervals after the one before it shows that some are missing: the files
of its stem (usually, those of its agent) are left alone until none came for ``settle`` seconds,
or for ``settle_max`` in all, and then taken together, in order.  What the agent sends under
another stem meanwhile is held as well.  Nothing but memory is needed: after a restart the gap
shows itself again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dataserver.model import Arrival

#: Intervals without a packet from which on some are thought missing.
GAP = 1.5
_DEFAULT_INTERVAL = 300
#: Packets' times are whole seconds: two may seem this much further apart than they are.
_ROUNDING = 1
#: Seconds in which a stem that has settled must be taken in; longer than between two scans.
_READY = 10.0


@dataclass(slots=True)
class _Hold:
    since: float
    last: float
    files: int = 0
    agents: set[str] = field(default_factory=set)


class PacketHold:
    """The stems held back; times are monotonic seconds, given by the caller."""

    def __init__(self, settle: float, settle_max: float) -> None:
        self._settle = settle
        self._settle_max = settle_max
        self._held: dict[str, _Hold] = {}
        #: Stems that have settled and are to be taken in now, with the time until which.
        self._ready: dict[str, float] = {}

    def __len__(self) -> int:
        """How many files are held back."""
        return sum(hold.files for hold in self._held.values())

    def hold(self, stem: str, agent: str, files: int, now: float) -> None:
        """Leave the stem alone from now on, of which ``files`` more files are the agent's."""
        hold = self._held.setdefault(stem, _Hold(now, now))
        hold.files += files
        hold.agents.add(agent)

    def agents(self) -> set[str]:
        """The agents of which packets are held."""
        return {agent for hold in self._held.values() for agent in hold.agents}

    def is_held(self, stem: str, files: int, now: float) -> bool:
        """Whether the stem, found with ``files`` files by a scan, is still to be left alone."""
        hold = self._held.get(stem)
        if hold is None:
            return False
        if files != hold.files:
            hold.files, hold.last = files, now
        if now < self._due(hold):
            return True
        del self._held[stem]
        self._ready[stem] = now + _READY
        return False

    def ready(self, stem: str, now: float) -> bool:
        """Whether the stem has been held and has settled: it is taken in, gaps or not."""
        return now < self._ready.get(stem, 0.0)

    def forget_missing(self, stems: set[str]) -> None:
        """Forget stems whose files are all gone."""
        self._held = {stem: hold for stem, hold in self._held.items() if stem in stems}
        self._ready = {stem: until for stem, until in self._ready.items() if stem in stems}

    def next_due(self) -> float | None:
        """When the next one is due; None: nothing is held."""
        return min(map(self._due, self._held.values()), default=None)

    def last_due(self) -> float | None:
        """When the last one is due, unless more comes; None: nothing is held."""
        return max(map(self._due, self._held.values()), default=None)

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
    told = _told_interval(arrivals[-1])
    allowed = GAP * (told or interval or _DEFAULT_INTERVAL) + _ROUNDING
    before = newest if newest else times[0]
    for time in times:
        if time - before > allowed:
            return True
        before = max(before, time)
    return False


def _told_interval(arrival: Arrival) -> int | None:
    text = (arrival.packet.interval or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None

"""Holding an agent's packets until its backlog has arrived, so that they are stored in order.

After an outage, an agent sends what it has buffered in random order.  A packet whose time is more
than one and a half intervals after the one before it shows that some are missing (:func:`has_gap`).
Then the files of its stem (usually those of its agent) are held until none has arrived for
``settle`` seconds, or for ``settle_max`` in all, and are then stored together, in order.  What the
agent sends under another stem meanwhile is held as well.  All this is kept in memory only: after a
restart the gap is found again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dataserver.model import Arrival

#: After this many intervals without a packet, some are assumed to be missing.
GAP = 1.5
_DEFAULT_INTERVAL = 300
#: Packets' times are whole seconds: two may seem this much further apart than they are.
_ROUNDING = 1
#: Seconds within which a stem that has settled must be stored; longer than between two scans.
_READY = 10.0


@dataclass(slots=True)
class _Hold:
    since: float
    last: float
    files: int = 0
    agents: set[str] = field(default_factory=set)


class PacketHold:
    """The stems that are held; times are monotonic seconds, given by the caller."""

    def __init__(self, settle: float, settle_max: float) -> None:
        self._settle = settle
        self._settle_max = settle_max
        self._held: dict[str, _Hold] = {}
        #: Stems that have settled and are to be stored now, with the time until which.
        self._ready: dict[str, float] = {}

    def __len__(self) -> int:
        """How many files are held."""
        return sum(hold.files for hold in self._held.values())

    def hold(self, stem: str, agent: str, files: int, now: float) -> None:
        """Hold the stem from now on; ``files`` more of its files are the agent's."""
        hold = self._held.setdefault(stem, _Hold(now, now))
        hold.files += files
        hold.agents.add(agent)

    def agents(self) -> set[str]:
        """The agents whose packets are held."""
        return {agent for hold in self._held.values() for agent in hold.agents}

    def is_held(self, stem: str, files: int, now: float) -> bool:
        """Whether the stem, of which a scan found ``files`` files, is still held."""
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
        """Whether the stem was held and has settled: it is stored, with gaps or without."""
        return now < self._ready.get(stem, 0.0)

    def forget_missing(self, stems: set[str]) -> None:
        """Forget stems whose files are all gone."""
        self._held = {stem: hold for stem, hold in self._held.items() if stem in stems}
        self._ready = {stem: until for stem, until in self._ready.items() if stem in stems}

    def next_due(self) -> float | None:
        """When the next stem is due, or None if nothing is held."""
        return min(map(self._due, self._held.values()), default=None)

    def last_due(self) -> float | None:
        """When the last stem is due unless more files arrive, or None if nothing is held."""
        return max(map(self._due, self._held.values()), default=None)

    def _due(self, hold: _Hold) -> float:
        return min(hold.last + self._settle, hold.since + self._settle_max)


def has_gap(arrivals: Sequence[Arrival], newest: int | None, interval: int | None) -> bool:
    """Whether packets seem to be missing before or between ``arrivals`` of one agent.

    ``newest`` is the time of the agent's newest stored packet, ``interval`` its interval in
    seconds; each is None if the agent is unknown.
    """
    times = sorted(arrival.time for arrival in arrivals if arrival.time is not None)
    if not times:
        return False
    sent = _sent_interval(arrivals[-1])
    allowed = GAP * (sent or interval or _DEFAULT_INTERVAL) + _ROUNDING
    before = newest if newest else times[0]
    for time in times:
        if time - before > allowed:
            return True
        before = max(before, time)
    return False


def _sent_interval(arrival: Arrival) -> int | None:
    text = (arrival.packet.interval or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None

"""The workloads: how many agents, which modules, how many rounds, and how they are delivered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

#: Seconds between two packets of one agent.
INTERVAL = 300

#: The share of a module's values that differ from the one before.
CHANGED = 0.4


class Kind(StrEnum):
    """A module's type, as the packet spells it."""

    DATA = "generic_data"
    COUNTER = "generic_data_inc"
    PROC = "generic_proc"
    STRING = "generic_data_string"


#: Ten modules of one agent; longer lists repeat them.
TEN = (Kind.DATA,) * 4 + (Kind.COUNTER,) * 3 + (Kind.PROC,) * 2 + (Kind.STRING,)


@dataclass(frozen=True, slots=True)
class Workload:
    """What is generated, and what of it is measured.

    Rounds before ``measured`` are stored first, by a server that then stays warm; they are
    not timed.  ``live`` workloads are moved into the directory of a waiting server; the
    others lie there already when ``run --once`` starts.  With a ``rate`` (packets a second)
    the files are written in place, one by one.
    """

    name: str
    what: str
    agents: int
    kinds: tuple[Kind, ...]
    rounds: int
    measured: int = 0
    live: bool = False
    rate: float | None = None

    @property
    def packets(self) -> int:
        """How many packets are measured."""
        return self.agents * (self.rounds - self.measured)

    @property
    def values(self) -> int:
        """How many values the measured packets carry."""
        return self.packets * len(self.kinds)

    def quick(self) -> Workload:
        """The same in small: a tenth of the agents, to try the benchmark itself."""
        return replace(self, agents=max(1, self.agents // 10))


def _second_round(name: str, agents: int, rate: float | None = None) -> Workload:
    what = f"the second round of {agents:,} agents"
    return Workload(name, what, agents, TEN, rounds=2, measured=1, live=True, rate=rate)


_SMALL = (Kind.DATA, Kind.COUNTER, Kind.PROC)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "a backlog: 1,000 agents, 10 modules, 10 rounds", 1_000, TEN, 10),
        Workload("W2", "a backlog: 200 agents, 50 modules, 10 rounds", 200, TEN * 5, 10),
        Workload("W3", "60,000 small files moved in at once", 6_000, _SMALL, 10, live=True),
        _second_round("wide", 10_000),
        Workload("third", "the third round of 10,000 agents", 10_000, TEN, 3, 2, live=True),
        _second_round("sweep-1000", 1_000),
        _second_round("sweep-5000", 5_000),
        _second_round("sweep-20000", 20_000),
        _second_round("steady", 2_000, rate=100),
    )
}


def chosen(names: str) -> list[Workload]:
    """The workloads of a comma list; ``sweep`` is all of the sweep.

    Raises: KeyError for a name that no workload has.
    """
    return [workload for name in names.split(",") for workload in _named(name)]


def _named(name: str) -> list[Workload]:
    found = [w for w in WORKLOADS.values() if name in (w.name, w.name.partition("-")[0])]
    if not found:
        raise KeyError(name)
    return found

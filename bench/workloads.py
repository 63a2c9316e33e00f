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
    others lie there already when ``run --once`` starts.
    """

    name: str
    what: str
    agents: int
    kinds: tuple[Kind, ...]
    rounds: int
    measured: int = 0
    live: bool = False

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


def _second_round(name: str, what: str, agents: int) -> Workload:
    return Workload(name, what, agents, TEN, rounds=2, measured=1, live=True)


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1", "a backlog: 1,000 agents, 10 modules, 10 rounds", 1_000, TEN, 10),
        Workload("W2", "long packets: 200 agents, 50 modules, 10 rounds", 200, TEN * 5, 10),
        Workload(
            "W3",
            "a burst: 60,000 small files moved in at once",
            6_000,
            (Kind.DATA, Kind.COUNTER, Kind.PROC),
            10,
            live=True,
        ),
        _second_round("wide", "the second round of 10,000 agents", 10_000),
        _second_round("sweep-1000", "the second round of 1,000 agents", 1_000),
        _second_round("sweep-5000", "the second round of 5,000 agents", 5_000),
        _second_round("sweep-20000", "the second round of 20,000 agents", 20_000),
        _second_round("steady", "100 packets a second, each written in place", 2_000),
    )
}

"""Consoles beside a server that takes in W1: what they cost it, and how long they take to answer.

Runs come in pairs, one without and one with consoles that are looked at, on the same database and
in turns.  The requests are sent by this process, which takes its share of the same processors.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from bench import console_fill, generator
from bench.console_load import Answer, Load, plan
from bench.console_report import Loaded
from bench.console_server import Console
from bench.errors import BenchError
from bench.generator import START
from bench.instances import _row_locks as row_locks
from bench.measure import check
from bench.runs import Meter, files
from bench.server import Server
from bench.stores import Counts, Store
from bench.workloads import WORKLOADS, Workload

#: Columns of a graph.
WIDTH = 1_000
WEEK = 7 * 86_400
#: W1 with so many rounds that people get to look at something meanwhile.
_W1 = replace(WORKLOADS["W1"], rounds=20)


@dataclass(frozen=True, slots=True)
class Size:
    """How much: points of the long history, agents, requests of each kind, pairs of the load.

    Each run of the load takes in ``workload``'s rounds; ``rate`` is requests a second in all.
    """

    points: int = console_fill.YEAR
    agents: int = 20_000
    runs: int = 30
    pairs: int = 4
    rate: float = 50.0
    consoles: int = 2
    workload: Workload = _W1

    def quick(self) -> Size:
        """The same in small: to try the benchmark itself."""
        workload = replace(self.workload.quick(), rounds=10)
        return replace(
            self,
            points=self.points // 10,
            agents=self.agents // 10,
            runs=5,
            pairs=1,
            workload=workload,
        )


class Beside:
    """Measures on one database, whose server has made its tables."""

    def __init__(
        self, server: Server, store: Store, url: str, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._server = server
        self._store = store
        self._url = url
        self._folder = folder
        self._say = say

    def measure(self, size: Size, consoles: Sequence[Console]) -> Loaded:
        """Pairs of runs; the consoles are started for them.

        Raises: BenchError where not everything was stored, or something twice.
        """
        self._say(f"consoles beside W1 on {self._store.name}: writing packets")
        count = size.workload.rounds
        workload = replace(size.workload, rounds=count * (2 * size.pairs + 1))
        stored = generator.write(workload, self._folder / "corpus")
        # In order of time, whoever comes first in a pair: nothing may be late.
        rounds = (range(first, first + count) for first in range(0, workload.rounds, count))
        ingest = _Ingest(
            self._server, self._store, self._url, self._folder, workload.agents, stored
        )
        ingest.run(next(rounds))  # agents and modules are there, and something to look at
        before = row_locks(self._url)
        pairs: list[tuple[float, float]] = []
        answers: list[Answer] = []
        with contextlib.ExitStack() as stack:
            ports = [stack.enter_context(console).port for console in consoles]
            pages = _Pages(consoles[0])
            for number in range(size.pairs):
                self._say(f"beside W1 on {self._store.name}: pair {number + 1} of {size.pairs}")
                # In turns: the database grows, and what comes second finds more in it.
                alone = ingest.run(next(rounds)) if number % 2 == 0 else None
                with Load(plan(size.rate, len(ports), pages.path, seed=number), ports) as load:
                    loaded = ingest.run(next(rounds))
                alone = alone or ingest.run(next(rounds))
                pairs.append((alone.rate, loaded.rate))
                answers += load.answers(loaded.since, loaded.until)
        after = row_locks(self._url)
        return Loaded(
            store=self._store.name,
            part="load",
            pairs=tuple(pairs),
            answers=tuple(answers),
            retries=ingest.retries,
            deadlocks=after.get("innodb_deadlocks", 0) - before.get("innodb_deadlocks", 0),
        )


class _Taken(NamedTuple):
    """Packets a second, and when they were taken in (by the monotonic clock)."""

    rate: float
    since: float
    until: float


class _Ingest:
    """Takes in rounds of a corpus, and looks whether all of them were stored."""

    def __init__(
        self,
        server: Server,
        store: Store,
        url: str,
        folder: Path,
        agents: int,
        stored: Sequence[int],
    ) -> None:
        self._server = server
        self._store = store
        self._url = url
        self._corpus = folder / "corpus"
        self._status = folder / "home" / "var" / "main" / "status.json"
        self._agents = agents
        self._stored = stored
        #: Transactions that the server did again.
        self.retries = 0

    def run(self, rounds: range) -> _Taken:
        """Take them in; the rate is without the process's start, which is measured just before."""
        idle = self._server.once()
        deliver(self._server, files(self._corpus, rounds))
        with (meter := Meter(self._store, self._url)):
            since = time.monotonic()
            used = self._server.once()
        packets = self._agents * len(rounds)
        stored = sum(self._stored[turn] for turn in rounds)
        check("the server", meter.grown, Counts(packets, stored))
        counters = json.loads(self._status.read_text())["counters"]
        self.retries += sum(counters["retries"].values())
        return _Taken(packets / (used.seconds - idle.seconds), since, since + used.seconds)


class _Pages:
    """What is looked at: agents and modules that are there."""

    def __init__(self, console: Console) -> None:
        rows = console.json("/api/agents")["rows"]
        self._agents = [row["agent"]["id"] for row in rows]
        self._modules = [
            module["id"]
            for agent in self._agents[:20]
            for module in _module_records(console.json(f"/api/agents/{agent}"))
        ]
        if not self._modules:
            raise BenchError("the console shows no modules")
        self._last = console.json("/api/agents")["pages"]

    def path(self, kind: str, random: Random) -> str:
        """A path of one of the kinds of the mix."""
        if kind == "agent":
            return f"/agents/{random.choice(self._agents)}"
        if kind == "agents":
            return f"/agents?page={random.randint(1, self._last)}"
        if kind == "graph":
            module = random.choice(self._modules)
            return f"/api/modules/{module}/graph?from={START}&to={START + WEEK}&width={WIDTH}"
        return {"servers": "/", "events": "/events?since=-3650d"}[kind]


def _module_records(found: Any) -> list[dict[str, Any]]:
    """The modules of ``/api/agents/{id}``."""
    return [row.get("module", row) for row in found["modules"]]


def deliver(server: Server, packets: Sequence[Path]) -> None:
    """Move packets into the drop directory."""
    for packet in packets:
        packet.rename(server.data_in / packet.name)

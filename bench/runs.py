"""The ways a workload is given to the server: a backlog, a live burst, a steady trickle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from types import TracebackType

from bench import generator
from bench.live import Live
from bench.proc import Usage
from bench.server import Server
from bench.stores import Counts, Store, counts
from bench.workloads import Kind, Workload

#: Shows that a live server is ready, where no earlier round does.
_PROBE = Workload("probe", "one packet", 1, (Kind.DATA,), 1)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a file's completion to its commit: the median, and 99 of 100."""

    median: float
    p99: float


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the server took, and by how much the database grew meanwhile."""

    usage: Usage
    latency: Latency | None
    database_cpu: float | None
    grown: Counts


class Meter(AbstractContextManager["Meter"]):
    """Watches the database during a block."""

    def __init__(self, store: Store, url: str) -> None:
        self._store = store
        self._url = url

    def __enter__(self) -> Meter:
        os.sync()  # what was written before must not be flushed at the server's expense
        self._counts = counts(self._url)
        self._cpu = self._store.cpu()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        cpu = self._store.cpu()
        self.cpu = None if cpu is None or self._cpu is None else cpu - self._cpu
        self.grown = counts(self._url) - self._counts

    def run(self, usage: Usage, latency: Latency | None = None) -> Run:
        """The figures of the block, which must have ended."""
        return Run(usage, latency, self.cpu, self.grown)


def run(server: Server, workload: Workload, corpus: Path, store: Store, url: str) -> Run:
    """Give the corpus to the server as the workload says, and measure."""
    server.once()  # makes the database, so that no measurement does
    meter = Meter(store, url)
    return (_live if workload.live else _backlog)(server, workload, corpus, meter)


def _backlog(server: Server, workload: Workload, corpus: Path, meter: Meter) -> Run:
    idle = server.once()
    for file in files(corpus, range(workload.rounds)):
        file.rename(server.data_in / file.name)
    with meter:
        used = server.once()
    return meter.run(Usage(used.seconds - idle.seconds, used.cpu - idle.cpu, used.rss))


def _live(server: Server, workload: Workload, corpus: Path, meter: Meter) -> Run:
    probe = corpus.with_name("probe")
    generator.write(_PROBE, probe)
    with server.live() as live:
        live.take(files(probe, [0]))
        for turn in range(workload.measured):
            live.take(files(corpus, [turn]))
        measured = files(corpus, range(workload.measured, workload.rounds))
        with meter:
            usage, latency = _deliver(live, workload, measured)
    return meter.run(usage, latency)


def _deliver(live: Live, workload: Workload, files: Sequence[Path]) -> tuple[Usage, Latency | None]:
    if workload.rate is None:
        return live.take(files), None
    usage, latencies = live.trickle(files, workload.rate)
    cuts = quantiles(latencies, n=100)
    return usage, Latency(cuts[49], cuts[98])


def files(corpus: Path, rounds: Sequence[int]) -> list[Path]:
    """The files of some rounds, oldest first."""
    found = [path for turn in rounds for path in generator.round_folder(corpus, turn).iterdir()]
    return sorted(found, key=lambda path: path.name.split(".")[1])

"""One workload on one store: the limit, then the server, then whether it stored all of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import generator
from bench.errors import BenchError
from bench.runs import Run, run
from bench.server import Server
from bench.stores import Counts, Store
from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one workload on one store; ``limit`` in packets a second, where it has one."""

    workload: str
    store: str
    packets: int
    values: int
    run: Run
    limit: float | None

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.packets / self.run.usage.seconds

    @property
    def ratio(self) -> float | None:
        """The server's rate as a share of the limit."""
        return self.rate / self.limit if self.limit else None


class Bench:
    """Measures with one command, one store and one folder to work in."""

    def __init__(
        self, command: Sequence[str], store: Store, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._command = command
        self._store = store
        self._folder = folder
        self._say = say

    def measure(self, workload: Workload) -> Result:
        """Generate, measure and clean up.

        Raises: BenchError where the server (or the limit) did not store everything.
        """
        folder = self._folder / f"{workload.name}-{self._store.name}"
        try:
            return self._measure(workload, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, workload: Workload, folder: Path) -> Result:
        self._say(f"{workload.name} on {self._store.name}: writing packets")
        corpus = folder / "corpus"
        stored = sum(generator.write(workload, corpus)[workload.measured :])
        expected = Counts(workload.packets, stored)
        limit = None
        if workload.rate is None:
            self._say(f"{workload.name} on {self._store.name}: the limit")
            limit = self._limit(workload, corpus, expected)
        self._say(f"{workload.name} on {self._store.name}: the server")
        with self._database("bench_server") as url:
            server = Server(self._command, folder / "home", url)
            done = run(server, workload, corpus, self._store, url)
        check("the server", done.grown, expected)
        name = self._store.name
        return Result(workload.name, name, workload.packets, workload.values, done, limit)

    def _limit(self, workload: Workload, corpus: Path, expected: Counts) -> float:
        """Packets a second, measured in a process of its own, whose heap is as fresh as ours."""
        with self._database("bench_limit") as url:
            command = [sys.executable, "-m", "bench", "limit", workload.name, str(corpus), url]
            os.sync()
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if done.returncode:
            raise BenchError(f"the limit failed, exit code {done.returncode}")
        figures = json.loads(done.stdout)
        check("the limit", Counts(figures["packets"], figures["stored"]), expected)
        return float(figures["packets"] / figures["seconds"])

    @contextmanager
    def _database(self, name: str) -> Iterator[str]:
        url = self._store.fresh(name)
        try:
            yield url
        finally:
            self._store.remove(name)


def check(who: str, counted: Counts, expected: Counts) -> None:
    """A figure counts only when everything was stored, and nothing twice."""
    if counted != expected:
        raise BenchError(f"{who} stored {counted}, but the packets hold {expected}")

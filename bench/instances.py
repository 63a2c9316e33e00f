"""Several instances of one home on one database: W1 split between them by agent.

All are started at the same moment.  The work is done twice: on an empty database, where agents
and modules are created too, and again with the rounds after, where all are there.  Besides what
the kernel counts, this believes the server's own status in one thing: how often and how long it
waited for its turn, which nobody sees from outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median_low
from typing import Any

from bench import generator
from bench.database import connect, scheme
from bench.errors import BenchError
from bench.live import tail
from bench.measure import check
from bench.proc import Usage
from bench.report import columns, each
from bench.runs import Meter, files
from bench.stores import Counts, Store
from bench.workloads import WORKLOADS, Workload

#: What a database holds when the work begins.
STARTS = ("empty", "filled")

_HEAD = (
    *("store", "database", "instances", "packets/s", "gain", "us/packet", "database's", "peak MB"),
    *("lock waits", "waited s", "deadlocks", "retries"),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """What came of several who wrote at once, in all of them together; None: not counted.

    ``seconds`` is the sum of what each waited for a lock of another's: by MariaDB's own count of
    waits for rows (``locks`` of them), by the server's of its waits for SQLite's one writer.
    ``retries`` are transactions that had to be done again.
    """

    locks: int | None
    seconds: float | None
    deadlocks: int | None
    retries: int


@dataclass(frozen=True, slots=True)
class Result:
    """One run: ``usage`` is the time until the last one's end, and CPU and memory of all."""

    store: str
    start: str
    instances: int
    packets: int
    usage: Usage
    database_cpu: float | None
    waits: Waits

    @property
    def rate(self) -> float:
        """Packets a second, all instances together."""
        return self.packets / self.usage.seconds


class Fleet:
    """The instances ``1`` to ``count`` of a new home, each with its drop directory."""

    def __init__(self, command: Sequence[str], home: Path, database: str, count: int) -> None:
        self._command = [*command, "--home", str(home)]
        self._home = home
        self._log = home.with_suffix(".log")
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DATASERVER_")}
        self._environment = {
            **ours,
            "DATASERVER_DATABASE": database,
            "DATASERVER_TIMEZONE": "UTC",
        }
        self._finish([self._start([*command, "init", str(home)])])
        self.names = [str(number) for number in range(1, count + 1)]
        for name in self.names:
            self.data_in(name).mkdir(parents=True)
            config = self.data_in(name).with_name("instance.toml")
            config.write_text('data_in = "data_in"\n')

    def data_in(self, name: str) -> Path:
        """Where an instance finds its packets."""
        return self._home / "instances" / name / "data_in"

    def deliver(self, packets: Iterable[Path]) -> None:
        """Give each agent's packets to one instance, all instances as many agents."""
        places: dict[str, Path] = {}
        for packet in packets:
            agent = packet.name.partition(".")[0]
            name = self.names[len(places) % len(self.names)]
            folder = places.setdefault(agent, self.data_in(name))
            shutil.copyfile(packet, folder / packet.name)

    def once(self, names: Sequence[str] | None = None) -> Usage:
        """Let all (or ``names``) take in what they have, at the same time."""
        started = time.monotonic()
        run = [*self._command, "run", "--once"]
        used = self._finish([self._start([*run, name]) for name in names or self.names])
        return replace(used, seconds=time.monotonic() - started)

    def counters(self) -> list[Mapping[str, Any]]:
        """What each counted in its last run."""
        paths = (self._home / "var" / name / "status.json" for name in self.names)
        return [json.loads(path.read_text())["counters"] for path in paths]

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # PDEATHSIG: none of them outlives the measurement.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    def _finish(self, processes: Sequence[subprocess.Popen[bytes]]) -> Usage:
        """Wait for all; CPU and memory are their sums."""
        cpu, rss = 0.0, 0
        try:
            for process in processes:
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                cpu += used.ru_utime + used.ru_stime
                rss += used.ru_maxrss * 1024
                if process.returncode:
                    raise BenchError(f"an instance exited {process.returncode}: {tail(self._log)}")
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                    process.wait()
        return Usage(0.0, cpu, rss)


class Bench:
    """Measures any number of instances on one store."""

    def __init__(
        self,
        command: Sequence[str],
        store: Store,
        folder: Path,
        say: Callable[[str], None],
        *,
        workload: Workload = WORKLOADS["W1"],
    ) -> None:
        self._command = command
        self._store = store
        self._folder = folder
        self._say = say
        self._workload = workload

    def measure(self, count: int) -> Iterator[Result]:
        """Both runs of ``count`` instances.

        Raises: BenchError where not everything was stored, or something twice.
        """
        folder = self._folder / f"instances-{self._store.name}"
        twice = replace(self._workload, rounds=2 * self._workload.rounds)
        url = self._store.fresh("bench_instances")
        try:
            self._say(f"{count} instances on {self._store.name}: writing packets")
            stored = generator.write(twice, folder / "corpus")
            fleet = Fleet(self._command, folder / "home", url, count)
            fleet.once(fleet.names[:1])  # makes the database, so that no measurement does
            for number, start in enumerate(STARTS):
                self._say(f"{count} instances on {self._store.name}: database {start}")
                rounds = range(twice.rounds)[number * self._workload.rounds :][
                    : self._workload.rounds
                ]
                idle = fleet.once()
                fleet.deliver(files(folder / "corpus", rounds))
                yield self._run(fleet, url, start, idle, sum(stored[turn] for turn in rounds))
        finally:
            self._store.remove("bench_instances")
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, fleet: Fleet, url: str, start: str, idle: Usage, stored: int) -> Result:
        before = _row_locks(url)
        with (meter := Meter(self._store, url)):
            used = fleet.once()
        packets = self._workload.agents * self._workload.rounds
        check("the instances", meter.grown, Counts(packets, stored))
        return Result(
            store=self._store.name,
            start=start,
            instances=len(fleet.names),
            packets=packets,
            usage=Usage(used.seconds - idle.seconds, used.cpu - idle.cpu, used.rss),
            database_cpu=meter.cpu,
            waits=_waits(before, _row_locks(url), fleet.counters()),
        )


def _row_locks(url: str) -> dict[str, int]:
    """What MariaDB has counted of locks on rows since it started; nothing of SQLite."""
    if scheme(url) != "mysql":
        return {}
    with contextlib.closing(connect(url)) as connection:
        cursor = connection.cursor()
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb%'")
        return {name.lower(): int(n) for name, n in cursor.fetchall() if n.isdigit()}


def _waits(
    before: Mapping[str, int], after: Mapping[str, int], counters: Sequence[Mapping[str, Any]]
) -> Waits:
    retries = sum(sum(each_one["retries"].values()) for each_one in counters)
    if not after:
        # A version of before this was counted has no such figure.
        turns = [c["lock_wait_seconds"]["sum"] for c in counters if "lock_wait_seconds" in c]
        return Waits(None, sum(turns) if turns else None, None, retries)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    return Waits(
        locks=grown.get("innodb_row_lock_waits"),
        seconds=grown.get("innodb_row_lock_time", 0) / 1e3,  # milliseconds
        deadlocks=grown.get("innodb_deadlocks"),
        retries=retries,
    )


# -- showing ---------------------------------------------------------------------------


def typical(results: Iterable[Result]) -> list[Result]:
    """Of the runs that were repeated the one of median speed, in order of what was measured."""
    runs: dict[tuple[str, int, int], list[Result]] = {}
    for result in results:
        key = (result.store, STARTS.index(result.start), result.instances)
        runs.setdefault(key, []).append(result)
    return [
        next(run for run in same if run.rate == median_low(r.rate for r in same))
        for _, same in sorted(runs.items())
    ]


def table(results: Iterable[Result]) -> str:
    """The typical runs as a table; ``gain`` is against the fewest instances."""
    shown = typical(results)
    fewest: dict[tuple[str, str], float] = {}
    rows: list[tuple[str, ...]] = [_HEAD]
    for result in shown:
        base = fewest.setdefault((result.store, result.start), result.rate)
        rows.append(_row(result, result.rate / base))
    return columns(rows)


def _row(result: Result, gain: float) -> tuple[str, ...]:
    waits = result.waits
    return (
        result.store,
        result.start,
        str(result.instances),
        f"{result.rate:,.0f}",
        f"{gain:.2f}",
        each(result.usage.cpu, result.packets),
        each(result.database_cpu, result.packets),
        f"{result.usage.rss / 1e6:.0f}",
        _or_dash(waits.locks),
        "-" if waits.seconds is None else f"{waits.seconds:.2f}",
        _or_dash(waits.deadlocks),
        str(waits.retries),
    )


def _or_dash(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def as_json(results: Iterable[Result]) -> list[dict[str, object]]:
    """All runs with all their figures, seconds and bytes."""
    return [{**asdict(result), "rate": result.rate} for result in results]

"""Self-monitoring: the server reports on itself, as one more agent of the database.

Every instance of every host gives its own modules to one agent, so their names begin with
``HOST/INSTANCE``: nobody writes another one's module, and in a list those of one process stand
together.  What the tactical view of a Pandora console shows of the whole database is called as the
console looks for it, and written by one process of all.

The report goes straight to the recorder, past the drop directory: it takes no disk space to tell
that the disk is full.  Everything after that is as with any agent: statuses by thresholds that the
operator may change, events, history, and *unknown* when no more comes.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dataserver import __version__
from dataserver.config.settings import Settings
from dataserver.errors import DataserverError, StoreLacking, StoreRefused
from dataserver.ingest.delivery import Delivery
from dataserver.ingest.read import resident_memory
from dataserver.ingest.report import Report
from dataserver.model import Arrival, Module, Packet
from dataserver.rules.times import SLACK
from dataserver.store.recorder import Recorder

_MIB = 2**20
#: What of a host's name may stand in a module's name, and how much.
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_HOST = 64
NO_FIGURES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Figures:
    """How an instance does; None: not known (yet), and left out of the report.

    Ages in seconds, rates over the time since the report before, which is also what the counts
    of ``rejected`` and the mean ``latency`` (milliseconds) are of; ``free`` in percent.
    """

    status: int | None = None
    queue: int | None = None
    oldest: float | None = None
    packets: float | None = None
    values: float | None = None
    rejected: int | None = None
    kept: int | None = None
    unreadable: int | None = None
    free: float | None = None
    latency: float | None = None
    memory: float | None = None


class _Measure(NamedTuple):
    """The module of one figure; thresholds are those of a new module, as (from, to)."""

    key: str
    name: str
    description: str
    unit: str = ""
    warning: tuple[float, float] | None = None
    critical: tuple[float, float] | None = None
    type: str = "generic_data"


#: Up to this and beyond: an interval that is open upwards has 0 as its end.
_OPEN = 0.0
_MEASURES = (
    _Measure("status", "Status", "1: at work. Unknown when it is not", type="generic_proc"),
    _Measure("queue", "Queued packets", "Packet files in data_in", "packets"),
    _Measure(
        "oldest",
        "Oldest queued packet",
        "Age of the oldest packet file in data_in",
        "s",
        warning=(600, _OPEN),
        critical=(3600, _OPEN),
    ),
    _Measure("packets", "Packet rate", "Packets stored, mean since the last report", "packets/s"),
    _Measure("values", "Value rate", "Values seen, mean since the last report", "values/s"),
    _Measure("rejected", "Rejected packets", "Set aside since the last report", "packets"),
    _Measure("kept", "Rejected packets kept", "Packets in rejected/", "packets"),
    _Measure(
        "unreadable",
        "Unreadable packets",
        "Packet files that cannot be opened: see their owner and rights",
        "packets",
        warning=(1, _OPEN),
    ),
    _Measure(
        "free",
        "Free disk",
        "Free share of the file system of data_in: of its bytes or inodes, whichever is less",
        "%",
        warning=(0, 15),
        critical=(0, 5),
    ),
    _Measure(
        "latency",
        "Database latency",
        "From a transaction's begin to its commit, mean since the last report",
        "ms",
        warning=(1000, _OPEN),
        critical=(5000, _OPEN),
    ),
    _Measure("memory", "Memory", "Resident memory of the instance's process", "MiB"),
)


def _of_database(
    name: str, description: str, unit: str = "", kind: str = "generic_data"
) -> _Measure:
    return _Measure(name, name, description, unit, type=kind)


#: What the console's tactical view looks for, under these very names.
_TACTICAL = (
    _of_database("total_modules", "Enabled modules of enabled agents", "modules"),
    _of_database("total_groups", "Groups of agents", "groups"),
    _of_database("total_notinit", "Modules that had no value yet", "modules"),
    _of_database("total_unknown", "Agents whose status is unknown", "agents"),
    _of_database("last_events_24h", "Events of the last 24 hours", "events"),
    _of_database("total_string_data", "Texts in history, an estimate", "texts"),
    _of_database("mysql_size_of_data", "Data and indexes, an estimate", "MB"),
    # Of the server's own counters, so that whoever reports next goes on from there.
    _of_database(
        "mysql_questions_reads",
        "Statements that read, of the whole server, since the last report",
        kind="generic_data_inc_abs",
    ),
    _of_database(
        "mysql_questions_writes",
        "Statements that write, of the whole server, since the last report",
        kind="generic_data_inc_abs",
    ),
    _of_database(
        "CPU Load", "Load average of a minute per processor, of the host that reports", "%"
    ),
)


class _Reading(NamedTuple):
    """The counters at one moment (monotonic seconds)."""

    at: float
    packets: int
    values: int
    rejected: int
    commits: int
    commit_seconds: float


def report_packet(
    figures: Figures,
    *,
    agent: str,
    process: str,
    interval: int,
    time: int,
    tactical: Mapping[str, float] = NO_FIGURES,
) -> Packet:
    """The packet of ``agent`` that says ``figures`` of ``process``.

    ``interval`` in seconds; ``time`` (epoch seconds) tells two reports apart that say the same.
    ``tactical``: figures of the whole database by the names of their modules.
    """
    modules = (*_modules(figures, process), *_tactical_modules(tactical))
    content = repr((agent, interval, time, modules)).encode("utf-8", "surrogatepass")
    return Packet(
        agent_name=agent,
        digest=hashlib.blake2b(content, digest_size=16).digest(),
        interval=str(interval),
        os_name="Linux",
        version=__version__,
        description="The data servers of this database, as they report on themselves",
        modules=modules,
    )


def process_name(host: str, instance: str) -> str:
    """What the modules' names begin with."""
    return f"{_ODD.sub('-', host)[:_LONGEST_HOST] or 'localhost'}/{instance}"


def free_percent(path: Path) -> float | None:
    """How much of the file system of ``path`` is free, of bytes or inodes; None: unknown."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    pairs = ((found.f_bavail, found.f_blocks), (found.f_favail, found.f_files))
    # Some file systems count no inodes.
    return min((100.0 * free / total for free, total in pairs if total), default=None)


def cpu_load() -> float | None:
    """The load average of a minute in percent of the processors; None: not known."""
    try:
        return 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


class SelfMonitoring:
    """Reports when it is due.  Made anew with the configuration, which begins an interval."""

    def __init__(
        self,
        settings: Settings,
        report: Report,
        tactical: Callable[[int], dict[str, float]],
        *,
        host: Callable[[], str] = socket.gethostname,
    ) -> None:
        """``tactical`` gives the figures of the whole database at a time (epoch s), where it is
        this process that reports on it; raises StoreError."""
        self._settings = settings
        self._report = report
        self._tactical = tactical
        self._process = process_name(host(), report.paths.name)
        self._next = report.monotonic()
        self._before: _Reading | None = None

    def due(self) -> bool:
        """Whether it is time for a report; never where self-monitoring is off."""
        return self._settings.self_monitoring and self._report.monotonic() >= self._next

    def run(self, recorder: Recorder, delivery: Delivery) -> None:
        """Report, as any packet is recorded; one that is refused is told in the log once.

        Raises Stopped.
        """
        self._next = self._report.monotonic() + self._settings.self_monitoring_interval
        agent = self._settings.self_monitoring_agent
        try:
            known = delivery.retry(lambda: recorder.newest([agent]))
        except (StoreRefused, StoreLacking) as error:
            self._refused(error)
            return
        tactical = self._read_tactical(delivery)
        started = self._report.monotonic()
        arrival = self.arrival(known.get(agent, (None, None))[0], tactical)
        [(_, outcome)] = delivery.deliver([arrival])
        self._report.counters.commit_seconds.observe(self._report.monotonic() - started)
        if outcome is None or outcome.error is None:
            self._report.clear("self-monitoring")
        else:
            self._refused(outcome.error)

    def _read_tactical(self, delivery: Delivery) -> dict[str, float]:
        """The figures of the database, with this host's load; what cannot be read is left out."""
        now = int(self._report.clock())
        try:
            figures = delivery.retry(lambda: self._tactical(now))
        except (StoreRefused, StoreLacking) as error:
            self._report.log_once(
                "tactical view",
                f"the report on this server has no figures of the database: {error}",
            )
            return {}
        self._report.clear("tactical view")
        if figures and (load := cpu_load()) is not None:
            figures["CPU Load"] = load
        return figures

    def arrival(self, newest: int | None, tactical: Mapping[str, float] = NO_FIGURES) -> Arrival:
        """The report, of now; ``newest`` is the time of the agent's newest packet.

        Hosts' clocks differ by seconds.  A packet older than another host's would be late, and
        late ones fire no events: so it has the other's time, if that still counts as present.
        """
        interval = self._settings.self_monitoring_interval
        now = int(self._report.clock())
        time = newest if newest and now < newest <= now + min(interval, SLACK) else now
        packet = report_packet(
            self._figures(),
            agent=self._settings.self_monitoring_agent,
            process=self._process,
            interval=interval,
            time=time,
            tactical=tactical,
        )
        return Arrival(packet, time, 0, now)

    def _figures(self) -> Figures:
        """How things stand, and what has been since the figures before."""
        counters, gauges = self._report.counters, self._report.gauges
        now = _Reading(
            self._report.monotonic(),
            counters.packets,
            counters.samples,
            counters.rejected.total(),
            counters.commit_seconds.count,
            counters.commit_seconds.total,
        )
        figures = Figures(
            status=1,
            queue=gauges.queue,
            oldest=gauges.oldest_age_seconds,
            kept=gauges.rejected_files,
            unreadable=gauges.unreadable,
            free=free_percent(self._settings.data_in),
            memory=resident_memory() / _MIB,
        )
        before, self._before = self._before, now
        return figures if before is None else _with_changes(figures, before, now)

    def _refused(self, error: DataserverError) -> None:
        name = self._settings.self_monitoring_agent
        text = f"the report on this server, agent {name!a}, is not recorded: {error}"
        self._report.log_once("self-monitoring", text)


def _with_changes(figures: Figures, before: _Reading, now: _Reading) -> Figures:
    seconds = max(now.at - before.at, 1e-9)
    commits = now.commits - before.commits
    spent = now.commit_seconds - before.commit_seconds
    return replace(
        figures,
        packets=(now.packets - before.packets) / seconds,
        values=(now.values - before.values) / seconds,
        rejected=now.rejected - before.rejected,
        latency=1000 * spent / commits if commits else None,
    )


def _modules(figures: Figures, process: str) -> Iterator[Module]:
    for measure in _MEASURES:
        value = getattr(figures, measure.key)
        if value is not None:
            name = f"{process} {measure.name}"
            yield Module(name, measure.type, f"{value:.3f}", (), _tags(measure))


def _tactical_modules(figures: Mapping[str, float]) -> Iterator[Module]:
    for measure in _TACTICAL:
        value = figures.get(measure.key)
        if value is not None:
            yield Module(measure.name, measure.type, f"{value:.3f}", (), _tags(measure))


def _tags(measure: _Measure) -> dict[str, str]:
    tags = {"description": measure.description}
    if measure.unit:
        tags["unit"] = measure.unit
    for kind, bounds in (("warning", measure.warning), ("critical", measure.critical)):
        if bounds is not None:
            tags[f"min_{kind}"], tags[f"max_{kind}"] = (f"{bound:g}" for bound in bounds)
    return tags

"""Self-monitoring: the server reports on itself, as one more agent of the database.

All instances of all hosts have modules in one agent.  The modules' names begin with
``HOST/INSTANCE``, so that no instance writes another one's module and a list shows those of one
instance together.  The figures of the whole database for the tactical view of a Pandora console
have the names that the console looks for, and one process writes them.

The report goes to the recorder directly, not through the drop directory: a full disk can be
reported.  After that it is like any agent's packet: statuses by thresholds that the operator may
change, events, history, and *unknown* when no more reports come.
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
#: Characters of a host's name that a module's name must not contain, and its longest part.
_UNSUITABLE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_HOST = 64
NO_FIGURES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of an instance; one that is not known (yet) is None and left out of the report.

    Ages are in seconds, ``free`` in percent, ``memory`` in MiB.  The rates per second,
    ``rejected``, and the mean ``latency`` (milliseconds) are those since the report before.
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
    """The module of a figure; thresholds, as (from, to), apply when the module is created."""

    key: str
    name: str
    description: str
    unit: str = ""
    warning: tuple[float, float] | None = None
    critical: tuple[float, float] | None = None
    type: str = "generic_data"


#: The end of an interval without an upper bound.
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


#: The modules that the console's tactical view looks for, by exactly these names.
_TACTICAL = (
    _of_database("total_modules", "Enabled modules of enabled agents", "modules"),
    _of_database("total_groups", "Groups of agents", "groups"),
    _of_database("total_notinit", "Modules that had no value yet", "modules"),
    _of_database("total_unknown", "Agents whose status is unknown", "agents"),
    _of_database("last_events_24h", "Events of the last 24 hours", "events"),
    _of_database("total_string_data", "Texts in history, an estimate", "texts"),
    _of_database("mysql_size_of_data", "Data and indexes, an estimate", "MB"),
    # The database server's own counters, so that another process can continue the reports.
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
    """A packet of ``agent`` with the ``figures`` of ``process``.

    ``interval`` in seconds; ``time`` (epoch seconds) distinguishes two reports with equal figures.
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
    """The beginning of the modules' names."""
    return f"{_UNSUITABLE.sub('-', host)[:_LONGEST_HOST] or 'localhost'}/{instance}"


def free_percent(path: Path) -> float | None:
    """The free share of the file system's bytes or inodes, whichever is less; None if unknown."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    pairs = ((found.f_bavail, found.f_blocks), (found.f_favail, found.f_files))
    # Some file systems do not count inodes.
    return min((100.0 * free / total for free, total in pairs if total), default=None)


def cpu_load() -> float | None:
    """The load average of a minute in percent of the processors, or None if unknown."""
    try:
        return 100.0 * os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


class SelfMonitoring:
    """Reports once in each interval; a reread configuration begins a new interval.

    ``tactical`` gives the figures of the whole database at a time (epoch seconds), or none if
    another process reports them; it raises StoreError.
    """

    def __init__(
        self,
        settings: Settings,
        report: Report,
        tactical: Callable[[int], dict[str, float]],
        *,
        host: Callable[[], str] = socket.gethostname,
    ) -> None:
        self._settings = settings
        self._report = report
        self._tactical = tactical
        self._process = process_name(host(), report.paths.name)
        self._next = report.monotonic()
        self._before: _Reading | None = None

    def due(self) -> bool:
        """Whether it is time for a report; never if self-monitoring is off."""
        return self._settings.self_monitoring and self._report.monotonic() >= self._next

    def run(self, recorder: Recorder, delivery: Delivery) -> None:
        """Store a report as any packet is stored; if it is refused, log that once.

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
        """The figures of the database, with this host's load; none if they cannot be read."""
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
        """The report as of now; ``newest`` is the time of the agent's newest packet, or None.

        Hosts' clocks differ by seconds.  A packet older than another host's would be late, and
        late packets cause no events: so it gets the other's time, if that still counts as present.
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
        """The present figures, and the changes since the ones before."""
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

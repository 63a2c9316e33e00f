"""What the worker reports about itself: counters, gauges, troubles, and the files that show them.

The status file and the Prometheus file are replaced every second.  A trouble or an error is logged
when it begins and when its reason changes, not for as long as it lasts.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from dataserver import __version__
from dataserver.config.paths import Paths
from dataserver.config.settings import Settings
from dataserver.errors import Reason, StoreError
from dataserver.ingest.delivery import FailingPackets
from dataserver.model import Packet
from dataserver.rules.times import SLACK
from dataserver.runtime.heartbeat import Phase, Status, Trouble, write_atomic
from dataserver.runtime.metrics import Counters, Gauges, Rates, as_dict, prometheus
from dataserver.spool.files import SpoolFile
from dataserver.spool.queue import count_queue
from dataserver.store.changes import Tally
from dataserver.store.database import shown
from dataserver.store.probe import ACCEPTING, alerts_text

log = logging.getLogger(__name__)

#: Seconds between two status files.
EVERY = 1.0
#: Waiting for a lock for this many seconds counts as an outage: a little less than the database's
#: lock timeout, since clocks differ.
LOCK_OUTAGE = 9.5
#: Seconds after which the heartbeat's thread counts the queue, and the shortest pause between two
#: counts, as a multiple of the time that counting took.
_RECOUNT_AFTER, _RECOUNT_PAUSE = 5.0, 20.0
#: The status file names at most this many unreadable files.
_UNREADABLE_NAMED = 20
#: The log message of each trouble.
_TROUBLES = {
    Trouble.DATA_IN: "the drop directory cannot be used",
    Trouble.STORING: "storing fails",
    Trouble.CONFIGURATION: "the configuration stays as it was",
    Trouble.ALERTS: "alerts are not evaluated",
    Trouble.CLOCK: "this server's clock seems to be behind",
}
#: Troubles during which packets are stored all the same.
_WARNINGS = (Trouble.ALERTS, Trouble.CLOCK)
#: Errors that are remembered as logged.
_LOGGED = 1000
#: Agents whose packets' repairs are logged, and characters of a name.
_REMARKS, _LONGEST_NAME = 500, 100


@dataclass(slots=True)
class Report:
    """The figures of one run; lives as long as the process, also when the configuration is reread.

    ``clock`` gives epoch seconds, ``monotonic`` seconds; ``show`` is called with each status.
    """

    paths: Paths
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    pid: int
    show: Callable[[Status], None] | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    counters: Counters = field(default_factory=Counters)
    gauges: Gauges = field(default_factory=Gauges)
    last_agent: str | None = None
    last_time: float | None = None
    database_error: str | None = None
    database_down_since: float | None = None
    #: What is wrong besides the database: the reason, and since when (epoch seconds).
    troubles: dict[Trouble, tuple[str, float]] = field(default_factory=dict)
    #: Whether a packet waits because of a fault of this program.
    internal_error: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    _logged: dict[str, str] = field(default_factory=dict)
    #: Agents whose packets' repairs were logged, by the beginnings of their names.
    _remarked: set[str] = field(default_factory=set)
    _rates: Rates = field(default_factory=Rates)
    _written: float = float("-inf")
    #: When the queue was last counted (monotonic seconds), and how long that took in the
    #: heartbeat's thread.
    _counted: float = float("-inf")
    _counting: float = 0.0
    #: When the last transaction was committed (monotonic seconds).
    _committed: float = float("-inf")
    _writing: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.gauges.start_time_seconds = self.clock()

    # -- the queue and the packets --

    def scanned(self, files: Sequence[SpoolFile]) -> None:
        """The drop directory holds ``files``, oldest first."""
        self.counters.scans += 1
        self._set_queue(len(files), files[0].mtime_ns / 1e9 if files else None)

    def count_queue(self, data_in: Path, *, last: bool = False) -> None:
        """Count the queue if the main loop has not done so for a while, or if ``last``.

        Called by the heartbeat's thread: the main loop may be waiting for the database.
        """
        now = self.monotonic()
        # While batches are stored, the main loop scans often enough.
        if not last and now - max(self._counted, self._committed) < max(
            _RECOUNT_AFTER, _RECOUNT_PAUSE * self._counting
        ):
            return
        try:
            found = count_queue(data_in)
        except OSError:
            return  # the main loop reports it
        self._set_queue(found.files, found.oldest)
        self._counting = self._counted - now

    def _set_queue(self, files: int, oldest: float | None) -> None:
        self.gauges.queue = files
        age = 0.0 if oldest is None else self.clock() - oldest
        self.gauges.oldest_age_seconds = round(max(0.0, age), 3)
        self._counted = self.monotonic()

    def note_stored(self, tally: Tally) -> None:
        """A transaction was committed."""
        counters = self.counters
        counters.packets += tally.packets
        counters.duplicates += tally.duplicates
        counters.late += tally.late
        counters.late_counters_dropped += tally.late_counters_dropped
        counters.samples += tally.samples
        counters.stored += tally.stored
        counters.refused += tally.refused
        counters.refused_by_reason.update(tally.refused_by_reason)
        counters.ignored += tally.ignored
        counters.agents_created += tally.new_agents
        counters.modules_created += tally.new_modules
        self.gauges.last_commit_time_seconds = round(self.clock(), 3)
        self._committed = self.monotonic()
        self.database_up()

    def rejected(self, reason: Reason, size: int) -> None:
        """A file of ``size`` bytes was rejected."""
        self.counters.rejected[reason.value] += 1
        self.gauges.rejected_files += 1
        self.gauges.rejected_bytes += size

    def packets_per_second(self) -> float:
        """Packets stored per second, on average over the last minute."""
        return self._rates.per_second()[0]

    # -- the database --

    def database_up(self) -> None:
        """The database can be used."""
        self.gauges.database_up = 1
        if self.database_error is not None:
            log.info("the database is back")
        self.database_error = self.database_down_since = None

    def database_down(self, error: StoreError) -> None:
        """The database cannot be used now; logged when that begins and when the reason changes."""
        if self.database_error is None:
            self.database_down_since = self.clock()
        if self.database_error != error.message:
            log.warning("waiting for the database: %s", error)
        self.database_error = error.message
        self.gauges.database_up = 0

    def database_lost(self, error: StoreError) -> None:
        """The database's error ends this process: the last status gives the reason."""
        if self.database_error is None:
            self.database_down_since = self.clock()
        self.database_error = error.message
        self.gauges.database_up = 0

    # -- troubles --

    def trouble(
        self, what: Trouble, text: str, *, since: float | None = None, logged: str | None = None
    ) -> None:
        """Something is wrong; logged when that begins and when the reason changes.

        ``logged`` is the reason without figures that change all the time.
        """
        before = self.troubles.get(what)
        began = since or (before[1] if before else self.clock())
        self.troubles[what] = (text, began)
        level = logging.WARNING if what in _WARNINGS else logging.ERROR
        self.log_once(what, f"{_TROUBLES[what]}: {logged or text}", level)

    def resolved(self, what: Trouble) -> None:
        """This trouble is over."""
        if self.troubles.pop(what, None) is not None:
            self.clear(what)
            log.info("resolved: %s", _TROUBLES[what])

    def note_failing(self, failing: FailingPackets) -> None:
        """Report the packets that cannot be stored."""
        failure = failing.failure
        self.gauges.failing = len(failing)
        self.internal_error = failing.any_internal
        if failure is None or failing.since is None:
            self.resolved(Trouble.STORING)
            return
        text = f"{failure.reason}; {len(failing)} files wait"
        self.trouble(Trouble.STORING, text, since=failing.since, logged=failure.reason)

    def note_alerts(self, count: int, *, accepted: bool) -> None:
        """The console has ``count`` alerts, which this server does not evaluate.

        Logged when there are any, not with each further one; ``accepted``: the operator accepts
        that (``accept_no_alerts``), so it is no trouble.
        """
        before, self.gauges.alerts_not_evaluated = self.gauges.alerts_not_evaluated, count
        if not count:
            self.resolved(Trouble.ALERTS)
        elif not accepted:
            self.trouble(
                Trouble.ALERTS,
                f"{alerts_text(count)}; {ACCEPTING}",
                logged=f"some are defined; {ACCEPTING}",
            )
        elif self.troubles.pop(Trouble.ALERTS, None) is not None or not before:
            self.clear(Trouble.ALERTS)
            log.info("%s (accept_no_alerts = true)", alerts_text(count))

    def clock_behind(self, ahead: int, agents: int) -> None:
        """The latest packets of most agents (``ahead`` of ``agents``) are ahead of this clock."""
        self.gauges.clock_behind = 1
        hint = "set it, or the timezone setting; until then no agent's clock counts as put right"
        text = f"the packets of {ahead} of {agents} agents are more than {SLACK} s ahead; {hint}"
        self.trouble(Trouble.CLOCK, text, logged=f"most agents are ahead of it; {hint}")

    def clock_right(self) -> None:
        """This server's clock is not, or no longer, behind."""
        self.gauges.clock_behind = 0
        self.resolved(Trouble.CLOCK)

    # -- the log --

    def log_once(self, about: str, text: str, level: int = logging.ERROR) -> None:
        """Log an error about something, unless it is the one that was last logged about it."""
        if self._logged.get(about) == text:
            return
        if len(self._logged) >= _LOGGED:
            self._logged.clear()
        self._logged[about] = text
        log.log(level, "%s", text)

    def clear(self, about: str) -> None:
        """The error about this is over: the next one is logged, even if it is the same."""
        self._logged.pop(about, None)

    def log_remarks(self, packet: Packet) -> None:
        """Log how ``packet`` was repaired, once for each agent and for :data:`_REMARKS` agents.

        `packet show` shows it for any packet.
        """
        name = packet.agent_name[:_LONGEST_NAME]  # the name as sent may be megabytes long
        if name in self._remarked or len(self._remarked) > _REMARKS:
            return
        self._remarked.add(name)
        if len(self._remarked) > _REMARKS:
            log.warning(
                "packets of more than %d agents are repaired; further ones are not logged", _REMARKS
            )
            return
        for text in packet.remarks:
            log.warning("a packet of agent %a: %s", name, text)

    # -- the files --

    def write(self, settings: Settings, phase: Phase, *, force: bool = False) -> None:
        """Write the status and metrics files, at most once a second unless ``force``.

        Called by the main loop and by the heartbeat's thread.
        """
        with self._writing:
            now = self.monotonic()
            if not force and now - self._written < EVERY:
                return
            self._written = now
            self._write(settings, phase, now)

    def _write(self, settings: Settings, phase: Phase, now: float) -> None:
        self._rates.update(now, self.counters)
        status = self._status(settings, phase)
        labels = {"instance": self.paths.name, "server": settings.server_name}
        try:
            status.write(self.paths.status)
            write_atomic(self.paths.metrics, prometheus(self.counters, self.gauges, labels))
        except OSError as error:
            # A full disk must not stop packets: the database may be on another one.
            log.debug("cannot write the status: %s", error)
        if self.show is not None:
            self.show(status)

    def _status(self, settings: Settings, phase: Phase) -> Status:
        packets, values = self._rates.per_second()
        return Status(
            instance=self.paths.name,
            server_name=settings.server_name,
            version=__version__,
            pid=self.pid,
            run=self.run,
            started=self.gauges.start_time_seconds,
            written=self.clock(),
            phase=phase.value,
            data_in=str(settings.data_in),
            database=shown(settings.database),
            database_error=self.database_error,
            database_down_since=self.database_down_since,
            troubles={
                what.value: {"error": text, "since": since}
                for what, (text, since) in dict(self.troubles).items()
            },
            packets_per_second=packets,
            values_per_second=values,
            last_packet_agent=self.last_agent,
            last_packet_time=self.last_time,
            counters=as_dict(self.counters),
            gauges=as_dict(self.gauges),
            unreadable=dict(list(self.unreadable.items())[:_UNREADABLE_NAMED]),
        )

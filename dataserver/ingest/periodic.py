"""What a running server does besides storing packets, and when each of it is due.

The worker calls :meth:`PeriodicJobs.run_due` between two batches:

* every time: log and write events about refused values, rejected packets and wrong clocks that are
  due (each of them limits itself);
* each :data:`MAINTENANCE_EVERY` seconds: fold the ledger and clean up the rejected packets;
* each ``self_monitoring_interval``: report on this instance as an agent;
* each :data:`BEAT_EVERY` seconds or more often: renew this process's and this server's rows, and
  mark servers that have stopped renewing theirs as down;
* each ``cache_seconds``: look for alerts, which this server does not evaluate;
* each sweep over the whole database at an interval of its own (:func:`sweeps`), in the one process
  that holds the lease.  The lease is renewed in the transaction of each sweep.

Everything runs in the worker's thread, so nothing here needs a lock.  Each job is bounded; a job
that fails is logged once and retried later, and never keeps packets waiting.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from dataserver import __version__
from dataserver.config.settings import Settings
from dataserver.errors import Reason, StoreConflict, StoreError, StoreReplaced, StoreUnavailable
from dataserver.ingest.clock_warnings import ClockWarnings
from dataserver.ingest.delivery import Delivery
from dataserver.ingest.fingerprints import Fingerprints
from dataserver.ingest.read import Rejection
from dataserver.ingest.refusal_log import RefusalLog
from dataserver.ingest.rejection_events import PERIOD, RejectionEvents
from dataserver.ingest.report import LOCK_OUTAGE, Report
from dataserver.ingest.self_monitoring import SelfMonitoring
from dataserver.rules.patterns import PATTERNS
from dataserver.rules.times import local_text
from dataserver.spool.rejected import Rejected
from dataserver.store import ledger, schema
from dataserver.store.counts import recount_fired, recount_flagged
from dataserver.store.errors import translating
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout, reading
from dataserver.store.lease import Lease, database_time
from dataserver.store.probe import count_alerts, has_alerts
from dataserver.store.processes import Process, Processes, ProcessFingerprints, ProcessStats
from dataserver.store.recorder import Recorder
from dataserver.store.refused import sweep as forget_refused
from dataserver.store.servers import DATA_SERVER, GIVEN_UP, Modules, Servers
from dataserver.store.sql import Sql
from dataserver.store.sweeps.autodisable import Autodisable
from dataserver.store.sweeps.downtimes import Downtimes
from dataserver.store.sweeps.future import FutureSweep
from dataserver.store.sweeps.keep_alive import SilenceSweep
from dataserver.store.sweeps.unknown import UnknownSweep
from dataserver.store.tactical import Tactical

log = logging.getLogger(__name__)

#: Seconds between two rounds of maintenance.
MAINTENANCE_EVERY = 60.0
#: Seconds between two heartbeats in the database; less if ``server_keepalive`` requires it.
BEAT_EVERY = 5.0
#: Seconds between two counts of all modules, and between two removals of old rows of processes.
_COUNT_MODULES_EVERY = 300.0
#: Seconds between two steps of the sweeps that are needed less often.
_FORGET_REFUSED_EVERY, _FUTURE_TIMES_EVERY = 600.0, 60.0
#: Seconds for which the sweeps rest, and after which a process that does not sweep has lost the
#: lease.
REST, LEASE = 300.0, 30.0
#: A sleep of more seconds than this, noticed by any clock, is followed by a rest.
_SLEEP = 60.0
#: Characters of a pattern that are logged.
_LONGEST_PATTERN = 200


class PeriodicJobs:
    """All jobs under one configuration; ``stats`` gives the statistics of this process."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        zone: tzinfo,
        report: Report,
        rejected: Rejected,
        recorder: Recorder,
        delivery: Delivery,
        stats: Callable[[], ProcessStats],
    ) -> None:
        self._report = report
        self._rejected = rejected
        self._recorder = recorder
        self._delivery = delivery
        layout = recorder.layout
        self.refusals = RefusalLog(report.monotonic)
        self._rejections = RejectionEvents(engine, layout, zone, report)
        self._clocks = ClockWarnings(recorder.clocks, report)
        self._maintenance = Maintenance(engine, rejected, settings, report.monotonic, report.clock)
        # For one interval: another process takes over before the modules become unknown.
        interval = float(settings.self_monitoring_interval)
        self._tactical = Tactical(engine, layout, report.run, interval)
        self._self_monitoring = SelfMonitoring(settings, report, self._tactical.read)
        swept = sweeps(settings, engine, layout, zone)
        self.database = DatabaseJobs(engine, layout, settings, zone, report, stats, swept)

    def begin(self) -> None:
        """Count what an earlier run left in ``rejected/``, and look for alerts."""
        self._count_rejected()
        self.database.look_for_alerts()
        self._rejections.throttle.remember(self._rejected.counts(self._report.clock() - PERIOD))

    def run_due(self) -> None:
        """Do everything that is due.  Raises Stopped."""
        self._rejections.run_due()
        self.refusals.run_due()
        self._clocks.run_due()
        self._log_slow_patterns()
        if self._maintenance.due():
            self._maintain()
        if self._self_monitoring.due():
            self._self_monitoring.run(self._recorder, self._delivery)
        if self.database.due():
            self.database.run_due()

    def note_rejected(self, rejection: Rejection) -> None:
        """This file was rejected: the console is to show it."""
        error = rejection.error
        reason = Reason.INCOMPLETE if rejection.is_cut_upload else error.reason
        self._rejections.throttle.note(reason, rejection.file.name, error.message, rejection.agent)

    def leave(self) -> None:
        """The server stops regularly: tell the database."""
        self.database.leave()
        if self._report.database_error is not None:
            return
        try:
            self._tactical.leave()
        except StoreError as error:
            log.debug("the lease of the tactical view is left to expire: %s", error)

    def close(self) -> None:
        """Log and write everything that has not been reported yet."""
        self._clocks.run_due()
        self._rejections.run_due(everything=True)
        self.refusals.run_due(everything=True)

    def _maintain(self) -> None:
        try:
            dropped = self._maintenance.run()
        except (StoreError, OSError) as error:
            log.warning("maintenance failed and is retried in a minute: %s", error)
            return
        self._count_rejected()
        if dropped:
            log.info("dropped %d rejected packets that were too old or too many", dropped)

    def _count_rejected(self) -> None:
        gauges = self._report.gauges
        gauges.rejected_files, gauges.rejected_bytes = self._rejected.usage()

    def _log_slow_patterns(self) -> None:
        self._report.counters.undecided_patterns = PATTERNS.undecided
        for pattern in PATTERNS.fetch_resting():
            log.warning(
                "searching for the threshold %.*a takes too long: it counts as not found;"
                " rewrite it so that it can match in only one way",
                _LONGEST_PATTERN,
                pattern,
            )


class Maintenance:
    """Folds the ledger a step at a time, and cleans up the rejected packets."""

    def __init__(
        self,
        engine: Engine,
        rejected: Rejected,
        settings: Settings,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._sql = Sql(engine.dialect)
        self._rejected = rejected
        self._settings = settings
        self._monotonic = monotonic
        self._clock = clock
        self._last = monotonic()
        #: The agent up to which the present pass through the ledger has come.
        self._after = 0

    def due(self) -> bool:
        """Whether the last round is long enough ago."""
        return self._monotonic() - self._last >= MAINTENANCE_EVERY

    def run(self) -> int:
        """Do one round and return how many rejected packets were dropped.

        Raises StoreError, OSError.
        """
        self._last = self._monotonic()
        settings = self._settings
        for name in self._rejected.return_completed(Path(settings.data_in)):
            log.info("%a was completed after it was rejected as incomplete: it is read again", name)
        dropped = self._rejected.prune(settings.rejected_max_days, settings.rejected_max_bytes)
        with translating("fold the ledger"), self._engine.begin() as conn:
            now, days = int(self._clock()), settings.ledger_days
            self._after = ledger.fold(conn, self._sql, days, now, self._after) or 0
        return dropped


class Sweep(NamedTuple):
    """A job for the whole database, done a bounded step at a time.

    ``step(conn, now, horizon)`` works in the transaction given to it and returns whether there is
    more to do at once.  ``now`` is epoch seconds by the clock by which packets are stored; all
    packets that arrived at any server up to ``horizon`` are known to be processed.
    """

    name: str
    step: Callable[[Connection, int, int], bool]
    #: Seconds between two steps when there is no more.
    every: float = BEAT_EVERY
    #: Whether it acts on silence, and so has to rest after an outage.
    rests: bool = False


class DatabaseJobs:
    """Heartbeats in the database, the look for alerts, and the sweeps.

    No agent's silence is acted on before it could be heard: sweeps with ``rests`` wait for
    ``rest`` seconds after a start, after an outage of the database, and after this process slept.
    ``stats`` gives the statistics of this process.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        settings: Settings,
        zone: tzinfo,
        report: Report,
        stats: Callable[[], ProcessStats],
        sweeps: Sequence[Sweep],
        *,
        rest: float = REST,
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._settings = settings
        self._zone = zone
        self._report = report
        self._stats = stats
        self._rest = rest
        sql = Sql(engine.dialect)
        live = float(GIVEN_UP * settings.server_keepalive)
        self._processes = Processes(
            _this_process(settings, report), live, layout=layout, own_clock=report.clock
        )
        self._pair_files = Fingerprints(report.paths.home, report.monotonic)
        self._fingerprints = ProcessFingerprints()
        self._servers = Servers(sql, layout, EventLog(sql, layout))
        self._lease = Lease(sql, "sweeps", report.run, LEASE)
        self._beat_every = min(BEAT_EVERY, settings.server_keepalive / 3)
        self._next_beat = self._next_count = report.monotonic()
        self._next_alerts = report.monotonic() if has_alerts(layout) else float("inf")
        self._due = [(sweep, report.monotonic()) for sweep in sweeps]
        #: Since when there was no outage and no sleep (monotonic); the last look at both clocks.
        self._steady_since = report.monotonic()
        self._looked = (report.monotonic(), report.clock())
        #: Since when other servers have been watched, by the database's clock, or None if they
        #: are not (since the start or an outage).
        self._watching_since: int | None = None
        self._arrived = False
        self._modules: Modules | None = None

    def note_outage(self) -> None:
        """The database cannot be used: no silence during that time is to be acted on."""
        self._steady_since = self._report.monotonic()
        self._watching_since = None

    def due(self) -> bool:
        """Whether there is something to do now."""
        return self.idle_for() <= 0

    def idle_for(self) -> float:
        """Seconds until something is due; during an outage only the heartbeat is."""
        due = [self._next_beat]
        if self._report.database_error is None:
            due += [self._next_alerts, *(due for sweep, due in self._due if self._may_run(sweep))]
        return min(due) - self._report.monotonic()

    def run_due(self) -> None:
        """Do what is due; of the database's errors only StoreReplaced is raised."""
        self._note_sleep()
        now = self._report.monotonic()
        if now >= self._next_beat:
            usable = True
            if now >= self._next_count:
                usable = self._try("count modules and remove old processes", self._count_modules)
                self._next_count = now + _COUNT_MODULES_EVERY
            # Outside of the transaction, which a slow disk must not keep open.
            self._fingerprints = self._pair_files.current()
            if usable or self._report.database_error is None:
                self._try("renew this server's rows", self._beat)
            # From the end of the beat, so that a slow database is not asked all the time.
            self._next_beat = self._report.monotonic() + self._beat_every
        if self._report.database_error is not None:
            return  # everything else would wait in vain, and packets with it
        if now >= self._next_alerts:
            self.look_for_alerts()
        is_due = [self._may_run(sweep) and now >= due for sweep, due in self._due]
        if any(is_due):
            free = self._lease_is_free()
            self._due = [
                (sweep, self._sweep(sweep, free=free) if is_due[place] else due)
                for place, (sweep, due) in enumerate(self._due)
            ]

    def announce(self) -> None:
        """Show this server before its first batch; a beat after that shows its queue."""
        self._try("renew this server's rows", self._beat)

    def look_for_alerts(self) -> None:
        """Report whether the console has alerts, which this server does not evaluate."""
        if not has_alerts(self._layout):
            return
        self._try("look for alerts", self._count_alerts)
        self._next_alerts = self._report.monotonic() + self._settings.cache_seconds

    def leave(self) -> None:
        """The server stops regularly: release the lease, and mark its rows as stopped."""
        if self._arrived and self._report.database_error is None:
            self._try("mark this server as stopped", self._leave)

    # -- the jobs, each in a transaction --

    def _beat(self, conn: Connection) -> None:
        settings = self._settings
        now, text = self._now(conn)
        self._processes.beat(conn, self._stats(), self._fingerprints)
        self._servers.beat(
            conn,
            settings.server_name,
            self._processes.sums(conn),
            keepalive=settings.server_keepalive,
            version=__version__,
            now=now,
            now_text=text,
            address=None if self._arrived else own_address(),
            modules=self._modules,
        )
        if self._watching_since is None:
            self._watching_since = now
        self._servers.watch(conn, now, text, self._watching_since)
        self._arrived = True
        self._modules = None

    def _count_modules(self, conn: Connection) -> None:
        self._processes.prune(conn)
        self._modules = self._servers.count_modules(conn, self._settings.server_name)

    def _count_alerts(self, conn: Connection) -> None:
        count = count_alerts(conn, self._layout)
        self._report.note_alerts(count, accepted=self._settings.accept_no_alerts)

    def _leave(self, conn: Connection) -> None:
        now, text = self._now(conn)
        self._lease.release(conn)
        self._processes.leave(conn, self._stats())
        self._servers.leave(conn, self._settings.server_name, self._processes, now, text)

    def _sweep(self, sweep: Sweep, *, free: bool) -> float:
        """Do one step if this process holds or gets the lease; returns when the next one is due."""
        more = False

        def step(conn: Connection) -> None:
            nonlocal more
            if self._lease.hold(conn):
                # The states' times were written by our own clock; the horizon is by the
                # database's.
                ahead = self._report.clock() - database_time(conn)
                horizon = self._processes.horizon(conn) + ahead
                more = sweep.step(conn, int(self._report.clock()), int(horizon))

        if free and self._may_run(sweep):
            more = self._try(sweep.name, step) and more
        return self._report.monotonic() + (0.0 if more else sweep.every)

    def _lease_is_free(self) -> bool:
        """Read it first, so that the others do not queue behind SQLite's writers in vain."""
        try:
            with translating("read the lease"), reading(self._engine) as conn:
                return self._lease.free(conn)
        except StoreError as error:
            self._failed("read the lease", error)
            return False

    # -- around the jobs --

    def _try(self, what: str, job: Callable[[Connection], None]) -> bool:
        """Do a job in a transaction; returns whether it succeeded.  Raises StoreReplaced."""
        began = self._report.monotonic()
        try:
            with translating(what), self._engine.begin() as conn:
                job(conn)
        except StoreError as error:
            self._failed(what, error, self._report.monotonic() - began)
        except Exception as error:  # our own defect: no reason to stop storing packets
            log.debug("internal error", exc_info=True)
            self._report.log_once(what, f"cannot {what}: internal error {type(error).__name__}")
        else:
            self._report.clear(what)
            self._report.database_up()
            return True
        return False

    def _failed(self, what: str, error: StoreError, seconds: float = 0.0) -> None:
        # An error that concerns only this job is no outage: packets are stored, silence counts.
        if isinstance(error, StoreReplaced):
            raise error
        locked = isinstance(error, StoreConflict) and seconds >= LOCK_OUTAGE
        if locked or isinstance(error, StoreUnavailable):
            self.note_outage()
            self._report.database_down(error)
        elif isinstance(error, StoreConflict):
            log.debug("retried later: %s", error)
        else:
            self._report.log_once(what, str(error))

    def _now(self, conn: Connection) -> tuple[int, str]:
        now = int(database_time(conn))
        return now, local_text(now, self._zone)

    def _may_run(self, sweep: Sweep) -> bool:
        return not sweep.rests or self._report.monotonic() - self._steady_since >= self._rest

    def _note_sleep(self) -> None:
        """After a sleep of the machine, or a change of its clock, every agent seems silent."""
        before, self._looked = self._looked, (self._report.monotonic(), self._report.clock())
        gaps = (now - then for now, then in zip(self._looked, before, strict=True))
        if not all(0 <= gap <= _SLEEP for gap in gaps):
            self.note_outage()


def sweeps(settings: Settings, engine: Engine, layout: Layout, zone: tzinfo) -> list[Sweep]:
    """The sweeps that this database needs and the settings enable."""
    sql = Sql(engine.dialect)
    events = EventLog(sql, layout)
    text = partial(local_text, zone=zone)
    downtimes = Downtimes(sql, layout, zone, settings.server_name)
    found = [
        Sweep("carry out planned downtimes", lambda conn, now, _: downtimes.sweep(conn, now)),
        Sweep("count modules", lambda conn, _now, _: recount_flagged(conn, sql, layout)),
    ]
    if layout.has(schema.alert):
        alerts = Sweep("count fired alerts", lambda conn, _now, _: recount_fired(conn, sql, layout))
        found.append(alerts)
    if layout.has(schema.refused):
        forget = Sweep(
            "forget what was refused long ago",
            lambda conn, now, _: forget_refused(conn, now),
            every=_FORGET_REFUSED_EVERY,
        )
        found.append(forget)
    if settings.unknown:
        unknown = UnknownSweep(sql, layout, events, text, zone)
        silence = SilenceSweep(sql, layout, events, zone)
        autodisable = Autodisable(sql, layout, text)
        future = FutureSweep(sql, text)
        found += [
            Sweep("bring back times that lie ahead", future.sweep, _FUTURE_TIMES_EVERY, rests=True),
            Sweep("look for unknown modules", unknown.sweep, rests=True),
            Sweep("look after keep_alive modules", silence.sweep, rests=True),
            Sweep("disable silent agents", autodisable.sweep, rests=True),
        ]
    return found


def _this_process(settings: Settings, report: Report) -> Process:
    return Process(
        id=report.run,
        server_name=settings.server_name,
        server_type=DATA_SERVER,
        host=socket.gethostname(),
        instance=report.paths.name,
        pid=os.getpid(),
        version=__version__,
        configuration=settings.fingerprint(),
    )


def own_address() -> str:
    """The address by which this machine reaches others, or "" if it has no route.

    Nothing is sent and no name is looked up: the kernel is asked for the route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # An address of RFC 5737, for documentation only: it is outside of every network.
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])

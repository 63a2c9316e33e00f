"""What a running server owes the database besides packets: signs of life, and the sweeps.

Every few seconds its process's row and its server's row are renewed, and servers that have gone
silent are set down.  The sweeps are for all of the database, so one process does them for all:
the one that holds a lease, which it renews in the very transaction of each sweep.

Nobody's silence is judged before there was a chance to hear him: sweeps that do rest after a
start, after the database was away, and after this process slept itself.  A duty that fails is told
once and tried again later; packets come first.
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
from dataserver.ingest.delivery import Delivery
from dataserver.ingest.fingerprints import Fingerprints
from dataserver.ingest.read import Rejection
from dataserver.ingest.refusal_log import RefusalLog
from dataserver.ingest.rejection_events import PERIOD, RejectionEvents
from dataserver.ingest.report import HELD, Report
from dataserver.ingest.self_monitoring import SelfMonitoring
from dataserver.rules.patterns import PATTERNS
from dataserver.rules.times import local_text
from dataserver.spool.rejected import Rejected
from dataserver.store import ledger, schema
from dataserver.store.changes import Tally
from dataserver.store.counts import recount_fired, recount_flagged
from dataserver.store.errors import translating
from dataserver.store.events import EventLog
from dataserver.store.future import FutureSweep
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
from dataserver.store.sweeps.keep_alive import SilenceSweep
from dataserver.store.sweeps.unknown import UnknownSweep
from dataserver.store.tactical import Tactical
from dataserver.worker.clocks import ClockTeller

log = logging.getLogger(__name__)

#: Seconds between two signs of life; shorter where ``server_keepalive`` asks for it.
EVERY = 5.0
#: Seconds for which the sweeps rest, and after which one who does not sweep has lost the lease.
REST, LEASE = 300.0, 30.0
#: A sleep of more seconds than this, noticed by any clock, is followed by a rest.
_SLEEP = 60.0
#: Seconds between two counts of all modules, and between two removals of old rows.
_SELDOM = 300.0
#: Seconds between two looks for what was refused long ago.
_FORGET = 600.0
#: Seconds between two looks for times that lie ahead of the clock.
_FUTURE = 60.0


class Sweep(NamedTuple):
    """Something that is done for the whole database, a bounded step at a time.

    ``step(conn, now, horizon)`` works in the transaction given to it; True: there is more to do
    at once.  ``now`` is epoch seconds by the clock by which packets are taken in; all that
    arrived anywhere up to ``horizon`` is known to be processed.
    """

    name: str
    step: Callable[[Connection, int, int], bool]
    #: Seconds between two steps when there is no more.
    every: float = EVERY
    #: It judges silence, and so has to rest.
    rests: bool = False


class DatabaseJobs:
    """Called by the worker between two batches; ``figures`` says how it does.

    ``rest`` in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        settings: Settings,
        zone: tzinfo,
        report: Report,
        figures: Callable[[], ProcessStats],
        sweeps: Sequence[Sweep],
        *,
        rest: float = REST,
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._settings = settings
        self._zone = zone
        self._report = report
        self._figures = figures
        self._rest = rest
        sql = Sql(engine.dialect)
        live = float(GIVEN_UP * settings.server_keepalive)
        self._processes = Processes(
            _process(settings, report), live, layout=layout, own_clock=report.clock
        )
        self._fingerprints = Fingerprints(report.paths.home, report.monotonic)
        self._marks = ProcessFingerprints()
        self._servers = Servers(sql, layout, EventLog(sql, layout))
        self._lease = Lease(sql, "sweeps", report.run, LEASE)
        self._every = min(EVERY, settings.server_keepalive / 3)
        self._next_beat = self._next_seldom = report.monotonic()
        self._next_alerts = report.monotonic() if has_alerts(layout) else float("inf")
        self._due = [(sweep, report.monotonic()) for sweep in sweeps]
        #: Since when there was no outage and no sleep (monotonic); the last look at both clocks.
        self._steady_since = report.monotonic()
        self._looked = (report.monotonic(), report.clock())
        #: Since when the database's clock has been watched; None: not yet, or not any more.
        self._watching_since: int | None = None
        self._arrived = False
        self._modules: Modules | None = None

    def note_outage(self) -> None:
        """The database is away: nobody is to be judged by what he could not say."""
        self._steady_since = self._report.monotonic()
        self._watching_since = None

    def due(self) -> bool:
        """Whether there is something to do now."""
        return self.idle_for() <= 0

    def idle_for(self) -> float:
        """Seconds until there is something to do; while the database is away only the beat is."""
        due = [self._next_beat]
        if self._report.database_error is None:
            due += [self._next_alerts, *(due for sweep, due in self._due if self._may(sweep))]
        return min(due) - self._report.monotonic()

    def round(self) -> None:
        """Do what is due; never raises for the database's sake."""
        self._note_sleep()
        now = self._report.monotonic()
        if now >= self._next_beat:
            can = True
            if now >= self._next_seldom:
                can = self._try("look through processes and modules", self._seldom)
                self._next_seldom = now + _SELDOM
            # Outside of the transaction, which no slow disk is to hold open.
            self._marks = self._fingerprints.current()
            if can or self._report.database_error is None:
                self._try("show that this server lives", self._beat)
            # From its end: a database that answers slowly is not asked all the time.
            self._next_beat = self._report.monotonic() + self._every
        if self._report.database_error is not None:
            return  # the rest would wait in vain, and packets with it
        if now >= self._next_alerts:
            self.look_for_alerts()
        is_due = [self._may(sweep) and now >= due for sweep, due in self._due]
        if any(is_due):
            free = self._lease_is_free()
            self._due = [
                (sweep, self._sweep(sweep, free=free) if is_due[place] else due)
                for place, (sweep, due) in enumerate(self._due)
            ]

    def look_for_alerts(self) -> None:
        """Tell whether the console has alerts, which are not evaluated; never raises for that."""
        if not has_alerts(self._layout):
            return
        self._try("look for alerts", self._count_alerts)
        self._next_alerts = self._report.monotonic() + self._settings.cache_seconds

    def leave(self) -> None:
        """The server stops in good order: let go of everything, and say so."""
        if self._arrived and self._report.database_error is None:
            self._try("say that this server stops", self._leave)

    # -- each duty ----------------------------------------------------------------

    def _beat(self, conn: Connection) -> None:
        settings = self._settings
        now, text = self._now(conn)
        self._processes.beat(conn, self._figures(), self._marks)
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

    def _seldom(self, conn: Connection) -> None:
        self._processes.prune(conn)
        self._modules = self._servers.count_modules(conn, self._settings.server_name)

    def _count_alerts(self, conn: Connection) -> None:
        count = count_alerts(conn, self._layout)
        self._report.alerts(count, accepted=self._settings.accept_no_alerts)

    def _leave(self, conn: Connection) -> None:
        now, text = self._now(conn)
        self._lease.release(conn)
        self._processes.leave(conn, self._figures())
        self._servers.leave(conn, self._settings.server_name, self._processes, now, text)

    def _sweep(self, sweep: Sweep, *, free: bool) -> float:
        """Do one step of it if we are the one to do it; when the next one is due."""
        more = False

        def step(conn: Connection) -> None:
            nonlocal more
            if self._lease.hold(conn):
                # Our own clock, by which the states' times were written; the horizon is of the
                # database's.
                ahead = self._report.clock() - database_time(conn)
                horizon = self._processes.horizon(conn) + ahead
                more = sweep.step(conn, int(self._report.clock()), int(horizon))

        if free and self._may(sweep):
            more = self._try(sweep.name, step) and more
        return self._report.monotonic() + (0.0 if more else sweep.every)

    def _lease_is_free(self) -> bool:
        """Looked at first, so that all others do not queue behind SQLite's writers for nothing."""
        try:
            with translating("look at the lease"), reading(self._engine) as conn:
                return self._lease.free(conn)
        except StoreError as error:
            self._failed("look at the lease", error)
            return False

    # -- around them --------------------------------------------------------------

    def _try(self, what: str, duty: Callable[[Connection], None]) -> bool:
        """Whether it went well; what did not is told, and not done."""
        began = self._report.monotonic()
        try:
            with translating(what), self._engine.begin() as conn:
                duty(conn)
        except StoreError as error:
            self._failed(what, error, self._report.monotonic() - began)
        except Exception as error:  # our own defect: no reason to leave packets lying
            log.debug("a defect", exc_info=True)
            self._report.complain(what, f"cannot {what}: internal error {type(error).__name__}")
        else:
            self._report.content(what)
            self._report.back()
            return True
        return False

    def _failed(self, what: str, error: StoreError, seconds: float = 0.0) -> None:
        # What only this duty lacks is nobody's outage: packets come in, and silence is judged.
        if isinstance(error, StoreReplaced):
            raise error
        held = isinstance(error, StoreConflict) and seconds >= HELD
        if held or isinstance(error, StoreUnavailable):
            self.note_outage()
            self._report.away(error)
        elif isinstance(error, StoreConflict):
            log.debug("put off: %s", error)
        else:
            self._report.complain(what, str(error))

    def _now(self, conn: Connection) -> tuple[int, str]:
        now = int(database_time(conn))
        return now, local_text(now, self._zone)

    def _may(self, sweep: Sweep) -> bool:
        return not sweep.rests or self._report.monotonic() - self._steady_since >= self._rest

    def _note_sleep(self) -> None:
        """A machine that slept, or whose clock was set, finds everybody silent for long."""
        before, self._looked = self._looked, (self._report.monotonic(), self._report.clock())
        gaps = (now - then for now, then in zip(self._looked, before, strict=True))
        if not all(0 <= gap <= _SLEEP for gap in gaps):
            self.note_outage()


def sweeps(settings: Settings, engine: Engine, layout: Layout, zone: tzinfo) -> list[Sweep]:
    """All the sweeps that there are and that the settings want."""
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
            every=_FORGET,
        )
        found.append(forget)
    if settings.unknown:
        unknown = UnknownSweep(sql, layout, events, text, zone)
        silence = SilenceSweep(sql, layout, events, zone)
        autodisable = Autodisable(sql, layout, text)
        future = FutureSweep(sql, text)
        found += [
            Sweep("bring back times that lie ahead", future.sweep, _FUTURE, rests=True),
            Sweep("look for unknown modules", unknown.sweep, rests=True),
            Sweep("look after keep_alive modules", silence.sweep, rests=True),
            Sweep("disable silent agents", autodisable.sweep, rests=True),
        ]
    return found


def _process(settings: Settings, report: Report) -> Process:
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
    """The address by which this machine reaches others; empty where it reaches none.

    Nothing is sent and no name is looked up: the kernel is asked for the way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            # Of RFC 5737, for documentation only: any address that is not of this network.
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(sock.getsockname()[0])


# -- what has to be done now and then: fold the ledger, look after the rejected packets

#: Seconds between two rounds.
MAINTENANCE_EVERY = 60.0


class Maintenance:
    """Does a little of everything that is due; called by the worker between two batches."""

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
        #: How far the present pass through the agents has come.
        self._after = 0

    def due(self) -> bool:
        """Whether the last round is long enough ago."""
        return self._monotonic() - self._last >= MAINTENANCE_EVERY

    def round(self) -> int:
        """One round; how many rejected packets were dropped.  Raises StoreError, OSError."""
        self._last = self._monotonic()
        settings = self._settings
        for name in self._rejected.return_completed(Path(settings.data_in)):
            log.info("%a was completed after it was rejected as incomplete: it is read again", name)
        dropped = self._rejected.prune(settings.rejected_max_days, settings.rejected_max_bytes)
        with translating("fold the ledger"), self._engine.begin() as conn:
            now, days = int(self._clock()), settings.ledger_days
            self._after = ledger.fold(conn, self._sql, days, now, self._after) or 0
        return dropped


# -- everything that a running server does besides packets, each when it is due
#
# Called by the worker between two batches, so nothing of it needs a thread or a lock of its own;
# each part is bounded, and none of it keeps packets from being taken in when it fails.

#: Characters of a pattern that are logged.
_LONGEST = 200


class PeriodicJobs:
    """One configuration's upkeep; ``figures`` says how this process does."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        zone: tzinfo,
        report: Report,
        rejected: Rejected,
        recorder: Recorder,
        delivery: Delivery,
        figures: Callable[[], ProcessStats],
    ) -> None:
        self._report = report
        self._rejected = rejected
        self._recorder = recorder
        self._delivery = delivery
        layout = recorder.layout
        self._maintenance = Maintenance(engine, rejected, settings, report.monotonic, report.clock)
        # For one interval: whoever is next takes over before the modules become unknown.
        seconds = float(settings.self_monitoring_interval)
        self._tactical = Tactical(engine, layout, report.run, seconds)
        self._internals = SelfMonitoring(settings, report, self._tactical.read)
        self._teller = RejectionEvents(engine, layout, zone, report)
        self._refusals = RefusalLog(report.monotonic)
        self._clocks = ClockTeller(recorder.clocks, report)
        swept = sweeps(settings, engine, layout, zone)
        self._duties = DatabaseJobs(engine, layout, settings, zone, report, figures, swept)

    def begin(self) -> None:
        """Look at what an earlier run left, and at what this one leaves alone."""
        self._count_rejected()
        self._duties.look_for_alerts()
        self._teller.complaints.remember(self._rejected.counts(self._report.clock() - PERIOD))

    def round(self) -> None:
        """Do what is due.  Raises Stopped."""
        self._teller.round()
        self._refusals.round()
        self._clocks.round()
        self._tell_patterns()
        if self._maintenance.due():
            self._maintain()
        if self._internals.due():
            self._internals.round(self._recorder, self._delivery)
        if self._duties.due():
            self._duties.round()

    def idle_for(self) -> float:
        """Seconds until something is due that cannot wait for the next scan."""
        return self._duties.idle_for()

    def note_rejected(self, bad: Rejection) -> None:
        """This file was set aside: an operator is to hear of it."""
        reason = Reason.INCOMPLETE if bad.is_cut_upload else bad.error.reason
        self._teller.complaints.note(reason, bad.file.name, bad.error.message, bad.agent)

    def note_stored(self, tally: Tally) -> None:
        """A transaction was committed: an operator is to hear of what it refused."""
        self._refusals.note(tally)

    def note_outage(self) -> None:
        """The database is away."""
        self._duties.note_outage()

    def leave(self) -> None:
        """The server stops in good order: tell the database."""
        self._duties.leave()
        if self._report.database_error is not None:
            return
        try:
            self._tactical.leave()
        except StoreError as error:
            log.debug("the lease is left to expire: %s", error)

    def close(self) -> None:
        """Say what has not been said yet."""
        self._clocks.round()
        self._teller.round(everything=True)
        self._refusals.round(everything=True)

    def _maintain(self) -> None:
        try:
            dropped = self._maintenance.round()
        except (StoreError, OSError) as error:
            log.warning("maintenance put off: %s", error)
            return
        self._count_rejected()
        if dropped:
            log.info("dropped %d rejected packets that were too old or too many", dropped)

    def _count_rejected(self) -> None:
        gauges = self._report.gauges
        gauges.rejected_files, gauges.rejected_bytes = self._rejected.usage()

    def _tell_patterns(self) -> None:
        self._report.counters.undecided_patterns = PATTERNS.undecided
        for pattern in PATTERNS.fetch_resting():
            log.warning(
                "the threshold %.*a takes too long to be searched for: it counts as not found;"
                " write it so that only one thing fits each place",
                _LONGEST,
                pattern,
            )

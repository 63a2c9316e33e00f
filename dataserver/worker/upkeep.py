"""Everything that a running server does besides packets, each when it is due.

Called by the worker between two batches, so nothing of it needs a thread or a lock of its own;
each part is bounded, and none of it keeps packets from being taken in when it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import tzinfo

from sqlalchemy import Engine

from dataserver.errors import Reason, StoreError
from dataserver.maintenance import Maintenance
from dataserver.patterns import PATTERNS
from dataserver.settings import Settings
from dataserver.spool.intake import Bad
from dataserver.spool.rejected import Rejected
from dataserver.store.batch import Tally
from dataserver.store.processes import Figures
from dataserver.store.recorder import Recorder
from dataserver.store.tactical import Tactical
from dataserver.worker.clocks import ClockTeller
from dataserver.worker.complaints import PERIOD, Teller
from dataserver.worker.delivery import Delivery
from dataserver.worker.duties import Duties, sweeps
from dataserver.worker.internals import Internals
from dataserver.worker.refusals import RefusalLog
from dataserver.worker.report import Report

log = logging.getLogger(__name__)

#: Characters of a pattern that are logged.
_LONGEST = 200


class Upkeep:
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
        figures: Callable[[], Figures],
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
        self._internals = Internals(settings, report, self._tactical.read)
        self._teller = Teller(engine, layout, zone, report)
        self._refusals = RefusalLog(report.monotonic)
        self._clocks = ClockTeller(recorder.clocks, report)
        swept = sweeps(settings, engine, layout, zone)
        self._duties = Duties(engine, layout, settings, zone, report, figures, swept)

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

    def note_rejected(self, bad: Bad) -> None:
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

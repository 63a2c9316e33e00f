"""Running one instance: its locks, the loop, signals, a reread configuration, and stopping.

:func:`run` is what the command line calls; :class:`Worker` is the loop.  What is done in each round
is in :mod:`dataserver.ingest.pipeline`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sqlalchemy import Engine

from dataserver.config.paths import Paths
from dataserver.config.settings import Settings
from dataserver.errors import (
    DataserverError,
    SchemaError,
    SpoolError,
    SpoolReplaced,
    StoreError,
    StoreReplaced,
)
from dataserver.ingest.delivery import OUTAGE_PAUSES, Stopped
from dataserver.ingest.pipeline import Pipeline
from dataserver.ingest.report import Report
from dataserver.runtime.heartbeat import STUCK_AFTER, Heartbeat, Phase, Status, Trouble
from dataserver.sd_notify import Notify
from dataserver.spool.lock import InstanceLock
from dataserver.spool.watch import Watch
from dataserver.store.database import on_statement
from dataserver.store.opening import open_store

log = logging.getLogger(__name__)

#: Seconds after a timeout of the database until the loop counts as stuck.
_STUCK_MARGIN = 30.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did; ``seconds`` from the start of its work to its end."""

    packets: int
    duplicates: int
    late: int
    late_counters_dropped: int
    repaired: int
    rejected: int
    samples: int
    stored: int
    refused: int
    ignored: int
    waiting: int
    #: Files that could not be stored and stay; whether a fault of this program is the reason.
    failing: int
    internal_error: bool
    seconds: float


class Worker:
    """Runs one instance; created and used in the main thread.

    ``reload`` reads the settings again (SIGHUP); ``show`` is called with every status, ``notify``
    with the messages for the manager that started the process (sd_notify(3)).
    """

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        *,
        once: bool = False,
        reload: Callable[[], Settings] | None = None,
        show: Callable[[Status], None] | None = None,
        notify: Notify = lambda _: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        #: The previous settings, after a reread until the new ones are known to work.
        self._previous: Settings | None = None
        self._paths = paths
        self._once = once
        self._reload = reload
        self._monotonic = monotonic
        self._stopping = False
        self._reloading = False
        self._heartbeat_started = False
        self._watch: Watch | None = None
        self.report = Report(paths, clock, monotonic, os.getpid(), show)
        self._heartbeat = Heartbeat(
            paths.heartbeat,
            self.report.run,
            clock=clock,
            monotonic=monotonic,
            notify=notify,
            beside=self._report_beside,
        )

    def stop(self) -> None:
        """Stop after the batch under way; may be called by any thread or signal handler."""
        self._stopping = True
        if self._watch is not None:
            self._watch.ring()

    def reread(self) -> None:
        """Read the configuration again after the batch under way."""
        self._reloading = True
        if self._watch is not None:
            self._watch.ring()

    def run(self) -> Summary:
        """Work until stopped (``once``: until everything that is queued is stored).

        Raises LockedError, SpoolError (no drop directory at the start), ConfigError, SchemaError,
        and with ``once`` also StoreUnavailable.
        """
        started = self._monotonic()
        while True:
            try:
                with InstanceLock(self._paths.name, self._paths.var, Path(self._settings.data_in)):
                    self._run_settings()
            except DataserverError as error:
                if self._previous is None:
                    raise
                self._keep_previous(error)
                continue
            if self._stopping or self._once:
                break
            self._reread_settings()
        return self._summary(self._monotonic() - started)

    def _run_settings(self) -> None:
        """Work with the present settings until the worker is to stop or to reread them."""
        settings = self._settings
        # Each statement of a transaction is a step, so a slow database does not make the loop
        # stuck; one that does not answer counts as unavailable after its timeout, so the loop must
        # not count as stuck before that.
        self._heartbeat.stuck_after = max(
            STUCK_AFTER, settings.database_timeout + settings.connect_timeout + _STUCK_MARGIN
        )
        if not self._heartbeat_started:
            self._heartbeat.start()
            self._heartbeat_started = True
        engine = open_store(settings, self._paths.home)
        on_statement(engine, self._heartbeat.step)
        self._watch = Watch(Path(settings.data_in))
        try:
            if not self._once:
                self._watch.start()
            pipeline = self._open_pipeline(engine)
            if pipeline is not None:
                with pipeline:
                    try:
                        self._work(pipeline)
                    finally:
                        if self._stopping:
                            pipeline.leave()
        except Stopped:
            pass
        except StoreError as error:
            self.report.database_lost(error)
            raise
        except SpoolReplaced as error:
            self.report.trouble(Trouble.DATA_IN, str(error))
            self.report.gauges.data_in_up = 0
            raise
        finally:
            engine.dispose()
            self._finish()

    def _open_pipeline(self, engine: Engine) -> Pipeline | None:
        """Wait until the database can be used; returns None if the worker is to stop meanwhile."""
        wait = OUTAGE_PAUSES[0]
        while True:
            try:
                return Pipeline(
                    self._settings,
                    engine,
                    self.report,
                    self._heartbeat,
                    self._pause,
                    patient=not self._once,
                )
            except (SchemaError, StoreReplaced):
                raise
            except StoreError as error:
                if self._once:
                    raise
                self.report.database_down(error)
            self._heartbeat.enter(Phase.WAITING_FOR_DATABASE)
            if self._pause(wait):
                return None
            wait = min(wait * 2, OUTAGE_PAUSES[1])

    def _work(self, pipeline: Pipeline) -> None:
        if self._previous is not None:
            # Only now are the new settings known to work.
            self._previous = None
            self.report.resolved(Trouble.CONFIGURATION)
        self.report.database_up()
        while not (self._stopping or self._reloading):
            try:
                progress = pipeline.step()
            except SpoolReplaced:
                # The lock is on the old directory; after a restart it is on the new one.
                raise
            except SpoolError as error:
                if self._once:
                    raise
                self.report.trouble(Trouble.DATA_IN, str(error))
                self.report.gauges.data_in_up = 0
                progress = False
            else:
                self.report.resolved(Trouble.DATA_IN)
                self.report.gauges.data_in_up = 1
            if self._once:
                return
            if not progress:
                self._heartbeat.enter(Phase.IDLE)
                self.report.write(self._settings, Phase.IDLE)
                self._pause(pipeline.idle_for(), for_files=True)
        if self._stopping:
            # Not when the configuration is reread: systemd would take the process to be stopping.
            self._heartbeat.enter(Phase.STOPPING)

    def _pause(self, seconds: float, *, for_files: bool = False) -> bool:
        """Wait, but no longer than until a file arrives if ``for_files``.

        Returns whether the worker is to leave its loop.
        """
        assert self._watch is not None
        deadline = self._monotonic() + seconds
        while not (self._stopping or self._reloading):
            left = deadline - self._monotonic()
            if left <= 0:
                break
            arrived = self._watch.wait(min(left, 1.0))
            self._heartbeat.step()
            self.report.counters.doorbell_overflows += self._watch.take_overflows()
            self.report.write(self._settings, self._heartbeat.phase)
            if arrived and for_files:
                break
        return self._stopping or self._reloading

    def _finish(self) -> None:
        assert self._watch is not None
        watch, self._watch = self._watch, None
        watch.stop()
        staying = self._reloading or self._previous is not None
        ending = self._stopping or self._once or not staying
        if ending:
            self._heartbeat.stop()
            # Without the files that the last batch stored or rejected.
            self.report.count_queue(Path(self._settings.data_in), last=True)
        phase = Phase.STOPPED if ending else Phase.STARTING
        self.report.write(self._settings, phase, force=True)

    def _reread_settings(self) -> None:
        self._reloading = False
        if self._reload is None:
            return
        self._previous = self._settings
        try:
            self._settings = self._reload()
        except DataserverError as error:
            self._keep_previous(error)
        else:
            log.info("configuration read again")

    def _keep_previous(self, error: DataserverError) -> None:
        """The reread configuration cannot be used: continue with the previous one."""
        assert self._previous is not None
        self.report.trouble(Trouble.CONFIGURATION, str(error))
        self._settings, self._previous = self._previous, None

    def _report_beside(self) -> None:
        """Count the queue and write the status, also while the main loop waits.

        Called by the heartbeat's thread.
        """
        settings = self._settings
        if self._heartbeat.phase in (Phase.STOPPING, Phase.STOPPED):
            return
        try:
            self.report.count_queue(Path(settings.data_in))
            self.report.write(settings, self._heartbeat.phase)
        except Exception as error:  # noqa: BLE001 - the heartbeat must go on
            self.report.log_once("the status", f"cannot report: {error!r}")

    def _summary(self, seconds: float) -> Summary:
        counters = self.report.counters
        return Summary(
            packets=counters.packets,
            duplicates=counters.duplicates,
            late=counters.late,
            late_counters_dropped=counters.late_counters_dropped,
            repaired=sum(counters.repaired.values()),
            rejected=sum(counters.rejected.values()),
            samples=counters.samples,
            stored=counters.stored,
            refused=counters.refused,
            ignored=counters.ignored,
            waiting=self.report.gauges.waiting,
            failing=self.report.gauges.failing,
            internal_error=self.report.internal_error,
            seconds=round(seconds, 3),
        )


def run(
    settings: Settings,
    paths: Paths,
    *,
    once: bool = False,
    reload: Callable[[], Settings] | None = None,
    show: Callable[[Status], None] | None = None,
    notify: Notify = lambda _: None,
) -> Summary:
    """Run an instance: SIGTERM and SIGINT stop it, SIGHUP rereads the configuration."""
    # Packets come and go by the thousand and contain no cycles: frequent garbage collections took a
    # seventh of the server's time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    worker = Worker(settings, paths, once=once, reload=reload, show=show, notify=notify)

    def on_stop(_number: int, _frame: FrameType | None) -> None:
        worker.stop()

    def on_reread(_number: int, _frame: FrameType | None) -> None:
        worker.reread()

    previous = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGTERM, on_stop),
            (signal.SIGINT, on_stop),
            (signal.SIGHUP, on_reread),
        )
    }
    try:
        return worker.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""The worker's outer loop: locks, doorbell, signals, the configuration, and stopping."""

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

#: Seconds between a timeout of the database and being stuck.
_SLACK = 30.0


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
    #: Files that could not be stored and stay; whether that is a fault of this program.
    failing: int
    internal_error: bool
    seconds: float


class Worker:
    """Runs one instance; made and used in the main thread.

    ``reload`` gives the settings anew (SIGHUP); ``show`` is told of every status, ``notify``
    of what whoever started the process wants to know.
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
        #: What worked until the configuration was read again, until the new one works.
        self._before: Settings | None = None
        self._paths = paths
        self._once = once
        self._reload = reload
        self._monotonic = monotonic
        self._stopping = False
        self._reloading = False
        self._beating = False
        self._bell: Watch | None = None
        self.report = Report(paths, clock, monotonic, os.getpid(), show)
        self._heartbeat = Heartbeat(
            paths.heartbeat,
            self.report.run,
            clock=clock,
            monotonic=monotonic,
            notify=notify,
            beside=self._look_beside,
        )

    def stop(self) -> None:
        """Finish the batch under way and leave; from any thread or signal handler."""
        self._stopping = True
        if self._bell is not None:
            self._bell.ring()

    def reread(self) -> None:
        """Read the configuration again after the batch under way."""
        self._reloading = True
        if self._bell is not None:
            self._bell.ring()

    def _look_beside(self) -> None:
        """With each heartbeat, by its thread: what must be seen whatever the main loop does."""
        settings = self._settings
        if self._heartbeat.phase in (Phase.STOPPING, Phase.STOPPED):
            return
        try:
            self.report.count(Path(settings.data_in))
            self.report.write(settings, self._heartbeat.phase)
        except Exception as error:  # noqa: BLE001 - the heartbeat must go on
            self.report.log_once("the status", f"cannot report: {error!r}")

    def run(self) -> Summary:
        """Work until told to stop (``once``: until everything that is there is taken in).

        Raises LockedError, SpoolError (no drop directory at the start), ConfigError, SchemaError,
        and with ``once`` also StoreUnavailable.
        """
        started = self._monotonic()
        while True:
            try:
                with InstanceLock(self._paths.name, self._paths.var, Path(self._settings.data_in)):
                    self._run_settings()
            except DataserverError as error:
                if self._before is None:
                    raise
                self._go_back(error)
                continue
            if self._stopping or self._once:
                break
            self._take_new_settings()
        return self._summary(self._monotonic() - started)

    def _take_new_settings(self) -> None:
        self._reloading = False
        if self._reload is None:
            return
        self._before = self._settings
        try:
            self._settings = self._reload()
        except DataserverError as error:
            self._go_back(error)
        else:
            log.info("configuration read again")

    def _go_back(self, error: DataserverError) -> None:
        """The configuration that was read again cannot be used: go on with the one before."""
        assert self._before is not None
        self.report.trouble(Trouble.CONFIGURATION, str(error))
        self._settings, self._before = self._before, None

    def _run_settings(self) -> None:
        """Work with the present settings until told to stop or to read them again."""
        settings = self._settings
        # Each statement of a transaction is a step, so a slow database makes nobody stuck; one
        # that gives no answer counts as away after its timeout, and so must not be stuck before.
        self._heartbeat.stuck_after = max(
            STUCK_AFTER, settings.database_timeout + settings.connect_timeout + _SLACK
        )
        if not self._beating:
            self._heartbeat.start()
            self._beating = True
        engine = open_store(settings, self._paths.home)
        on_statement(engine, self._heartbeat.step)
        self._bell = Watch(Path(settings.data_in))
        try:
            if not self._once:
                self._bell.start()
            session = self._open_session(engine)
            if session is not None:
                with session:
                    try:
                        self._work(session)
                    finally:
                        if self._stopping:
                            session.leave()
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

    def _finish(self) -> None:
        assert self._bell is not None
        bell, self._bell = self._bell, None
        bell.stop()
        staying = self._reloading or self._before is not None
        ending = self._stopping or self._once or not staying
        if ending:
            self._heartbeat.stop()
            # What the last batch took, or set aside, waits no more.
            self.report.count(Path(self._settings.data_in), last=True)
        phase = Phase.STOPPED if ending else Phase.STARTING
        self.report.write(self._settings, phase, force=True)

    def _open_session(self, engine: Engine) -> Pipeline | None:
        """Wait until the database can be used; None: told to stop meanwhile."""
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

    def _work(self, session: Pipeline) -> None:
        if self._before is not None:
            # Only now it is known that the new one can be used.
            self._before = None
            self.report.resolved(Trouble.CONFIGURATION)
        self.report.database_up()
        while not (self._stopping or self._reloading):
            try:
                progress = session.step()
            except SpoolReplaced:
                # Its lock is on the old one; what starts this process again locks the new one.
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
                self._pause(session.idle_for(), for_files=True)
        if self._stopping:
            # Not where the configuration is read again: systemd would take it at its word.
            self._heartbeat.enter(Phase.STOPPING)

    def _pause(self, seconds: float, *, for_files: bool = False) -> bool:
        """Wait, for a file at most if ``for_files``; True when the worker is to leave its loop."""
        assert self._bell is not None
        deadline = self._monotonic() + seconds
        while not (self._stopping or self._reloading):
            left = deadline - self._monotonic()
            if left <= 0:
                break
            rang = self._bell.wait(min(left, 1.0))
            self._heartbeat.step()
            self.report.counters.doorbell_overflows += self._bell.take_overflows()
            self.report.write(self._settings, self._heartbeat.phase)
            if rang and for_files:
                break
        return self._stopping or self._reloading

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
    """Run an instance as the command line does: SIGTERM and SIGINT stop it, SIGHUP rereads."""
    # Packets come and go by the thousand and hold no cycles: the collector's frequent looks at
    # them took a seventh of the server's time.
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

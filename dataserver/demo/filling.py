"""Filling a demo home: its packets of weeks taken in by the real worker, in seconds.

The worker's clock is the packets': what is sent at some time is taken in at that time, so
that events, contacts and the looks for silent agents have the times that they would have had.
Otherwise it is what ``dataserver run --once`` does, portion after portion.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import tzinfo
from typing import NamedTuple

from sqlalchemy import Engine

from dataserver.config import Settings, load
from dataserver.demo.cast import cast
from dataserver.demo.home import DemoHome, State
from dataserver.demo.kit import World
from dataserver.demo.model import Portion, Sender, portions
from dataserver.demo.odd import odd_files
from dataserver.demo.uploading import Uploader
from dataserver.health import Heartbeat, Phase
from dataserver.spool.lock import InstanceLock
from dataserver.store import ledger
from dataserver.store.errors import translating
from dataserver.store.layout import inspect
from dataserver.store.opening import open_store
from dataserver.store.sql import Sql
from dataserver.worker.duties import Sweep, sweeps
from dataserver.worker.report import Report
from dataserver.worker.session import Session

#: Files and seconds of one portion.  A single batch each: no second process has to read.
_MOST, _LONGEST = 450, 6 * 3_600
#: Seconds of history between two notes of how far it is.
_REMEMBERED = 86_400


class Filled(NamedTuple):
    """What a filling did; ``whole``: it was not told to stop before its end."""

    packets: int
    values: int
    stored: int
    rejected: int
    seconds: float
    whole: bool


class Progress(NamedTuple):
    """How far a filling is: the time of its last packet (epoch seconds), packets so far."""

    time: int
    packets: int


def fill(
    demo: DemoHome,
    until: int,
    *,
    environment: Mapping[str, str],
    show: Callable[[Progress], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Filled:
    """Take in what the agents send until then (epoch seconds), from where the home is.

    Raises LockedError (somebody runs the home), ConfigError, SpoolError and StoreError.
    """
    started = time.monotonic()
    # As the server has it for itself: packets hold no cycles.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    paths = demo.home.instance()
    settings = load(paths, environment)
    engine = open_store(settings, demo.home.root)
    uploader = Uploader(settings.data_in, demo.var / "spare")
    filling = _Filling(demo, settings, engine, settings.zone(environment))
    try:
        with InstanceLock(paths.name, paths.var, settings.data_in):
            whole = filling.run(uploader, until, show, stopping)
    finally:
        uploader.close()
        engine.dispose()
    counters = filling.report.counters
    return Filled(
        packets=counters.packets,
        values=counters.samples,
        stored=counters.stored,
        rejected=sum(counters.rejected.values()),
        seconds=time.monotonic() - started,
        whole=whole,
    )


class _Filling:
    """One filling: the worker's parts, and the clock that they are given."""

    def __init__(self, demo: DemoHome, settings: Settings, engine: Engine, zone: tzinfo) -> None:
        self._demo = demo
        self._settings = settings
        self._engine = engine
        self._zone = zone
        self._now = demo.state.until
        self._sweeps: list[Sweep] = []
        paths = demo.home.instance()
        self.report = Report(paths, self._clock, time.monotonic, os.getpid())
        self._heartbeat = Heartbeat(paths.heartbeat, self.report.run, clock=self._clock)

    def run(
        self,
        uploader: Uploader,
        until: int,
        show: Callable[[Progress], None],
        stopping: Callable[[], bool],
    ) -> bool:
        """Take everything in; False: told to stop before that."""
        queue = self._portions(until)
        left = True
        while left and not stopping():
            # The end of a session tells what was set aside: one for each time that something is.
            with self._session() as session:
                left = self._take(session, queue, uploader, show, stopping)
        if left:
            return False
        self._now = until
        self._fold()
        self.report.write(self._settings, Phase.STOPPED, force=True)
        self._demo.advance(until)
        return True

    def _take(
        self,
        session: Session,
        queue: Iterator[Portion],
        uploader: Uploader,
        show: Callable[[Progress], None],
        stopping: Callable[[], bool],
    ) -> bool:
        """Take in portions until one holds what is set aside; False: there is none left."""
        counters = self.report.counters
        rejected = counters.rejected.total()
        for portion in queue:
            self._now = portion.time
            uploader.fill(portion.files)
            session.step()
            if portion.looks:
                self._look()
            self._advance(portion.time)
            show(Progress(portion.time, counters.packets))
            if counters.rejected.total() > rejected or stopping():
                return True
        return False

    def _advance(self, now: int) -> None:
        """Remember now and then how far it is; what is sent again after that does no harm."""
        if now - self._demo.state.until > _REMEMBERED:
            self._demo.advance(now - 1)

    def _portions(self, until: int) -> Iterator[Portion]:
        state = self._demo.state
        start = state.until
        dues = [sender.dues(start, until) for sender in senders(state, self._zone)]
        odd = odd_files(state.end, self._zone)
        dues.append(due for due in odd if start < due.time <= until)
        return portions(dues, _MOST, _LONGEST)

    def _session(self) -> Session:
        return Session(
            self._settings, self._engine, self.report, self._heartbeat, _pause, patient=False
        )

    def _look(self) -> None:
        """Look for the silent, as the running server that holds the lease does."""
        if not self._sweeps:
            layout = inspect(self._engine)
            found = sweeps(self._settings, self._engine, layout, self._zone)
            self._sweeps = [sweep for sweep in found if sweep.rests]
        for sweep in self._sweeps:
            while self._step(sweep):
                pass

    def _step(self, sweep: Sweep) -> bool:
        with translating(sweep.name), self._engine.begin() as conn:
            return sweep.step(conn, self._now, self._now)

    def _fold(self) -> None:
        """Fold the ledger, as a running server has done all the time."""
        sql, after = Sql(self._engine.dialect), 0
        more = True
        while more:
            with translating("fold the ledger"), self._engine.begin() as conn:
                days = self._settings.ledger_days
                last = ledger.fold(conn, sql, days, self._now, after)
            more, after = last is not None, last or 0

    def _clock(self) -> float:
        return float(self._now)


def senders(state: State, zone: tzinfo) -> list[Sender]:
    """Who sends in this demo."""
    world = World(state.seed, state.end, zone)
    return [Sender(agent, zone) for agent in cast(world, state.agents)]


def _pause(seconds: float) -> bool:
    """The session waits for a database that is busy; it is never told to stop."""
    time.sleep(seconds)
    return False

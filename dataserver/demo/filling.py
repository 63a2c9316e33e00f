"""Filling a demo home: weeks of packets, stored by the real worker in seconds.

The worker's clock follows the packets: each is stored at the time at which it was sent, so that
events, contacts and the sweeps for silent agents have the times that they would have had.
Otherwise it works like ``dataserver run --once``, portion after portion.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import tzinfo
from typing import NamedTuple

from sqlalchemy import Engine

from dataserver.config.load import load
from dataserver.config.settings import Settings
from dataserver.demo import others, servers
from dataserver.demo.home import DemoHome, State
from dataserver.demo.kit import APPLICATION, NETWORK, Kit, World, machine, make_agent
from dataserver.demo.model import Agent, Due, File, Portion, Sender, portions
from dataserver.demo.noise import DAY, HOUR
from dataserver.demo.uploading import Uploader
from dataserver.ingest.periodic import Sweep, sweeps
from dataserver.ingest.pipeline import Pipeline
from dataserver.ingest.report import Report
from dataserver.rules.times import local_text
from dataserver.runtime.heartbeat import Heartbeat, Phase
from dataserver.spool.lock import InstanceLock
from dataserver.store import ledger
from dataserver.store.errors import translating
from dataserver.store.layout import inspect
from dataserver.store.opening import open_store
from dataserver.store.sql import Sql

#: Files and seconds of one portion at most: a single batch, so no reader process is needed.
_MOST, _LONGEST = 450, 6 * 3_600
#: Seconds of history between two updates of the demo's state.
_REMEMBERED = 86_400


class Filled(NamedTuple):
    """The result of a filling; ``whole``: it was not stopped before its end."""

    packets: int
    values: int
    stored: int
    rejected: int
    seconds: float
    whole: bool


class Progress(NamedTuple):
    """The progress of a filling: the time of its last packet (epoch seconds), packets so far."""

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
    """Store what the agents send up to ``until`` (epoch seconds), from the home's last state on.

    Raises LockedError (the home is running), ConfigError, SpoolError and StoreError.
    """
    started = time.monotonic()
    # As in the server: packets contain no reference cycles.
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
    """One filling: the parts of the worker, and their clock."""

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
        """Store everything; False if stopped before that."""
        queue = self._portions(until)
        left = True
        while left and not stopping():
            # A session reports rejected packets at its end: a new one after each rejection.
            with self._session() as session:
                left = self._store(session, queue, uploader, show, stopping)
        if left:
            return False
        self._now = until
        self._fold()
        self.report.write(self._settings, Phase.STOPPED, force=True)
        self._demo.advance(until)
        return True

    def _store(
        self,
        session: Pipeline,
        queue: Iterator[Portion],
        uploader: Uploader,
        show: Callable[[Progress], None],
        stopping: Callable[[], bool],
    ) -> bool:
        """Store portions until one has a rejected packet; False if no portion is left."""
        counters = self.report.counters
        rejected = counters.rejected.total()
        for portion in queue:
            self._now = portion.time
            uploader.fill(portion.files)
            session.step()
            if portion.sweeps:
                self._sweep()
            self._advance(portion.time)
            show(Progress(portion.time, counters.packets))
            if counters.rejected.total() > rejected or stopping():
                return True
        return False

    def _advance(self, now: int) -> None:
        """Save the progress now and then; packets that are sent again do no harm."""
        if now - self._demo.state.until > _REMEMBERED:
            self._demo.advance(now - 1)

    def _portions(self, until: int) -> Iterator[Portion]:
        state = self._demo.state
        start = state.until
        dues = [sender.dues(start, until) for sender in senders(state, self._zone)]
        odd = odd_files(state.end, self._zone)
        dues.append(due for due in odd if start < due.time <= until)
        return portions(dues, _MOST, _LONGEST)

    def _session(self) -> Pipeline:
        return Pipeline(
            self._settings, self._engine, self.report, self._heartbeat, _pause, patient=False
        )

    def _sweep(self) -> None:
        """Run the sweeps for silent agents, as the server that holds the lease does."""
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
        """Fold the ledger, as a running server would have done all the time."""
        sql, after = Sql(self._engine.dialect), 0
        more = True
        while more:
            with translating("fold the ledger"), self._engine.begin() as conn:
                days = self._settings.ledger_days
                last = ledger.fold(conn, sql, days, self._now, after)
            more, after = last is not None, last or 0

    def _clock(self) -> float:
        return float(self._now)


def _pause(seconds: float) -> bool:
    """Wait, while the database is busy; False: the session is never asked to stop."""
    time.sleep(seconds)
    return False


# -- the agents that send --

#: In this order, so that the first few are as different as possible.
_MAKERS = (
    servers.web1,
    servers.backup,
    others.coldstore,
    others.desk,
    servers.erp,
    others.branch,
    servers.web2,
    servers.db1,
    others.router1,
    others.press,
    servers.shop,
    others.firewall,
)


def senders(state: State, zone: tzinfo) -> list[Sender]:
    """The senders of this demo."""
    world = World(state.seed, state.end, zone)
    return [Sender(agent, zone) for agent in cast(world, state.agents)]


def cast(world: World, agents: int) -> list[Agent]:
    """The first ``agents`` made-up agents; after the dozen come servers that are all alike."""
    found = [make(world) for make in _MAKERS[:agents]]
    return found + [_more(world, number) for number in range(len(found) + 1, agents + 1)]


def _more(world: World, number: int) -> Agent:
    name = f"node{number:03}"
    kit = Kit(world, name)
    modules = [
        *machine(kit),
        kit.disk("Disk /", least=30, most=85, period=9 * DAY, now=kit.key("disk") % 100 / 100),
        kit.counter("Bytes sent", 50_000.0, unit="B/s", group=NETWORK),
        kit.switch("sshd", every=15 * DAY, longest=HOUR, group=APPLICATION),
    ]
    about, host = "One of many", 120 + number % 130
    return make_agent(
        world, name, modules, alias=name, group="Servers", description=about, host=host
    )


# -- files that no server stores: what the page of rejected packets shows --

_HEAD = "<?xml version='1.0' encoding='UTF-8'?>\n<agent_data"
#: A server waits a minute for the rest of a truncated upload; this one stalled before that.
_STALLED = 120


def odd_files(end: int, zone: tzinfo) -> list[Due]:
    """Some in the days before ``end`` (epoch seconds), in order of time."""
    found = sorted(_odd(end, zone), key=lambda due: due.time)
    # Their events have their own times, as with a running server.
    return [due._replace(has_events=True) for due in found]


def _odd(end: int, zone: tzinfo) -> Iterator[Due]:
    for back in (3 * DAY + 5 * HOUR, 27 * HOUR, 2 * HOUR):
        # A bare ampersand: a frequent mistake of home-made agents.
        yield _due("plc-gateway", end - back, zone, "<data>pump & valve</data>")
    cut = _due("branch-north", end - 28 * HOUR, zone, "<data>-74</data>")
    assert cut.file is not None
    half = cut.file.content[: len(cut.file.content) // 2]
    yield cut._replace(file=cut.file._replace(content=half, modified=cut.time - _STALLED))
    yield _due("", end - 5 * DAY, zone, "<data>1</data>")
    # A clock three days ahead, and one with an empty battery.
    yield _due("desk-31", end - 9 * HOUR, zone, "<data>1</data>", ahead=3 * DAY)
    yield _due("web1", end - 4 * HOUR, zone, "<data>1</data>", ahead=-12 * DAY)


def _due(agent: str, time: int, zone: tzinfo, data: str, *, ahead: int = 0) -> Due:
    stamp = local_text(time + ahead, zone).replace("-", "/")
    name = f" agent_name='{agent}'" if agent else ""
    text = (
        f"{_HEAD}{name} interval='300' timestamp='{stamp}'>\n"
        f"<module>\n<name>Status</name>\n<type>generic_data</type>\n{data}\n</module>\n"
        "</agent_data>\n"
    )
    # Beside the agent's regular packet of that second, if there is one.
    return Due(time, File(f"{agent or 'unnamed'}-{time}.{time}.data", text.encode(), time), False)

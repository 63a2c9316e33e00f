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

from dataserver.config.load import Settings, load
from dataserver.demo import others, servers
from dataserver.demo.home import DemoHome, State
from dataserver.demo.kit import APPLICATION, NETWORK, Kit, World, machine, made
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

# -- files that no server takes: what the page of rejected packets has to show; pure

_HEAD = "<?xml version='1.0' encoding='UTF-8'?>\n<agent_data"
#: A server waits a minute for the rest of a cut upload; this one stalled before that.
_STALLED = 120


def odd_files(end: int, zone: tzinfo) -> list[Due]:
    """Some in the days before ``end`` (epoch seconds), in order of time; each says what is odd."""
    found = sorted(_odd(end, zone), key=lambda due: due.time)
    # Told with its own time, as a running server does.
    return [due._replace(tells=True) for due in found]


def _odd(end: int, zone: tzinfo) -> Iterator[Due]:
    for back in (3 * DAY + 5 * HOUR, 27 * HOUR, 2 * HOUR):
        # A bare ampersand: the mistake that home-made agents make.
        yield _due("plc-gateway", end - back, zone, "<data>pump & valve</data>")
    cut = _due("branch-north", end - 28 * HOUR, zone, "<data>-74</data>")
    assert cut.file is not None
    half = cut.file.content[: len(cut.file.content) // 2]
    yield cut._replace(file=cut.file._replace(content=half, modified=cut.time - _STALLED))
    yield _due("", end - 5 * DAY, zone, "<data>1</data>")
    # A clock that is three days ahead, and one that lost its battery.
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


# -- filling --

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
        session: Pipeline,
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

    def _session(self) -> Pipeline:
        return Pipeline(
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


# -- who sends in the demo: a dozen agents, each with something to be seen in its graphs

#: In this order, so that a few of them show the most different things.
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


def cast(world: World, agents: int) -> list[Agent]:
    """The first ``agents`` of them; beyond the dozen, more servers that are all alike."""
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
    return made(world, name, modules, alias=name, group="Servers", description=about, host=host)

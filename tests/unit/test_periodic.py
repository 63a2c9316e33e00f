"""When the worker's jobs are done: with clocks of the test, on a small SQLite."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, Engine, select

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.errors import StoreLacking, StoreRefused, StoreUnavailable
from dataserver.ingest.periodic import BEAT_EVERY, DatabaseJobs, Sweep, own_address
from dataserver.ingest.periodic import REST as BY_DEFAULT
from dataserver.ingest.report import Report
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.processes import ProcessStats
from tests.support.clock import Clocks
from tests.support.databases import Database

START = 1_800_000_000.0
#: Shorter than it is by default: fewer rounds, of which each writes to the database.
REST = 60.0


@dataclass
class FakeSweep:
    """Notes when it was asked; does what the test wants."""

    time: Clocks
    more: int = 0
    error: Exception | None = None
    asked: list[float] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, conn: Connection, now: int, horizon: int) -> bool:
        self.asked.append(self.time.monotonic.now)
        self.given.append((now, horizon))
        if self.error is not None:
            # What it wrote is not to stay.
            conn.execute(schema.config.insert().values(token="half", value=""))
            raise self.error
        self.more -= 1
        return self.more >= 0


@dataclass
class Server:
    """A server's jobs and what they need."""

    engine: Engine
    layout: Layout
    home: Path
    time: Clocks
    sweep: FakeSweep
    figures: ProcessStats = field(default_factory=ProcessStats)
    rest: float = REST
    jobs: DatabaseJobs = field(init=False)
    report: Report = field(init=False)

    def __post_init__(self) -> None:
        paths = Home(self.home).instance("main")
        self.report = Report(paths, self.time.wall, self.time.monotonic, 42)
        self.jobs = DatabaseJobs(
            self.engine,
            self.layout,
            Settings(server_name="ingest"),
            ZoneInfo("UTC"),
            self.report,
            lambda: self.figures,
            [Sweep("sweep", self.sweep, rests=True)],
            rest=self.rest,
        )

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Live for a while, as the worker does."""
        until = self.time.monotonic.now + seconds
        while self.time.monotonic.now < until:
            self.time.advance(step)
            if self.jobs.due():
                self.jobs.run_due()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    time = Clocks(START, 1000.0)
    # SQLite's clock is the machine's.
    monkeypatch.setattr("dataserver.store.lease.time", SimpleNamespace(time=time.wall))
    return time


@pytest.fixture
def server(sqlite_database: Database, tmp_path: Path, time: Clocks) -> Server:
    layout = sqlite_database.prepare()
    return Server(sqlite_database.engine(), layout, tmp_path, time, FakeSweep(time))


def another(server: Server) -> Server:
    """Another server on the same database."""
    return Server(server.engine, server.layout, server.home, server.time, FakeSweep(server.time))


def status(engine: Engine) -> list[tuple[str, int, float]]:
    c = schema.server.c
    with engine.connect() as conn:
        query = select(c.name, c.status, c.server_keepalive_utimestamp)
        return [tuple(row) for row in conn.execute(query)]


def test_the_server_shows_that_it_lives_every_few_seconds(server: Server) -> None:
    assert server.jobs.due(), "the first time at once"
    server.jobs.run_due()
    assert status(server.engine) == [("ingest", 1, START)]
    assert server.jobs.idle_for() == BEAT_EVERY
    server.run(BEAT_EVERY - 1)
    assert status(server.engine) == [("ingest", 1, START)]
    server.run(1)
    assert status(server.engine) == [("ingest", 1, START + BEAT_EVERY)]


def test_sweeps_that_rest_begin_when_it_has_run_for_a_while(server: Server) -> None:
    server = replace(server, rest=BY_DEFAULT)
    begun = server.time.monotonic.now
    server.run(BY_DEFAULT - 1)
    assert server.sweep.asked == []
    server.run(30)
    assert server.sweep.asked[0] == begun + BY_DEFAULT
    gaps = [b - a for a, b in zip(server.sweep.asked, server.sweep.asked[1:], strict=False)]
    assert set(gaps) == {BEAT_EVERY}


def test_one_that_has_more_to_do_is_called_again_at_once(server: Server) -> None:
    server.run(REST - 1)
    server.sweep.more = 3
    server.run(1)
    for _ in range(3):
        assert server.jobs.due()
        server.jobs.run_due()
    assert server.sweep.asked == [server.time.monotonic.now] * 4
    assert not server.jobs.due()


def test_of_two_servers_one_sweeps_and_the_other_when_it_is_gone(server: Server) -> None:
    server.run(10)
    other = another(server)
    for _ in range(80):
        server.run(1)
        other.run(0.5, step=0.5)  # the same clock
    assert server.sweep.asked
    assert other.sweep.asked == []
    gone = server.time.monotonic.now
    other.run(60)
    assert other.sweep.asked
    assert 25 <= other.sweep.asked[0] - gone <= 35


def test_one_that_leaves_in_good_order_is_replaced_at_once(server: Server) -> None:
    server.run(10)
    other = another(server)
    for _ in range(80):
        server.run(1)
        other.run(0.5, step=0.5)
    assert other.sweep.asked == []
    server.jobs.leave()
    assert [row[1] for row in status(server.engine)] == [1], "the other one lives"
    other.run(BEAT_EVERY)
    assert other.sweep.asked
    other.jobs.leave()
    assert [row[1] for row in status(server.engine)] == [0]


def test_the_horizon_is_what_the_figures_say_by_the_clock_of_the_worker(server: Server) -> None:
    server.figures = ProcessStats(queue=1, oldest_age=200.0, scan_age=1.0)
    server.run(REST)
    now, horizon = server.sweep.given[0]
    assert now == int(server.time.wall.now)
    assert now - 200 - BEAT_EVERY <= horizon <= now - 200


class TestRest:
    def test_after_an_outage(self, server: Server) -> None:
        server.run(REST + 10)
        done = len(server.sweep.asked)
        assert done
        server.jobs.note_outage()
        server.run(REST - 1)
        assert len(server.sweep.asked) == done
        server.run(2)
        assert len(server.sweep.asked) == done + 1

    def test_after_a_sleep_or_a_clock_that_was_set(self, server: Server) -> None:
        time = server.time
        for clock, seconds in ((time.monotonic, 600.0), (time.wall, 600.0), (time.wall, -600.0)):
            before = len(server.sweep.asked)
            server.run(REST + 10)
            done = len(server.sweep.asked)
            assert done > before
            clock.advance(seconds)
            server.run(REST - 1)
            assert len(server.sweep.asked) == done, (clock, seconds)

    def test_not_of_those_that_judge_nobody(self, server: Server) -> None:
        jobs = DatabaseJobs(
            server.engine,
            server.layout,
            Settings(),
            ZoneInfo("UTC"),
            server.report,
            ProcessStats,
            [Sweep("sweep", server.sweep)],
        )
        jobs.run_due()
        assert len(server.sweep.asked) == 1


class TestFailures:
    def test_a_sweep_that_fails_is_told_once_put_off_and_leaves_nothing(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.sweep.error = StoreRefused("no such thing")
        server.run(REST + 20)
        assert len(server.sweep.asked) == 5
        assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
            "no such thing"
        ]
        with server.engine.connect() as conn:
            token = schema.config.c.token
            assert conn.scalar(select(token).where(token == "half")) is None
        server.sweep.error = None
        server.run(BEAT_EVERY)
        assert len(server.sweep.asked) == 6

    def test_a_defect_of_ours_ends_nothing(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.sweep.error = KeyError("oops")
        server.run(REST + 20)
        errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
        assert errors == ["cannot sweep: internal error KeyError"]

    def test_an_absent_database_is_an_outage(self, server: Server) -> None:
        server.run(REST + 10)
        done = len(server.sweep.asked)
        server.sweep.error = StoreUnavailable("gone")
        server.run(BEAT_EVERY)
        assert len(server.sweep.asked) == done + 1
        assert server.report.database_error == "gone"
        server.sweep.error = None
        server.run(REST - BEAT_EVERY)
        assert server.report.database_error is None
        assert len(server.sweep.asked) == done + 1
        server.run(BEAT_EVERY)
        assert len(server.sweep.asked) == done + 2

    def test_while_it_is_away_nothing_is_due_but_to_look_for_it(self, server: Server) -> None:
        often = [Sweep("sweep", server.sweep, every=1.0)]
        jobs = DatabaseJobs(
            server.engine,
            server.layout,
            Settings(),
            ZoneInfo("UTC"),
            server.report,
            ProcessStats,
            often,
        )
        jobs.run_due()
        server.report.database_down(StoreUnavailable("gone"))
        server.time.advance(BEAT_EVERY - 1)
        assert jobs.idle_for() == 1
        server.time.advance(1)
        jobs.run_due()
        assert len(server.sweep.asked) == 2

    def test_what_one_duty_lacks_is_no_outage(
        self, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.sweep.error = StoreLacking("the user lacks a right on a table")
        server.run(REST + 20)
        assert len(server.sweep.asked) == 5
        assert server.report.database_error is None
        assert [record.getMessage() for record in caplog.records] == [
            "the user lacks a right on a table"
        ]

    def test_leaving_while_the_database_is_away_asks_it_nothing(self, server: Server) -> None:
        server.run(10)
        before = status(server.engine)
        server.report.database_down(StoreUnavailable("gone"))
        server.jobs.leave()
        assert status(server.engine) == before


def test_the_own_address_is_one_or_none() -> None:
    assert own_address().count(".") in {0, 3}


def test_hosts_that_are_set_up_alike_have_one_fingerprint() -> None:
    same = Settings(data_in=Path("/elsewhere"), database_password="secret")
    assert same.fingerprint() == Settings().fingerprint()
    assert Settings(settle=7.0).fingerprint() != Settings().fingerprint()

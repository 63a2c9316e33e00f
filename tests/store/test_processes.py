"""The rows of server processes: sums, horizon, and those that are gone."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import Engine, select

from dataserver.store import schema
from dataserver.store.layout import inspect
from dataserver.store.processes import (
    Process,
    Processes,
    ProcessFingerprints,
    ProcessStats,
    Totals,
    processes_seen,
)
from tests.support.clock import Clock
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of

LIVE = 90.0
NOW = 1_800_000_000.0

# The table of processes is ours in every database.
database = database_of(SQLITE, MARIADB)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.engine()


def process(name: str, clock: Clock, server: str = "ingest") -> Processes:
    return Processes(
        Process(name, server, 0, "host", "main", 42, "1.0", "print"),
        LIVE,
        clock=clock,
        own_clock=lambda: clock.now + 0.25,
    )


def beat(engine: Engine, it: Processes, **figures: float | None) -> None:
    with engine.begin() as conn:
        it.beat(conn, ProcessStats(**figures))  # type: ignore[arg-type]


def sums(engine: Engine, it: Processes) -> Totals:
    with engine.connect() as conn:
        return it.sums(conn)


def horizon(engine: Engine, it: Processes) -> int:
    with engine.connect() as conn:
        return it.horizon(conn)


def test_a_row_says_who_and_how(engine: Engine, clock: Clock) -> None:
    one = process("one", clock)
    beat(engine, one, queue=3, uptime=5, oldest_age=7, scan_age=0.5, rejected=2)
    clock.advance(10)
    beat(engine, one, queue=4, uptime=15, packets_per_second=1.5)
    with engine.connect() as conn:
        row = conn.execute(select(schema.server_process)).mappings().one()
    assert dict(row) == {
        "id": "one",
        "server_name": "ingest",
        "server_type": 0,
        "host": "host",
        "instance": "main",
        "pid": 42,
        "version": "1.0",
        "started": NOW - 5,
        "heartbeat": NOW + 10,
        "state": "running",
        "queue": 4,
        "oldest": None,
        "scanned": NOW + 10,
        "threads": 1,
        "packets_per_second": 1.5,
        "rejected": 0,
        "configuration": "print",
        "host_keys": None,
        "authorized_keys": None,
        "pair": None,
        "clock_offset": 0.25,
    }


def test_fingerprints_stay_until_there_are_others(engine: Engine, clock: Clock) -> None:
    one = process("one", clock)
    with engine.begin() as conn:
        one.beat(
            conn, ProcessStats(), ProcessFingerprints(host_keys="a", authorized_keys="b", pair="c")
        )
        one.leave(conn, ProcessStats())
    assert marks(engine) == ("a", "b", "c")
    with engine.begin() as conn:
        one.beat(conn, ProcessStats(), ProcessFingerprints(host_keys="d"))
    assert marks(engine) == ("d", None, None)


def test_a_clock_that_answers_slowly_is_not_compared(engine: Engine, clock: Clock) -> None:
    times = iter([NOW, NOW + 0.6])
    who = Process("one", "ingest", 0, "host", "main", 42, "1.0")
    slow = Processes(who, LIVE, clock=clock, own_clock=lambda: next(times))
    beat(engine, slow)
    with engine.connect() as conn:
        assert conn.scalar(select(schema.server_process.c.clock_offset)) is None


def marks(engine: Engine) -> tuple[str | None, ...]:
    c = schema.server_process.c
    with engine.connect() as conn:
        return tuple(conn.execute(select(c.host_keys, c.authorized_keys, c.pair)).one())


def test_the_processes_of_one_server_are_summed_and_others_are_not(
    engine: Engine, clock: Clock
) -> None:
    one, two, other = (
        process("one", clock),
        process("two", clock),
        process("three", clock, server="other"),
    )
    beat(engine, one, queue=3, oldest_age=40.0)
    beat(engine, two, queue=4, oldest_age=70.0)
    beat(engine, other, queue=100, oldest_age=500.0)
    assert sums(engine, one) == Totals(processes=2, queue=7, threads=2, lag=70)
    beat(engine, two, queue=0)
    assert sums(engine, one) == Totals(processes=2, queue=3, threads=2, lag=40)


def test_one_that_left_and_one_that_fell_silent_count_no_more(engine: Engine, clock: Clock) -> None:
    one, two, three = (process(name, clock) for name in ("one", "two", "three"))
    beat(engine, three, queue=1)
    clock.advance(LIVE + 1)
    beat(engine, one, queue=3)
    beat(engine, two, queue=4)
    with engine.begin() as conn:
        two.leave(conn, ProcessStats(queue=4))
    assert sums(engine, one) == Totals(processes=1, queue=3, threads=1, lag=0)


def test_without_any_the_sums_are_zero(engine: Engine, clock: Clock) -> None:
    assert sums(engine, process("one", clock)) == Totals(0, 0, 0, 0)


class TestHorizon:
    def test_it_is_the_last_scan_where_nothing_waits(self, engine: Engine, clock: Clock) -> None:
        one = process("one", clock)
        beat(engine, one, scan_age=2.0)
        clock.advance(5)
        assert horizon(engine, one) == NOW - 2

    def test_it_is_the_oldest_packet_that_waits_anywhere(
        self, engine: Engine, clock: Clock
    ) -> None:
        one, other = process("one", clock), process("two", clock, server="other")
        beat(engine, one)
        beat(engine, other, queue=1, oldest_age=300.0)
        assert horizon(engine, one) == NOW - 300

    def test_what_a_stopped_process_left_holds_it_back_until_that_is_as_old_as_a_dead_one(
        self, engine: Engine, clock: Clock
    ) -> None:
        one, two = process("one", clock), process("two", clock)
        beat(engine, two)
        with engine.begin() as conn:
            two.leave(conn, ProcessStats(queue=1, oldest_age=50.0))
        clock.advance(LIVE)
        beat(engine, one)
        assert horizon(engine, one) == NOW - 50
        clock.advance(1)
        beat(engine, one)
        assert horizon(engine, one) == NOW + LIVE + 1

    def test_it_is_now_where_nobody_is(self, engine: Engine, clock: Clock) -> None:
        assert horizon(engine, process("one", clock)) == NOW


def test_rows_are_kept_for_a_day(engine: Engine, clock: Clock) -> None:
    one, two = process("one", clock), process("two", clock)
    beat(engine, two)
    for passed, left in ((86_400, 2), (1, 1)):
        clock.advance(passed)
        beat(engine, one)
        with engine.begin() as conn:
            one.prune(conn)
        with engine.connect() as conn:
            assert len(conn.execute(select(schema.server_process.c.id)).all()) == left


def test_a_clock_set_back_does_not_keep_the_dead_alive(engine: Engine, clock: Clock) -> None:
    one, two = process("one", clock), process("two", clock)
    beat(engine, two, queue=5)
    clock.advance(-3600)
    beat(engine, one, queue=1)
    assert sums(engine, one).queue == 1
    assert horizon(engine, one) == NOW - 3600


def test_a_process_whose_clock_was_ahead_does_not_hide_its_successor(engine: Engine) -> None:
    now = time.time()
    beat(engine, process("old", Clock(now + 43_200)))
    beat(engine, process("new", Clock(now)))
    with engine.connect() as conn:
        (seen,) = processes_seen(conn, inspect(engine))
    assert seen.age < 3_600

"""The lease: one holder at a time, whatever happens to its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, select

from dataserver.errors import StoreUnavailable
from dataserver.store import schema
from dataserver.store.database import READING
from dataserver.store.errors import translating
from dataserver.store.lease import Lease, database_time
from dataserver.store.sql import Sql
from tests.support.clock import Clock
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.waiting import PATIENCE, wait_until

NAME, SECONDS = "sweeps", 30.0

# The lease's table is ours in every database.
database = database_of(SQLITE, MARIADB)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.engine()


def lease(engine: Engine, holder: str, clock: Callable[[Connection], float]) -> Lease:
    return Lease(Sql(engine.dialect), NAME, holder, SECONDS, clock=clock)


def holds(engine: Engine, it: Lease) -> bool:
    with engine.begin() as conn:
        return it.hold(conn)


def test_the_first_has_it_and_keeps_it(engine: Engine, clock: Clock) -> None:
    one, two = lease(engine, "one", clock), lease(engine, "two", clock)
    assert holds(engine, one)
    assert not holds(engine, two)
    clock.advance(SECONDS - 1)
    assert holds(engine, one)
    clock.advance(SECONDS - 1)
    assert not holds(engine, two)
    assert (one.epoch, two.epoch) == (1, None)


def test_once_expired_another_takes_it_and_the_epoch_grows(engine: Engine, clock: Clock) -> None:
    one, two = lease(engine, "one", clock), lease(engine, "two", clock)
    assert holds(engine, one)
    clock.advance(SECONDS)
    assert holds(engine, two)
    assert not holds(engine, one)
    assert (one.epoch, two.epoch) == (None, 2)
    clock.advance(SECONDS)
    assert holds(engine, one)
    assert one.epoch == 3


def test_a_holder_who_was_late_and_whom_nobody_replaced_goes_on_in_its_epoch(
    engine: Engine, clock: Clock
) -> None:
    one = lease(engine, "one", clock)
    assert holds(engine, one)
    clock.advance(10 * SECONDS)
    assert holds(engine, one)
    assert one.epoch == 1


def test_let_go_it_is_free_at_once(engine: Engine, clock: Clock) -> None:
    one, two = lease(engine, "one", clock), lease(engine, "two", clock)
    assert holds(engine, one)
    with engine.begin() as conn:
        one.release(conn)
    assert holds(engine, two)
    assert two.epoch == 2
    with engine.begin() as conn:
        one.release(conn)
    assert not holds(engine, one), "letting go of what is another's is nothing"


def test_a_clock_set_back_leaves_no_lease_for_ever(engine: Engine, clock: Clock) -> None:
    one, two = lease(engine, "one", clock), lease(engine, "two", clock)
    assert holds(engine, one)
    clock.advance(-86_400)
    assert holds(engine, two)


def test_what_was_rolled_back_was_not_held(engine: Engine, clock: Clock) -> None:
    one, two = lease(engine, "one", clock), lease(engine, "two", clock)
    with engine.connect() as conn, conn.begin() as transaction:
        assert one.hold(conn)
        transaction.rollback()
    assert holds(engine, two)


def test_the_clock_is_utc_with_a_fraction(engine: Engine) -> None:
    with engine.connect() as conn:
        before, now, after = time.time(), database_time(conn), time.time()
    # The test's server runs on this machine.
    assert before - 0.001 <= now <= after + 0.001


@pytest.fixture
def two_engines(mariadb_database: Database) -> tuple[Engine, Engine]:
    # A holder that is idle while the test looks is not to be ended.
    return (
        mariadb_database.engine(idle_timeout=PATIENCE),
        mariadb_database.engine(lock_timeout=PATIENCE),
    )


def test_an_expired_one_that_is_locked_is_not_waited_for(
    two_engines: tuple[Engine, Engine], clock: Clock
) -> None:
    first, second = two_engines
    one, two = lease(first, "one", clock), lease(second, "two", clock)
    assert holds(first, one)
    clock.advance(SECONDS)
    with first.begin() as conn:
        assert one.hold(conn)
        # With a wait this would take all the patience and raise.
        assert not holds(second, two)


def test_one_that_is_taken_between_the_look_and_the_lock_is_another_s(
    two_engines: tuple[Engine, Engine], clock: Clock
) -> None:
    first, second = two_engines
    one, two = lease(first, "one", clock), lease(second, "two", clock)
    assert holds(first, one)
    clock.advance(SECONDS)
    taken: list[bool] = []

    def look(_conn: Connection) -> float:
        if not taken:
            taken.append(holds(second, two))
        return clock.now

    assert not holds(first, lease(first, "third", look))
    assert taken == [True]
    assert holds(second, two)
    assert two.epoch == 2


def test_one_that_is_held_is_looked_at_without_a_lock(
    two_engines: tuple[Engine, Engine], clock: Clock
) -> None:
    first, second = two_engines
    one, two = lease(first, "one", clock), lease(second, "two", clock)
    assert holds(first, one)
    with first.begin() as conn:
        assert one.hold(conn)
        with second.connect() as other:
            assert not two.free(other)


def test_the_database_ends_a_transaction_that_is_idle(mariadb_database: Database) -> None:
    """Else a process that is stopped inside of one would keep its locks."""
    row = {"name": NAME, "holder": "one", "epoch": 1, "expires": 0.0}
    stopped = mariadb_database.engine(idle_timeout=1)
    other = mariadb_database.engine(lock_timeout=PATIENCE, read_timeout=PATIENCE)
    with other.begin() as conn:
        conn.execute(schema.lease.insert().values(row))
    change = schema.lease.update().values(epoch=2)

    def work() -> None:
        with translating("work"), stopped.begin() as conn:
            conn.execute(change.values(holder="stopped"))
            with other.begin() as second:  # waits until the first one was ended
                second.execute(change.values(holder="other"))
            conn.execute(change.values(epoch=3))

    with pytest.raises(StoreUnavailable, match="cannot work"):
        work()
    with other.connect() as conn:
        assert conn.execute(select(schema.lease.c.holder, schema.lease.c.epoch)).one() == (
            "other",
            2,
        )


# -- two processes, of which one is stopped ---------------------------------------------------

#: Takes the lease again and again; under it, writes two rows in each transaction, numbered on
#: from those that are there.  Every fifth time it stops itself, inside a transaction or after it.
WORKER = """
import os, signal, sys, time
from pathlib import Path
from sqlalchemy import func, insert, select
from dataserver.errors import StoreConflict, StoreUnavailable
from dataserver.store import schema
from dataserver.store.database import open_engine
from dataserver.store.errors import translating
from dataserver.store.lease import Lease
from dataserver.store.sql import Sql

url, home, number, stops = sys.argv[1:]
engine = open_engine(url, home=Path(home), read_timeout=300, lock_timeout=300, idle_timeout=1)
lease = Lease(Sql(engine.dialect), "sweeps", "holder" + number, 0.5)
h = schema.packet_hour
held = 0

def write(conn):
    last = conn.scalar(select(func.max(h.c.hour))) or 0
    row = {"agent_id": int(number), "hour": last + 1, "packets": lease.epoch}
    conn.execute(insert(h).values(row))

while True:
    try:
        with translating("work"), engine.begin() as conn:
            holds = lease.hold(conn)
            if holds:
                held += 1
                write(conn)
                if stops == "inside" and held % 5 == 0:
                    os.kill(os.getpid(), signal.SIGSTOP)
                write(conn)
        if holds and stops == "between" and held % 5 == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
    except (StoreConflict, StoreUnavailable):
        pass
    time.sleep(0.01)
"""

Row = tuple[int, int, int]


@contextmanager
def worker(database: Database, number: int, stops: str) -> Iterator[subprocess.Popen[bytes]]:
    here = (database.url, str(database.home), str(number), stops)
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", WORKER, *here],
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


# Between transactions nothing differs but the dialect; inside of one, MariaDB ends it.
@pytest.mark.parametrize(
    ("database", "stops"),
    [
        (SQLITE, "between"),
        (MARIADB, "inside"),
        pytest.param(SQLITE, "inside", marks=pytest.mark.long),
        pytest.param(MARIADB, "between", marks=pytest.mark.long),
    ],
    indirect=["database"],
)
def test_work_under_the_lease_never_interleaves_though_its_holder_is_paused(
    database: Database, stops: str
) -> None:
    engine = database.engine()
    # Nobody ends a transaction of SQLite: while its holder is stopped there, nobody works.
    is_frozen = database.kind == SQLITE and stops == "inside"
    with ExitStack() as stack:
        paused = stack.enter_context(worker(database, 1, stops))
        _, status = os.waitpid(paused.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        other = stack.enter_context(worker(database, 2, "never"))
        before = len(read(engine))

        def written(more: int, since: int) -> None:
            wait_until(
                lambda: len(read(engine)) >= since + more,
                lambda: f"{more} rows after {since}: {read(engine)[-5:]}",
                alive=lambda: other.poll() is None,
            )

        if not is_frozen:
            written(6, before)
            assert {who for who, _, _ in read(engine)[before:]} == {2}
        paused.send_signal(signal.SIGCONT)
        written(6, len(read(engine)))
        rows = read(engine)
    # One row per number: two at work at once would have written the same one.
    assert [number for _, number, _ in rows] == list(range(1, len(rows) + 1))
    # Two by two, as each transaction wrote them, and each epoch has one holder.
    assert rows[1::2] == [(who, number + 1, epoch) for who, number, epoch in rows[0::2]]
    epochs = [epoch for _, _, epoch in rows]
    assert epochs == sorted(epochs)
    assert len({(who, epoch) for who, _, epoch in rows}) == len(set(epochs))
    if not is_frozen:
        assert len(set(epochs)) > 1


def read(engine: Engine) -> list[Row]:
    h = schema.packet_hour.c
    with engine.connect().execution_options(**{READING: True}) as conn:
        query = select(h.agent_id, h.hour, h.packets).order_by(h.hour, h.agent_id)
        return [(row[0], row[1], row[2]) for row in conn.execute(query)]

"""The benchmark of several instances reads the lock waits that MariaDB counts."""

from __future__ import annotations

import contextlib
import threading

from bench.instances import _row_locks, _waits
from tests.support.mariadb import MariaDB
from tests.support.waiting import wait_until


def test_a_wait_for_another_ones_row_is_counted(mariadb: MariaDB) -> None:
    url = mariadb.create("bench_row_locks")
    mariadb.execute(
        "CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB",
        "INSERT INTO t VALUES (1)",
        database="bench_row_locks",
    )
    before = _row_locks(url)
    with contextlib.closing(mariadb.connect("bench_row_locks")) as first:
        first.cursor().execute("SELECT * FROM t FOR UPDATE")
        second = threading.Thread(
            target=mariadb.execute,
            args=("SELECT * FROM t FOR UPDATE",),
            kwargs={"database": "bench_row_locks"},
        )
        second.start()
        wait_until(
            lambda: _row_locks(url)["innodb_row_lock_waits"] > before["innodb_row_lock_waits"],
            "a counted wait",
            alive=second.is_alive,
        )
        first.rollback()
        second.join()
    found = _waits(before, _row_locks(url), [])
    mariadb.drop("bench_row_locks")
    assert found.locks == 1
    assert found.deadlocks == 0
    assert found.seconds is not None

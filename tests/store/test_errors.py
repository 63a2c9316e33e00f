"""What the database's errors are taken for: real ones from real servers."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from dataserver.errors import StoreConflict, StoreLacking, StoreRefused, StoreUnavailable
from dataserver.store.database import open_engine
from dataserver.store.errors import classify, code, translating
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.mariadb import MariaDB
from tests.support.waiting import PATIENCE

STRANGE = "s3cret-value"

database = database_of(SQLITE, MARIADB)


def test_a_text_longer_than_its_column_is_refused_and_the_column_named(mariadb: MariaDB) -> None:
    database = mariadb.create("errors")
    engine = open_engine(database, home=Path())
    with engine.connect() as conn:
        conn.execute(text("CREATE TABLE t (a VARCHAR(2), b INT)"))
        with pytest.raises(StoreRefused, match="column a") as caught, translating("store"):
            conn.execute(text("INSERT INTO t (a) VALUES (:a)"), {"a": STRANGE})
        assert STRANGE not in str(caught.value)
        with pytest.raises(StoreRefused, match="column b") as caught, translating("store"):
            conn.execute(text("INSERT INTO t (b) VALUES (:b)"), {"b": STRANGE})
        assert STRANGE not in str(caught.value)
    engine.dispose()
    mariadb.drop("errors")


def test_a_key_that_exists_is_refused_without_telling_it(database: Database) -> None:
    insert = text("INSERT INTO tagente (id_agente, nombre, alias) VALUES (70707, 'a', 'a')")
    with database.engine().begin() as conn:
        conn.execute(insert)
        with pytest.raises(StoreRefused) as caught, translating("store"):
            conn.execute(insert)
        assert "70707" not in str(caught.value)
        assert "INSERT" not in str(caught.value)


def test_a_value_that_no_database_holds_is_refused(database: Database) -> None:
    statement = text("INSERT INTO tagente_datos_inc (id_agente_modulo) VALUES (:v)")
    for value in (1 << 70, "half \ud800 a pair"):
        with database.engine().connect() as conn, pytest.raises(StoreRefused), translating("store"):
            conn.execute(statement, {"v": value})


def test_a_deadlock_is_a_conflict(mariadb: MariaDB) -> None:
    mariadb.create("deadlock")
    mariadb.execute(
        "CREATE TABLE t (a INT PRIMARY KEY, b INT)",
        "INSERT INTO t VALUES (1, 0), (2, 0)",
        database="deadlock",
    )
    # Nothing but the deadlock ends their wait for each other.
    engine = open_engine(
        mariadb.url("deadlock"),
        home=Path(),
        read_timeout=PATIENCE,
        lock_timeout=PATIENCE,
        idle_timeout=PATIENCE,
    )
    both, met = threading.Barrier(2, timeout=PATIENCE), []

    def cross(first: int, second: int) -> None:
        with engine.connect() as conn:
            conn.execute(text(f"UPDATE t SET b = b + 1 WHERE a = {first}"))
            both.wait()
            try:
                with translating("store"):
                    conn.execute(text(f"UPDATE t SET b = b + 1 WHERE a = {second}"))
            except StoreConflict as exc:
                met.append(exc)

    threads = [threading.Thread(target=cross, args=args) for args in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == 1
    engine.dispose()
    mariadb.drop("deadlock")


def test_a_lock_held_too_long_is_a_conflict(database: Database) -> None:
    row = text("INSERT INTO tname (kind, parent, `key`) VALUES (0, 0, 'x')")
    with database.engine(idle_timeout=PATIENCE).begin() as holder:
        holder.execute(row)
        # MariaDB makes a whole second of it.
        late = database.engine(lock_timeout=0.05)
        with pytest.raises(StoreConflict), translating("store"), late.begin() as conn:
            conn.execute(row)


def test_a_table_that_vanished_is_lacking_and_does_not_make_all_packets_wait(
    database: Database,
) -> None:
    with database.engine().connect() as conn, pytest.raises(StoreLacking), translating("read"):
        conn.execute(text("SELECT a FROM vanished"))


def test_a_wrong_password_means_wait_and_says_why(mariadb: MariaDB) -> None:
    url = mariadb.url("mysql").replace("root@", "nobody@")
    engine = open_engine(url, password=STRANGE, home=Path())
    caught = pytest.raises(StoreUnavailable, match="Access denied")
    with caught as raised, translating("connect"), engine.connect():
        pass
    assert STRANGE not in str(raised.value)


def test_a_file_that_is_no_database_means_wait(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database " * 1000)
    engine = open_engine("sqlite:///x.db", home=tmp_path)
    expected = pytest.raises(StoreUnavailable, match="not an SQLite database")
    with expected, translating("connect"), engine.connect():
        pass


def test_a_sqlite_value_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with open_engine("sqlite:///x.db", home=tmp_path).connect() as conn:
        raw = conn.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        conn.execute(text("CREATE TABLE t (a)"))
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1000)
        with pytest.raises(StoreRefused), translating("store"):
            conn.execute(text("INSERT INTO t VALUES (:a)"), {"a": "x" * 2000})


def test_a_full_sqlite_file_means_wait(tmp_path: Path) -> None:
    with open_engine("sqlite:///x.db", home=tmp_path).connect() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
        conn.execute(text("PRAGMA max_page_count = 3"))
        with pytest.raises(StoreUnavailable, match="full"), translating("store"):
            conn.execute(text("INSERT INTO t VALUES (:a)"), {"a": "x" * 100_000})


def test_each_code_of_mysql_has_its_meaning() -> None:
    meanings: dict[type[Exception], list[int]] = {
        StoreConflict: [1020, 1205, 1213, 3101, 3572],
        StoreUnavailable: [
            *(28, 1021, 1040, 1045, 1047, 1053, 1114, 1129, 1226, 1290, 1836),
            *(2002, 2003, 2006, 2013, 2055, 3100),
        ],
        StoreLacking: [1054, 1142, 1143, 1146, 1227],
        StoreRefused: [1153, 1264, 1265, 1267, 1271, 1292, 1366, 1406, 3854, 3988, 9999],
    }
    found = {
        kind: [n for n in numbers if type(classify(_raised(OperationalError, n))) is kind]
        for kind, numbers in meanings.items()
    }
    assert found == meanings


def test_a_code_that_no_table_has_is_waited_out_only_where_the_connection_is_lost() -> None:
    assert type(classify(_raised(IntegrityError, 9999))) is StoreRefused
    error = _raised(ProgrammingError, 9999)
    assert type(classify(error)) is StoreRefused
    error.connection_invalidated = True
    assert type(classify(error)) is StoreUnavailable


def test_an_unforeseen_message_is_not_repeated_since_it_may_hold_a_value() -> None:
    message = str(classify(_raised(OperationalError, 9999)))
    assert STRANGE not in message
    assert "9999" in message
    assert "\n" not in message


def test_a_connection_lost_under_a_statement_that_fits_means_wait() -> None:
    exc = _raised(OperationalError, 2006)
    assert type(classify(exc, statement_limit=1 << 20)) is StoreUnavailable
    assert type(classify(exc, statement_limit=3)) is StoreRefused


def test_the_original_error_is_kept_as_the_cause(tmp_path: Path) -> None:
    engine = open_engine("sqlite:///x.db", home=tmp_path)
    expected = pytest.raises(StoreLacking)
    with engine.connect() as conn, expected as caught, translating("read"):
        conn.execute(text("SELECT a FROM vanished"))
    cause = caught.value.__cause__
    assert isinstance(cause, OperationalError)
    assert code(cause) == sqlite3.SQLITE_ERROR


def _raised(kind: type[OperationalError | IntegrityError], number: int) -> OperationalError:
    original = Exception(number, f"about {STRANGE}\nand more")
    return kind("INSERT ...", {}, original)  # type: ignore[return-value]


def test_a_rollback_that_fails_after_a_statement_does_not_hide_why_that_failed() -> None:
    too_large = OperationalError("INSERT ...", (), Exception(1153, "too large"))
    gone = OperationalError(None, None, Exception(2006, "gone"))
    gone.__context__ = too_large
    assert isinstance(classify(gone), StoreRefused)
    alone = OperationalError(None, None, Exception(2006, "gone"))
    assert isinstance(classify(alone), StoreUnavailable)

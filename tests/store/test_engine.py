"""Opening a store: what a session is set up with, and that nothing waits for ever."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from dataserver.errors import ConfigError, StoreConflict, StoreRefused, StoreUnavailable
from dataserver.store import database as engine_module
from dataserver.store.database import (
    READING,
    limits,
    on_lock_wait,
    open_engine,
    open_readonly,
    shown,
)
from dataserver.store.errors import translating
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.mariadb import MariaDB
from tests.support.waiting import PATIENCE, wait_until

URL = "sqlite:///var/x.db"

database = database_of(SQLITE, MARIADB)


def test_a_relative_sqlite_path_is_relative_to_the_home(tmp_path: Path) -> None:
    with open_engine(URL, home=tmp_path).connect():
        assert (tmp_path / "var" / "x.db").exists()


def test_sqlite_files_are_not_for_everyone(tmp_path: Path) -> None:
    with open_engine(URL, home=tmp_path).begin() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
        modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "var").iterdir()}
    assert {mode & 0o027 for mode in modes} == {0}


def test_sqlite_syncs_every_commit_and_lets_readers_read(tmp_path: Path) -> None:
    with open_engine(URL, home=tmp_path).connect() as conn:
        assert conn.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert conn.execute(text("PRAGMA synchronous")).scalar_one() == 2


def test_a_sqlite_writer_queues_at_its_first_statement_and_gives_up_in_time(
    tmp_path: Path,
) -> None:
    first = open_engine(URL, home=tmp_path)
    second = open_engine(URL, home=tmp_path, lock_timeout=0.05)
    with first.begin() as conn:
        conn.execute(text("SELECT 1"))
        with pytest.raises(StoreConflict), translating("write"), second.begin() as late:
            late.execute(text("SELECT 1"))


def test_a_new_sqlite_file_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.executescript("BEGIN IMMEDIATE; CREATE TABLE t (a);")

    def pause(_seconds: float) -> None:
        if other.in_transaction:
            other.execute("COMMIT")

    monkeypatch.setattr(engine_module, "sleep", pause)
    with open_engine("sqlite:///x.db", home=tmp_path).connect() as conn:
        assert conn.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    assert not other.in_transaction
    other.close()


def test_what_a_sqlite_writer_waited_is_told_also_when_it_waited_in_vain(tmp_path: Path) -> None:
    first = open_engine(URL, home=tmp_path)
    second = open_engine(URL, home=tmp_path, lock_timeout=0.05)
    waits: list[float] = []
    on_lock_wait(second, waits.append)
    with second.begin():
        pass
    with first.begin(), pytest.raises(OperationalError), second.begin():
        pass
    alone, in_vain = waits
    assert alone >= 0
    assert in_vain >= 0.05


def test_a_sqlite_reader_tells_of_no_wait(tmp_path: Path) -> None:
    engine = open_engine(URL, home=tmp_path)
    waits: list[float] = []
    on_lock_wait(engine, waits.append)
    with engine.connect().execution_options(**{READING: True}) as reader:
        reader.execute(text("SELECT 1"))
    assert waits == []


def test_a_sqlite_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    first = open_engine(URL, home=tmp_path)
    second = open_engine(URL, home=tmp_path, lock_timeout=0.05)
    with first.begin() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
        with second.connect().execution_options(**{READING: True}) as reader:
            assert reader.execute(text("SELECT count(*) FROM sqlite_master")).scalar_one() == 0


def test_a_second_opening_of_a_sqlite_file_leaves_the_first_its_locks(tmp_path: Path) -> None:
    with open_engine(URL, home=tmp_path).connect() as first:
        first.execute(text("CREATE TABLE t (a)"))
        first.commit()
        second = open_engine(URL, home=tmp_path)
        with second.connect():
            pass
        second.dispose()
        # Another process that believes itself the last one takes the log away with it.
        write = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        write += "c.execute('INSERT INTO t VALUES (1)'); c.commit(); c.close()"
        path = tmp_path / "var" / "x.db"
        subprocess.run([sys.executable, "-c", write, str(path)], check=True)
        assert path.with_name("x.db-wal").exists()


def test_a_transaction_rolled_back_leaves_nothing_even_after_a_read(database: Database) -> None:
    engine = database.engine()
    count = text("SELECT count(*) FROM tagente")
    with engine.connect() as conn:
        conn.execute(count)
        conn.execute(text("INSERT INTO tagente (nombre, alias) VALUES ('a', 'a')"))
        conn.rollback()
        assert conn.execute(count).scalar_one() == 0


def test_a_readonly_opening_creates_nothing_where_nothing_is(tmp_path: Path) -> None:
    engine = open_readonly(URL, home=tmp_path)
    with pytest.raises(StoreUnavailable), translating("read"), engine.connect():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_readonly_opening_of_a_closed_sqlite_file_leaves_no_other_files(tmp_path: Path) -> None:
    writer = open_engine(URL, home=tmp_path)
    with writer.begin() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
    writer.dispose()
    with open_readonly(URL, home=tmp_path).connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    assert [file.name for file in (tmp_path / "var").iterdir()] == ["x.db"]


def test_a_readonly_opening_sees_what_a_running_server_committed(database: Database) -> None:
    with database.engine().begin() as conn:
        conn.execute(text("INSERT INTO tagente (nombre, alias) VALUES ('a', 'a')"))
    engine = open_readonly(database.url, home=database.home)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM tagente")).scalar_one() == 1
    engine.dispose()


def test_a_readonly_opening_cannot_write(database: Database) -> None:
    engine = open_readonly(database.url, home=database.home)
    with pytest.raises(StoreUnavailable), translating("write"), engine.begin() as conn:
        conn.execute(text("DELETE FROM tagente"))
    engine.dispose()


def test_a_file_name_with_characters_special_in_uris_is_opened_as_it_is(tmp_path: Path) -> None:
    with open_engine("sqlite:///a#b c.db", home=tmp_path / "x?y").connect():
        assert (tmp_path / "x?y" / "a#b c.db").exists()


def test_our_mariadb_session_is_strict_where_the_server_is_not(mariadb: MariaDB) -> None:
    mariadb.execute("SET GLOBAL sql_mode = ''")
    url = mariadb.create("strict")
    try:
        engine = open_engine(url, home=Path(), lock_timeout=2.5)
        with engine.connect() as conn:
            row = conn.execute(
                text("SELECT @@sql_mode, @@tx_isolation, @@innodb_lock_wait_timeout")
            ).one()
            conn.execute(text("CREATE TABLE t (a VARCHAR(2))"))
            with pytest.raises(StoreRefused), translating("write"):
                conn.execute(text("INSERT INTO t VALUES ('abc')"))
        engine.dispose()
    finally:
        mariadb.execute("SET GLOBAL sql_mode = DEFAULT")
        mariadb.drop("strict")
    assert "STRICT_ALL_TABLES" in row[0]
    assert row[1:] == ("READ-COMMITTED", 3)


def test_text_beyond_the_basic_plane_comes_back_as_it_was(database: Database) -> None:
    with database.engine().begin() as conn:
        conn.execute(text("INSERT INTO tagente (nombre, alias) VALUES ('a', :a)"), {"a": "é😀"})
        assert conn.execute(text("SELECT alias FROM tagente")).scalar_one() == "é😀"


def test_a_hanging_server_is_noticed_while_reading(mariadb: MariaDB) -> None:
    engine = open_engine(mariadb.url("mysql"), home=Path(), read_timeout=1)
    with contextlib.ExitStack() as stack:

        def connected() -> Connection | None:
            # A busy machine may take its second for a server that does not hang.
            with contextlib.suppress(OperationalError):
                return stack.enter_context(engine.connect())
            return None

        conn = wait_until(connected, "a connection")
        stack.enter_context(mariadb.stop_cont())
        with pytest.raises(StoreUnavailable), translating("read"):
            conn.execute(text("SELECT 1"))
        conn.invalidate()
    engine.dispose()


def test_a_hanging_server_is_noticed_while_connecting(mariadb: MariaDB) -> None:
    engine = open_engine(mariadb.url("mysql"), home=Path(), connect_timeout=1)
    with (
        mariadb.stop_cont(),
        pytest.raises(StoreUnavailable),
        translating("connect"),
        engine.connect(),
    ):
        pass


def test_the_engine_goes_on_after_the_server_was_killed_and_came_back(mariadb: MariaDB) -> None:
    engine = open_engine(mariadb.url("mysql"), home=Path(), connect_timeout=PATIENCE)
    with engine.connect() as conn:
        conn.execute(text("SELECT 1"))
    mariadb.kill()
    with pytest.raises(StoreUnavailable), translating("read"), engine.connect() as conn:
        conn.execute(text("SELECT 1"))
    mariadb.restart()
    with engine.connect() as conn:
        assert conn.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_a_statement_over_max_allowed_packet_is_refused_not_taken_for_a_lost_server(
    mariadb: MariaDB,
) -> None:
    engine = open_engine(mariadb.url("mysql"), home=Path())
    with engine.connect() as conn:
        limit = limits(conn).statement
        with pytest.raises(StoreRefused), translating("write", statement_limit=limit):
            conn.execute(text("SELECT length(:a)"), {"a": "x" * (limit + 1000)})
        conn.invalidate()
    engine.dispose()


def test_the_limits_of_sqlite_are_those_of_its_library(tmp_path: Path) -> None:
    with open_engine(URL, home=tmp_path).connect() as conn:
        found = limits(conn)
    assert found.variables == sqlite3.connect(":memory:").getlimit(
        sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
    )
    assert found.value >= 64 << 20


def test_an_unusable_url_is_a_setting_to_correct_and_keeps_its_password() -> None:
    for url in ("nonsense s3cret", "postgresql://u:s3cret@h/d", "mysql://u:s3cret@h", "sqlite://"):
        with pytest.raises(ConfigError) as caught:
            open_engine(url, home=Path())
        assert "s3cret" not in str(caught.value)
        assert "sqlite:///" in str(caught.value), url


def test_a_missing_driver_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(ConfigError, match="install mysqlclient"):
        open_engine("mariadb://u@h/d", home=Path())


def test_a_password_from_elsewhere_is_used_and_not_shown(mariadb: MariaDB) -> None:
    mariadb.execute("CREATE OR REPLACE USER u@127.0.0.1 IDENTIFIED BY 's3cret'")
    url = mariadb.url("").replace("root@", "u:wrong@") + "information_schema"
    engine = open_engine(url, password="s3cret", home=Path())
    with engine.connect() as conn:
        assert conn.execute(text("SELECT 1")).scalar_one() == 1
    assert "s3cret" not in repr(engine) + repr(engine.url)
    engine.dispose()
    mariadb.execute("DROP USER u@127.0.0.1")


def test_an_option_that_the_driver_does_not_take_is_a_configuration_error(mariadb: MariaDB) -> None:
    engine = open_engine(mariadb.url("mysql") + "?foo=bar", home=Path())
    with pytest.raises(ConfigError, match="foo"), engine.connect():
        pass


def test_a_printed_url_has_no_password() -> None:
    assert shown("mysql://u:s3cret@h/d") == "mysql://u:***@h/d"
    assert "s3cret" not in shown("s3cret no url")


def test_a_sqlite_file_kept_open_for_reading_is_opened_once_and_sees_what_is_committed(
    tmp_path: Path,
) -> None:
    writer = open_engine(URL, home=tmp_path)
    with writer.begin() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
    reader = open_readonly(URL, home=tmp_path, keep=True)
    opened: list[object] = []
    event.listen(reader, "connect", lambda raw, _: opened.append(raw))
    for count in range(3):
        with reader.connect() as conn:
            assert conn.execute(text("SELECT count(*) FROM t")).scalar_one() == count
        with writer.begin() as conn:
            conn.execute(text("INSERT INTO t VALUES (1)"))
    assert len(opened) == 1
    reader.dispose()
    writer.dispose()


def test_a_closed_sqlite_file_is_not_kept_open_for_reading(tmp_path: Path) -> None:
    first = open_engine(URL, home=tmp_path)
    with first.begin() as conn:
        conn.execute(text("CREATE TABLE t (a)"))
    first.dispose()
    reader = open_readonly(URL, home=tmp_path, keep=True)
    with reader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    writer = open_engine(URL, home=tmp_path)
    with writer.begin() as conn:
        conn.execute(text("INSERT INTO t VALUES (1)"))
    # A connection to a file that was taken not to change would not see it.
    with reader.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
    reader.dispose()
    writer.dispose()

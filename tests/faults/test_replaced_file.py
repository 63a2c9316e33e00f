"""The database's file, moved, deleted or replaced under a running server."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dataserver.errors import StoreError
from dataserver.store import sqlite_file
from tests.support.commands import Run
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server

DATABASE = Path("var/dataserver.db")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", f"sqlite:///{DATABASE}")


@pytest.fixture
def database(place: Place) -> Path:
    return place.home.root / DATABASE


def drop(place: Place, agent: str, minute: int = 0) -> str:
    time = START + 60 * minute
    content = packet(agent, module("load", str(minute)), time=time)
    return place.drop(f"{agent}.{time}.data", content).name


def agents(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as conn:
        return {row[0] for row in conn.execute("SELECT nombre FROM tagente")}


def move(database: Path) -> None:
    database.rename(database.with_name("elsewhere.db"))


def delete(database: Path) -> None:
    database.unlink()


def replace(database: Path) -> None:
    """Put a copy in its place, as one who restores a backup does."""
    copy = database.with_name("copy.db")
    with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(copy)) as other:
        one.backup(other)
    copy.replace(database)


@pytest.mark.parametrize("change", [move, delete, replace])
def test_a_server_whose_file_goes_stops_at_once_and_acknowledges_nothing(
    place: Place, database: Path, change: Callable[[Path], None]
) -> None:
    with Server(place) as server:
        drop(place, "before")
        server.wait_taken()
        change(database)
        name = drop(place, "after")
        assert server.wait_exit() == StoreError.exit_code
        assert place.packets_left() == [name]
        said = f"the database file {database} was "
        assert said in server.log
        assert server.status["database_error"].startswith(said)


def test_a_missing_file_is_waited_for_and_not_made_anew(
    place: Place, database: Path, dataserver: Run
) -> None:
    with Server(place) as server:
        drop(place, "before")
        server.wait_taken()
        assert server.stop() == 0
        move(database)
        server.start()
        drop(place, "after")
        server.wait(lambda: server.status.get("database_error"), "a database that is away")
        assert "is missing" in server.status["database_error"]
        assert not database.exists()
        for command in (("check",), ("db", "check"), ("agents",)):
            told = dataserver(*command, "--home", place.home.root)
            assert told.returncode != 0
            assert "is missing: it was moved or deleted; put it back" in told.stdout + told.stderr
        database.with_name("elsewhere.db").rename(database)
        server.wait_taken()
        assert server.stop() == 0
    assert agents(database) == {"before", "after"}


def test_a_copy_in_its_place_is_used_after_a_restart(place: Place, database: Path) -> None:
    with Server(place) as server:
        drop(place, "before")
        server.wait_taken()
        replace(database)
        drop(place, "after")
        server.wait_exit()
        server.start()
        server.wait_taken()
        assert server.stop() == 0
        assert "checking the database file" in server.log
    assert agents(database) == {"before", "after"}


def test_a_backup_beside_the_log_of_another_file_is_not_written_to(
    place: Place, database: Path
) -> None:
    with Server(place) as server:
        drop(place, "before")
        server.wait_taken()
        backup = place.home.root / "backup.db"
        with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(backup)) as other:
            one.backup(other)
        for minute in range(200):
            drop(place, f"agent{minute}", minute)
        server.wait_taken()
        # The log then holds only what changed after this.
        with closing(sqlite3.connect(database)) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        drop(place, "last")
        server.wait_taken()
        server.kill()
    log = database.with_name("dataserver.db-wal")
    assert log.stat().st_size
    with database.open("r+b") as file:
        file.truncate(0)
        file.write(backup.read_bytes())
    os.utime(log, (0, 0))
    before = database.read_bytes()
    assert sqlite_file.damage(database) is not None
    with Server(place) as server:
        drop(place, "after")
        server.wait(lambda: server.status.get("database_error"), "a refusal")
        assert "is damaged" in server.status["database_error"]
        assert "-wal" in server.log
        assert database.read_bytes() == before
        # What the message says helps.
        assert server.stop(signal.SIGTERM) == 0
        for each in ("-wal", "-shm"):
            database.with_name(f"dataserver.db{each}").unlink(missing_ok=True)
        shutil.copyfile(backup, database)
        server.start()
        server.wait_taken()
        assert server.stop() == 0
    assert {"before", "after"} <= agents(database)


def test_a_server_killed_on_a_whole_file_starts_again(place: Place, database: Path) -> None:
    with Server(place) as server:
        for round_ in range(3):
            drop(place, f"agent{round_}")
            server.wait_taken()
            server.kill()
            server.start()
        server.wait_ready()
        assert server.stop() == 0
    assert len(agents(database)) == 3

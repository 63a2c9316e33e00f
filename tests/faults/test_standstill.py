"""What keeps packets from being stored is seen wherever an operator looks."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from dataserver.errors import SpoolError, StoreError
from dataserver.runtime.heartbeat import Phase
from dataserver.store.database import open_engine
from dataserver.store.errors import translating
from tests.support.commands import Run
from tests.support.databases import Database
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", "sqlite:///var/dataserver.db")


def drop(place: Place, agent: str) -> str:
    content = packet(agent, module("load", "1"), time=START)
    return place.drop(f"{agent}.1.data", content).name


def test_a_drop_directory_that_is_missing_is_said_everywhere_and_waited_for(
    place: Place, dataserver: Run
) -> None:
    home = ("--home", place.home.root)
    with Server(place) as server:
        server.wait_ready()
        folder = place.data_in()
        folder.rename(folder.with_name("away"))
        server.wait(lambda: "data_in" in server.status.get("troubles", {}), "a word about it")
        assert "data_in:" in dataserver("status", *home).stdout
        assert dataserver("health", *home).returncode == SpoolError.exit_code
        (row,) = json.loads(dataserver("instances", "list", "--json", *home).stdout)["instances"]
        assert "data_in" in row["detail"]
        assert 'dataserver_data_in_up{instance="main",server="dataserver"} 0' in (
            server.paths.metrics.read_text()
        )
        folder.with_name("away").rename(folder)
        server.wait(lambda: not server.status["troubles"], "no trouble any more")
        assert server.stop() == 0


@pytest.mark.parametrize("kind", ["replaced", "link"])
def test_a_drop_directory_that_is_another_one_ends_the_instance(place: Place, kind: str) -> None:
    folder = place.data_in()
    if kind == "link":
        folder.rename(folder.with_name("first"))
        folder.with_name("second").mkdir()
        folder.symlink_to("first")
    with Server(place) as server:
        server.wait_ready()
        if kind == "link":
            folder.unlink()
            folder.symlink_to("second")
        else:
            folder.rename(folder.with_name("old"))
            folder.mkdir()
        name = drop(place, "new")
        assert server.wait_exit() == SpoolError.exit_code
        assert "was replaced by another one" in server.log
        assert "was replaced by another one" in server.status["troubles"]["data_in"]["error"]
        assert place.packets_left() == [name]
        server.start()
        server.wait_taken()
        assert server.stop() == 0


def test_files_that_are_held_and_foreign_ones_are_counted_in_the_status(
    place: Place, dataserver: Run
) -> None:
    home = ("--home", place.home.root)
    place.configure(settle=60)
    for number in range(2):
        (place.data_in() / f"old.{number}.data_BADXML").touch()
    with Server(place) as server:
        server.wait_ready()
        place.drop("one.1.data", packet("one", module("load", "1"), time=START))
        server.wait_taken()
        place.drop("one.2.data", packet("one", module("load", "2"), time=START + 7200))
        server.wait(lambda: server.status["gauges"]["held"] == 1, "a file that is held")
        shown = dataserver("status", *home).stdout
        assert "(1 held until 20" in shown
        assert "besides 2 non-packet entries, left alone)" in shown
        shown = dataserver("instances", "list", *home).stdout
        assert "main: 1 of the queue held for " in shown
        assert server.stop() == 0


def test_a_reload_that_is_refused_stays_in_the_status_until_one_is_accepted(
    place: Place, dataserver: Run
) -> None:
    with Server(place) as server:
        server.wait_ready()
        place.configure(settle="soon")
        server.send(signal.SIGHUP)
        server.wait(lambda: "configuration" in server.status["troubles"], "the refusal")
        shown = dataserver("status", "--home", place.home.root).stdout
        assert "configuration:" in shown
        assert "settle" in shown
        place.configure(settle=0)
        server.send(signal.SIGHUP)
        server.wait(lambda: not server.status["troubles"], "no trouble any more")
        assert server.stop() == 0


@pytest.mark.long
def test_a_lock_that_another_program_keeps_is_an_outage_and_the_queue_is_counted_meanwhile(
    place: Place, dataserver: Run
) -> None:
    """Takes the 10 s for which a lock is waited."""
    with Server(place) as server:
        drop(place, "first")
        server.wait_taken()
        database = place.home.root / "var/dataserver.db"
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            whole = packet("one", module("load", "1"), time=START)
            upload = place.data_in() / "one.1.data"
            upload.write_bytes(whole[:-3])
            server.wait(lambda: server.status["gauges"]["waiting"] == 1, "the cut upload")
            other.execute("BEGIN IMMEDIATE")
            upload.write_bytes(whole)
            server.wait_phase(Phase.WAITING_FOR_DATABASE)
            server.wait(lambda: server.status["gauges"]["waiting"] == 0, "none not complete yet")
            server.wait(lambda: server.status["database_error"], "the reason")
            assert server.status["gauges"]["database_up"] == 0
            for number in range(7):
                drop(place, f"more{number}")
            # Counted by the heartbeat's thread: the main loop waits for the lock.
            server.wait(lambda: server.status["gauges"]["queue"] == 8, "8 files counted")
            age = server.status["gauges"]["oldest_age_seconds"]
            server.wait(
                lambda: server.status["gauges"]["oldest_age_seconds"] > age, "an age that grows"
            )
            assert "away for" in dataserver("status", "--home", place.home.root).stdout
            other.execute("ROLLBACK")
        server.wait_taken()
        server.wait(lambda: server.status["gauges"]["database_up"] == 1, "the database back")
        assert server.stop() == 0


def test_a_connection_that_could_only_read_is_opened_anew(sqlite_database: Database) -> None:
    engine = sqlite_database.engine()
    with engine.begin() as conn:
        conn.execute(text("PRAGMA query_only = ON"))
    with pytest.raises(StoreError), translating("write"), engine.begin() as conn:
        conn.execute(text("DELETE FROM tpacket"))
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM tpacket"))


def test_nothing_is_committed_by_a_process_whose_file_was_replaced(
    sqlite_database: Database,
) -> None:
    engine = open_engine(sqlite_database.url, home=sqlite_database.home)
    path = Path(engine.url.database or "")
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM tpacket"))
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(StoreError, match="was moved or deleted"), engine.begin() as conn:
        conn.execute(text("DELETE FROM tpacket"))
    engine.dispose()

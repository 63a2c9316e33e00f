"""The database lost, absent, hanging: the server waits, keeps the files, and goes on by itself."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dataserver.runtime.heartbeat import Phase
from tests.faults import corpus
from tests.faults.conftest import Undisturbed, backlog, shares
from tests.faults.corpus import File
from tests.support.databases import MARIADB, Database
from tests.support.dump import differences, dump
from tests.support.server import Place, Server

#: Seconds that the database may take to answer.
TIMEOUT = 1


@pytest.fixture(params=[MARIADB])
def store(mariadb_database: Database) -> Database:
    """A database on a server with which a test may do what it likes."""
    return mariadb_database


@pytest.fixture
def place(store: Database) -> Place:
    """Small batches and little patience."""
    return Place(
        store.home,
        store.url,
        batch_packets=5,
        database_timeout=TIMEOUT,
        connect_timeout=TIMEOUT,
    )


def test_the_database_killed_and_restarted_again_and_again_loses_nothing(
    store: Database, place: Place, files: list[File], undisturbed: Undisturbed
) -> None:
    with Server(place) as server:
        server.wait_ready()
        for share in shares(files, 2):
            begin(server, share)
            store.kill()
            store.restart()
            server.wait_taken()
        assert server.stop() == 0
    assert differences(undisturbed(store, files), dump(store.engine())) == []


def test_away_at_the_start_it_waits_says_so_and_goes_on_by_itself(
    store: Database, place: Place, few: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(few, place.data_in())
    store.kill()
    with Server(place) as server:
        server.wait_phase(Phase.WAITING_FOR_DATABASE)
        server.wait(lambda: server.status.get("database_error"), "the reason in the status")
        # Written after the status.
        server.wait(place.paths().metrics.exists, "the figures")
        assert "dataserver_database_up{" in up(server)
        assert up(server).endswith(" 0")
        assert len(place.packets_left()) == len(few)
        store.restart()
        server.wait_taken()
        server.wait(lambda: up(server).endswith(" 1"), "the database back in the metrics")
        assert server.status["database_error"] is None
        assert server.stop() == 0
    assert differences(undisturbed(store, few), dump(store.engine())) == []


def test_hanging_for_many_times_the_timeout_it_waits_and_stores_once(
    store: Database, place: Place, files: list[File], undisturbed: Undisturbed
) -> None:
    with Server(place) as server:
        server.wait_ready()
        # So often it gives up: for many times the timeout, and for little more than once.
        for share, tries in zip(shares(files, 2), (3, 1), strict=True):
            begin(server, share)
            with store.stop_cont():
                before = retries(server)
                server.wait(lambda most=before + tries: retries(server) >= most, "tries in vain")
            server.wait_taken()
        assert server.stop() == 0
    assert differences(undisturbed(store, files), dump(store.engine())) == []


def test_while_it_hangs_the_server_waits_for_the_database_and_is_not_stuck(
    store: Database, place: Place, few: list[File]
) -> None:
    with Server(place) as server:
        server.wait_ready()
        with store.stop_cont():
            corpus.write(few, place.data_in())
            server.wait_phase(Phase.WAITING_FOR_DATABASE)
            server.wait(lambda: server.status.get("database_error"), "the reason in the status")
        server.wait_taken()


@pytest.mark.long
def test_hanging_at_the_start_it_waits(
    store: Database, place: Place, few: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(few, place.data_in())
    with Server(place) as server:
        with store.stop_cont():
            server.wait_phase(Phase.WAITING_FOR_DATABASE)
        server.wait_taken()
        assert server.stop() == 0
    assert differences(undisturbed(store, few), dump(store.engine())) == []


def test_told_to_leave_while_the_database_is_away_it_leaves(store: Database, place: Place) -> None:
    with Server(place) as server:
        server.wait_ready()
        store.kill()
        place.drop(*packet("web1", 0))
        server.wait_phase(Phase.WAITING_FOR_DATABASE)
        assert server.stop() == 0
    assert len(place.packets_left()) == 1


def test_a_packet_after_a_gap_that_meets_a_lost_database_is_held_and_stored(
    store: Database, place: Place
) -> None:
    """Whether a packet is to be held is asked of the database, before any batch is."""
    place.configure(settle=0.3)
    with Server(place) as server:
        place.drop(*packet("web1", 0))
        server.wait_taken()
        store.kill()
        place.drop(*packet("web1", 36_000))
        server.wait_phase(Phase.WAITING_FOR_DATABASE)
        store.restart()
        server.wait_taken()
        server.wait_counted("packets", 2)
        assert server.stop() == 0


def test_packets_for_which_a_statement_has_no_room_do_not_block_those_behind_them(
    store: Database, place: Place
) -> None:
    """MariaDB hangs up on a statement over max_allowed_packet, as if the line were cut."""
    place.configure(batch_packets=500)
    server_of_it = store.server
    assert server_of_it is not None
    server_of_it.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        for number in range(8):
            place.drop(*packet("web1", 300 * number, text="\u00e4" * 200_000 + str(number)))
        with Server(place) as server:
            server.wait_taken()
            assert server.stop() == 0
    finally:
        server_of_it.execute("SET GLOBAL max_allowed_packet = 16777216")
    assert place.rejected() == []
    assert len(dump(store.engine())["tagente_datos_string"]) == 8


def begin(server: Server, files: Sequence[File]) -> None:
    """Bring packets, and wait until some of them are stored."""
    backlog(server, files)
    server.wait(lambda: len(server.place.packets_left()) < len(files), "progress")


def retries(server: Server) -> int:
    """How often the database gave no answer, or not the right one."""
    return sum(server.status["counters"]["retries"].values())


def up(server: Server) -> str:
    """The line of the metrics that says whether the database is there."""
    lines = server.paths.metrics.read_text().splitlines()
    return next(line for line in lines if line.startswith("dataserver_database_up"))


def packet(agent: str, offset: int, text: str = "hello") -> tuple[str, bytes]:
    """A packet with a string, as its name and its content."""
    at = corpus.START + offset
    content = (
        f'<agent_data agent_name="{agent}" timestamp="{corpus.local(at)}" interval="300">'
        f"<module><name>said</name><type>generic_data_string</type><data>{text}</data></module>"
        "</agent_data>"
    )
    return f"{agent}.{at}.data", content.encode()


# -- SQLite: nobody to kill, but a disk that is not there and another writer ---------------


def test_sqlite_whose_folder_is_not_there_yet_is_waited_for(
    tmp_path: Path, few: list[File]
) -> None:
    place = Place(tmp_path / "home", "sqlite:///disk/data.db")
    disk = place.home.root / "disk"
    disk.write_bytes(b"not a directory")
    corpus.write(few, place.data_in())
    with Server(place) as server:
        server.wait_phase(Phase.WAITING_FOR_DATABASE)
        disk.unlink()
        disk.mkdir()
        server.wait_taken()
        server.wait_counted("packets", len(few))
        assert server.stop() == 0


#: Put before the command: it waits a second for SQLite's locks, not ten.
IMPATIENT = """
import runpy, sys
from dataserver.store import database
connect = database._sqlite_connect
database._sqlite_connect = lambda uri, timeout, *more: connect(uri, 1.0, *more)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_sqlite_locked_by_another_writer_for_longer_than_the_timeout_is_waited_for(
    tmp_path: Path, few: list[File]
) -> None:
    place = Place(tmp_path / "home", "sqlite:///var/data.db")
    with Server(place, wrapper=[sys.executable, "-P", "-c", IMPATIENT]) as server:
        server.wait_ready()
        other = sqlite3.connect(place.home.root / "var" / "data.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        corpus.write(few, place.data_in())
        server.wait(lambda: server.status["counters"]["retries"], "a try in vain")
        other.execute("ROLLBACK")
        other.close()
        server.wait_taken()
        server.wait_counted("packets", len(few))
        assert server.stop() == 0

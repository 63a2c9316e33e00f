"""`dataserver run` as its operator meets it: signals, locks, a configuration read again."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from threading import Event

import pytest
from sqlalchemy import Engine, func, select

from dataserver.config import load
from dataserver.config.paths import Paths
from dataserver.ingest.worker import Worker
from dataserver.runtime.heartbeat import Beat, Phase
from dataserver.store import schema
from dataserver.store.database import open_engine
from tests.support.clock import Clock
from tests.support.commands import Run
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server
from tests.support.waiting import wait_until

URL = "sqlite:///var/dataserver.db"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", URL, batch_packets=5)


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    """It runs and has nothing to do."""
    with Server(place) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def engine(place: Place) -> Iterator[Engine]:
    engine = open_engine(URL, home=place.home.root)
    yield engine
    engine.dispose()


def ledger(engine: Engine) -> int:
    """How many packets are in the ledger."""
    with engine.connect() as conn:
        return conn.scalar(select(func.count()).select_from(schema.packet)) or 0


def drop(place: Place, number: int, instance: str = "main") -> None:
    """Drop the packet of this number, of one of fifty agents."""
    host = f"host{number % 50}"
    content = packet(host, module("load", str(number)), time=START + number)
    place.drop(f"{host}.{number}.data", content, instance=instance)


def backlog(place: Place, packets: int, instance: str = "main") -> None:
    for number in range(packets):
        drop(place, number, instance)


@contextmanager
def uploading(place: Place, first: int) -> Iterator[list[int]]:
    """Drop so many packets, and then more until the end of the block; all that were dropped."""
    backlog(place, first)
    dropped, ending = list(range(first)), Event()

    def upload() -> None:
        while not ending.is_set():
            drop(place, len(dropped))
            dropped.append(len(dropped))

    with ThreadPoolExecutor(1) as pool:
        uploaded = pool.submit(upload)
        try:
            yield dropped
        finally:
            ending.set()
        uploaded.result()


def _is_idle(paths: Paths) -> bool:
    beat = Beat.read(paths.heartbeat)
    return beat is not None and beat.phase is Phase.IDLE


WEB1, WEB2 = (packet(name, module("load")) for name in ("web1", "web2"))


class TestArrival:
    def test_a_file_is_taken_when_it_comes_not_with_the_next_scan(self, place: Place) -> None:
        # Its time stands still: nothing but the doorbell ends its rest.
        paths = place.paths()
        worker = Worker(load.load(paths, {}), paths, monotonic=Clock())

        def upload() -> None:
            try:
                wait_until(lambda: _is_idle(paths), "it to rest")
                for number in range(3):
                    drop(place, number)
                    wait_until(lambda: not place.packets_left(), "the packet taken")
            finally:
                worker.stop()

        with ThreadPoolExecutor(1) as pool:
            uploaded = pool.submit(upload)
            assert worker.run().packets == 3
            uploaded.result()

    def test_what_lay_there_before_the_start_is_taken(self, place: Place, engine: Engine) -> None:
        backlog(place, 100)
        with Server(place) as server:
            server.wait_taken()
            assert server.stop() == 0
        assert ledger(engine) == 100


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_finishes_the_batch_under_way_and_leaves(
        self, place: Place, engine: Engine, number: signal.Signals
    ) -> None:
        # However fast it is, it is in the midst of work: more and more comes.
        with Server(place) as server, uploading(place, 500) as uploaded:
            server.wait(lambda: len(uploaded) - len(place.packets_left()) > 100, "progress")
            assert server.stop(number) == 0
            assert server.status["phase"] == Phase.STOPPED
        # Everything that is committed has left, everything that left is committed.
        assert ledger(engine) == len(uploaded) - len(place.packets_left())

    def test_idle_it_leaves_with_a_summary(self, server: Server) -> None:
        assert server.stop() == 0
        assert "0 packets in" in server.log

    def test_it_says_in_its_heartbeat_that_it_stopped(
        self, server: Server, dataserver: Run
    ) -> None:
        assert server.stop() == 0
        home = server.place.home.root
        assert '"stopped"' in dataserver("--home", home, "status", "--json").stdout


class TestLocks:
    def test_a_second_start_of_the_instance_is_refused(
        self, server: Server, installed: Run
    ) -> None:
        refused(run_again(server.place, installed, "main"), str(server.pid))
        assert server.running

    def test_another_instance_on_the_same_drop_directory_is_refused(
        self, server: Server, dataserver: Run
    ) -> None:
        server.place.add("second", data_in="../main/data_in")
        refused(run_again(server.place, dataserver, "second", "--once"), str(server.pid))
        assert server.running

    def test_by_another_path_it_is_the_same_drop_directory(
        self, server: Server, dataserver: Run
    ) -> None:
        paths = server.place.add("second")
        (paths.folder / "data_in").rmdir()
        (paths.folder / "data_in").symlink_to(server.place.data_in())
        refused(run_again(server.place, dataserver, "second", "--once"), str(server.pid))

    def test_a_killed_one_leaves_no_lock(self, server: Server) -> None:
        server.kill()
        server.start()
        server.wait_ready()
        assert server.stop() == 0

    def test_two_instances_of_one_home_share_the_database(
        self, server: Server, engine: Engine
    ) -> None:
        place = server.place
        place.add("second")
        with Server(place, "second") as second:
            backlog(place, 300)
            backlog(place, 300, "second")
            server.wait_taken()
            second.wait_taken()
            assert second.stop() == 0
        assert ledger(engine) == 300


class TestReading:
    """SIGHUP: the configuration read again."""

    def test_a_changed_setting_holds_from_then_on(self, server: Server, engine: Engine) -> None:
        server.place.drop("web1.1.data", WEB1)
        server.wait_taken()
        server.place.configure(server_name="renamed")
        reread(server)
        server.place.drop("web2.2.data", WEB2)
        server.wait_taken()
        with engine.connect() as conn:
            query = select(schema.packet.c.server).order_by(schema.packet.c.agent_id)
            assert list(conn.scalars(query)) == ["dataserver", "renamed"]
        assert server.stop() == 0

    def test_a_changed_log_level_holds_from_then_on(self, place: Place) -> None:
        place.configure(log_level="error")
        with Server(place) as server:
            server.wait_ready()
            place.configure(log_level="info")
            server.send(signal.SIGHUP)
            server.wait(lambda: "configuration read again" in server.log, "the message")
            assert server.stop() == 0

    def test_in_the_midst_of_a_backlog_nothing_is_lost(self, place: Place, engine: Engine) -> None:
        backlog(place, 1000)
        with Server(place) as server:
            for left in (900, 600, 300):
                server.wait(lambda left=left: len(place.packets_left()) < left, "progress")
                server.send(signal.SIGHUP)
            server.wait_taken()
            assert server.stop() == 0
        assert ledger(engine) == 1000
        assert "duplicates" not in server.log

    def test_with_another_drop_directory_it_moves_there(
        self, server: Server, engine: Engine
    ) -> None:
        place = server.place
        other = place.home.root / "other"
        other.mkdir()
        place.paths().config.write_text(f'data_in = "{other}"\n')
        reread(server)
        (other / ".part").write_bytes(WEB1)
        (other / ".part").rename(other / "web1.1.data")
        server.wait(lambda: not list(other.iterdir()), "the packet taken")
        assert ledger(engine) == 1

    def test_a_configuration_that_is_no_good_leaves_the_old_one(self, server: Server) -> None:
        with closing(sqlite3.connect(server.place.home.root / "alien.db")) as alien:
            alien.execute("CREATE TABLE tagente (id_agente INTEGER)")
        lines = (
            "settle = 'soon'",
            "no_such_setting = 1",
            "this is no TOML",
            "data_in = '/no/such/directory'",
            "database = 'oracle://host/data'",
            "database = 'sqlite:///alien.db'",
        )
        said = '"the configuration stays as it was: '
        for number, line in enumerate(lines, 1):
            server.place.paths().config.write_text(f"{line}\n")
            server.send(signal.SIGHUP)
            server.wait(
                lambda number=number: server.log.count(said) == number, f"a word about {line}"
            )
            server.place.drop("web1.1.data", WEB1)
            server.wait(lambda: not server.place.packets_left(), f"the packet taken after {line}")
        assert server.stop() == 0
        assert server.log.count(said) == len(lines)

    def test_a_packet_set_aside_by_a_setting_can_be_retried_after_it_was_changed(
        self, server: Server, engine: Engine, dataserver: Run
    ) -> None:
        place = server.place
        ahead = packet("web1", module("load"), timestamp="2035/01/01 00:00:00")
        place.drop("web1.1.data", ahead)
        server.wait(place.rejected, "the packet set aside")
        place.configure(max_ahead=3650 * 86_400)
        reread(server)
        rid = place.rejected()[0].id
        result = dataserver("--home", place.home.root, "rejected", "retry", rid)
        assert result.returncode == 0, result.stderr
        server.wait(lambda: ledger(engine) == 1, "the packet stored")
        assert place.rejected() == []


def run_again(place: Place, dataserver: Run, *arguments: str) -> CompletedProcess[str]:
    return dataserver("--home", place.home.root, "run", *arguments)


def refused(result: CompletedProcess[str], said: str) -> None:
    """Its exit code says that a lock is held, and its one line by whom."""
    assert result.returncode == 4, result.stderr
    assert said in result.stderr.splitlines()[-1]


def reread(server: Server) -> None:
    """SIGHUP, and wait until it has been heard."""
    heard = server.log.count("configuration read again")
    server.send(signal.SIGHUP)
    server.wait(lambda: server.log.count("configuration read again") > heard, "it read again")

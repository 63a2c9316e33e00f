"""One packet that fails, and a fault that hits all: both leave all other packets stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from dataserver.config import load
from dataserver.errors import Reason, StoreRefused
from dataserver.ingest.delivery import INTERNAL_PER_HOUR
from dataserver.ingest.worker import Summary, run
from dataserver.model import Arrival
from dataserver.store import schema
from dataserver.store.recorder import Recorder
from tests.support import pandora
from tests.support.commands import Run
from tests.support.databases import PANDORA, Database
from tests.support.ingest import Instance
from tests.support.mariadb import MariaDB
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server

#: Beyond the Basic Multilingual Plane, which utf8mb3 ends with.
SCREEN = "\U0001f5a5"

Fails = Callable[[str], Exception | None]


def drop(place: Place, agent: str, **attributes: object) -> str:
    content = packet(agent, module("load", "1"), time=START, **attributes)
    return place.drop(f"{abs(hash((agent, str(attributes))))}.1.data", content).name


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fails], None]:
    """Have a batch fail as its packets' agents say."""
    record = Recorder.record

    def install(fails: Fails) -> None:
        def failing(self: Recorder, arrivals: Sequence[Arrival], now: int) -> Any:
            for arrival in arrivals:
                if error := fails(arrival.packet.agent_name):
                    raise error
            return record(self, arrivals, now)

        monkeypatch.setattr(Recorder, "record", failing)

    return install


@pytest.fixture
def instance(sqlite_database: Database) -> Instance:
    return Instance(sqlite_database)


def run_once(instance: Instance) -> Summary:
    return run(load.load(instance.paths, {}), instance.paths, once=True)


def fill(instance: Instance, agents: Sequence[str]) -> None:
    for number, agent in enumerate(agents):
        content = packet(agent, module("load", "1"), time=START)
        (instance.data_in / f"{number:04}.1.data").write_bytes(content)


def test_every_good_packet_among_many_failing_ones_is_stored_in_one_pass(
    instance: Instance, fault: Callable[[Fails], None]
) -> None:
    agents = [f"agent{number:03}" for number in range(500)]
    bad = set(agents[100:350])
    fill(instance, agents)
    fault(lambda agent: StoreRefused("no") if agent in bad else None)
    summary = run_once(instance)
    assert (summary.packets, summary.rejected, summary.failing) == (250, 250, 0)
    assert list(instance.data_in.iterdir()) == []


def test_a_fault_of_this_program_that_hits_all_rejects_nothing(
    instance: Instance, fault: Callable[[Fails], None]
) -> None:
    fill(instance, [f"agent{number:03}" for number in range(200)])
    fault(lambda _: TypeError("a fault"))
    summary = run_once(instance)
    assert (summary.packets, summary.rejected, summary.failing) == (0, 0, 200)
    assert summary.internal_error
    assert len(list(instance.data_in.iterdir())) == 200
    assert instance.rejected == []


def test_a_fault_that_hits_nine_in_ten_stores_the_tenth_and_rejects_a_few(
    instance: Instance, fault: Callable[[Fails], None]
) -> None:
    agents = [f"agent{number:03}" for number in range(300)]
    fill(instance, agents)
    fault(lambda agent: None if agent.endswith("9") else TypeError("a fault"))
    summary = run_once(instance)
    assert summary.packets == 30
    assert summary.rejected <= INTERNAL_PER_HOUR
    assert summary.packets + summary.rejected + summary.failing == 300
    assert len(list(instance.data_in.iterdir())) == summary.failing


@pytest.mark.parametrize(("error", "code"), [(StoreRefused("no"), 6), (TypeError("a fault"), 70)])
def test_the_command_says_how_many_wait_and_why_in_its_exit_code(
    place: Place, dataserver: Run, fault: Callable[[Fails], None], error: Exception, code: int
) -> None:
    drop(place, "one")
    drop(place, "two")
    fault(lambda _: error)
    done = dataserver("run", "--once", "--home", place.home.root)
    assert done.returncode == code
    assert "2 could not be stored yet" in done.stdout
    assert len(place.packets_left()) == 2
    fault(lambda agent: error if agent == "one" else None)
    done = dataserver("run", "--once", "--home", place.home.root)
    assert place.packets_left() == [] or done.returncode == code


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", "sqlite:///var/dataserver.db")


def test_packets_that_fail_wait_in_full_view_until_one_of_another_agent_is_stored(
    place: Place, dataserver: Run
) -> None:
    home = ("--home", place.home.root)
    assert dataserver("db", "create", *home).returncode == 0
    refuse = (
        "CREATE TRIGGER refuse BEFORE INSERT ON tpacket WHEN NEW.agent_id IN"
        " (SELECT id_agente FROM tagente WHERE nombre LIKE 'bad%')"
        " BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    _execute(place, refuse)
    with Server(place) as server:
        for number in range(5):
            drop(place, f"bad{number}")
        server.wait(lambda: server.status.get("gauges", {}).get("failing") == 5, "5 that wait")
        assert place.rejected() == []
        assert len(place.packets_left()) == 5
        assert "storing" in server.status["troubles"]
        shown = dataserver("status", *home).stdout
        assert "storing:" in shown
        assert "5 files wait" in shown
        assert "storing fails" in dataserver("health", *home).stdout
        (row,) = json.loads(dataserver("instances", "list", "--json", *home).stdout)["instances"]
        assert "5 files wait" in row["detail"]
        metrics = server.paths.metrics.read_text()
        assert 'dataserver_failing{instance="main"' in metrics
        assert "storing fails" in server.log
        drop(place, "good")
        server.wait_taken()
        assert {each.reason for each in place.rejected()} == {Reason.REFUSED}
        assert len(place.rejected()) == 5
        server.wait(lambda: not server.status["troubles"], "no trouble any more")
        assert server.stop() == 0


@pytest.mark.parametrize("where", ["agent_name", "parent_agent_name", "server_name"])
def test_a_name_that_the_database_cannot_hold_stops_no_other_packet(
    where: str, mariadb: MariaDB, tmp_path: Path
) -> None:
    url = mariadb.create("narrow", options="CHARACTER SET utf8mb3")
    try:
        mariadb.execute(*pandora.statements(), database="narrow")
        place = Place(tmp_path / "home", url, update_parent=True)
        with Server(place) as server:
            server.wait_ready()
            if where == "agent_name":
                drop(place, f"web {SCREEN}")
            else:
                drop(place, "web", **{where: f"x {SCREEN}"})
            for number in range(3):
                drop(place, f"good{number}")
            # In order of names, what fails may be the last one: the next agent's packet proves it.
            server.wait(lambda: len(place.packets_left()) <= 1, "the good ones stored")
            drop(place, "next")
            server.wait_taken()
            assert [each.reason for each in place.rejected()] in ([], [Reason.REFUSED])
            server.wait_counted("packets", 5 - len(place.rejected()))
            assert server.status["database_error"] is None
            assert server.stop() == 0
            assert server.status["gauges"]["queue"] == 0
        # Told in the console, too.
        database = Database(PANDORA, url, tmp_path, "narrow", mariadb)
        count = select(func.count()).where(schema.event.c.type == "error")
        with database.engine().connect() as conn:
            assert conn.scalar(count) == len(place.rejected())
        database.dispose()
    finally:
        mariadb.drop("narrow")


def test_an_error_that_no_table_of_codes_knows_stops_no_other_packet(
    mariadb_database: Database, tmp_path: Path
) -> None:
    server_ = mariadb_database.server
    assert server_ is not None
    server_.execute(
        "CREATE TRIGGER odd BEFORE INSERT ON tpacket FOR EACH ROW"
        " IF NEW.agent_id IN (SELECT id_agente FROM tagente WHERE nombre = 'odd') THEN"
        " SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'never seen';"
        " END IF",
        database=mariadb_database.name,
    )
    place = Place(tmp_path / "home", mariadb_database.url)
    with Server(place) as server:
        drop(place, "odd")
        for number in range(3):
            drop(place, f"good{number}")
        server.wait(lambda: len(place.packets_left()) <= 1, "the good ones stored")
        drop(place, "zone")
        server.wait_taken()
        (rejected,) = place.rejected()
        assert "31999" in rejected.detail
        assert server.stop() == 0


def _execute(place: Place, statement: str) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(place.home.root / "var/dataserver.db")) as conn:
        conn.execute(statement)
        conn.commit()

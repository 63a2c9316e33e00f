"""The rows of servers: alive, down, and each change told once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, select, text, update

from dataserver.rules.times import local_text
from dataserver.store import schema, servers
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout, inspect
from dataserver.store.processes import Process, Processes, ProcessStats, Totals
from dataserver.store.servers import Modules, Servers
from dataserver.store.sql import Sql
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.kinds import database_of
from tests.support.packets import START, module, packet

NOW = 1_800_000_000
KEEPALIVE = 45
SUMS = Totals(processes=2, queue=7, threads=2, lag=30)

database = database_of(SQLITE, PANDORA)


class Store:
    """A database, and what a server does to its row there."""

    def __init__(self, database: Database) -> None:
        self.layout: Layout = database.prepare()
        self.engine: Engine = database.engine()
        self.servers = self.make()

    def make(self) -> Servers:
        sql = Sql(self.engine.dialect)
        return Servers(sql, self.layout, EventLog(sql, self.layout))

    def beat(self, now: int = NOW, name: str = "ingest", **more: Any) -> None:
        with self.engine.begin() as conn:
            self.beat_in(conn, now, name, **more)

    def beat_in(self, conn: Connection, now: int, name: str = "ingest", **more: Any) -> None:
        text = local_text(now, ZONE)
        given = {"keepalive": KEEPALIVE, "version": "1.0", "now": now, "now_text": text, **more}
        self.servers.beat(conn, name, SUMS, **given)

    def watch(self, now: int, since: int = 0) -> None:
        with self.engine.begin() as conn:
            self.servers.watch(conn, now, local_text(now, ZONE), since)

    def rows(self) -> list[dict[str, Any]]:
        c = schema.server.c
        with self.engine.connect() as conn:
            rows = conn.execute(select(schema.server).order_by(c.id)).mappings()
            return [dict(row) for row in rows]

    def row(self, name: str = "ingest") -> dict[str, Any]:
        return next(row for row in self.rows() if row["name"] == name)

    def told(self) -> list[tuple[str, int]]:
        c = schema.event.c
        with self.engine.connect() as conn:
            rows = conn.execute(select(c.text, c.severity, c.type, c.agent_id).order_by(c.id)).all()
        assert all(tuple(row[2:]) == ("system", 0) for row in rows)
        return [(row[0], row[1]) for row in rows]


UP = ("ingest&#x20;dataserver&#x20;going&#x20;UP", 3)
DOWN = ("ingest&#x20;dataserver&#x20;going&#x20;DOWN", 4)


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def test_a_server_makes_its_row_once_and_keeps_it(store: Store) -> None:
    store.beat(address="192.0.2.7", modules=Modules(50, 20))
    store.beat(NOW + 5)
    assert len(store.rows()) == 1
    row = store.row()
    expected = {
        "name": "ingest",
        "server_type": 0,
        "description": "Autocreated at startup",
        "master": 0,
        "ip_address": "192.0.2.7",
        "status": 1,
        "version": "1.0",
        "queued_modules": 7,
        "threads": 2,
        "lag_time": 30,
        "total_modules_running": 50,
        "my_modules": 20,
        "server_keepalive": KEEPALIVE,
        "stat_utimestamp": NOW,
        "server_keepalive_utimestamp": NOW + 5,
    }
    assert {key: row[key] for key in expected} == expected
    assert str(row["laststart"]) == local_text(NOW, ZONE)
    assert str(row["keepalive"]) == local_text(NOW + 5, ZONE)
    assert store.told() == [UP]


def test_what_the_console_set_stays(store: Store) -> None:
    store.beat()
    c = schema.server.c
    with store.engine.begin() as conn:
        conn.execute(update(schema.server).values({c.description: "ours", c.exec_proxy: 1}))
    store.beat(NOW + 5, address="192.0.2.8")
    assert (store.row()["exec_proxy"], store.row()["description"]) == (1, "ours")
    assert store.row()["ip_address"] == "192.0.2.8"


def test_a_server_that_only_reads_packets_is_never_the_master(database: Database) -> None:
    """Nor one that reports by packet: a master that does not poll keeps others from polling."""
    ingest, store = Ingest(database), Store(database)
    store.beat()
    with store.engine.begin() as conn:
        # As a Perl server left it.
        conn.execute(update(schema.server).values(master=5))
    store.beat(NOW + 5)
    assert store.row()["master"] == 0
    for kind in ("", "0", "1", "13"):
        content = f'<agent_data server_name="s{kind}" server_type="{kind}" master="9"></agent_data>'
        for _ in range(2):
            ingest.record([arrival(content.encode())])
            with store.engine.begin() as conn:
                conn.execute(update(schema.server).values(master=5))
        ingest.record([arrival(content.encode())])
        assert store.row(f"s{kind}")["master"] == 0


class TestDown:
    def test_a_server_is_set_down_once_when_twice_its_keepalive_has_passed(
        self, store: Store
    ) -> None:
        store.beat()
        store.watch(NOW + 2 * KEEPALIVE)
        assert store.told() == [UP]
        for later in (1, 2, 600):
            store.watch(NOW + 2 * KEEPALIVE + later)
        # Crashed, as the console calls it; 0 is for one that stopped in good order.
        assert store.row()["status"] == -1
        assert store.told() == [UP, DOWN]

    def test_it_comes_back_once(self, store: Store) -> None:
        store.beat()
        store.watch(NOW + 200)
        store.beat(NOW + 300)
        store.beat(NOW + 305)
        assert store.row()["status"] == 1
        assert store.told() == [UP, DOWN, UP]

    def test_a_restart_within_that_time_is_not_told(self, store: Store) -> None:
        store.beat()
        store.beat(NOW + 80, address="192.0.2.7")
        store.watch(NOW + 81)
        assert store.told() == [UP]

    def test_who_could_not_be_seen_is_given_as_long_from_then_on(self, store: Store) -> None:
        store.beat()
        store.watch(NOW + 1000, since=NOW + 950)
        assert store.told() == [UP]
        store.watch(NOW + 1041, since=NOW + 950)
        assert store.told() == [UP, DOWN]

    def test_a_sign_of_life_from_the_future_counts_from_when_it_was_seen(
        self, store: Store
    ) -> None:
        store.beat(NOW + 43_200)
        store.watch(NOW)
        store.watch(NOW + 80)
        store.beat(NOW + 43_280)
        for later in (81, 171):
            store.watch(NOW + later)
        assert store.told() == [UP]
        store.watch(NOW + 172)
        assert store.told() == [UP, DOWN]

    def test_servers_of_other_types_are_watched_too(self, store: Store) -> None:
        c = schema.server.c
        store.beat(name="snmp")
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).values({c.server_type: 2, c.server_keepalive: 10}))
        store.watch(NOW + 21)
        assert store.row("snmp")["status"] == -1
        assert store.told()[-1] == ("snmp&#x20;snmpconsole&#x20;going&#x20;DOWN", 4)

    def test_a_server_of_a_type_that_nobody_knows_is_told_of_too(self, store: Store) -> None:
        store.beat()
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).values(server_type=99))
        store.watch(NOW + 1000)
        assert store.told()[-1] == ("ingest&#x20;server&#x20;going&#x20;DOWN", 4)

    def test_one_that_says_nothing_of_its_time_is_left_alone(self, store: Store) -> None:
        c = schema.server.c
        store.beat()
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).values({c.server_keepalive_utimestamp: 0}))
        store.watch(NOW + 100_000)
        assert store.row()["status"] == 1

    def test_one_that_another_declared_crashed_stays_that(self, store: Store) -> None:
        store.beat()
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).values(status=-1))
        store.watch(NOW + 1000)
        assert store.row()["status"] == -1
        assert store.told() == [UP]


class TestLeaving:
    def test_the_last_process_sets_it_down_at_once_and_no_other(self, store: Store) -> None:
        one, two = (
            Processes(Process(name, "ingest", 0, "h", "main", 1, "1.0"), 90.0)
            for name in ("one", "two")
        )
        store.beat()
        with store.engine.begin() as conn:
            one.beat(conn, ProcessStats())
            two.beat(conn, ProcessStats())
        for it, told in ((one, [UP]), (two, [UP, DOWN])):
            with store.engine.begin() as conn:
                it.leave(conn, ProcessStats())
                store.servers.leave(conn, "ingest", it, NOW, local_text(NOW, ZONE))
            assert store.told() == told
        assert (store.row()["status"], store.row()["threads"]) == (0, 0)


def test_of_two_that_start_at_once_one_makes_the_row(store: Store) -> None:
    barrier = threading.Barrier(2)

    def start() -> None:
        barrier.wait()
        store.make()
        store.beat()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.rows()) == 1
    assert store.told() == [UP]


def test_two_that_notice_at_once_set_it_down_once(store: Store) -> None:
    store.beat()
    threads = [threading.Thread(target=store.watch, args=(NOW + 100,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.told() == [UP, DOWN]


def test_a_sign_of_life_between_the_look_and_the_verdict_saves_it(
    mariadb_database: Database,
) -> None:
    store, other = Store(mariadb_database), Store(mariadb_database)
    store.beat()
    beaten: list[int] = []

    def before(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("UPDATE tserver") and not beaten:
            beaten.append(NOW + 100)
            other.beat(NOW + 100)

    event.listen(store.engine, "before_cursor_execute", before)
    store.watch(NOW + 100)
    assert beaten
    assert store.row()["status"] == 1
    assert store.told() == [UP]


class TestRunningBy:
    """Which server a module runs on: the console's page of servers counts by it."""

    def running_by(self, store: Store) -> list[int]:
        s = schema.state.c
        with store.engine.connect() as conn:
            return list(conn.scalars(select(s.running_by).order_by(s.module_id)))

    def test_a_module_runs_on_the_server_that_stored_its_newest_value(
        self, database: Database
    ) -> None:
        ingest, store = Ingest(database), Store(database)
        store.beat(name="other")
        store.beat()
        own, other = store.row()["id_server"], store.row("other")["id_server"]
        content = (module("load"), module("never", ""))
        ingest.record([arrival(packet("a", *content, time=START))])
        assert self.running_by(store) == [own, 0]
        # Of a value that was there before its server took its place.
        with store.engine.begin() as conn:
            conn.execute(update(schema.state).values(running_by=other))
        ingest.recorder.catalog.clear()
        ingest.record([arrival(packet("a", *content, time=START + 300))])
        assert self.running_by(store) == [own, other]

    def test_each_of_many_modules_does_so_with_any_value(self, database: Database) -> None:
        """Where all of an agent's modules share their times, one row per agent is written."""
        ingest, store = Ingest(database), Store(database)
        first = [module(f"m{number}") for number in range(3)]
        ingest.record([arrival(packet("a", *first, time=START))])
        assert self.running_by(store) == [0, 0, 0]
        store.beat()
        same = [module("m0"), module("m1", "2"), module("m2")]
        ingest.record([arrival(packet("a", *same, time=START + 300))])
        assert self.running_by(store) == [store.row()["id_server"]] * 3
        ingest.record([arrival(packet("a", *same, time=START + 600))])
        assert self.running_by(store) == [store.row()["id_server"]] * 3

    def test_a_late_value_and_a_refused_one_say_nothing(self, database: Database) -> None:
        ingest, store = Ingest(database), Store(database)
        ingest.record([arrival(packet("a", module("load"), time=START + 300))])
        store.beat()
        ingest.record([arrival(packet("a", module("load", "2"), time=START))])
        ingest.record([arrival(packet("a", module("load", "x"), time=START + 600))])
        assert self.running_by(store) == [0]

    def test_a_row_that_the_console_deletes_is_replaced(self, database: Database) -> None:
        ingest, store = Ingest(database), Store(database)
        store.beat()
        ingest.record([arrival(packet("a", module("load"), time=START))])
        with store.engine.begin() as conn:
            conn.execute(delete(schema.server))
        store.beat(name="another")
        store.beat()
        again = Ingest(database)
        again.record([arrival(packet("a", module("load"), time=START + 300))])
        assert self.running_by(store) == [store.row()["id_server"]]

    def test_modules_are_counted_by_it(self, database: Database) -> None:
        ingest, store = Ingest(database), Store(database)
        store.beat()
        names = [f"m{number}" for number in range(5)]
        sent = (packet(agent, *map(module, names), time=START) for agent in ("a", "b", "off"))
        ingest.record([arrival(each) for each in sent])
        store.beat(name="second")
        store.beat(name="network")
        a, m, s, c = schema.agent.c, schema.module.c, schema.state.c, schema.server.c
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).where(c.name == "network").values(server_type=1))
            ids = dict(conn.execute(select(c.name, c.id)).all())
            conn.execute(update(schema.agent).where(a.name == "off").values(disabled=1))
            conn.execute(update(schema.module).where(m.name == "m0").values(disabled=1))
            for name, server in (("m1", "second"), ("m2", "network")):
                where = s.module_id.in_(select(m.id).where(m.name == name))
                conn.execute(update(schema.state).where(where).values(running_by=ids[server]))
            # m3 and m4 of two agents; besides, m1 of both runs on another data server.
            assert store.servers.count_modules(conn, "ingest") == Modules(6, 4)
            assert store.servers.count_modules(conn, "nobody") == Modules(0, 0)

    def test_a_database_without_the_column_takes_values(self, pandora_database: Database) -> None:
        with pandora_database.engine().begin() as conn:
            conn.execute(text("ALTER TABLE tagente_estado DROP COLUMN running_by"))
        ingest, store = Ingest(pandora_database), Store(pandora_database)
        store.beat()
        for minute, value in enumerate(("1", "1", "2")):
            sent = packet("a", module("load", value), time=START + 60 * minute)
            ingest.record([arrival(sent)])
        with store.engine.connect() as conn:
            assert conn.scalar(select(schema.state.c.value)) == "2.00000"
            assert store.servers.count_modules(conn, "ingest") == Modules(0, 0)


def test_a_server_that_reports_by_packet_comes_back_by_packet(database: Database) -> None:
    ingest = Ingest(database)
    content = b'<agent_data server_name="sat" version="7" address="192.0.2.9"></agent_data>'
    ingest.record([arrival(content)])
    store = Store(database)
    row = store.row("sat")
    assert (row["server_type"], row["status"], row["ip_address"]) == (13, 1, "192.0.2.9")
    seen = row["server_keepalive_utimestamp"]
    store.watch(seen + 600)
    assert store.row("sat")["status"] == 1
    store.watch(seen + 601)
    assert store.row("sat")["status"] == -1
    ingest.record([arrival(content.replace(b"7", b"8"))])
    assert store.row("sat")["status"] == 1
    assert store.row("sat")["laststart"] == store.row("sat")["keepalive"]
    assert [text.split(";")[-1] for text, _ in store.told()] == ["UP", "DOWN", "UP"]
    assert store.told()[0][0] == "sat&#x20;satelliteserver&#x20;going&#x20;UP"


def test_packets_make_no_more_rows_than_there_may_be(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers, "MOST", 3)
    ingest, store = Ingest(database), Store(database)
    for number in range(6):
        content = f'<agent_data server_name="sat{number}" version="7"></agent_data>'
        ingest.record([arrival(content.encode())])
    assert [row["name"] for row in store.rows()] == ["sat0", "sat1", "sat2"]
    assert len(store.told()) == 3
    # Told once; those that are there are kept alive, and our own row is made in any case.
    [message] = [text for text in caplog.messages if "sat" in text]
    assert message == (
        "server 'sat3', which reports by packet, gets no row, nor do other new servers: tserver"
        " has 3 rows; find out who sends these packets, and delete the invalid servers in the"
        " console"
    )
    store.watch(store.row("sat1")["server_keepalive_utimestamp"] + 601)
    ingest.record([arrival(b'<agent_data server_name="sat1" version="8"></agent_data>')])
    store.beat()
    assert [store.row(name)["status"] for name in ("sat0", "sat1", "ingest")] == [-1, 1, 1]


def test_an_older_database_is_given_what_it_has_columns_for(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    for name in ("server_keepalive_utimestamp", "server_keepalive", "lag_time", "my_modules"):
        server.execute(f"ALTER TABLE tserver DROP COLUMN {name}", database=pandora_database.name)
    store = Store(pandora_database)
    store.layout = inspect(store.engine)
    store.servers = store.make()
    store.beat(modules=Modules(1, 1))
    store.beat(NOW + 5)
    store.watch(NOW + 1000)
    c = schema.server.c
    with store.engine.connect() as conn:
        assert conn.execute(select(c.status, c.threads)).all() == [(1, 2)]


def test_without_the_table_nothing_is_written(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    server.execute("DROP TABLE tserver", database=pandora_database.name)
    store = Store(pandora_database)
    store.beat()
    store.watch(NOW)
    assert store.told() == []

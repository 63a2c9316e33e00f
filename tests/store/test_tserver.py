"""The rows of servers: alive, down, and each change told once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, update

from dataserver.store import schema
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout, inspect
from dataserver.store.processes import Figures, Process, Processes, Sums
from dataserver.store.servers import Modules, Servers
from dataserver.store.sql import Sql
from dataserver.times import local_text
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.kinds import database_of
from tests.support.packets import module, packet

NOW = 1_800_000_000
KEEPALIVE = 45
SUMS = Sums(processes=2, queue=7, threads=2, lag=30)

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


UP, DOWN = ("ingest&#x20;going&#x20;UP", 3), ("ingest&#x20;going&#x20;DOWN", 4)


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
        conn.execute(update(schema.server).values({c.master: 1, c.description: "ours"}))
    store.beat(NOW + 5, address="192.0.2.8")
    assert (store.row()["master"], store.row()["description"]) == (1, "ours")
    assert store.row()["ip_address"] == "192.0.2.8"


class TestDown:
    def test_a_server_is_set_down_once_when_twice_its_keepalive_has_passed(
        self, store: Store
    ) -> None:
        store.beat()
        store.watch(NOW + 2 * KEEPALIVE)
        assert store.told() == [UP]
        for later in (1, 2, 600):
            store.watch(NOW + 2 * KEEPALIVE + later)
        assert store.row()["status"] == 0
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

    def test_servers_of_other_types_are_watched_too(self, store: Store) -> None:
        c = schema.server.c
        store.beat(name="snmp")
        with store.engine.begin() as conn:
            conn.execute(update(schema.server).values({c.server_type: 2, c.server_keepalive: 10}))
        store.watch(NOW + 21)
        assert store.row("snmp")["status"] == 0

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
            one.beat(conn, Figures())
            two.beat(conn, Figures())
        for it, told in ((one, [UP]), (two, [UP, DOWN])):
            with store.engine.begin() as conn:
                it.leave(conn, Figures())
                store.servers.leave(conn, "ingest", it, NOW, local_text(NOW, ZONE))
            assert store.told() == told


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


def test_modules_are_counted_from_the_agents_counts(database: Database) -> None:
    ingest = Ingest(database)
    ingest.record([arrival(packet("a", *(module(f"m{number}") for number in range(3))))])
    store = Store(database)
    a = schema.agent.c
    with store.engine.begin() as conn:
        name = conn.scalar(select(a.server_name).where(a.name == "a"))
        row = {"name": "b", "server_name": "other", "total_count": 5}
        conn.execute(schema.agent.insert().values(row))
        row = {"name": "c", "server_name": "other", "total_count": 9, "disabled": 1}
        conn.execute(schema.agent.insert().values(row))
        assert store.servers.count_modules(conn, name) == Modules(8, 3)


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
    assert store.row("sat")["status"] == 0
    ingest.record([arrival(content.replace(b"7", b"8"))])
    assert store.row("sat")["status"] == 1
    assert [text.split(";")[-1] for text, _ in store.told()] == ["UP", "DOWN", "UP"]


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

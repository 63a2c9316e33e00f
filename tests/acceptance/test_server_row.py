"""The server's row in ``tserver``, as the console shows it, with real servers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from dataserver.store import schema
from dataserver.store.layout import reading
from tests.support.databases import MARIADB, SQLITE, Database, opened
from tests.support.packets import module, packet
from tests.support.server import Place, Server

#: Seconds within which a server shows that it lives; it does so each two.
KEEPALIVE = 6


@pytest.fixture(params=[pytest.param(SQLITE, marks=pytest.mark.long), MARIADB])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path / "home") as database:
        database.prepare()
        yield database


@pytest.fixture
def place(database: Database) -> Place:
    place = Place(database.home, database.url, server_name="twins", server_keepalive=KEEPALIVE)
    place.add("second")
    return place


@pytest.fixture
def engine(place: Place, database: Database) -> Engine:
    return database.engine()


def row(engine: Engine, name: str) -> dict[str, Any]:
    """The server's row; empty where there is none yet."""
    c = schema.server.c
    with reading(engine) as conn:
        rows = conn.execute(select(schema.server).where(c.name == name)).mappings().all()
    assert len(rows) <= 1
    return dict(rows[0]) if rows else {}


def forget_process(engine: Engine, pid: int) -> None:
    """It is dead; now nobody has heard of it for longer than it may be silent."""
    c = schema.server_process.c
    with engine.begin() as conn:
        aged = update(schema.server_process).where(c.pid == pid)
        conn.execute(aged.values(heartbeat=c.heartbeat - 3 * KEEPALIVE))


def forget_server(engine: Engine, name: str) -> None:
    """All its processes are dead; now it was to show within a second that it lives."""
    c = schema.server.c
    with engine.begin() as conn:
        conn.execute(update(schema.server).where(c.name == name).values(server_keepalive=1))


def told(engine: Engine, name: str) -> list[str]:
    c = schema.event.c
    with reading(engine) as conn:
        texts = conn.scalars(select(c.text).where(c.type == "system").order_by(c.id)).all()
    return [text.split(";")[-1] for text in texts if text.startswith(name)]


def test_instances_that_share_a_name_share_a_row_which_others_set_down(
    place: Place, engine: Engine, database: Database
) -> None:
    # What is not complete waits, and is part of the queue.
    place.configure(incomplete_after=600)
    place.drop("a.1.data", packet("a", module("load"))[:-5])
    for number in (1, 2):
        place.drop(f"b.{number}.data", packet("b", module("load"))[:-5], instance="second")
    watcher = Place(
        database.home.parent / "watcher",
        # The same database, wherever the home is.
        database.url.replace("sqlite:///", f"sqlite:///{database.home}/"),
        server_name="watcher",
        server_keepalive=KEEPALIVE,
    )
    with Server(place) as one, Server(place, "second") as two, Server(watcher) as third:
        one.wait(lambda: row(engine, "twins").get("queued_modules") == 3, "both queues summed")
        assert row(engine, "twins")["threads"] == 2
        third.wait(lambda: row(engine, "watcher").get("status") == 1, "the watcher's row")
        two.kill()
        forget_process(engine, two.pid)
        one.wait(lambda: row(engine, "twins")["queued_modules"] == 1, "one queue left")
        assert row(engine, "twins")["status"] == 1
        one.kill()
        forget_process(engine, one.pid)
        forget_server(engine, "twins")
        third.wait(lambda: row(engine, "twins")["status"] == -1, "the row set down")
        assert told(engine, "twins") == ["UP", "DOWN"]
        with Server(place) as again:
            again.wait(lambda: row(engine, "twins")["status"] == 1, "the row up again")
            assert again.stop() == 0
        assert row(engine, "twins")["status"] == 0, "an orderly stop is known at once"
        assert told(engine, "twins") == ["UP", "DOWN", "UP", "DOWN"]
        assert row(engine, "watcher")["status"] == 1
        assert told(engine, "watcher") == ["UP"]


def test_modules_run_on_the_server_that_stores_their_values(place: Place, engine: Engine) -> None:
    """The console's page of servers counts them by it, from the first batch on."""
    running = select(schema.state.c.running_by)
    place.drop("a.1.data", packet("a", module("load")))
    with Server(place) as server, engine.connect() as conn:
        server.wait(lambda: not place.packets_left(), "the packet stored")
        assert conn.scalar(running) == row(engine, "twins")["id_server"]


def test_a_configuration_that_is_read_again_is_no_restart(place: Place, engine: Engine) -> None:
    with Server(place) as server:
        server.wait(lambda: row(engine, "twins").get("status") == 1, "its row")
        place.configure(batch_packets=7)
        server.send(signal.SIGHUP)
        server.wait(lambda: "configuration read again" in server.log, "the new configuration")
        seen = row(engine, "twins")["server_keepalive_utimestamp"]
        server.wait(
            lambda: row(engine, "twins")["server_keepalive_utimestamp"] > seen, "a sign of life"
        )
        assert told(engine, "twins") == ["UP"]


def test_a_single_pass_is_no_server(place: Place, engine: Engine, dataserver: Any) -> None:
    place.drop("a.1.data", packet("a", module("load")))
    assert dataserver("--home", place.home.root, "run", "--once").returncode == 0
    assert place.packets_left() == []
    assert row(engine, "twins") == {}
    with reading(engine) as conn:
        assert conn.execute(select(schema.server_process.c.id)).all() == []

"""What the console's setup (``tconfig``) says to a data server, and that it is noticed."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from dataserver.rules.times import local_text
from dataserver.store import schema
from dataserver.store.events import EventLog
from dataserver.store.sql import Sql
from dataserver.store.sweeps.keep_alive import SilenceSweep
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import NOW, ZONE, Ingest, arrival
from tests.support.kinds import database_of
from tests.support.packets import START, module, packet

database = database_of(SQLITE, PANDORA)

STORM, BLACKLIST = "event_storm_protection", "inventory_changes_blacklist"


class Setup:
    """A server and the console that configures it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.minute = 0
        self.server = Ingest(database)
        self.layout = self.server.recorder.layout
        self.engine: Engine = database.engine()

    def set(self, token: str, value: str | None) -> None:
        """As the console's pages do; a server that reads it anew."""
        c = schema.config.c
        with self.engine.begin() as conn:
            conn.execute(delete(schema.config).where(c.token == token))
            if value is not None:
                conn.execute(insert(schema.config).values(token=token, value=value))
        self.server = Ingest(self.database)

    def send(self, *content: str) -> None:
        """One more packet, a minute later."""
        self.minute += 1
        time = START + 60 * self.minute
        sent = arrival(packet("one", *content, time=time, os_name="Linux"))
        self.server.record([sent])

    def load(self, value: str) -> None:
        self.send(module("load", value, min_critical=80))

    def inventory(self, name: str, row: str) -> None:
        self.send(
            f"<inventory><inventory_module><name>{name}</name><datalist><data>{row}</data>"
            "</datalist></inventory_module></inventory>"
        )

    def events(self) -> list[tuple[str, int]]:
        """Type, and whether it is validated; of all but new agents."""
        c = schema.event.c
        query = select(c.type, c.status).where(c.type != "new_agent").order_by(c.id)
        with self.engine.connect() as conn:
            return [(row[0], row[1]) for row in conn.execute(query)]


@pytest.fixture
def console(database: Database) -> Setup:
    return Setup(database)


def test_in_a_storm_nobody_is_told_of_what_values_change(console: Setup) -> None:
    console.load("90")
    assert console.events() == [("going_up_critical", 0)]
    console.set(STORM, "1")
    console.load("1")
    console.load("95")
    console.load("2")
    # Neither told nor validated, and not made up for later.
    assert console.events() == [("going_up_critical", 0)]
    console.set(STORM, "0")
    console.load("3")
    assert console.events() == [("going_up_critical", 0)]
    console.load("90")
    assert console.events() == [("going_up_critical", 1), ("going_up_critical", 0)]


def test_other_events_come_in_a_storm_too(console: Setup) -> None:
    console.set(STORM, "1")
    console.load("1")
    console.inventory("Software", "one 1.0")
    console.inventory("Software", "one 1.1")
    assert [kind for kind, _ in console.events()] == ["configuration_change"]
    sql = Sql(console.engine.dialect)
    events = EventLog(sql, console.layout)
    sweep = UnknownSweep(sql, console.layout, events, lambda now: local_text(now, ZONE))
    with console.engine.begin() as conn:
        sweep.sweep(conn, NOW + 3_600, NOW + 3_600)
    assert [kind for kind, _ in console.events()] == ["configuration_change", "going_unknown"]


def test_in_a_storm_nobody_is_told_of_silence_that_is_a_value(console: Setup) -> None:
    console.set(STORM, "1")
    console.send(module("alive", "1", "keep_alive"))
    sql = Sql(console.engine.dialect)
    sweep = SilenceSweep(sql, console.layout, EventLog(sql, console.layout), ZONE)
    with console.engine.begin() as conn:
        sweep.sweep(conn, NOW + 3_600, NOW + 3_600)
        status = conn.scalar(select(schema.state.c.status))
    assert (status, console.events()) == (1, [])


def test_a_value_of_the_setup_that_means_nothing_changes_nothing(console: Setup) -> None:
    for value in ("", "yes", "2", None):
        console.set(STORM, value)
        console.load("1")
        console.load("90")
    assert len(console.events()) == 7


def test_changes_of_inventories_that_are_on_the_list_are_stored_and_not_told(
    console: Setup,
) -> None:
    c = schema.inventory_module.c
    with console.engine.begin() as conn:
        query = select(c.id).where(c.name == "Software", c.os_id == 1)
        software = conn.scalar(query)
    console.set(BLACKLIST, f"x, {software},,-1,{'9' * 5_000}")
    for number in range(3):
        console.inventory("Software", f"one 1.{number}")
        console.inventory("Process", f"init {number}")
    assert [kind for kind, _ in console.events()] == ["configuration_change"] * 2
    with console.engine.connect() as conn:
        assert len(conn.execute(select(schema.inventory_history)).all()) == 6
    console.set(BLACKLIST, "")
    console.inventory("Software", "one 2.0")
    assert len(console.events()) == 3


def test_a_setup_that_changes_is_noticed(console: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all else that is read together: after ``cache_seconds`` at most."""
    now = 1_000.0
    monkeypatch.setattr("dataserver.store.recorder.monotonic", lambda: now)
    console.set(STORM, "0")
    console.load("1")
    c = schema.config.c
    with console.engine.begin() as conn:
        conn.execute(update(schema.config).where(c.token == STORM).values(value="1"))
    now += 61
    console.load("90")
    assert console.events() == []

"""An agent's row: what follows its packets, what falls back to a default, what stays."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, update

from dataserver.store import schema
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import Ingest, arrival
from tests.support.kinds import database_of
from tests.support.monitored import Monitored
from tests.support.packets import START, module, packet

database = database_of(SQLITE, PANDORA)

FIRST = {"interval": 60, "timezone_offset": 2, "os_version": "12", "version": "7.0"}


class Agent:
    """One agent, and its row."""

    def __init__(self, database: Database) -> None:
        self.server, self.store = Ingest(database), Monitored(database)
        self._hour = 0

    def send(self, **root: object) -> None:
        """Its next packet, later by more than any offset."""
        self._hour += 3
        content = packet("one", module("load"), time=START + 3600 * self._hour, **root)
        self.server.record([arrival(content)])

    def row(self, *keys: str) -> tuple[Any, ...]:
        (row,) = self.store.rows(schema.agent)
        return tuple(row[key] for key in keys)

    def set(self, **values: object) -> None:
        """The console changes something, and the server looks again."""
        with self.store.engine.begin() as conn:
            conn.execute(update(schema.agent).values(values))
        self.server.recorder.catalog.clear()

    def satellite(self, name: str, **root: object) -> int:
        """A packet of a server of that name; its id."""
        self.server.record([arrival(packet("", server_name=name, **root))])
        return int(self.store.rows(schema.server)[-1]["id"])


def test_what_a_packet_does_not_say_has_its_default_or_stays(database: Database) -> None:
    agent = Agent(database)
    keys = ("interval", "timezone_offset", "os_version", "agent_version")
    agent.send(**FIRST)
    assert agent.row(*keys) == (60, 2, "12", "7.0")
    agent.send()
    assert agent.row(*keys) == (300, 0, "12", "7.0")
    # Its modules' intervals are multiples of it.
    assert agent.store.rows(schema.module)[0]["module_interval"] == 300
    agent.send(**FIRST | {"os_version": "", "version": ""})
    assert agent.row(*keys) == (60, 2, "12", "")


def test_in_mode_0_nothing_of_it_follows(database: Database) -> None:
    agent = Agent(database)
    agent.send(**FIRST)
    agent.set(mode=0)
    agent.send(interval=120, os_version="13")
    keys = ("interval", "timezone_offset", "os_version", "agent_version")
    assert agent.row(*keys) == (60, 2, "12", "7.0")


def test_in_mode_0_modules_are_linked_all_the_same(database: Database) -> None:
    agent = Agent(database)
    modules = (module("child", module_parent="other"), module("other"))
    for time, mode in ((0, 1), (60, 0)):
        content = packet("one", *(modules if mode == 0 else map(module, ("child", "other"))))
        agent.server.record([arrival(content, START + time)])
        agent.set(mode=0)
    child, other = agent.store.rows(schema.module)
    assert (child["parent_module_id"], other["parent_module_id"]) == (other["id"], 0)


def test_the_satellite_server_is_the_one_that_the_newest_packet_names(database: Database) -> None:
    agent = Agent(database)
    agent.send(satellite_server="sat")
    assert agent.row("satellite_server") == (0,)
    agent.satellite("sat", server_type=0x5)
    agent.send(satellite_server="sat", version="1")
    assert agent.row("satellite_server") == (0,), "a server of another type"
    known = agent.satellite("sat")
    # It is found at once, though the small tables are read once a minute.
    agent.send(satellite_server="sat", version="2")
    assert agent.row("satellite_server") == (known,)
    agent.set(mode=0)
    agent.send(satellite_server="sat")
    assert agent.row("satellite_server") == (known,)
    agent.send()
    assert agent.row("satellite_server") == (0,)
    # Whatever sets it, a packet that names none sets it back.
    agent.set(satellite_server=7)
    agent.send()
    assert agent.row("satellite_server") == (0,)


def test_databases_without_satellites(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    for statement in ("ALTER TABLE tagente DROP COLUMN satellite_server", "DROP TABLE tserver"):
        server.execute(statement, database=pandora_database.name)
    agent = Agent(pandora_database)
    agent.send(satellite_server="sat")
    agent.send(satellite_server="other")
    with agent.store.engine.begin() as conn:
        assert conn.execute(delete(schema.agent)).rowcount == 1

"""A running server for a whole module of tests, with what a test asks of it and its database.

A module takes the fixtures over by importing them: ``house`` (one on SQLite, one on MariaDB),
``agent`` (a name that nobody has seen before).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select

from dataserver.spool.rejected import RejectedPacket
from dataserver.store import schema
from tests.support import packets
from tests.support.databases import MARIADB, SQLITE, Database, opened
from tests.support.server import Place, Server

MIB = 1 << 20
#: More than this no odd packet may take, at its peak: a tenth of what an expanded one would.
FLAT = 64 * MIB

_numbers = itertools.count(1)


def packet(agent: str, modules: str = "", attributes: str = "") -> bytes:
    """A packet without a time, which is therefore its file's."""
    modules = modules or module("load", "1.5")
    return f'<agent_data agent_name="{agent}" {attributes}>{modules}</agent_data>'.encode()


def module(name: str, value: str, kind: str = "generic_data") -> str:
    return f"<module><name>{name}</name><type>{kind}</type><data>{value}</data></module>"


def good(agent: str) -> bytes:
    """A packet with a value, but without a time, which is therefore its file's."""
    return packets.packet(agent, packets.module("load", "1.5"))


class House:
    """A server that is running, and its database."""

    def __init__(self, server: Server, database: Database) -> None:
        self.server = server
        self.place = server.place
        self.database = database
        self.engine: Engine = database.engine()

    def drop(self, content: bytes, name: str | bytes | None = None) -> str:
        """Put a file into the drop directory; its name."""
        name = name or f"odd{next(_numbers)}.1.data"
        return self.place.drop(name, content).name

    def rejection(self, name: str) -> RejectedPacket:
        """Wait until the file of this name is set aside; how it was."""
        self.server.wait(lambda: name in self._rejected(), f"{name!a} set aside")
        return self._rejected()[name]

    def refusal(self, name: str) -> RejectedPacket:
        """The same for one that the database does not store.

        It is set aside once a packet of another agent was stored after it had failed, so
        such packets come until it is.
        """

        def is_set_aside() -> bool:
            self.stays_well()
            return name in self._rejected()

        self.server.wait(is_set_aside, f"{name!a} set aside")
        return self._rejected()[name]

    def _rejected(self) -> dict[str, RejectedPacket]:
        return {packet.name: packet for packet in self.place.rejected()}

    def wait_stored(self, agent: str, packets: int = 1) -> None:
        """Wait until the ledger has so many packets of ``agent``."""
        self.server.wait(lambda: self.packets(agent) >= packets, f"{packets} packets of {agent}")

    def packets(self, agent: str) -> int:
        """How many packets of ``agent`` the ledger has."""
        a, p = schema.agent.c, schema.packet.c
        query = select(func.count()).where(p.agent_id == a.id, a.name == agent)
        with self.engine.connect() as conn:
            return conn.scalar(query) or 0

    def states(self, agent: str) -> dict[str, str | None]:
        """The value of each module of ``agent``; empty where it has none yet."""
        a, m, s = schema.agent.c, schema.module.c, schema.state.c
        joined = schema.agent.join(schema.module, m.agent_id == a.id)
        joined = joined.outerjoin(schema.state, s.module_id == m.id)
        query = select(m.name, s.value).select_from(joined).where(a.name == agent)
        with self.engine.connect() as conn:
            return {row[0]: row[1] for row in conn.execute(query)}

    def numbers(self, agent: str, module: str) -> list[float]:
        """The history of a module, in order."""
        a, m, h = schema.agent.c, schema.module.c, schema.number_history.c
        query = (
            select(h.value)
            .where(h.module_id == m.id, m.agent_id == a.id, a.name == agent, m.name == module)
            .order_by(h.time, h.ordinal)
        )
        with self.engine.connect() as conn:
            return list(conn.scalars(query))

    def refused(self) -> int:
        """How many values were refused so far."""
        return int(self.server.status["counters"]["refused"])

    def stays_well(self) -> None:
        """A good packet that comes now is stored."""
        agent = f"good{next(_numbers)}"
        self.drop(good(agent), f"{agent}.1.data")
        self.wait_stored(agent)


@pytest.fixture(scope="module", params=[SQLITE, MARIADB])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """One server for all the tests here, on each kind of store in turn."""
    with opened(request.param, tmp_path_factory.mktemp("odd") / "home") as database:
        place = Place(database.home, database.url, incomplete_after=1)
        with Server(place) as server:
            server.wait_ready()
            yield House(server, database)
            assert server.stop() == 0


#: What becomes of files, whatever the database is.
on_sqlite = pytest.mark.parametrize("house", [SQLITE], indirect=True)


@pytest.fixture
def agent() -> str:
    """The name of an agent that nobody has seen before."""
    return f"agent{next(_numbers)}"

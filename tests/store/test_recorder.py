"""The recorder against what happens behind its back, and against input that means no good."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from sqlalchemy import Engine, delete, func, select

from dataserver.errors import StoreConflict
from dataserver.store import schema
from dataserver.store.recorder import Outcome
from tests.support.databases import Database
from tests.support.ingest import Ingest, arrival

START = 1_767_225_600


def packet(time: int, modules: str = "", agent: str = "one", more: str = "") -> bytes:
    """A packet at ``time`` after the start, in seconds."""
    stamp = f"2026/01/01 {time // 3600:02}:{time // 60 % 60:02}:{time % 60:02}"
    head = f'<agent_data agent_name="{agent}" timestamp="{stamp}" interval="300" {more}>'
    return f"{head}{modules}</agent_data>".encode()


def plain(value: str, name: str = "load", kind: str = "generic_data", tags: str = "") -> str:
    return f"<module><name>{name}</name><type>{kind}</type><data>{value}</data>{tags}</module>"


def listed(*values: tuple[int, str], name: str = "load") -> str:
    """A module with several values, at their own times after the start."""
    samples = "".join(
        f"<data><value>{value}</value><timestamp>{START + time}</timestamp></data>"
        for time, value in values
    )
    kind = "<type>generic_data</type>"
    return f"<module><name>{name}</name>{kind}<datalist>{samples}</datalist></module>"


class Console:
    """Looks into the database and deletes from it, as the console does."""

    def __init__(self, database: Database) -> None:
        self.engine: Engine = database.engine()
        self.has_ordinal = database.prepare().has_ordinal

    def delete_agent(self, name: str = "one") -> None:
        a, m, s = schema.agent, schema.module, schema.state
        with self.engine.begin() as conn:
            agent_id = conn.scalar(select(a.c.id).where(a.c.name == name))
            conn.execute(delete(s).where(s.c.agent_id == agent_id))
            conn.execute(delete(m).where(m.c.agent_id == agent_id))
            conn.execute(delete(a).where(a.c.id == agent_id))

    def delete_module(self, name: str = "load") -> None:
        m, s = schema.module, schema.state
        with self.engine.begin() as conn:
            module_id = conn.scalar(select(m.c.id).where(m.c.name == name))
            conn.execute(delete(s).where(s.c.module_id == module_id))
            conn.execute(delete(m).where(m.c.id == module_id))

    def history(self, name: str = "load") -> list[tuple[int, float]]:
        """The points of a module, in seconds after the start."""
        m, h = schema.module.c, schema.number_history.c
        order = (h.time, h.ordinal) if self.has_ordinal else (h.time,)
        query = select(h.time, h.value).where(h.module_id == m.id, m.name == name).order_by(*order)
        with self.engine.connect() as conn:
            return [(time - START, value) for time, value in conn.execute(query)]

    def at(self, time: int, name: str = "load") -> float | None:
        """What the step function of a module reads at ``time`` after the start."""
        return next((value for when, value in reversed(self.history(name)) if when <= time), None)

    def count(self, table: object, *where: object) -> int:
        with self.engine.connect() as conn:
            query = select(func.count()).select_from(table).where(*where)  # type: ignore[arg-type]
            return conn.scalar(query) or 0


@pytest.fixture
def console(database: Database) -> Console:
    return Console(database)


@pytest.fixture
def server(database: Database) -> Ingest:
    return Ingest(database)


def take(server: Ingest, *contents: bytes) -> list[Outcome]:
    """Record a batch, again when somebody else was there meanwhile, as the worker does."""
    return insist(server, [arrival(content) for content in contents])


def insist(server: Ingest, arrivals: Iterable[object], tries: int = 5) -> list[Outcome]:
    listed_once = list(arrivals)
    for _ in range(tries):
        try:
            return server.record(listed_once)  # type: ignore[arg-type]
        except StoreConflict as error:
            last = error
    raise last


# -- what the console does meanwhile ---------------------------------------------


def test_a_late_packet_brings_back_a_deleted_module_too(server: Ingest, console: Console) -> None:
    take(server, packet(600, plain("1")))
    console.delete_module()
    take(server, packet(300, plain("2")))
    assert console.history() == [(300, 2.0)]


def test_a_late_packet_brings_back_a_deleted_agent_too(server: Ingest, console: Console) -> None:
    take(server, packet(600, plain("1")))
    console.delete_agent()
    take(server, packet(300, plain("2")))
    assert console.history() == [(300, 2.0)]
    assert console.count(schema.agent) == 1


def test_an_agent_does_not_inherit_the_ledger_of_a_deleted_one(
    server: Ingest, console: Console
) -> None:
    take(server, packet(600, plain("1"), agent="one"))
    console.delete_agent("one")
    (outcome,) = take(server, packet(300, plain("2"), agent="two"))
    assert not outcome.late
    assert console.history() == [(300, 2.0)]

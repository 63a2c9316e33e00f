"""Rehearsing a packet: it tells what recording would do, and leaves no trace."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, select, update

from dataserver.errors import Reason, StoreRefused
from dataserver.model import Arrival
from dataserver.rules import entities
from dataserver.store import schema
from tests.support.databases import SQLITE, Database
from tests.support.ingest import NOW, Ingest
from tests.support.packets import START, Value, arrival_at

BURST: Value = [("1", START + 10), ("2", START + 10)]
#: A packet's minute, its values and "_string" or the like.
Sent = tuple[int, dict[str, Value], str]


@pytest.fixture
def ingest(database: Database) -> Ingest:
    return Ingest(database)


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.engine()


def everything(engine: Engine) -> dict[str, list[str]]:
    """All rows of all tables."""
    tables = [*schema.pandora.sorted_tables, *schema.ours.sorted_tables]
    with engine.connect() as conn:
        return {
            table.name: sorted(map(str, conn.exec_driver_sql(f"SELECT * FROM {table.name}")))
            for table in tables
        }


def history(engine: Engine) -> list[tuple[str, int, float | str]]:
    """(Module, time, value) of all that is stored."""
    m = schema.module.c
    found = []
    with engine.connect() as conn:
        for table in (schema.number_history, schema.text_history):
            query = select(m.name, table.c.time, table.c.value).join(
                table, table.c.module_id == m.id
            )
            found += [(entities.decode(row[0]), row[1], row[2]) for row in conn.execute(query)]
    return sorted(found)


#: What was recorded before, and what is rehearsed then: (minute, values, types) of packets.
CASES: dict[str, tuple[list[Sent], Sent]] = {
    "a new agent": ([], (0, {"load avg": "1", "disk": "2"}, "")),
    "a changed value": ([(0, {"load": "1"}, "")], (1, {"load": "2"}, "")),
    "an unchanged value": ([(0, {"load": "1"}, "")], (1, {"load": "1"}, "")),
    "a counter": ([(0, {"c": "60"}, "_inc")], (1, {"c": "180"}, "_inc")),
    "text": ([(0, {"s": "a"}, "_string")], (1, {"s": "b"}, "_string")),
    "a datalist": ([(0, {"load": "1"}, "")], (1, {"load": BURST}, "")),
    "a late packet": (
        [(minute, {"load": "1"}, "") for minute in (0, 5, 9)],
        (3, {"load": "2"}, ""),
    ),
}


def test_it_tells_the_values_that_recording_then_stores_and_leaves_no_trace(
    ingest: Ingest, engine: Engine
) -> None:
    for case, (before, candidate) in CASES.items():
        for minute, values, types in before:
            ingest.record([arrival_at(minute, values, types=types, agent=case)])
        known, rows = history(engine), everything(engine)
        minute, values, types = candidate
        arrival = arrival_at(minute, values, types=types, agent=case)
        told = ingest.recorder.rehearse(arrival, NOW)
        assert everything(engine) == rows, case
        ingest.record([arrival])
        assert sorted([*known, *map(tuple, told.points)]) == history(engine), case
        assert (told.error, told.late) == (None, case == "a late packet"), case


def test_it_tells_what_would_be_created(ingest: Ingest) -> None:
    told = ingest.recorder.rehearse(arrival_at(0, {"load avg": "1", "<b>": "x"}, agent="we b"), NOW)
    assert (told.agent, told.new_agent) == ("we b", True)
    assert set(told.new_modules) == {"load avg", "<b>"}
    assert (told.tally.samples, told.tally.refused) == (2, 1)
    ingest.record([arrival_at(0, {"load avg": "1"}, agent="we b")])
    told = ingest.recorder.rehearse(arrival_at(1, {"load avg": "1", "new": "2"}, agent="we b"), NOW)
    assert (told.new_agent, told.new_modules) == (False, ("new",))


def test_a_packet_that_is_stored_already_is_a_duplicate(ingest: Ingest) -> None:
    ingest.record([arrival_at(0, {"load": "1"})])
    told = ingest.recorder.rehearse(arrival_at(0, {"load": "1"}), NOW)
    assert told.duplicate
    assert told.points == ()


def test_a_packet_of_a_disabled_agent_would_be_ignored(ingest: Ingest, engine: Engine) -> None:
    ingest.record([arrival_at(0, {"load": "1"})])
    with engine.begin() as conn:
        conn.execute(update(schema.agent).values(disabled=1))
    ingest.recorder.catalog.clear()
    told = ingest.recorder.rehearse(arrival_at(1, {"load": "2"}), NOW)
    assert (told.tally.ignored, told.points) == (1, ())


def test_a_packet_that_would_be_set_aside_says_why(ingest: Ingest) -> None:
    told = ingest.recorder.rehearse(arrival_at(0, {}, agent="x" * 700), NOW)
    assert told.error is not None
    assert told.error.reason is Reason.NAME_TOO_LONG
    assert not told.new_agent


# How much it takes was asked before.
@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_what_the_database_would_refuse_is_refused(ingest: Ingest, engine: Engine) -> None:
    rows = everything(engine)
    with pytest.raises(StoreRefused):
        ingest.recorder.rehearse(arrival_at(0, {"s": "x" * 17_000_000}, types="_string"), NOW)
    assert everything(engine) == rows


def test_a_servers_own_packet_has_no_agent(ingest: Ingest, engine: Engine) -> None:
    rows = everything(engine)
    told = ingest.recorder.rehearse(_of_a_server(), NOW)
    assert (told.agent, told.error, told.points) == (None, None, ())
    assert everything(engine) == rows


def _of_a_server() -> Arrival:
    return arrival_at(0, {}, agent="", server_name="satellite")


def test_the_recorder_goes_on_as_if_nothing_had_been(ingest: Ingest, engine: Engine) -> None:
    ingest.record([arrival_at(0, {"load": "1"})])
    ingest.recorder.rehearse(arrival_at(1, {"load": "2", "more": "3"}), NOW)
    ingest.recorder.rehearse(arrival_at(1, {"load": "2"}, agent="web2"), NOW)
    ingest.record([arrival_at(2, {"load": "2"})])
    assert history(engine) == [("load", START, 1.0), ("load", START + 120, 2.0)]

"""When an agent was heard, from the ledger and the hours that it is folded into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert

from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import inspect
from dataserver.store.read.access import ActiveSpan, PacketActivity
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.packets import START

HOUR = 3_600
ID = 7

# The ledger's tables are ours in every database.
database = database_of(SQLITE, MARIADB)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


@pytest.fixture
def accesses(engine: Engine) -> PacketActivity:
    return PacketActivity(engine, inspect(engine))


def heard_at(database: Database, *times: int) -> None:
    rows = [
        {
            "agent_id": agent_id,
            "time": START + time,
            "digest": number.to_bytes(16, "big"),
            "server": "s",
            "arrived": START,
        }
        for agent_id in (ID, ID + 1)
        for number, time in enumerate(times)
    ]
    with database.engine().begin() as conn:
        conn.execute(insert(schema.packet), rows)


def folded(database: Database, **packets: int) -> None:
    rows = [
        {"agent_id": ID, "hour": START + int(hour[1:]) * HOUR, "packets": count}
        for hour, count in packets.items()
    ]
    with database.engine().begin() as conn:
        conn.execute(insert(schema.packet_hour), rows)


def heard(accesses: PacketActivity, start: int, end: int, longest: int = 450) -> list[ActiveSpan]:
    found = accesses.heard(ID, START + start, START + end, longest)
    return [ActiveSpan(first - START, last - START, packets) for first, last, packets in found]


def test_a_gap_parts_what_was_heard(database: Database, accesses: PacketActivity) -> None:
    heard_at(database, 0, 300, 600, 1_500, 1_800)
    assert heard(accesses, 0, 3_000) == [ActiveSpan(0, 600, 3), ActiveSpan(1_500, 1_800, 2)]


def test_a_gap_no_longer_than_allowed_parts_nothing(
    database: Database, accesses: PacketActivity
) -> None:
    heard_at(database, 0, 450, 901)
    assert heard(accesses, 0, 3_000) == [ActiveSpan(0, 450, 2), ActiveSpan(901, 901, 1)]


def test_the_last_packet_before_a_span_belongs_to_it(
    database: Database, accesses: PacketActivity
) -> None:
    heard_at(database, 0, 100, 5_000)
    assert heard(accesses, 1_000, 6_000) == [ActiveSpan(100, 100, 1), ActiveSpan(5_000, 5_000, 1)]
    assert heard(accesses, 1_000, 2_000) == [ActiveSpan(100, 100, 1)]


def test_two_packets_of_one_second_are_two(database: Database, accesses: PacketActivity) -> None:
    heard_at(database, 0, 0, 300)
    assert heard(accesses, 0, 900) == [ActiveSpan(0, 300, 3)]


def test_a_folded_hour_counts_as_heard_throughout(
    database: Database, accesses: PacketActivity
) -> None:
    folded(database, h0=12, h1=11, h4=12)
    heard_at(database, 5 * HOUR + 100, 5 * HOUR + 400)
    assert heard(accesses, 0, 6 * HOUR) == [
        ActiveSpan(0, 2 * HOUR, 23),
        ActiveSpan(4 * HOUR, 5 * HOUR + 400, 14),
    ]


def test_a_late_packet_inside_a_folded_hour_makes_no_gap(
    database: Database, accesses: PacketActivity
) -> None:
    folded(database, h0=12, h1=12, h2=12)
    heard_at(database, HOUR + 600, 3 * HOUR + 10)
    assert heard(accesses, 0, 4 * HOUR) == [ActiveSpan(0, 3 * HOUR + 10, 38)]


def test_packets_are_counted_by_columns_in_both_tables(
    database: Database, accesses: PacketActivity
) -> None:
    folded(database, h0=12, h1=11)
    heard_at(database, 2 * HOUR, 2 * HOUR + 300, 4 * HOUR)
    found = accesses.counts(ID, range(START, START + 4 * HOUR, 2 * HOUR), START + 4 * HOUR)
    assert found == {0: 23, 1: 2}
    assert accesses.first(ID) == START
    assert accesses.folded_until(ID) == START + 2 * HOUR


def test_of_an_agent_never_heard_of_nothing_is_known(accesses: PacketActivity) -> None:
    assert heard(accesses, 0, HOUR) == []
    assert accesses.first(ID) is None
    assert accesses.folded_until(ID) == 0
    assert accesses.counts(ID, range(START, START + HOUR, 60), START + HOUR) == {}

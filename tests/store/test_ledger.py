"""Folding the ledger: old packets become counts by hour, young ones stay, nothing counts twice."""

from __future__ import annotations

from sqlalchemy import Engine, insert, select

from dataserver.store import ledger, schema
from dataserver.store.sql import Sql
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.kinds import database_of

HOUR, DAY = 3_600, 86_400
NEWEST = 20_000 * DAY

# The ledger's tables are ours in every database.
database = database_of(SQLITE, MARIADB)


def fill(engine: Engine, agents: dict[int, list[int]]) -> None:
    """Ledger rows at those times, and versions whose newest is the last of them."""
    with engine.begin() as conn:
        for agent_id, times in agents.items():
            rows = [
                {
                    "agent_id": agent_id,
                    "time": time,
                    "digest": place.to_bytes(16, "big"),
                    "server": "s",
                    "arrived": time,
                }
                for place, time in enumerate(times)
            ]
            conn.execute(insert(schema.packet), rows)
            version = {"agent_id": agent_id, "version": 1, "newest": max(times)}
            conn.execute(insert(schema.agent_version).values(version))


def fold_all(engine: Engine, limit: int) -> None:
    """One whole pass through the agents."""
    after: int | None = 0
    while after is not None:
        with engine.begin() as conn:
            after = ledger.fold(conn, Sql(engine.dialect), 7, NEWEST + DAY, after, limit)


def kept(engine: Engine) -> list[tuple[int, int]]:
    """Agent and time of the rows of the ledger."""
    p = schema.packet.c
    with engine.connect() as conn:
        rows = conn.execute(select(p.agent_id, p.time).order_by(p.agent_id, p.time))
        return [(row[0], row[1]) for row in rows]


def hours(engine: Engine) -> list[tuple[int, int, int]]:
    """Agent, hour and packets of the folded ledger."""
    h = schema.packet_hour.c
    with engine.connect() as conn:
        rows = conn.execute(select(h.agent_id, h.hour, h.packets).order_by(h.agent_id, h.hour))
        return [(row[0], row[1], row[2]) for row in rows]


def test_old_packets_become_counts_by_hour_and_young_ones_stay(database: Database) -> None:
    engine = database.engine()
    old = NEWEST - 9 * DAY
    fill(engine, {1: [old, old + 10, old + HOUR, NEWEST - DAY, NEWEST]})
    fold_all(engine, 1_000)
    assert kept(engine) == [(1, NEWEST - DAY), (1, NEWEST)]
    assert hours(engine) == [(1, old, 2), (1, old + HOUR, 1)]


def test_age_is_counted_from_each_agents_own_newest_packet(database: Database) -> None:
    engine = database.engine()
    long_ago = NEWEST - 1_000 * DAY
    fill(engine, {1: [long_ago, long_ago + DAY], 2: [NEWEST - 8 * DAY, NEWEST]})
    fold_all(engine, 1_000)
    assert kept(engine) == [(1, long_ago), (1, long_ago + DAY), (2, NEWEST)]


def test_a_pass_in_slices_reaches_every_agent(database: Database) -> None:
    engine = database.engine()
    fill(engine, {agent: [NEWEST - 8 * DAY, NEWEST] for agent in range(1, 8)})
    fold_all(engine, 3)
    assert kept(engine) == [(agent, NEWEST) for agent in range(1, 8)]
    assert [row[2] for row in hours(engine)] == [1] * 7


def test_packets_that_come_late_for_a_folded_hour_are_added_to_it(database: Database) -> None:
    engine = database.engine()
    old = NEWEST - 8 * DAY
    fill(engine, {1: [old, NEWEST]})
    fold_all(engine, 1_000)
    with engine.begin() as conn:
        row = {"agent_id": 1, "time": old + 1, "digest": b"x" * 16, "server": "s", "arrived": 0}
        conn.execute(insert(schema.packet).values(row))
    fold_all(engine, 1_000)
    fold_all(engine, 1_000)
    assert hours(engine) == [(1, old, 2)]

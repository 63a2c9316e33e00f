"""Counters through the recorder: what a reading stores, remembers, and says of its module."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from dataserver.store import schema
from tests.support.databases import Database
from tests.support.ingest import NOW, Ingest, arrival
from tests.support.monitored import Monitored
from tests.support.packets import START, module, packet

RATE, DIFFERENCE = "generic_data_inc", "generic_data_inc_abs"


class Counter:
    """One counter of one agent."""

    def __init__(self, database: Database, kind: str) -> None:
        self.kind = kind
        self.server, self.store = Ingest(database), Monitored(database)

    def read(self, *readings: tuple[int, int]) -> None:
        """(value, seconds after the start), each in a packet and a batch of its own."""
        for value, time in readings:
            content = packet("one", module("count", str(value), self.kind), time=START + time)
            self.server.record([arrival(content)])

    def read_at_once(self, *readings: tuple[int, int]) -> None:
        """The same as a list of values in one packet, which comes at the latest time of all."""
        listed = [(str(value), START + time) for value, time in readings]
        latest = max(time for _, time in readings)
        content = packet("one", module("count", listed, self.kind), time=START + latest)
        self.server.record([arrival(content)])

    @property
    def points(self) -> list[tuple[int, float]]:
        rows = self.store.rows(schema.number_history, "time")
        return [(row["time"] - START, row["value"]) for row in rows]

    @property
    def reference(self) -> tuple[float, int]:
        (row,) = self.store.rows(schema.counter, "module_id")
        return row["value"], row["time"] - START

    @property
    def heard(self) -> int:
        """When the module was processed; 0: it was not."""
        return int(self.store.rows(schema.state)[0]["processed"])


@pytest.mark.parametrize("at_once", [True, False])
def test_a_difference_is_reset_by_a_smaller_reading_and_takes_earlier_ones(
    database: Database, at_once: bool
) -> None:
    counter = Counter(database, DIFFERENCE)
    read = counter.read_at_once if at_once else counter.read
    read((100, 100), (90, 100), (97, 50))
    assert counter.points == [(50, 7.0)]
    assert counter.reference == (97.0, 50)
    counter.read((98, 100), (105, 160))
    assert counter.points == [(50, 7.0), (100, 1.0), (160, 7.0)]
    assert counter.reference == (105.0, 160)


def test_a_rate_ignores_what_is_not_later(database: Database) -> None:
    counter = Counter(database, RATE)
    counter.read((100, 100), (90, 100), (97, 50))
    assert counter.points == []
    assert counter.reference == (100.0, 100)
    counter.read((160, 160))
    assert counter.points == [(160, 1.0)]


@pytest.mark.parametrize("kind", [RATE, DIFFERENCE])
def test_of_readings_without_a_value_only_a_reset_says_that_the_module_lives(
    database: Database, kind: str
) -> None:
    counter = Counter(database, kind)
    counter.read((100, 100), (100, 100))
    assert counter.heard == 0
    counter.read((90, 160))
    assert counter.heard == NOW
    with counter.store.engine.begin() as conn:
        conn.execute(update(schema.state).values(processed=5))
    counter.read((90, 160))
    assert counter.heard == 5
    counter.read((97, 220))
    assert counter.heard == NOW

"""Graphs of days: days of the zone, on every database, on both sides of each change of clocks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, select

from dataserver.graphs.model import ModuleGraph
from dataserver.graphs.reading import Graphs
from dataserver.rules.series import aggregate
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.read.history import History
from tests.support.databases import Database
from tests.support.ingest import Ingest
from tests.support.packets import START, arrival_at

DAY = 86_400
#: Zone, first day, day after the last, and how long the days are in hours.
SPANS = (
    ("Europe/Berlin", "2026-03-27", "2026-03-31", (24, 24, 23, 24)),
    ("Europe/Berlin", "2026-10-23", "2026-10-27", (24, 24, 25, 24)),
    ("America/Santiago", "2026-09-04", "2026-09-08", (24, 24, 23, 24)),
)
#: Minutes between two values.
EVERY = 90


@pytest.fixture
def ingest(database: Database) -> Ingest:
    return Ingest(database)


@pytest.fixture
def engine(database: Database, ingest: Ingest) -> Iterator[Engine]:
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


def at(day: str, zone: ZoneInfo) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=zone).timestamp())


def fill(ingest: Ingest, start: int, end: int) -> list[int]:
    """Packets with a number and a text each, from a day before to a day after; their times."""
    minutes = range((start - DAY - START) // 60 + 7, (end + DAY - START) // 60, EVERY)
    for types, name in (("", "load"), ("_string", "state")):
        arrivals = [
            arrival_at(minute, {name: str(minute % 977)}, agent=name, types=types)
            for minute in minutes
        ]
        ingest.record(arrivals)
    return [START + 60 * minute for minute in minutes]


def ids(engine: Engine, table: object, name: str) -> int:
    c = table.c
    with engine.connect() as conn:
        return conn.execute(select(c.id).where(c.name == name)).scalar_one()


def spans(graph: ModuleGraph) -> list[tuple[int, int]]:
    return [(column.start, column.end) for column in graph.columns]


@pytest.mark.parametrize("case", SPANS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_columns_as_long_as_a_day_are_days_of_the_zone(
    ingest: Ingest, engine: Engine, case: tuple[str, str, str, tuple[int, ...]]
) -> None:
    zone, hours = ZoneInfo(case[0]), case[3]
    start, end = (at(day, zone) for day in case[1:3])
    edges = [start + 3_600 * sum(hours[:place]) for place in range(len(hours) + 1)]
    expected = list(pairwise(edges))
    assert edges[-1] == end
    times = fill(ingest, start, end)
    layout = ingest.recorder.layout
    graphs = Graphs(engine, layout, zone)

    load = ids(engine, schema.module, "load")
    graph = graphs.module(load, start, end, len(hours), end + DAY)
    assert graph.step == DAY
    assert spans(graph) == expected
    points = list(History(engine, layout).points(load, start, end - 1))
    for column, span in zip(graph.columns, aggregate(points, edges[:-1], end), strict=True):
        assert (column.minimum, column.maximum, column.last) == span[3:5] + span[2:3]
        assert column.mean == pytest.approx(span.mean)
    assert [column.changes for column in graph.columns] == [
        sum(left < time < right for time in times) + (left != start and left in times)
        for left, right in expected
    ]
    # Known up to now only: the last column ends there.
    until = edges[-2] + 3_600
    assert spans(graphs.module(load, start, end, len(hours), until))[-1] == (edges[-2], until)

    state = graphs.module(ids(engine, schema.module, "state"), start, end, len(hours), end + DAY)
    assert [band.start for band in state.bands] == edges[:-1]
    assert [band.changes for band in state.bands[1:]] == [
        sum(left <= time < right for time in times) for left, right in expected[1:]
    ]

    access = graphs.access(ids(engine, schema.agent, "load"), start, end, len(hours), end)
    assert access.step == DAY
    assert [(column.start, column.end) for column in access.columns] == expected
    assert [column.packets for column in access.columns] == [
        sum(left <= time < right for time in times) for left, right in expected
    ]
    due = [round(column.expected * access.interval / 3_600) for column in access.columns]
    assert due == list(hours)


def test_a_single_column_of_days_is_one_like_any_other(ingest: Ingest, engine: Engine) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = at("2026-03-27", zone)
    end, now = start + 800 * DAY, start + DAY // 2
    inside = [time for time in fill(ingest, start, start + DAY) if start < time < now]
    graphs = Graphs(engine, ingest.recorder.layout, zone)
    # Of one column in all, and of many of which the first one only is known.
    for width in (1, 2):
        load, state = (
            graphs.module(ids(engine, schema.module, name), start, end, width, now)
            for name in ("load", "state")
        )
        assert [column.changes for column in load.columns] == [len(inside)]
        assert state.bands[-1].changes == len(inside)
    access = graphs.access(ids(engine, schema.agent, "load"), start, now + 2 * DAY, 1, now)
    assert [column.packets for column in access.columns] == [len(inside)]

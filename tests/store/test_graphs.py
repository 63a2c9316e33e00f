"""Graphs read from a database that was filled by packets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert, select, update

from dataserver.errors import UsageError
from dataserver.graphs.model import Band, Column, Point, Shape, Span, SparkColumn, StatusSpan, Zone
from dataserver.graphs.reading import Graphs
from dataserver.rules import entities
from dataserver.rules.series import aggregate
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import inspect
from dataserver.store.read.history import History
from tests.support.databases import Database
from tests.support.ingest import ZONE, Ingest
from tests.support.packets import START, arrival_at
from tests.support.randomness import seeded

MINUTE, HOUR, DAY = 60, 3_600, 86_400


@pytest.fixture
def ingest(database: Database) -> Ingest:
    return Ingest(database)


@pytest.fixture
def engine(database: Database, ingest: Ingest) -> Iterator[Engine]:
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


@pytest.fixture
def graphs(engine: Engine, ingest: Ingest) -> Graphs:
    return Graphs(engine, ingest.recorder.layout, ZONE)


def module_id(engine: Engine, name: str) -> int:
    c = schema.module.c
    with engine.connect() as conn:
        return conn.execute(select(c.id).where(c.name == entities.encode(name))).scalar_one()


def agent_id(engine: Engine) -> int:
    with engine.connect() as conn:
        return conn.execute(select(schema.agent.c.id)).scalar_one()


def configure(database: Database, module: int, **values: object) -> None:
    with database.engine().begin() as conn:
        conn.execute(update(schema.module).where(schema.module.c.id == module).values(**values))


def five_minutes(*numbers: int) -> range:
    return range(*numbers, 5)


def take(ingest: Ingest, name: str, values: dict[int, str], types: str = "") -> None:
    """Packets of those minutes with a value each, in one batch."""
    ingest.record(
        [arrival_at(minute, {name: value}, types=types) for minute, value in values.items()]
    )


class TestModule:
    def test_few_points_are_told_as_they_are(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        take(ingest, "load", {0: "1", 5: "1", 10: "3", 15: "2"})
        load = module_id(engine, "load")
        graph = graphs.module(load, START + 7 * MINUTE, START + HOUR, 100, START + 17 * MINUTE)
        assert graph.is_exact
        assert graph.shape is Shape.NUMBER
        assert (graph.agent, graph.module.name) == ("web1", "load")
        assert graph.points == (
            Point(START + 7 * MINUTE, 1.0),
            Point(START + 10 * MINUTE, 3.0),
            Point(START + 15 * MINUTE, 2.0),
        )
        assert graph.columns == ()
        assert (graph.changes, graph.until) == (2, START + 17 * MINUTE)
        assert graph.statuses == (StatusSpan(START + 7 * MINUTE, START + 17 * MINUTE, "normal"),)
        assert graph.shares["normal"] == pytest.approx(10 / 53)
        assert graph.shares["not known"] == pytest.approx(43 / 53)

    def test_many_points_are_summed_up_and_no_extreme_is_lost(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        rng = seeded("many points")
        take(ingest, "load", {minute: str(rng.randrange(1_000)) for minute in range(0, 600, 2)})
        load = module_id(engine, "load")
        start, end = START + 3 * MINUTE, START + 9 * HOUR
        graph = graphs.module(load, start, end, 20, START + DAY)
        assert not graph.is_exact
        assert graph.points == ()
        assert len(graph.columns) == 20
        assert graph.columns[0].start == start
        assert graph.columns[-1].end == end
        points = list(History(engine, inspect(engine)).points(load, start, end - 1))
        expected = aggregate(points, range(start, end, graph.step), end)
        for column, span in zip(graph.columns, expected, strict=True):
            inside = [float(v) for t, v in points if span.start <= t < span.end]
            assert column == Column(
                span.start,
                span.end,
                min([*inside, span.minimum]),
                max([*inside, span.maximum]),
                pytest.approx(span.mean),
                span.last,
                len(inside),
            )
        assert graph.changes == len(points) - 1

    def test_statuses_are_those_of_the_thresholds_at_any_width(
        self, ingest: Ingest, engine: Engine, graphs: Graphs, database: Database
    ) -> None:
        values = {
            minute: "90" if 200 <= minute < 260 else str(20 + minute % 2)
            for minute in five_minutes(0, 600)
        }
        take(ingest, "load", values)
        load = module_id(engine, "load")
        configure(database, load, min_critical=80.0, max_critical=0.0)
        for width in (5, 500):
            graph = graphs.module(load, START, START + 10 * HOUR, width, START + 10 * HOUR)
            assert graph.is_exact == (width == 500)
            assert graph.zones == (Zone("critical", 80.0, None),)
            assert graph.shares["critical"] == pytest.approx(0.1)
            assert graph.shares["normal"] == pytest.approx(0.9)
        assert StatusSpan(START + 200 * MINUTE, START + 260 * MINUTE, "critical") in graph.statuses

    def test_a_silent_agent_is_shaded_and_its_modules_are_unknown(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        take(ingest, "load", dict.fromkeys((*five_minutes(0, 60), *five_minutes(120, 180)), "1"))
        load = module_id(engine, "load")
        graph = graphs.module(load, START, START + 4 * HOUR, 100, START + 3 * HOUR)
        # The last packets came at 55 and 175 minutes; they come each five.
        assert graph.silences.known_since == START
        assert graph.silences.spans == (Span(START + HOUR, START + 2 * HOUR),)
        assert graph.statuses == (
            StatusSpan(START, START + 65 * MINUTE, "normal"),
            StatusSpan(START + 65 * MINUTE, START + 120 * MINUTE, "unknown"),
            StatusSpan(START + 120 * MINUTE, START + 180 * MINUTE, "normal"),
        )

    def test_texts_are_bands(self, ingest: Ingest, engine: Engine, graphs: Graphs) -> None:
        take(ingest, "state", {0: "up <b>", 5: "up <b>", 10: "down", 15: "up"}, "_string")
        state = module_id(engine, "state")
        graph = graphs.module(state, START, START + HOUR, 100, START + 20 * MINUTE)
        assert graph.shape is Shape.TEXT
        assert graph.bands == (
            Band(START, START + 10 * MINUTE, "up <b>"),
            Band(START + 10 * MINUTE, START + 15 * MINUTE, "down"),
            Band(START + 15 * MINUTE, START + 20 * MINUTE, "up"),
        )
        assert (graph.points, graph.columns, graph.zones) == ((), (), ())

    def test_too_many_texts_are_told_by_column(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        take(ingest, "state", {minute: f"s{minute}" for minute in range(0, 100, 2)}, "_string")
        state = module_id(engine, "state")
        end = START + 100 * MINUTE
        graph = graphs.module(state, START, end, 10, end)
        assert not graph.is_exact
        assert graph.changes == 49
        assert graph.bands[-1] == Band(START + 90 * MINUTE, end, "s98", 5)
        assert len(graph.bands) == 10

    def test_up_and_down_are_a_shape_of_their_own(
        self, ingest: Ingest, engine: Engine, graphs: Graphs, database: Database
    ) -> None:
        take(ingest, "http", {0: "1", 5: "0", 10: "1"})
        http = module_id(engine, "http")
        with engine.connect() as conn:
            t = schema.module_type.c
            proc = conn.execute(select(t.id).where(t.name == "generic_proc")).scalar_one()
        configure(database, http, type_id=proc)
        graph = graphs.module(http, START, START + 15 * MINUTE, 100, START + HOUR)
        assert graph.shape is Shape.BOOLEAN
        assert graph.shares["critical"] == pytest.approx(1 / 3)

    def test_events_are_marks_and_the_oldest_are_left_out(
        self, ingest: Ingest, engine: Engine, graphs: Graphs, database: Database
    ) -> None:
        ingest.record([arrival_at(0, {"load": "1"})])
        load = module_id(engine, "load")
        rows = [
            {
                "module_id": load,
                "time": START + number,
                "type": "going_up_critical",
                "severity": 4,
                "text": "a &lt;b&gt;",
            }
            for number in range(250)
        ]
        with database.engine().begin() as conn:
            conn.execute(insert(schema.event), rows)
        graph = graphs.module(load, START, START + HOUR, 100, START + HOUR)
        assert len(graph.marks) == 200
        assert graph.has_more_marks
        assert graph.marks[-1].time == START + 249
        assert graph.marks[0].time == START + 50
        assert graph.marks[0].text == "a <b>"

    def test_the_future_and_an_unknown_module_are_no_accidents(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        ingest.record([arrival_at(0, {"load": "1"})])
        load = module_id(engine, "load")
        graph = graphs.module(load, START + DAY, START + 2 * DAY, 100, START + HOUR)
        assert graph.until == graph.start
        assert graph.statuses == ()
        assert graph.shares["not known"] == 1.0
        with pytest.raises(UsageError, match="no module 99999"):
            graphs.module(99_999, START, START + DAY, 100, START)


class TestAccess:
    def test_packets_are_counted_by_column_against_what_was_expected(
        self, ingest: Ingest, engine: Engine, graphs: Graphs
    ) -> None:
        take(ingest, "load", dict.fromkeys((*five_minutes(0, 60), *five_minutes(120, 180)), "1"))
        end = START + 3 * HOUR
        graph = graphs.access(agent_id(engine), START, end, 3, end)
        assert (graph.interval, graph.step) == (300, HOUR)
        assert [column.packets for column in graph.columns] == [12, 0, 12]
        assert [column.expected for column in graph.columns] == [12.0, 12.0, 12.0]
        assert (graph.packets, graph.expected) == (24, 36.0)
        assert graph.share == pytest.approx(24 / 36)
        assert graph.silences.spans == (Span(START + HOUR, START + 2 * HOUR),)

    def test_after_folding_the_same_is_told_by_the_hour(
        self, ingest: Ingest, engine: Engine, graphs: Graphs, database: Database
    ) -> None:
        take(ingest, "load", dict.fromkeys((*five_minutes(0, 60), *five_minutes(120, 180)), "1"))
        agent = agent_id(engine)
        with database.engine().begin() as conn:
            conn.execute(schema.packet.delete())
            for hour in (0, 2):
                row = {"agent_id": agent, "hour": START + hour * HOUR, "packets": 12}
                conn.execute(insert(schema.packet_hour), [row])
        end = START + 3 * HOUR
        graph = graphs.access(agent, START + 10 * MINUTE, end, 1_000, end)
        assert graph.step == HOUR
        assert [(column.start - START) // HOUR for column in graph.columns] == [0, 1, 2]
        assert [column.packets for column in graph.columns] == [12, 0, 12]
        assert graph.share == pytest.approx(24 / 35, rel=0.05)

    def test_an_unknown_agent_is_named(self, graphs: Graphs) -> None:
        with pytest.raises(UsageError, match="no agent 99999"):
            graphs.access(99_999, START, START + DAY, 100, START)


def test_sparklines_hold_their_values(ingest: Ingest, engine: Engine, graphs: Graphs) -> None:
    values = {0: "1", 20: "5", 21: "2", 40: "2"}
    ingest.record([arrival_at(at, {"load": each, "same": "7"}) for at, each in values.items()])
    ingest.record([arrival_at(1, {"state": "a"}, types="_string")])
    ids = {name: module_id(engine, name) for name in ("load", "same", "state")}
    found = graphs.sparklines(list(ids.values()), START + 10 * MINUTE, START + HOUR, 5)
    assert found == {
        ids["load"]: (
            SparkColumn(1.0, 1.0, 1.0),
            SparkColumn(1.0, 5.0, 2.0),
            SparkColumn(2.0, 2.0, 2.0),
            SparkColumn(2.0, 2.0, 2.0),
            SparkColumn(2.0, 2.0, 2.0),
        ),
        ids["same"]: (SparkColumn(7.0, 7.0, 7.0),) * 5,
    }
    assert graphs.sparklines([], START, START + HOUR, 5) == {}

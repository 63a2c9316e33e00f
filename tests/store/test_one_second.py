"""Values of one second are read back in the order in which they were stored, on every database.

Pandora's own tables have no ordinal that tells them apart, and a server that sorts mixes them
up: so these tests have tables of which it would rather sort everything than follow an index.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, Table, event, func, select

from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import inspect
from dataserver.store.read.history import Buckets, History, HistorySpan
from tests.support.databases import PANDORA, Database
from tests.support.ingest import Ingest
from tests.support.packets import START, arrival_at

#: Packets, a minute apart, and values of one second in each.
PACKETS, BURST = 12, 5
MINUTE = 60
END = START + PACKETS * MINUTE
#: What the modules were, value by value, and what they were after each second.
NUMBERS = [float(value) for value in range(PACKETS * BURST)]
TEXTS = [f"s{value:.0f}" for value in NUMBERS]
LASTS = NUMBERS[BURST - 1 :: BURST]
SECONDS = range(START, END, MINUTE)


def fill(ingest: Ingest, *names: str, types: str = "", shown: str = "{}") -> None:
    """Modules with a burst of values in the second of each packet."""
    batch = []
    for minute, time in enumerate(SECONDS):
        first = minute * BURST
        burst = [(shown.format(value), time) for value in range(first, first + BURST)]
        batch.append(arrival_at(minute, dict.fromkeys(names, burst), types=types, version=types))
    ingest.record(batch)


class Filled:
    """A database with a module of numbers and one of texts, and nothing beside them."""

    def __init__(self, database: Database, engine: Engine) -> None:
        ingest = Ingest(database)
        fill(ingest, "load")
        fill(ingest, "state", types="_string", shown="s{}")
        self.engine, self._writing = engine, database.engine()
        self.layout = ingest.recorder.layout
        with engine.connect() as conn:
            m = schema.module.c
            found = dict(conn.execute(select(m.name, m.id)).all())
        self.load, self.state = found["load"], found["state"]

    def history(self, page: int = 5_000) -> History:
        return History(self.engine, self.layout, page)

    @property
    def buckets(self) -> Buckets:
        return Buckets(self.engine, self.layout)

    def alter(self, statement: str) -> None:
        """Do what an administrator does, and look at the database as it is then."""
        with self._writing.begin() as conn:
            conn.exec_driver_sql(statement)
        self.layout = inspect(self.engine)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


@pytest.fixture
def filled(database: Database, engine: Engine) -> Filled:
    return Filled(database, engine)


def values(points: Any) -> list[object]:
    return [value for _, value in points]


def test_points_on_pages_of_any_length(filled: Filled) -> None:
    for page in (1, 3, 5, 6, 5_000):
        history = filled.history(page)
        assert values(history.points(filled.load, START - 1, END)) == NUMBERS, page
        assert values(history.points(filled.state, START - 1, END)) == TEXTS, page


def test_what_held_when_a_span_begins(filled: Filled) -> None:
    history, buckets = filled.history(), filled.buckets
    assert [values(history.points(filled.load, at, at)) for at in SECONDS] == [
        [last] for last in LASTS
    ]
    assert [buckets.number_before(filled.load, at) for at in SECONDS] == LASTS
    assert [buckets.text_before(filled.state, at) for at in SECONDS] == TEXTS[BURST - 1 :: BURST]


def test_the_newest_points(filled: Filled) -> None:
    for most in (1, 2, BURST + 2, len(NUMBERS)):
        history = filled.history()
        assert values(history.newest(filled.load, most, END)) == NUMBERS[-most:], most
        assert values(history.newest(filled.state, most, END)) == TEXTS[-most:], most


def test_the_points_and_columns_of_a_graph(filled: Filled) -> None:
    buckets, start = filled.buckets, START - 1
    assert values(buckets.points(filled.load, start, END)) == NUMBERS
    for step in (MINUTE, 2 * MINUTE):
        every = step // MINUTE
        numbers = buckets.numbers(
            HistorySpan(filled.load, start, END, range(start, END + 1, step), END + 1)
        )
        assert [bucket.last for bucket in numbers] == LASTS[every - 1 :: every]
        texts = buckets.texts(filled.state, start, END, range(start, END + 1, step))
        assert [bucket.last for bucket in texts] == TEXTS[BURST - 1 :: BURST][every - 1 :: every]
        before, columns = buckets.sparks([filled.load, filled.state], START, END, step)[filled.load]
        assert before == LASTS[0]
        # Unlike in the other columns, a point on an edge belongs to the later one.
        lasts = {(time - START) // step: last for time, last in zip(SECONDS, LASTS, strict=True)}
        if every == 1:
            del lasts[0]  # that is before
        assert {column: last for column, (_, _, last) in columns.items()} == lasts


def test_a_late_value_is_compared_with_the_last_one_of_a_second(
    database: Database, engine: Engine
) -> None:
    ingest = Ingest(database)
    fill(ingest, "load", "other")
    stored = rows(engine, schema.number_history)
    # Another server knows of the history only what it reads.
    other = Ingest(database)
    for minute, last in enumerate(LASTS[:-1]):
        late = START + minute * MINUTE + MINUTE // 2
        unchanged = {name: [(f"{last:.0f}", late)] for name in ("load", "other")}
        (outcome,) = other.record([arrival_at(minute, unchanged, version="late")])
        assert not outcome.error
    assert rows(engine, schema.number_history) == stored


def rows(engine: Engine, table: Table) -> int:
    with engine.connect() as conn:
        return conn.scalar(select(func.count()).select_from(table)) or 0


# -- the index that says it -----------------------------------------------------------

of_pandora = pytest.mark.parametrize("database", [PANDORA], indirect=True)


@of_pandora
def test_no_reading_in_order_is_left_to_the_server(filled: Filled) -> None:
    """Whether it would sort depends on what the tables hold, and these hold few rows."""
    sent: list[str] = []

    @event.listens_for(filled.engine, "before_cursor_execute")
    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    history, buckets = filled.history(3), filled.buckets
    for read in (
        lambda: list(history.points(filled.load, START, END)),
        lambda: history.newest(filled.load, 3, END),
        lambda: buckets.points(filled.load, START, END),
        lambda: buckets.number_before(filled.load, END),
        lambda: buckets.text_before(filled.state, END),
        lambda: buckets.numbers(
            HistorySpan(filled.load, START, END, range(START, END + 1, MINUTE), END + 1)
        ),
        lambda: buckets.texts(filled.state, START, END, range(START, END + 1, MINUTE)),
        lambda: buckets.sparks([filled.load], START, END, MINUTE),
    ):
        sent.clear()
        read()
        # A window's order is that of sums, which need none within a second.
        in_order = [
            each
            for each in sent
            if re.search(r"(ORDER BY|JOIN) tagente_datos", each) and "lead(" not in each
        ]
        assert in_order
        assert [each for each in in_order if "FORCE INDEX (`data_" not in each] == []


@of_pandora
@pytest.mark.parametrize(
    "name",
    [
        "odd ``name``",
        "all %",
    ],
)
def test_the_index_may_have_any_name(filled: Filled, name: str) -> None:
    written = name.replace("%", "%%")  # by the driver
    filled.alter(
        "ALTER TABLE tagente_datos DROP INDEX data_index1,"
        f" ADD INDEX `{written}` (id_agente_modulo, utimestamp)"
    )
    history = filled.history()
    assert values(history.points(filled.load, START - 1, END)) == NUMBERS


@of_pandora
def test_an_index_that_goes_on_with_the_value_is_not_taken_for_it(filled: Filled) -> None:
    filled.alter("UPDATE tagente_datos SET datos = -datos")
    filled.alter("ALTER TABLE tagente_datos ADD INDEX covers (id_agente_modulo, utimestamp, datos)")
    history = filled.history()
    assert values(history.points(filled.load, START - 1, END)) == [-value for value in NUMBERS]


@of_pandora
def test_without_such_an_index_history_is_read_all_the_same(filled: Filled) -> None:
    filled.alter("ALTER TABLE tagente_datos DROP INDEX data_index1")
    found = values(filled.history().points(filled.load, START - 1, END))
    assert sorted(found, key=float) == NUMBERS  # type: ignore[arg-type]

"""History summed up in columns: on every database the same as counted by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from dataserver.rules.series import Bucket
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import Layout, inspect
from dataserver.store.read import history as module
from dataserver.store.read.history import TEXT_LENGTH, Buckets, HistorySpan, TextBucket
from tests.support.databases import Database
from tests.support.packets import START
from tests.support.randomness import seeded

ID = 7
#: Columns of ten seconds; beginnings of unequal columns (seconds after the start).
TENS = range(START, START + 100, 10)
UNEQUAL = (0, 100, 101, 400, 650, 660, 1_000, 1_730, 1_740, 2_500, 2_501)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


@pytest.fixture
def layout(engine: Engine) -> Layout:
    return inspect(engine)


def store(
    database: Database, layout: Layout, points: list[tuple[int, Any]], table: Any, key: int = ID
) -> None:
    """Put points (seconds after the start, value) into history, and others' around them."""
    rows: list[dict[str, Any]] = []
    for module_id in (key - 1, key, key + 1):
        seen: dict[int, int] = {}
        for time, value in points:
            ordinal = seen[time] = seen.get(time, -1) + 1
            row = {"module_id": module_id, "time": START + time, "value": value}
            rows.append(row | ({"ordinal": ordinal} if layout.has_ordinal else {}))
    writing = database.engine()
    with writing.begin() as conn:
        conn.execute(insert(table), rows)


def by_hand(
    points: list[tuple[int, float]], lefts: Sequence[int], until: int, edges: tuple[float, ...]
) -> dict[int, dict[str, Any]]:
    """Each column's sums, second by second where it is about time."""
    columns: dict[int, dict[str, Any]] = {}
    for place, (time, value) in enumerate(points):
        column = sum(left <= time for left in lefts) - 1
        edge = [*lefts, until][column + 1]
        following = points[place + 1][0] if place + 1 < len(points) else until
        held = min(following, edge) - time
        sums = columns.setdefault(
            column, {"first": time, "values": [], "area": 0.0, "over": [0] * len(edges)}
        )
        sums["values"].append(value)
        sums["area"] += value * held
        for number, edge in enumerate(edges):
            sums["over"][number] += held if value >= edge else 0
    return columns


def test_columns_are_as_counted_by_hand(
    database: Database, engine: Engine, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = seeded("buckets")
    # The page counts where this process reads row by row.
    for key, page in ((10, 1), (20, 3), (30, 25_000)):
        monkeypatch.setattr(module, "_FETCH", page)
        times = sorted(rng.sample(range(1, 3_000), 150))
        if layout.has_ordinal:
            times += times[:10]
            times.sort()
        points = [(time, rng.choice([0.0, 1.0, rng.uniform(-10, 110)])) for time in times]
        store(database, layout, points, schema.number_history, key)
        for edges, lefts in product(
            ((), (80.0,), (-5.0, 0.0, 1.0, 60.0, 1e300)), (range(0, 2_600, 100), UNEQUAL)
        ):
            # What is no range is searched for.
            is_equal = isinstance(lefts, range)
            begins = range(START, START + 2_600, 100) if is_equal else [START + at for at in lefts]
            cut = HistorySpan(key, START, START + 2_500, begins, START + 2_600, edges)
            within = [point for point in points if point[0] <= 2_500]
            expected = by_hand(within, lefts, 2_600, edges)
            found = Buckets(engine, layout).numbers(cut)
            assert found == [
                Bucket(
                    column=column,
                    first=START + sums["first"],
                    last=sums["values"][-1],
                    changes=len(sums["values"]),
                    minimum=min(sums["values"]),
                    maximum=max(sums["values"]),
                    area=pytest.approx(sums["area"], rel=1e-9, abs=1e-6),
                    over=tuple(sums["over"]),
                )
                for column, sums in sorted(expected.items())
            ], (page, edges)


def test_the_last_number_holds_until_the_end_that_is_known(
    database: Database, engine: Engine, layout: Layout
) -> None:
    store(database, layout, [(10, 4.0)], schema.number_history)
    found = Buckets(engine, layout).numbers(
        HistorySpan(ID, START, START + 99, [START], START + 100)
    )
    assert found == [Bucket(0, START + 10, 4.0, 1, 4.0, 4.0, 360.0)]


def test_nothing_gives_nothing(engine: Engine, layout: Layout) -> None:
    buckets = Buckets(engine, layout)
    assert buckets.numbers(HistorySpan(ID, START, START + 99, TENS, START + 100)) == []
    assert buckets.texts(ID, START, START + 99, TENS) == []
    assert buckets.number_before(ID, START) is None
    assert buckets.text_before(ID, START) is None


def test_points_are_counted_no_further_than_asked(
    database: Database, engine: Engine, layout: Layout
) -> None:
    store(database, layout, [(time, 1.0 * time) for time in range(50)], schema.number_history)
    buckets = Buckets(engine, layout)
    assert buckets.count(ID, START, START + 100, 20, texts=False) == 20
    assert buckets.count(ID, START, START + 100, 200, texts=False) == 49
    assert buckets.count(ID, START, START + 100, 20, texts=True) == 0
    assert buckets.number_before(ID, START + 20) == 20.0
    assert buckets.points(ID, START + 47, START + 48) == [(START + 48, 48.0)]


def test_of_texts_the_last_one_of_a_column_is_told_and_cut(
    database: Database, engine: Engine, layout: Layout
) -> None:
    points = [(5, "a"), (7, "b"), (15, "x" * 1_000)]
    if layout.has_ordinal:
        points.insert(1, (7, "overtaken"))
        points.sort(key=lambda point: point[0])
    store(database, layout, points, schema.text_history)
    found = Buckets(engine, layout).texts(ID, START, START + 99, TENS)
    assert found == [
        TextBucket(0, len(points) - 1, START + 7, "b"),
        TextBucket(1, 1, START + 15, "x" * TEXT_LENGTH),
    ]
    assert Buckets(engine, layout).text_before(ID, START + 16) == "x" * TEXT_LENGTH

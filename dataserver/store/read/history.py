"""Reads a module's history: as points, as columns for graphs, with its rules and events.

:class:`History` reads the points of a span page by page: the last point before the span and those
inside it, through the index over module and time that every layout has.  Each page is a
transaction of its own, so that a slow reader holds nothing open in the database.

:class:`Buckets` sums points up in columns, for graphs of more points than there is room for: a
year of one value a minute is half a million rows.  A database server sums them up itself, with a
window function, and sends one row for each column; SQLite runs in this process, where reading row
by row is faster.  Both give the same buckets (``tests/store/test_buckets.py``).

:func:`module_rules` and :func:`module_events` read what a graph shows besides history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from heapq import merge
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Row,
    Select,
    String,
    Table,
    and_,
    case,
    func,
    literal,
    literal_column,
    null,
    select,
    type_coerce,
)

from dataserver.rules import entities
from dataserver.rules.series import Bucket, buckets, merged
from dataserver.rules.status import PLAIN, Rules
from dataserver.store import schema
from dataserver.store.cache import in_chunks
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading
from dataserver.store.standing import RULE_KEYS, rules_from

#: Time (epoch seconds) and value.
Point = tuple[int, float | str]

#: Points of one page; about 1 MB of memory where they are numbers.
PAGE = 5_000


class History:
    """Reads the points of modules from one database."""

    def __init__(self, engine: Engine, layout: Layout, page: int = PAGE) -> None:
        self._engine = engine
        self._layout = layout
        self._page = page

    def points(self, module_id: int, start: int, end: int) -> Iterator[Point]:
        """The points that determine the module's values from ``start`` to ``end`` (epoch seconds).

        In order of time and, within one second, of arrival: the last ones not after ``start``,
        then all up to and including ``end``.  Numbers and texts are in different tables; a module
        whose type changed has points in both.  Raises StoreError.
        """
        tables = (schema.number_history, schema.text_history)
        return merge(
            *(self._points(table, module_id, start, end) for table in tables), key=itemgetter(0)
        )

    def newest(self, module_id: int, most: int, end: int) -> list[Point]:
        """The last ``most`` points up to and including ``end``, in order.  Raises StoreError."""
        found: list[Point] = []
        for table in (schema.number_history, schema.text_history):
            times = self._select(table, module_id, newest_first=True)
            query = times.where(table.c.time <= end).limit(1).offset(most - 1)
            with translating("read history"), reading(self._engine) as conn:
                first = _fetch(conn, query)
            since = first[0][0] - 1 if first else -1
            found += deque(self._points(table, module_id, since, end), maxlen=most)
        return sorted(found, key=itemgetter(0))[-most:]

    def first(self, module_id: int) -> int | None:
        """The time of the first point, or None if there are no points.  Raises StoreError."""
        times: list[int] = []
        for table in (schema.number_history, schema.text_history):
            query = self._select(table, module_id).limit(1)
            with translating("read history"), reading(self._engine) as conn:
                times += (time for time, _ in _fetch(conn, query))
        return min(times, default=None)

    def _points(self, table: Table, module_id: int, start: int, end: int) -> Iterator[Point]:
        yield from self._last(table, module_id, start)
        after, more = start, True
        while more:
            page, more = self._read(table, module_id, after, end)
            yield from page
            after = page[-1][0] if page else end

    def _last(self, table: Table, module_id: int, time: int) -> list[Point]:
        """The last point not after ``time``, or an empty list."""
        query = self._select(table, module_id, newest_first=True).where(table.c.time <= time)
        with translating("read history"), reading(self._engine) as conn:
            return _fetch(conn, query.limit(1))

    def _read(self, table: Table, module_id: int, after: int, end: int) -> tuple[list[Point], bool]:
        """A page of the points in (after, end], in whole seconds, and whether there may be more."""
        time = table.c.time
        query = self._select(table, module_id).where(time > after, time <= end)
        with translating("read history"), reading(self._engine) as conn:
            page = _fetch(conn, query.limit(self._page))
            if len(page) < self._page:
                return page, False
            # The page may end within a second, and in Pandora's own tables only the order of
            # rows distinguishes the points of one second, so the whole second is read.
            last = page[-1][0]
            second = self._select(table, module_id).where(time == last)
            return [point for point in page if point[0] < last] + _fetch(conn, second), True

    def _select(self, table: Table, module_id: int, *, newest_first: bool = False) -> Select[Any]:
        c = table.c
        query = select(c.time, c.value).where(c.module_id == module_id, c.value.is_not(None))
        return self._layout.in_order(query, table, newest_first=newest_first)


def _fetch(conn: Connection, query: Select[Any]) -> list[Point]:
    return [(time, value) for time, value in conn.execute(query)]


# -- history in columns --

#: Rows that are fetched from SQLite at a time: fewer than the allocations after which Python
#: collects garbage (700), since that takes longer than everything else in a process of this size.
_FETCH = 500
#: Parts in which a database server sums up, so that its temporary tables stay in memory (16 MB),
#: and how many of them run at the same time.
_PARTS, _AT_ONCE = 8, 2
#: The number of fields of a row of :meth:`Buckets._sums` before those of the edges.
_SUMS = 7
_ONE: ColumnElement[float] = literal_column("1e0")
_ZERO: ColumnElement[float] = literal_column("0e0")
#: Characters of a text that are read; stored texts may have 16 MB.
TEXT_LENGTH = 300


class HistorySpan(NamedTuple):
    """The points of a module in (start, end], to be summed up in columns that begin at ``lefts``.

    The last point holds until ``until``, which is later than ``end``.  ``edges`` are values for
    which each bucket gets the time that the module was at or above them.
    """

    module_id: int
    start: int
    end: int
    lefts: Sequence[int]
    until: int
    edges: tuple[float, ...] = ()


class TextBucket(NamedTuple):
    """The texts of one column: how many, and the last one with its time."""

    column: int
    changes: int
    time: int
    last: str


class Spark(NamedTuple):
    """A module's number before the span, and (minimum, maximum, last) by column."""

    before: float | None
    columns: dict[int, tuple[float, float, float]]


class Buckets:
    """Sums up the history of one database in columns."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine = engine
        self._layout = layout
        self._in_server = layout.dialect != "sqlite"

    def count(self, module_id: int, start: int, end: int, most: int, *, texts: bool) -> int:
        """The number of numeric points, or texts, in (start, end], counted up to ``most``."""
        table = schema.text_history if texts else schema.number_history
        inside = select(literal(1)).where(*_within(table, module_id, start, end)).limit(most)
        with translating("count history"), reading(self._engine) as conn:
            return conn.scalar(select(func.count()).select_from(inside.subquery())) or 0

    def points(self, module_id: int, start: int, end: int) -> list[tuple[int, float]]:
        """The numbers in (start, end], in order; all at once, so for spans with few of them."""
        table = schema.number_history
        query = select(table.c.time, table.c.value).where(*_within(table, module_id, start, end))
        query = self._layout.in_order(query, table)
        with translating("read history"), reading(self._engine) as conn:
            return [(row[0], row[1]) for row in conn.execute(query)]

    def number_before(self, module_id: int, time: int) -> float | None:
        """The last number not after ``time``, or None if there is none."""
        found = self._before(schema.number_history, module_id, time, whole=True)
        return None if found is None else float(found)

    def text_before(self, module_id: int, time: int) -> str | None:
        """The last text not after ``time``, truncated, or None if there is none."""
        found = self._before(schema.text_history, module_id, time, whole=False)
        return None if found is None else str(found)

    def sparks(
        self, module_ids: Sequence[int], start: int, end: int, step: int
    ) -> dict[int, Spark]:
        """The numbers of several modules in [start, end] in columns, by module.

        Raises StoreError.
        """
        if not module_ids:
            return {}
        h, m = schema.number_history.c, schema.module.c
        before = select(h.value).where(h.module_id == m.id, h.time <= start, h.value.is_not(None))
        latest = (
            self._layout.in_order(before, schema.number_history, newest_first=True)
            .limit(1)
            .scalar_subquery()
        )
        index = column_of(h.time, range(start, end + step, step))
        per_column = (
            select(
                h.module_id,
                index.label("at"),
                func.min(h.value).label("low"),
                func.max(h.value).label("high"),
                func.max(h.time).label("time"),
            )
            .where(h.module_id.in_(module_ids), h.time > start, h.time <= end)
            .where(h.value.is_not(None))
            .group_by(h.module_id, index)
            .subquery()
        )
        p = per_column.c
        columns = self._last_of_second(
            select(p.module_id, p.at, p.low, p.high, h.value)
            .select_from(per_column)
            .join(schema.number_history, and_(h.module_id == p.module_id, h.time == p.time)),
            schema.number_history,
        )
        with translating("sum up history"), reading(self._engine) as conn:
            found = {
                module_id: Spark(value, {})
                for module_id, value in conn.execute(
                    select(m.id, latest).where(m.id.in_(module_ids))
                )
            }
            for module_id, column, low, high, last in conn.execute(columns):
                if module_id in found:
                    found[module_id].columns[column] = (low, high, last)
        return found

    def numbers(self, span: HistorySpan) -> list[Bucket]:
        """The numbers of the span in columns; empty columns are left out.  Raises StoreError."""
        if not self._in_server:
            with translating("sum up history"), reading(self._engine) as conn:
                return list(_join_pieces(self._piecewise(conn, span)))
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            summed = threads.map(lambda part: self._summed(part, span), _parts(span))
            return [bucket for part in summed for bucket in part]

    def texts(self, module_id: int, start: int, end: int, lefts: Sequence[int]) -> list[TextBucket]:
        """The texts in (start, end] in columns that begin at ``lefts``, each truncated."""
        c = schema.text_history.c
        index = column_of(c.time, lefts)
        per_column = (
            select(index.label("at"), func.count().label("changes"), func.max(c.time).label("time"))
            .where(*_within(schema.text_history, module_id, start, end))
            .group_by(index)
            .subquery()
        )
        p = per_column.c
        query = self._last_of_second(
            select(p.at, p.changes, p.time, func.substr(c.value, 1, TEXT_LENGTH))
            .select_from(per_column)
            .join(schema.text_history, and_(c.module_id == module_id, c.time == p.time)),
            schema.text_history,
        )
        with translating("sum up history"), reading(self._engine) as conn:
            # Of several texts in one second the last one counts.
            found = {row[0]: TextBucket(*row) for row in conn.execute(query)}
        return sorted(found.values(), key=itemgetter(0))

    def _before(self, table: Table, module_id: int, time: int, *, whole: bool) -> Any:
        c = table.c
        query = select(c.value if whole else func.substr(c.value, 1, TEXT_LENGTH)).where(
            c.module_id == module_id, c.time <= time, c.value.is_not(None)
        )
        query = self._layout.in_order(query, table, newest_first=True).limit(1)
        with translating("read history"), reading(self._engine) as conn:
            return conn.scalar(query)

    def _summed(self, part: HistorySpan, whole: HistorySpan) -> list[Bucket]:
        """One part of the columns of ``whole``, summed up by the database server."""
        with translating("sum up history"), reading(self._engine) as conn:
            rows = conn.execute(self._sums(part)).all()
            lasts = self._numbers_at(conn, part.module_id, [row.latest for row in rows])
        # Rows that are deleted between the two queries have no last number.
        return [_bucket(row, lasts[row.latest], whole) for row in rows if row.latest in lasts]

    def _sums(self, span: HistorySpan) -> Select[Any]:
        """A row for each column, without the time that its last point holds."""
        c = schema.number_history.c
        column = column_of(c.time, span.lefts)
        if isinstance(span.lefts, range):
            # Integer division is faster than rounding a quotient down.
            column = (c.time - span.lefts.start).op("DIV", precedence=8)(span.lefts.step)
        # Without an ordinal the order of the values of one second is undefined.
        order = (c.time, c.ordinal) if self._layout.has_ordinal else (c.time,)
        following = func.lead(c.time).over(partition_by=column, order_by=order)
        points = (
            select(c.time, c.value, following.label("following"), column.label("at"))
            .where(*_within(schema.number_history, span.module_id, span.start, span.end))
            .subquery()
        )
        p = points.c
        held = p.following - p.time
        return (
            select(
                p.at,
                func.min(p.time).label("first"),
                func.max(p.time).label("latest"),
                func.count().label("changes"),
                func.min(p.value).label("low"),
                func.max(p.value).label("high"),
                func.sum(p.value * held).label("area"),
                # Sums of doubles take half the time of sums of integers, which become decimals.
                *(
                    func.sum(case((p.value >= edge, held * _ONE), else_=_ZERO))
                    for edge in span.edges
                ),
            )
            .group_by(p.at)
            .order_by(p.at)
        )

    def _numbers_at(self, conn: Connection, module_id: int, times: list[int]) -> dict[int, float]:
        """The numbers at these times; of several in one second the last."""
        c = schema.number_history.c
        found: dict[int, float] = {}
        for some in in_chunks(times):
            query = select(c.time, c.value).where(
                c.module_id == module_id, c.time.in_(some), c.value.is_not(None)
            )
            query = self._layout.in_order(query, schema.number_history)
            found.update((row[0], row[1]) for row in conn.execute(query))
        return found

    def _piecewise(self, conn: Connection, span: HistorySpan) -> Iterator[Bucket]:
        """The buckets of one page of rows after the other; a column may be split over two pages."""
        table = schema.number_history
        within = _within(table, span.module_id, span.start, span.end)
        query = self._layout.in_order(select(table.c.time, table.c.value).where(*within), table)
        text = str(query.compile(conn, compile_kwargs={"literal_binds": True}))
        times: list[int] = []
        values: list[float] = []
        # The driver's own rows: wrapping them would take half of the whole time.
        with closing(conn.connection.cursor()) as cursor:
            cursor.execute(text)
            while page := cursor.fetchmany(_FETCH):
                new_times, new_values = zip(*page, strict=True)
                times += new_times
                values += new_values
                # How long the last point holds is known only with the next page.
                kept = times[-1:], values[-1:]
                del times[-1], values[-1]
                yield from buckets(times, values, span.lefts, kept[0][0], span.edges)
                times, values = kept
        yield from buckets(times, values, span.lefts, span.until, span.edges)

    def _last_of_second(self, query: Select[Any], table: Table) -> Select[Any]:
        """``query``, which joins single seconds to ``table``, ordered so that later rows win."""
        if self._layout.has_ordinal:
            return query.order_by(table.c.ordinal)
        # Not sorted: the index has the rows in order, and sorting would mix them up.
        return self._layout.along_index(query, table)


def _parts(span: HistorySpan) -> Iterator[HistorySpan]:
    """``span`` split into a few parts of whole columns."""
    lefts = span.lefts[:: max(1, -(-len(span.lefts) // _PARTS))]
    for left, right in pairwise([*lefts, span.until]):
        # A point on an edge belongs to the later column, and a span is (start, end].
        yield span._replace(start=max(span.start, left - 1), end=min(right - 1, span.end))


def _bucket(row: Row[Any], last: float, span: HistorySpan) -> Bucket:
    """A bucket from a row of :meth:`Buckets._sums` and the last number of its column."""
    following = row.at + 1
    end = span.lefts[following] if following < len(span.lefts) else span.until
    held = min(end, span.until) - row.latest
    return Bucket(
        column=row.at,
        first=row.first,
        last=last,
        changes=row.changes,
        minimum=row.low,
        maximum=row.high,
        area=(row.area or 0.0) + last * held,
        over=tuple(
            int(seconds or 0) + (held if last >= edge else 0)
            for seconds, edge in zip(row[_SUMS:], span.edges, strict=True)
        ),
    )


def _join_pieces(pieces: Iterator[Bucket]) -> Iterator[Bucket]:
    """Joins neighbouring pieces of the same column into one bucket."""
    before: Bucket | None = None
    for piece in pieces:
        if before is None or before.column != piece.column:
            if before is not None:
                yield before
            before = piece
        else:
            before = merged(before, piece)
    if before is not None:
        yield before


def _within(table: Table, module_id: int, start: int, end: int) -> tuple[ColumnElement[bool], ...]:
    c = table.c
    return (c.module_id == module_id, c.time > start, c.time <= end, c.value.is_not(None))


def column_of(time: ColumnElement[int], lefts: Sequence[int]) -> ColumnElement[int]:
    """The index of the column that ``time`` lies in, of the columns that begin at ``lefts``.

    Equal columns (a range) are found by division, others by binary search.
    """
    if isinstance(lefts, range):
        return type_coerce((time - lefts.start) // lefts.step, Integer)
    if len(lefts) <= 1:
        # GROUP BY takes a plain number for the position of a column of the result.
        return type_coerce(time * 0, Integer)
    return type_coerce(_searched(time, lefts, 0, len(lefts)), Integer)


def _searched(
    time: ColumnElement[int], lefts: Sequence[int], low: int, high: int
) -> ColumnElement[int]:
    """As :func:`column_of`, for the columns from ``low`` up to ``high``.

    With literals, so that any server recognises the selected and the grouped expression as equal.
    """
    if high - low == 1:
        return literal_column(str(low))
    middle = (low + high) // 2
    is_before = time < literal_column(str(lefts[middle]))
    found: ColumnElement[int] = case(
        (is_before, _searched(time, lefts, low, middle)),
        else_=_searched(time, lefts, middle, high),
    )
    return found


# -- a module's rules and events --


class EventMark(NamedTuple):
    """An event of a module; ``time`` in epoch seconds, ``text`` decoded."""

    id: int
    time: int
    type: str
    severity: int
    text: str


def module_rules(engine: Engine, layout: Layout, module_id: int) -> Rules:
    """The rules by which the values of a module are judged now.  Raises StoreError."""
    m = schema.module.c
    wanted = (m[key] if layout.has(m[key]) else null().label(key) for key in RULE_KEYS)
    query = select(*wanted).where(m.id == module_id)
    with translating("read the module"), reading(engine) as conn:
        row = conn.execute(query).one_or_none()
    return PLAIN if row is None else rules_from(tuple(value or None for value in row))


def module_events(
    engine: Engine, layout: Layout, module_id: int, start: int, end: int, most: int
) -> list[EventMark]:
    """The newest ``most`` events of a module in [start, end), in order.  Raises StoreError."""
    if not layout.has(schema.event):
        return []
    e = schema.event.c
    query = (
        select(e.id, e.time, type_coerce(e.type, String()), e.severity, e.text)
        .where(e.module_id == module_id, e.time >= start, e.time < end)
        .order_by(e.time.desc(), e.id.desc())
        .limit(most)
    )
    with translating("read events"), reading(engine) as conn:
        rows = conn.execute(query).all()
    return [
        EventMark(row[0], row[1], row[2] or "", row[3], entities.decode(row[4] or ""))
        for row in reversed(rows)
    ]

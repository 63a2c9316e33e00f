"""History read back: the points of one module in a span of time, page by page.

Only what the span needs is read: the last point before it and those inside it, through
the index over module and time that every layout has.  A page is a transaction of its own,
so that nothing is held open in the database while whoever reads is slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import merge
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, select

from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading

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
        """The points that say what the module was from ``start`` to ``end`` (epoch seconds).

        In order of time and, in one second, of arrival: the last ones not after ``start``,
        then all up to and with ``end``.  Numbers and text lie in different tables; a module
        whose packets changed their type has points in both.  Raises StoreError.
        """
        tables = (schema.number_history, schema.text_history)
        return merge(
            *(self._points(table, module_id, start, end) for table in tables), key=itemgetter(0)
        )

    def newest(self, module_id: int, most: int, end: int) -> list[Point]:
        """The last ``most`` points up to and with ``end``, in order.  Raises StoreError."""
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
        """The time of the first point; None: there is none.  Raises StoreError."""
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
        """The last point not after ``time``, if there is one."""
        query = self._select(table, module_id, newest_first=True).where(table.c.time <= time)
        with translating("read history"), reading(self._engine) as conn:
            return _fetch(conn, query.limit(1))

    def _read(self, table: Table, module_id: int, after: int, end: int) -> tuple[list[Point], bool]:
        """A page of the points in (after, end], whole seconds only; and whether it was full."""
        time = table.c.time
        query = self._select(table, module_id).where(time > after, time <= end)
        with translating("read history"), reading(self._engine) as conn:
            page = _fetch(conn, query.limit(self._page))
            if len(page) < self._page:
                return page, False
            # The page may end within a second, and in Pandora's own tables nothing but the
            # order of rows tells the points of one second apart: so that second is read whole.
            last = page[-1][0]
            second = self._select(table, module_id).where(time == last)
            return [point for point in page if point[0] < last] + _fetch(conn, second), True

    def _select(self, table: Table, module_id: int, *, newest_first: bool = False) -> Select[Any]:
        c = table.c
        query = select(c.time, c.value).where(c.module_id == module_id, c.value.is_not(None))
        return self._layout.in_order(query, table, newest_first=newest_first)


def _fetch(conn: Connection, query: Select[Any]) -> list[Point]:
    return [(time, value) for time, value in conn.execute(query)]

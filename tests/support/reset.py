"""Databases on a MariaDB server that are used by one test after the other.

A database is made once.  After a test the tables that it wrote to are emptied and get their
first rows back; a database whose tables a test changed is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import MySQLdb

    from tests.support.mariadb import MariaDB

#: What tables look like: rows that differ as soon as anything but their content does.
_SHAPE = (
    "SELECT table_name, column_name, ordinal_position, column_type, is_nullable, column_default,"
    " extra, collation_name FROM information_schema.columns WHERE table_schema = %s"
    " ORDER BY table_name, ordinal_position",
    "SELECT table_name, index_name, seq_in_index, column_name, non_unique, sub_part"
    " FROM information_schema.statistics WHERE table_schema = %s"
    " ORDER BY table_name, index_name, seq_in_index",
    "SELECT table_name, table_type, engine, table_collation FROM information_schema.tables"
    " WHERE table_schema = %s ORDER BY table_name",
    "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s",
    "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = %s",
)
_COUNTERS = "SELECT table_name, auto_increment FROM information_schema.tables WHERE table_schema=%s"
_OTHERS = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"

_NO_SUCH_THREAD = 1094


class Pool:
    """Databases of one kind; ``make(server, name)`` makes one where none is free."""

    def __init__(
        self, server: Callable[[], MariaDB], prefix: str, make: Callable[[MariaDB, str], None]
    ) -> None:
        self._server = server
        self._prefix = prefix
        self._make = make
        self._made = 0
        self._free: list[str] = []
        self._new: _State | None = None
        self._model = f"{prefix}_model"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of a database that is as new."""
        name = self._take()
        try:
            yield name
        finally:
            self._give_back(name)

    def _take(self) -> str:
        server = self._server()
        if self._new is None:
            self._make(server, self._model)
            with contextlib.closing(server.connect(self._model)) as conn:
                self._new = _State.of(conn, self._model)
        if self._free:
            return self._free.pop()
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        self._make(server, name)
        return name

    def _give_back(self, name: str) -> None:
        server = self._server()
        assert self._new is not None
        with contextlib.closing(server.connect()) as conn:
            cursor = conn.cursor()
            # A process that was killed may leave a connection with a transaction for a moment.
            cursor.execute(_OTHERS, (name,))
            for (other,) in cursor.fetchall():
                with contextlib.suppress(_mysql_error()):
                    cursor.execute("KILL %s", (other,))
            cursor.execute("SET lock_wait_timeout = 30")
            if _shape(conn, name) == self._new.shape:
                self._reset(conn, name)
                self._free.append(name)
            else:
                cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def _reset(self, conn: MySQLdb.Connection, name: str) -> None:
        assert self._new is not None
        now = _State.of(conn, name, self._new.shape)
        cursor = conn.cursor()
        for table, content in now.content.items():
            if content == self._new.content[table]:
                continue
            cursor.execute(f"TRUNCATE TABLE `{name}`.`{table}`")
            if self._new.content[table][0]:
                cursor.execute(
                    f"INSERT INTO `{name}`.`{table}` SELECT * FROM `{self._model}`.`{table}`"
                )
        conn.commit()


class _State:
    """A database's tables and, of each, (checksum of its rows, next number it gives)."""

    def __init__(self, shape: Any, content: dict[str, tuple[int, int]]) -> None:
        self.shape = shape
        self.content = content

    @classmethod
    def of(cls, conn: MySQLdb.Connection, name: str, shape: Any = None) -> _State:
        cursor = conn.cursor()
        # Every test's transactions have ended: what is read is what is there.
        cursor.execute(_COUNTERS, (name,))
        # A table that gave no number yet says NULL or 1.
        counters = {table: number or 1 for table, number in cursor.fetchall()}
        content = {}
        if counters:
            tables = ", ".join(f"`{name}`.`{table}`" for table in counters)
            cursor.execute(f"CHECKSUM TABLE {tables}")
            sums = dict(cursor.fetchall())
            content = {
                table: (int(sums[f"{name}.{table}"] or 0), counter)
                for table, counter in counters.items()
            }
        return cls(_shape(conn, name) if shape is None else shape, content)


def _shape(conn: MySQLdb.Connection, name: str) -> Any:
    cursor = conn.cursor()
    found = []
    for query in _SHAPE:
        cursor.execute(query, (name,))
        found.append(cursor.fetchall())
    return found


def _mysql_error() -> type[Exception]:
    import MySQLdb

    error: type[Exception] = MySQLdb.OperationalError
    return error

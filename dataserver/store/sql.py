"""Bulk statements: many rows of one table in one round trip, on every supported database.

All names come from the schema.  Statements by database:

==========  ==============================  ==========================================
            SQLite                          MySQL, MariaDB
==========  ==============================  ==========================================
insert      ``executemany``                 one multi-row ``INSERT``
upsert      ``ON CONFLICT DO UPDATE``       ``ON DUPLICATE KEY UPDATE``, multi-row
update      ``executemany``                 one ``UPDATE`` joined to a list of values
==========  ==============================  ==========================================

The joined update is as fast as an upsert (76,000 against 66,000 to 89,000 rows a second,
MariaDB 10.11) and cannot restore a row that was deleted meanwhile: it returns the number of
matched rows instead.

For MySQL the rows are written into the statement here and not by ``executemany``, which
took half of the server's time, since it checks the type of every value.  Here a column has one
format: that of integers (``%d`` accepts nothing else), of floats, hexadecimal for bytes, and the
result of the driver's own ``literal`` for text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Table

Row = tuple[Any, ...]
#: Rows of one ``executemany`` or joined update; more is not faster, and locks longer.
CHUNK = 2_000
#: Characters of one multi-row statement, of up to four bytes each: below MySQL's smallest usual
#: max_allowed_packet (1 MiB), above which the server closes the connection.  One row may be longer.
_STATEMENT_LENGTH = 250_000
#: Texts up to this length are cached as literals: times, numbers, short words.
_SHORT = 64
_REMEMBERED = 50_000

_FORMATS = {int: "%d", float: "%r"}


class Sql:
    """Bulk statements in the dialect of one database.

    Statement texts are built once per (table, columns) and kept.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._is_sqlite = dialect.name == "sqlite"
        self._texts: dict[object, tuple[str, str]] = {}
        self._formats: dict[object, _RowFormat] = {}
        self._literals: dict[str, str] = {}

    def insert(
        self, conn: Connection, table: Table, keys: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Insert ``rows``, whose fields are the columns ``keys``."""
        text = self._texts.get(("insert", table, keys))
        if text is None:
            text = self._texts["insert", table, keys] = (self._insert_text(table, keys), "")
        self._many(conn, text, table, keys, rows)

    def upsert(
        self, conn: Connection, table: Table, keys: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Insert ``rows`` or, if the primary key exists, set the other columns of ``keys``."""
        text = self._texts.get(("upsert", table, keys))
        if text is None:
            text = self._texts["upsert", table, keys] = self._upsert_text(table, keys, keys)
        self._many(conn, text, table, keys, rows)

    def ensure(
        self, conn: Connection, table: Table, keys: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Insert missing rows; existing ones are locked and not changed."""
        text = self._texts.get(("ensure", table, keys))
        if text is None:
            text = self._texts["ensure", table, keys] = self._upsert_text(table, keys, ())
        self._many(conn, text, table, keys, rows)

    def update(
        self, conn: Connection, table: Table, keys: Sequence[str], rows: Sequence[Row]
    ) -> int:
        """Set the columns ``keys[1:]`` where ``keys[0]`` is the row's first field.

        Returns the number of matched rows, changed or not.
        """
        text = self._texts.get(("update", table, keys))
        if text is None:
            make = self._update_text if self._is_sqlite else self._joined_text
            text = self._texts["update", table, keys] = make(table, keys)
        if not self._is_sqlite:
            # A list is `VALUES (..), (..)` for MariaDB, `VALUES ROW(..), ROW(..)` for MySQL; the
            # dialect knows which of them it is after the first connection.
            word = "" if getattr(self._dialect, "is_mariadb", False) else "ROW"
            return self._written(conn, text, table, keys, rows, word)
        matched = 0
        for chunk in chunks(rows, CHUNK):
            turned = [(*row[1:], row[0]) for row in chunk]
            matched += conn.exec_driver_sql(text[0], turned).rowcount
        return matched

    def _many(
        self,
        conn: Connection,
        text: tuple[str, str],
        table: Table,
        keys: Sequence[str],
        rows: Sequence[Row],
    ) -> None:
        if not self._is_sqlite:
            self._written(conn, text, table, keys, rows, "")
            return
        marks = f"({', '.join('?' * len(keys))})"
        for chunk in chunks(rows, CHUNK):
            conn.exec_driver_sql(f"{text[0]}{marks}{text[1]}", list(chunk))

    def _written(
        self,
        conn: Connection,
        text: tuple[str, str],
        table: Table,
        keys: Sequence[str],
        rows: Sequence[Row],
        word: str,
    ) -> int:
        """Execute the rows as literals in few statements; returns the number of matched rows."""
        form = self._formats.get((table, keys))
        if form is None:
            form = self._formats[table, keys] = _RowFormat(table, keys)
        raw: Any = conn.connection.dbapi_connection
        written = form.write(rows, self._literal_of(raw), word)
        matched = 0
        for chunk in _by_length(written):
            statement = f"{text[0]}{','.join(chunk)}{text[1]}"
            # Without parameters the driver does not interpret %.
            result = conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
            matched += result.rowcount
        return matched

    def _literal_of(self, raw: Any) -> Callable[[str | None], str]:
        """The driver's function for a text literal, with a cache of short texts."""
        known = self._literals
        if len(known) > _REMEMBERED:
            known.clear()

        def literal(text: str | None) -> str:
            if text is None:
                return "NULL"
            found = known.get(text)
            if found is None:
                found = raw.literal(text).decode("utf-8")
                if len(text) <= _SHORT:
                    known[text] = found
            return found

        return literal

    def _insert_text(self, table: Table, keys: Sequence[str]) -> str:
        names = ", ".join(self._names(table, keys))
        return f"INSERT INTO {self._quote(table.name)} ({names}) VALUES "

    def _upsert_text(
        self, table: Table, keys: Sequence[str], sets: Sequence[str]
    ) -> tuple[str, str]:
        primary = [column.key for column in table.primary_key]
        # If there is nothing to set, setting the key to itself still locks the row.
        others = self._names(table, [key for key in sets if key not in primary] or primary[:1])
        insert = self._insert_text(table, keys)
        if self._is_sqlite:
            assigned = ", ".join(f"{name} = excluded.{name}" for name in others)
            conflict = ", ".join(self._names(table, primary))
            return insert, f" ON CONFLICT ({conflict}) DO UPDATE SET {assigned}"
        assigned = ", ".join(f"{name} = VALUES({name})" for name in others)
        return insert, f" ON DUPLICATE KEY UPDATE {assigned}"

    def _update_text(self, table: Table, keys: Sequence[str]) -> tuple[str, str]:
        match, *sets = self._names(table, keys)
        assigned = ", ".join(f"{name} = ?" for name in sets)
        return f"UPDATE {self._quote(table.name)} SET {assigned} WHERE {match} = ?", ""

    def _joined_text(self, table: Table, keys: Sequence[str]) -> tuple[str, str]:
        names = self._names(table, keys)
        # The first SELECT names the columns of the list; no row has its key, zero.
        fields = ", ".join(f"{_blank(table, key)} AS v{i}" for i, key in enumerate(keys))
        assigned = ", ".join(f"t.{name} = v.v{i}" for i, name in enumerate(names) if i)
        return (
            f"UPDATE {self._quote(table.name)} t JOIN (SELECT {fields} UNION ALL VALUES ",
            f") v ON t.{names[0]} = v.v0 SET {assigned}",
        )

    def _quote(self, name: str) -> str:
        return self._dialect.identifier_preparer.quote(name)

    def _names(self, table: Table, keys: Sequence[str]) -> list[str]:
        return [self._quote(table.c[key].name) for key in keys]


class _RowFormat:
    """Writes rows of the columns ``keys`` as text of a statement."""

    def __init__(self, table: Table, keys: Sequence[str]) -> None:
        types = [table.c[key].type.python_type for key in keys]
        self._template = f"({','.join(_FORMATS.get(kind, '%s') for kind in types)})"
        self._texts = [place for place, kind in enumerate(types) if kind is str]
        self._bytes = [place for place, kind in enumerate(types) if kind is bytes]

    def write(
        self, rows: Sequence[Row], literal: Callable[[str | None], str], word: str
    ) -> list[str]:
        """Each row as ``(1,2.5,'text')``, with ``word`` before it."""
        template = word + self._template
        if not self._texts and not self._bytes:
            return [template % row for row in rows]
        written = []
        for row in rows:
            fields = list(row)
            for place in self._texts:
                fields[place] = literal(fields[place])
            for place in self._bytes:
                fields[place] = f"x'{fields[place].hex()}'"
            written.append(template % tuple(fields))
        return written


def _by_length(written: Sequence[str]) -> Iterator[Sequence[str]]:
    """``written`` in chunks short enough for one statement."""
    start = length = 0
    for place, row in enumerate(written):
        if place > start and (length + len(row) > _STATEMENT_LENGTH or place - start >= CHUNK):
            yield written[start:place]
            start, length = place, 0
        length += len(row) + 1
    if start < len(written):
        yield written[start:]


def _blank(table: Table, key: str) -> str:
    """A literal of the column's type, which sets the type of a list of values."""
    python_type = table.c[key].type.python_type
    if python_type is int:
        return "0"
    return "0e0" if python_type is float else "''"


def chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """``rows`` in chunks of at most ``size``."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]

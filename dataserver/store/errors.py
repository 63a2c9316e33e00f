"""Translates the database's errors to ours: wait, retry at once, or refuse the rows.

Two tables of codes, MySQL's and SQLite's, decide.  Only an error that is known to mean that the
connection or the server cannot be used is waited out.  An unknown code refuses the rows: the batch
is halved down to the packet that causes it, so that one packet cannot hold up all others; it is
rejected only after the database has stored another one.

No message holds SQL, a value or a password.
Sources: MariaDB's and MySQL's "Error code reference", https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    PendingRollbackError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dataserver.errors import (
    StoreConflict,
    StoreError,
    StoreLacking,
    StoreRefused,
    StoreUnavailable,
)

#: Python's own errors for a value that no database can hold: an integer beyond 64 bits, half a
#: surrogate pair.
_VALUE_ERRORS = (OverflowError, UnicodeError)

RAW = (SQLAlchemyError, *_VALUE_ERRORS)


class Meaning(NamedTuple):
    """The meaning of a code; with ``text`` None the database's own message is used."""

    kind: type[StoreError]
    text: str | None = None
    hint: str | None = None


_WAIT = Meaning(StoreUnavailable)
_GRANT = "grant the user SELECT, INSERT, UPDATE, DELETE, CREATE and INDEX on the database"
_SPACE = Meaning(StoreUnavailable, "the database's disk is full", "make room")
_READ_ONLY = Meaning(StoreUnavailable, "the database is read-only", "write to its primary")
_CHANGED = Meaning(StoreLacking, "a table or column is missing", "run: dataserver db check")
_AGAIN = Meaning(StoreConflict, "the table was changed meanwhile")

_CHARACTERS = "a name or text has characters that the database's character set cannot hold"

#: Errors of the client library: no host, no answer, a lost connection.
_CLIENT_CODES = range(2000, 3000)

#: Failures of the server's files and memory (mysys: 3 failed write, 5 out of memory, 28 disk full).
_SYSTEM_CODES = range(1, 1000)

#: Codes of a connection that the server closed.
_LOST = frozenset({2006, 2013, 2055})

_MYSQL: dict[int, Meaning] = {
    1205: Meaning(StoreConflict, "another transaction held a lock for too long"),
    1213: Meaning(StoreConflict, "deadlock, or a conflict with another node of the cluster"),
    1020: Meaning(StoreConflict, "the row was changed by another transaction"),
    1317: Meaning(StoreConflict, "the statement was interrupted"),
    1412: _AGAIN,
    1614: Meaning(StoreConflict, "deadlock"),
    1684: _AGAIN,
    3101: Meaning(StoreConflict, "the cluster rolled the transaction back"),
    3572: Meaning(StoreConflict, "another transaction holds a lock"),
    1021: _SPACE,
    1114: _SPACE,
    1030: _WAIT,
    1040: Meaning(StoreUnavailable, "the database has too many connections", "raise its limit"),
    1044: Meaning(StoreUnavailable, None, _GRANT),
    1045: Meaning(StoreUnavailable, None, "check the user and the password"),
    1047: Meaning(StoreUnavailable, "the cluster's node is not ready for queries"),
    1049: Meaning(StoreUnavailable, None, "create it: CREATE DATABASE NAME"),
    1053: Meaning(StoreUnavailable, "the database is shutting down"),
    1054: _CHANGED,
    1129: Meaning(StoreUnavailable, "the database blocks this host", "run there: FLUSH HOSTS"),
    1130: Meaning(StoreUnavailable, None, _GRANT),
    1142: Meaning(StoreLacking, "the user lacks a right on a table", _GRANT),
    1143: Meaning(StoreLacking, "the user lacks a right on a column", _GRANT),
    1146: _CHANGED,
    1203: Meaning(StoreUnavailable, "the user has too many connections", "raise the limit"),
    1226: Meaning(StoreUnavailable, "the user has reached a limit of the database"),
    1227: Meaning(StoreLacking, "the user lacks a right", _GRANT),
    1290: _READ_ONLY,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    1927: Meaning(StoreUnavailable, "the connection was ended by the database"),
    3100: Meaning(StoreUnavailable, "the cluster does not accept transactions now"),
    1048: Meaning(StoreRefused, "a value is missing"),
    1062: Meaning(StoreRefused, "a row with this key exists"),
    1118: Meaning(StoreRefused, "a row is too large"),
    1153: Meaning(StoreRefused, "a statement is larger than max_allowed_packet", "raise it"),
    1216: Meaning(StoreRefused, "a foreign key of the database refuses the row"),
    1253: Meaning(StoreRefused, _CHARACTERS),
    1264: Meaning(StoreRefused, "a number is out of the column's range"),
    1265: Meaning(StoreRefused, "a value does not fit the column's type"),
    1267: Meaning(StoreRefused, _CHARACTERS),
    1270: Meaning(StoreRefused, _CHARACTERS),
    1271: Meaning(StoreRefused, _CHARACTERS),
    1292: Meaning(StoreRefused, "a value does not fit the column's type"),
    1300: Meaning(StoreRefused, "a text has characters that the column cannot hold"),
    1364: Meaning(StoreRefused, "a value is missing that has no default"),
    1366: Meaning(StoreRefused, "a value has characters that the column cannot hold"),
    1367: Meaning(StoreRefused, "a number is not valid"),
    1406: Meaning(StoreRefused, "a text is longer than the column"),
    1452: Meaning(StoreRefused, "a foreign key of the database refuses the row"),
    1644: Meaning(StoreRefused, "a trigger of the database refuses the row"),
    1690: Meaning(StoreRefused, "a number is out of the column's range"),
    2020: Meaning(StoreRefused, "a statement is larger than max_allowed_packet", "raise it"),
    3854: Meaning(StoreRefused, _CHARACTERS),
    3988: Meaning(StoreRefused, _CHARACTERS),
    3819: Meaning(StoreRefused, "a check of the database refuses the row"),
    4025: Meaning(StoreRefused, "a check of the database refuses the row"),
}

#: By SQLite's primary result code (the low byte).  Its messages hold no values.
_SQLITE: dict[int, Meaning] = {
    # A general error; here it means that a table or column is missing.
    1: Meaning(StoreLacking, None, "run: dataserver db check"),
    5: Meaning(StoreConflict, "another writer held the database for too long"),
    6: Meaning(StoreConflict, "another connection of this process holds a table"),
    9: Meaning(StoreConflict, "the statement was interrupted"),
    15: Meaning(StoreConflict, "another process was opening the database"),
    17: _AGAIN,
    8: Meaning(StoreUnavailable, None, "check the rights of the file and its folder"),
    10: Meaning(StoreUnavailable, None, "check the disk"),
    11: Meaning(StoreUnavailable, "the database file is damaged", "restore it from a backup"),
    13: _SPACE,
    14: Meaning(StoreUnavailable, None, "check the rights of the file and its folder"),
    26: Meaning(StoreUnavailable, "the file is not an SQLite database"),
    18: Meaning(StoreRefused, "a value or a statement is too large"),
    19: Meaning(StoreRefused),
    20: Meaning(StoreRefused),
    25: Meaning(StoreRefused),
}

_COLUMN = re.compile(r"column '?(?:`?\w+`?\.)*`?(\w+)`?'?")


@contextmanager
def translating(action: str, *, statement_limit: int | None = None) -> Iterator[None]:
    """Raise the database's errors inside the block as ours.

    ``action`` completes "cannot ..."; ``statement_limit`` as for :func:`classify`.
    """
    try:
        yield
    except RAW as exc:
        raise classify(exc, action=action, statement_limit=statement_limit) from exc


def classify(
    exc: Exception, *, action: str = "use the database", statement_limit: int | None = None
) -> StoreError:
    """The StoreUnavailable, StoreConflict or StoreRefused for ``exc``.

    MySQL closes the connection at a statement over its ``max_allowed_packet``, without an error;
    ``statement_limit`` (bytes) distinguishes that from a lost connection, and refuses it.
    """
    exc = _before_rollback(exc)
    meaning = _meaning(exc, statement_limit)
    text = meaning.text or _message(exc)
    column = _COLUMN.search(_message(exc)) if meaning.kind is StoreRefused else None
    where = f" (column {column[1]})" if column else ""
    return meaning.kind(f"cannot {action}: {text}{where}", hint=meaning.hint)


def _before_rollback(exc: Exception) -> Exception:
    """The statement's error, if the connection it broke made the rollback after it fail as well."""
    if not isinstance(exc, DBAPIError) or exc.statement is not None or code(exc) not in _LOST:
        return exc
    earlier = exc.__cause__ or exc.__context__
    while earlier is not None:
        if isinstance(earlier, DBAPIError) and earlier.statement is not None:
            return earlier
        earlier = earlier.__cause__ or earlier.__context__
    return exc


def code(exc: Exception) -> int | None:
    """The database's error code of ``exc``, or None if it has none."""
    original = exc.orig if isinstance(exc, DBAPIError) else exc
    sqlite = getattr(original, "sqlite_errorcode", None)
    if isinstance(sqlite, int):
        return sqlite
    first = original.args[0] if original is not None and original.args else None
    return first if isinstance(first, int) else None


def _meaning(exc: Exception, statement_limit: int | None) -> Meaning:
    if not isinstance(exc, DBAPIError):
        return _meaning_outside(exc)
    number = code(exc)
    if number in _LOST and statement_limit is not None and _sent(exc) > statement_limit:
        return _MYSQL[1153]
    if number is None:
        return _unknown(exc, number)
    known = _SQLITE.get(number & 0xFF) if _is_sqlite(exc) else _mysql(number)
    return known or _unknown(exc, number)


def _meaning_outside(exc: Exception) -> Meaning:
    """The meaning of an error of Python or SQLAlchemy, without one of the database."""
    if isinstance(exc, _VALUE_ERRORS):
        return Meaning(StoreRefused, "a value cannot be represented in the database")
    if isinstance(exc, PoolTimeout):
        return Meaning(StoreUnavailable, "all connections of this process are in use")
    if isinstance(exc, PendingRollbackError):
        return Meaning(StoreUnavailable, "the connection was lost")
    if isinstance(exc, DisconnectionError):
        return Meaning(StoreUnavailable, "the connection was lost")
    return Meaning(StoreRefused, f"{type(exc).__name__} in the database layer")


def _is_sqlite(exc: DBAPIError) -> bool:
    return hasattr(exc.orig, "sqlite_errorcode")


def _mysql(number: int) -> Meaning | None:
    server_fails = number in _CLIENT_CODES or number in _SYSTEM_CODES
    return _MYSQL.get(number) or (_WAIT if server_fails else None)


def _unknown(exc: DBAPIError, number: int | None) -> Meaning:
    """The meaning of an unknown code: only its number, since its message may contain a value."""
    kind = StoreUnavailable if exc.connection_invalidated else StoreRefused
    return Meaning(kind, f"{type(exc).__name__} {number or ''}".strip())


def _message(exc: Exception) -> str:
    """The first line of the database's message."""
    original = exc.orig if isinstance(exc, DBAPIError) else exc
    args = original.args if original is not None else ()
    text = str(args[-1]) if args else type(exc).__name__
    return text.splitlines()[0] if text else type(exc).__name__


def _sent(exc: DBAPIError) -> int:
    """The maximum length in bytes of the failed statement with its values."""
    # The driver escapes a byte of a value with at most one more.
    return _size(exc.statement) + 2 * _size(exc.params)


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 1

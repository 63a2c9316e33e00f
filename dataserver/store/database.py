"""Opens a database: an SQLAlchemy engine for a URL, with each session set up as the store needs.

==============  =====================================================================
SQLite          WAL, every commit synced to the disk, writers queue at their first
                statement (``BEGIN IMMEDIATE``) instead of failing at a later one
MySQL, MariaDB  utf8mb4, READ COMMITTED, strict values, bounded waits on locks and
                on the network, so that a server that hangs is noticed
==============  =====================================================================

An engine keeps one connection (a few if it only reads) and replaces it after it was lost; it never
retries by itself, since only the worker knows the content of a transaction.
Sources: https://www.sqlite.org/wal.html, SQLAlchemy's "SQLite: Serializable isolation /
Savepoints / Transactional DDL", mysqlclient's and MariaDB Connector/C's option lists.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Connection, Engine, ExceptionContext, event
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from dataserver.errors import ConfigError, StoreReplaced
from dataserver.store.sqlite_file import identity, must_not_be_missing

#: Execution option of a connection that will not write in its next transaction:
#: on SQLite it then does not queue behind the writers.
READING = "dataserver_reading"

#: Execution option of an engine: the callback for the time a writer queued (:func:`on_lock_wait`).
_ON_LOCK_WAIT = "dataserver_on_lock_wait"

#: One SQLAlchemy dialect for both servers: it detects the differences when it connects.
_DRIVERS = {"sqlite": "sqlite+pysqlite", "mysql": "mysql+mysqldb", "mariadb": "mysql+mysqldb"}
_EXAMPLES = "use sqlite:///var/dataserver.db or mysql://USER@HOST/DATABASE"

#: An invalid value is an error and never cut silently, whatever the server's own sql_mode is.
#: (Pandora's servers run with sql_mode='', which stores an overlong text cut.)
_SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO"

#: Seconds after which MariaDB ends an idle transaction: a process that is stopped inside one
#: (SIGSTOP, a frozen machine), or a host without power, would keep its locks, and so keep its twin
#: from storing packets of the same agents.  A transaction that is ended too early is retried.
_IDLE_TIMEOUT = 15.0

#: Connections that a read-only engine keeps open, and the seconds that a thread waits for one of
#: these (or of ten more): if none is returned by then, the database hangs.
_READERS, _POOL_TIMEOUT = 4, 5.0

#: Key of the identity of an SQLite connection's file, in the connection's info.
_FILE = "dataserver_file"

#: SQLite's page cache in KiB (its default of 2 MB makes a batch's index pages spill).
_SQLITE_CACHE_KIB = 32 * 1024
#: Seconds between two attempts where SQLite does not wait by itself.
_BUSY_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one statement: its length and each value's in bytes, and its bound variables."""

    statement: int
    value: int
    variables: int


def open_engine(
    url: str,
    *,
    password: str | None = None,
    connect_timeout: float = 10.0,
    read_timeout: float = 60.0,
    lock_timeout: float = 10.0,
    idle_timeout: float = _IDLE_TIMEOUT,
    home: Path,
) -> Engine:
    """The engine for ``url``; nothing is connected yet, only SQLite's folder and file are made.

    ``password`` replaces one in the URL.  Timeouts are seconds; MySQL's are rounded up to
    whole ones, and ``connect_timeout`` covers the handshake too.  ``lock_timeout`` bounds the
    wait for another writer's locks; a transaction that is idle for ``idle_timeout`` is ended
    (MariaDB only: MySQL and SQLite cannot).  A relative SQLite path is relative to ``home``.

    Raises ConfigError: not a URL, an unsupported database, or its driver is not installed.
    """
    parsed = _parse(url, password)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(_sqlite_path(parsed, home), lock_timeout)
    return _mysql(parsed, connect_timeout, read_timeout, _session(lock_timeout, idle_timeout))


def open_readonly(
    url: str,
    *,
    password: str | None = None,
    connect_timeout: float = 10.0,
    read_timeout: float = 60.0,
    lock_timeout: float = 10.0,
    keep: bool = False,
    home: Path,
) -> Engine:
    """As :func:`open_engine`, for commands that only read: creates no file, cannot write.

    ``keep``: keep an SQLite file open between reads as long as it is not replaced.
    """
    parsed = _parse(url, password)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_readonly(_sqlite_path(parsed, home), lock_timeout, keep=keep)
    session = _session(lock_timeout, None)
    return _mysql(parsed, connect_timeout, read_timeout, session, _READERS, _POOL_TIMEOUT)


def shown(url: str) -> str:
    """``url`` for printing, without its password; a text that is not a URL is not shown at all."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a URL)"


def on_statement(engine: Engine, notify: Callable[[], None]) -> None:
    """Call ``notify`` before each statement that is sent to the database."""

    def before(*_: object) -> None:
        notify()

    event.listen(engine, "before_cursor_execute", before)


def on_lock_wait(engine: Engine, notify: Callable[[float], None]) -> None:
    """Call ``notify`` with the seconds that each transaction waited for its turn to write.

    Also if the wait timed out.  SQLite only: it has one writer at a time, and others wait before
    their first statement; MySQL and MariaDB wait within any statement, and count that themselves.
    """
    engine.update_execution_options(**{_ON_LOCK_WAIT: notify})


def limits(conn: Connection) -> Limits:
    """The limits of one statement on the connected database."""
    if conn.dialect.name == "sqlite":
        raw: Any = conn.connection.dbapi_connection
        return Limits(
            statement=raw.getlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH),
            value=raw.getlimit(sqlite3.SQLITE_LIMIT_LENGTH),
            variables=raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER),
        )
    packet = conn.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one()
    # mysqlclient writes values into the statement's text, so their number is not limited.
    return Limits(statement=packet, value=packet, variables=packet)


# -- the URL --


def _parse(url: str, password: str | None) -> URL:
    """``url`` with the driver that we use and the password from the settings."""
    try:
        parsed = sqlalchemy.make_url(url)
    except ArgumentError:
        # The text itself is not shown, since it may contain a password.
        raise ConfigError("the database setting is not a URL", hint=_EXAMPLES) from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None:
        raise ConfigError(f"cannot store in a {parsed.get_backend_name()} database", hint=_EXAMPLES)
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError(f"the database URL {shown(url)} names no database", hint=_EXAMPLES)
    parsed = parsed.set(drivername=driver)
    return parsed if password is None else parsed.set(password=password)


def _sqlite_path(url: URL, home: Path) -> Path:
    return home / (url.database or "")


def _sqlite_url(path: Path) -> URL:
    return URL.create(_DRIVERS["sqlite"], database=str(path))


# -- SQLite --


def _sqlite(path: Path, lock_timeout: float) -> Engine:
    engine = sqlalchemy.create_engine(
        _sqlite_url(path),
        creator=partial(_sqlite_open, path, lock_timeout),
        poolclass=QueuePool,
        pool_size=1,
        hide_parameters=True,
    )
    event.listen(engine, "connect", partial(_sqlite_opened, path))
    event.listen(engine, "begin", partial(_sqlite_begin, path))
    event.listen(engine, "handle_error", _sqlite_failed)
    return engine


def verify_file(engine: Engine) -> None:
    """Make sure that the last commit went into the file that has the database's name.

    For SQLite only.  Raises StoreReplaced.
    """
    if engine.dialect.name == "sqlite":
        with engine.connect() as conn:
            _must_be_the_same(Path(engine.url.database or ""), conn)


def _must_be_the_same(path: Path, conn: Connection) -> None:
    now = identity(path)
    if now != conn.info[_FILE]:
        # The connection must not be used again, even if the process continues.
        conn.invalidate()
        what = "moved or deleted" if now is None else "replaced by another one"
        raise StoreReplaced(
            f"the database file {path} was {what} while this server used it",
            hint="nothing more is stored into it; a restart uses what is there then",
        )


def _sqlite_failed(context: ExceptionContext) -> None:
    """Open a read-only file again for the next use: its rights may have been corrected."""
    code = getattr(context.original_exception, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        context.is_disconnect = True


def _sqlite_readonly(path: Path, lock_timeout: float, *, keep: bool) -> Engine:
    # Without a pool each connection checks whether the log exists, and none outlives its use; but
    # each reads the schema first, which takes longer than most queries.
    pool: dict[str, Any] = {"poolclass": NullPool}
    if keep:
        pool = {"poolclass": QueuePool, "pool_size": _READERS, "pool_timeout": _POOL_TIMEOUT}
    engine = sqlalchemy.create_engine(
        _sqlite_url(path),
        creator=partial(_sqlite_open_readonly, path, lock_timeout),
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "begin", _sqlite_begin_reading)
    if keep:
        event.listen(engine, "connect", partial(_sqlite_opened, path))
        event.listen(engine, "checkout", partial(_sqlite_taken, path))
        event.listen(engine, "checkin", _sqlite_returned)
    return engine


class _Immutable(sqlite3.Connection):
    """A connection to an immutable file: no process has it open for writing."""


def _sqlite_opened(path: Path, _raw: object, record: ConnectionPoolEntry) -> None:
    record.info[_FILE] = identity(path)


def _sqlite_taken(path: Path, _raw: object, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Reconnect if the file was replaced or removed."""
    if record.info[_FILE] != identity(path):
        raise DisconnectionError


def _sqlite_returned(raw: object, record: ConnectionPoolEntry) -> None:
    if isinstance(raw, _Immutable):
        # It would never see later changes of the file.
        record.invalidate()


def _sqlite_open(path: Path, lock_timeout: float) -> sqlite3.Connection:
    # SQLite gives its log and index files the mode of the database file.  An existing file is not
    # even opened here: closing it would release the locks of all our other connections, and another
    # process that closes the database would then remove the log under them (fcntl(2), POSIX locks).
    must_not_be_missing(path)
    with contextlib.suppress(OSError):  # SQLite reports the reason in a moment
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    raw = _sqlite_connect(f"file:{quote(str(path))}?mode=rw", lock_timeout)
    try:
        _use_wal(raw, lock_timeout)
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute(f"PRAGMA cache_size = -{_SQLITE_CACHE_KIB}")
    except BaseException:
        raw.close()
        raise
    return raw


def _use_wal(raw: sqlite3.Connection, lock_timeout: float) -> None:
    """Switch the file to write-ahead logging, permanently.

    If several processes do this at the same time on a new file, all but one fail immediately:
    SQLite does not wait here, whatever its timeout.
    """
    deadline = monotonic() + lock_timeout
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                raise
            sleep(_BUSY_PAUSE)
        else:
            return


def _sqlite_open_readonly(path: Path, lock_timeout: float) -> sqlite3.Connection:
    # SQLite creates the log (-wal) even for a reader, which then cannot remove it.  If there is no
    # log, no process has the database open, so it can be read as an immutable file.
    log = path.with_name(path.name + "-wal")
    if log.exists():
        return _sqlite_connect(f"file:{quote(str(path))}?mode=ro", lock_timeout)
    return _sqlite_connect(f"file:{quote(str(path))}?mode=ro&immutable=1", lock_timeout, _Immutable)


def _sqlite_connect(
    uri: str, lock_timeout: float, kind: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    # isolation_level None: the driver begins no transaction of its own, _sqlite_begin does.
    # The pool hands a connection to one thread at a time, hence check_same_thread.
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=lock_timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=kind,
    )


def _sqlite_begin(path: Path, conn: Connection) -> None:
    _must_be_the_same(path, conn)
    options = conn.get_execution_options()
    if options.get(READING, False):
        conn.exec_driver_sql("BEGIN")
        return
    started = monotonic()
    try:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        notify = options.get(_ON_LOCK_WAIT)
        if notify is not None:
            notify(monotonic() - started)


def _sqlite_begin_reading(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN")


# -- MySQL and MariaDB --


def _mysql(
    url: URL,
    connect_timeout: float,
    read_timeout: float,
    session: Callable[[Any, Any], None],
    pool_size: int = 1,
    pool_timeout: float = 30.0,
) -> Engine:
    try:
        engine = sqlalchemy.create_engine(
            url,
            isolation_level="READ COMMITTED",
            poolclass=QueuePool,
            pool_size=pool_size,
            pool_timeout=pool_timeout,
            pool_reset_on_return="rollback",
            # A reader's connection may be idle until the server closes it.
            pool_pre_ping=pool_size > 1,
            hide_parameters=True,
            connect_args={
                "charset": "utf8mb4",
                "connect_timeout": _whole(connect_timeout),
                "read_timeout": _whole(read_timeout),
                "write_timeout": _whole(read_timeout),
            },
        )
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"the driver for {url.get_backend_name()} is not installed",
            hint="install mysqlclient beside this server (in a checkout: "
            ".venv/bin/pip install --editable '.[mysql]')",
        ) from exc
    except NoSuchModuleError as exc:
        raise ConfigError(f"no driver {url.drivername}", hint=_EXAMPLES) from exc
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", session)
    return engine


def _connect(dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]) -> Any:
    """Connect.  Raises ConfigError if the URL has an option that the driver does not accept."""
    try:
        return dialect.connect(*args, **options)
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"the database URL has an option that its driver does not accept: {exc}", hint=_EXAMPLES
        ) from exc


def _session(lock_timeout: float, idle_timeout: float | None) -> Callable[[Any, Any], None]:
    """A function that configures each new connection (one round trip, or two).

    ``idle_timeout`` is None for connections that only read, which hold no locks.
    """
    settings = f"SET SESSION sql_mode = '{_SQL_MODE}', innodb_lock_wait_timeout = "
    settings += str(_whole(lock_timeout))
    if idle_timeout is not None:
        # A comment for MySQL, which has no such variable.
        settings += f" /*M!100300 , idle_transaction_timeout = {_whole(idle_timeout)} */"

    def configure(raw: Any, _record: Any) -> None:
        with contextlib.closing(raw.cursor()) as cursor:
            cursor.execute(settings)
            if idle_timeout is None:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")

    return configure


def _whole(seconds: float) -> int:
    """Seconds rounded up; at least one, since 0 means no timeout to the driver."""
    return max(1, -int(-seconds // 1))

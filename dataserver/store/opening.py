"""Opens the configured database: a recorder for storing, or a store for reading only.

:func:`open_recorder` makes the database ready, reads its limits and builds the recorder from the
settings; :func:`open_reading` makes sure that the database has what is read from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from pathlib import Path

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from dataserver.config.settings import Settings
from dataserver.errors import SchemaError, StoreUnavailable
from dataserver.store import sqlite_file
from dataserver.store.agents import AutoCreatePolicy
from dataserver.store.database import READING, limits, open_engine, open_readonly
from dataserver.store.errors import translating
from dataserver.store.layout import Kind, Layout, inspect
from dataserver.store.probe import prepare, verify
from dataserver.store.recorder import Recorder

#: The maximum length of a MEDIUMTEXT, in bytes.
_MEDIUMTEXT = 2**24 - 1
#: Bytes of a statement besides the value itself, estimated generously.
_STATEMENT_OVERHEAD = 4_096
_HOW_TO_CREATE = "the first `dataserver run` creates it, or `dataserver db create` does it now"


def open_store(
    settings: Settings, home: Path, *, readonly: bool = False, keep: bool = False
) -> Engine:
    """The engine of the configured database; nothing is connected yet.

    ``keep``: see :func:`open_readonly`.
    """
    opener = partial(open_readonly, keep=keep) if readonly else open_engine
    return opener(
        settings.database,
        password=settings.database_password,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.database_timeout,
        home=home,
    )


def sqlite_path(engine: Engine) -> Path | None:
    """The file of an SQLite database, or None for a database server."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def missing_file(settings: Settings, home: Path) -> Path | None:
    """The SQLite file of the settings if it does not exist; else, and for a server, None."""
    if not settings.database.startswith("sqlite"):
        return None
    path = home / (sqlalchemy.make_url(settings.database).database or "")
    return None if path.exists() else path


# -- for storing --


def open_recorder(
    settings: Settings,
    engine: Engine,
    zone: tzinfo,
    step: Callable[[], object] = lambda: None,
) -> Recorder:
    """Make the database ready and return a recorder for it.

    ``step`` is called now and then while that takes long.  Raises StoreUnavailable (retry later)
    and SchemaError (the database cannot be used).
    """
    layout = make_ready(settings, engine, step)
    with translating("read the database's limits"), engine.connect() as plain:
        accepted = limits(plain.execution_options(**{READING: True}))
    longest = min(accepted.value, accepted.statement - _STATEMENT_OVERHEAD)
    if layout.dialect != "sqlite":
        longest = min(longest, _MEDIUMTEXT)
    learning = AutoCreatePolicy(
        server_name=settings.server_name,
        autocreate=settings.autocreate,
        group_id=settings.autocreate_group,
        group_name=settings.autocreate_group_name,
        group_force=settings.autocreate_group_force,
        update_parent=settings.update_parent,
        max_agents=settings.max_agents,
        max_modules=settings.max_modules_per_agent,
    )
    return Recorder(
        engine,
        layout,
        zone=zone,
        learning=learning,
        longest_text=longest,
        longest_statement=accepted.statement,
        max_ahead=settings.max_ahead,
        ledger_days=settings.ledger_days,
        cache_seconds=settings.cache_seconds,
    )


def make_ready(
    settings: Settings, engine: Engine, step: Callable[[], object] = lambda: None
) -> Layout:
    """Make the database ready for storing, and remember which file it is.

    ``step`` is called now and then while that takes long.  Raises StoreUnavailable, SchemaError.
    """
    file = sqlite_path(engine)
    if file is not None:
        sqlite_file.check_before_use(file, step)
    layout = prepare(engine, accept_no_alerts=settings.accept_no_alerts)
    if file is not None:
        sqlite_file.record(file)
    return layout


# -- for reading --


@dataclass(frozen=True, slots=True)
class ReadingStore:
    """A database that can be read, what it has, and the zone of its local times."""

    engine: Engine
    layout: Layout
    zone: tzinfo

    def close(self) -> None:
        """Close its connections; those in use are closed when they are returned."""
        # Other threads may still be reading from this store, and may open connections.
        event.listen(self.engine, "checkin", _close_connection)
        self.engine.dispose()


def _close_connection(_connection: object, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def open_reading(settings: Settings, home: Path, *, keep: bool = False) -> ReadingStore:
    """Open the configured database for reading; ``keep``: see :func:`open_readonly`.

    Raises StoreUnavailable (missing or unreachable) and SchemaError (no tables to read).
    """
    missing = missing_file(settings, home)
    if missing is not None:
        sqlite_file.must_not_be_missing(missing)
        raise StoreUnavailable(f"there is no database {missing} yet", hint=_HOW_TO_CREATE)
    engine = open_store(settings, home, readonly=True, keep=keep)
    try:
        layout = inspect(engine)
        if layout.kind is Kind.EMPTY:
            raise SchemaError("the database has no tables yet", hint=_HOW_TO_CREATE)
        verify(layout)
        return ReadingStore(engine, layout, settings.zone(os.environ))
    except BaseException:
        engine.dispose()
        raise

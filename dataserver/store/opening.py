"""From settings to a recorder: the engine, the database made ready, what it takes."""

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

#: What a MEDIUMTEXT takes, in bytes.
_MEDIUMTEXT = 2**24 - 1
#: What of a statement is not the value itself, in bytes, generously.
_FRAME = 4_096


def open_store(
    settings: Settings, home: Path, *, readonly: bool = False, keep: bool = False
) -> Engine:
    """The engine of the configured database; nothing is connected yet.

    ``keep``: as :func:`open_readonly` has it.
    """
    opener = partial(open_readonly, keep=keep) if readonly else open_engine
    return opener(
        settings.database,
        password=settings.database_password,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.database_timeout,
        home=home,
    )


def make_ready(
    settings: Settings, engine: Engine, step: Callable[[], object] = lambda: None
) -> Layout:
    """Make the database ready to be written to, and remember which file it is."""
    file = sqlite_path(engine)
    if file is not None:
        sqlite_file.check_before_use(file, step)
    layout = prepare(engine, accept_no_alerts=settings.accept_no_alerts)
    if file is not None:
        sqlite_file.record(file)
    return layout


def sqlite_path(engine: Engine) -> Path | None:
    """The file of an SQLite database; None for a server."""
    return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None


def open_recorder(
    settings: Settings,
    engine: Engine,
    zone: tzinfo,
    step: Callable[[], object] = lambda: None,
) -> Recorder:
    """Make the database ready and a recorder for it; ``step`` is called while that takes long.

    Raises StoreUnavailable (try again later), SchemaError (it will not do).
    """
    layout = make_ready(settings, engine, step)
    with translating("ask for the database's limits"), engine.connect() as plain:
        taken = limits(plain.execution_options(**{READING: True}))
    longest = min(taken.value, taken.statement - _FRAME)
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
        longest_statement=taken.statement,
        max_ahead=settings.max_ahead,
        ledger_days=settings.ledger_days,
        cache_seconds=settings.cache_seconds,
    )


# -- a database opened for reading only, sure to have what is read

_MAKE_IT = "the first `dataserver run` makes it, or `dataserver db create` now"


@dataclass(frozen=True, slots=True)
class ReadingStore:
    """A database that can be read, what it has, and the zone of its local times."""

    engine: Engine
    layout: Layout
    zone: tzinfo

    def close(self) -> None:
        """Let go of its connections: of those that are in use when they come back."""
        # Whoever has this record may still read, with a new connection too.
        event.listen(self.engine, "checkin", _hang_up)
        self.engine.dispose()


def _hang_up(_connection: object, record: ConnectionPoolEntry) -> None:
    record.invalidate()


def open_reading(settings: Settings, home: Path, *, keep: bool = False) -> ReadingStore:
    """The configured database; ``keep``: as :func:`dataserver.store.database.open_readonly` has it.

    Raises StoreUnavailable (not there, away) and SchemaError (nothing in it to be read).
    """
    missing = missing_file(settings, home)
    if missing is not None:
        sqlite_file.must_not_be_missing(missing)
        raise StoreUnavailable(f"there is no database {missing} yet", hint=_MAKE_IT)
    engine = open_store(settings, home, readonly=True, keep=keep)
    try:
        layout = inspect(engine)
        if layout.kind is Kind.EMPTY:
            raise SchemaError("the database has no tables yet", hint=_MAKE_IT)
        verify(layout)
        return ReadingStore(engine, layout, settings.zone(os.environ))
    except BaseException:
        engine.dispose()
        raise


def missing_file(settings: Settings, home: Path) -> Path | None:
    """The SQLite file that the settings name, if it is not there; None for a server."""
    if not settings.database.startswith("sqlite"):
        return None
    path = home / (sqlalchemy.make_url(settings.database).database or "")
    return None if path.exists() else path

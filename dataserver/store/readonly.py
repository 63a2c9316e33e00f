"""A database opened for reading only, sure to have what is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

from dataserver.errors import SchemaError, StoreUnavailable
from dataserver.settings import Settings
from dataserver.store import sqlite_file
from dataserver.store.layout import Kind, Layout, inspect
from dataserver.store.opening import open_store
from dataserver.store.probe import verify

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
    """The configured database; ``keep``: as :func:`dataserver.store.engine.open_readonly` has it.

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

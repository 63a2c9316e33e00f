"""The database as commands open it: for reading only, and sure to have what they read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path

import click
import sqlalchemy
from sqlalchemy import Engine

from dataserver.cli.base import App
from dataserver.errors import SchemaError, StoreUnavailable
from dataserver.home import MAIN
from dataserver.settings import Settings
from dataserver.store.layout import Kind, Layout, inspect
from dataserver.store.opening import open_store
from dataserver.store.probe import verify

_MAKE_IT = "the first `dataserver run` makes it, or `dataserver db create` now"

instance_option = click.option(
    "--instance", default=MAIN, metavar="NAME", help="As this instance is set up (default: main)."
)


@dataclass(frozen=True, slots=True)
class ReadingStore:
    """A database that can be read, what it has, and the zone of its local times."""

    engine: Engine
    layout: Layout
    zone: tzinfo


@contextmanager
def reading_store(app: App, instance: str) -> Iterator[ReadingStore]:
    """The database of an instance, for as long as the block lasts.

    Raises StoreUnavailable (not there, away) and SchemaError (nothing in it to be read).
    """
    settings, paths = app.settings(instance)
    missing = missing_file(settings, paths.home)
    if missing is not None:
        raise StoreUnavailable(f"there is no database {missing} yet", hint=_MAKE_IT)
    engine = open_store(settings, paths.home, readonly=True)
    try:
        layout = inspect(engine)
        if layout.kind is Kind.EMPTY:
            raise SchemaError("the database has no tables yet", hint=_MAKE_IT)
        verify(layout)
        yield ReadingStore(engine, layout, settings.zone(os.environ))
    finally:
        engine.dispose()


def missing_file(settings: Settings, home: Path) -> Path | None:
    """The SQLite file that the settings name, if it is not there; None for a server."""
    if not settings.database.startswith("sqlite"):
        return None
    path = home / (sqlalchemy.make_url(settings.database).database or "")
    return None if path.exists() else path

"""The database as commands open it: read-only, and checked to have the tables they read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from dataserver.cli.base import App
from dataserver.config.paths import MAIN
from dataserver.store.opening import ReadingStore, open_reading

instance_option = click.option(
    "--instance", default=MAIN, metavar="NAME", help="Use this instance's settings (default: main)."
)


@contextmanager
def reading_store(app: App, instance: str) -> Iterator[ReadingStore]:
    """The database of an instance, for as long as the block lasts.

    Raises StoreUnavailable (missing or unavailable) and SchemaError (no tables to read).
    """
    settings, paths = app.settings(instance)
    store = open_reading(settings, paths.home)
    try:
        yield store
    finally:
        store.close()

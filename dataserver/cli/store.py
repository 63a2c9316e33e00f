"""The database as commands open it: for reading only, and sure to have what they read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from dataserver.cli.base import App
from dataserver.config.paths import MAIN
from dataserver.store.opening import ReadingStore, open_reading

instance_option = click.option(
    "--instance", default=MAIN, metavar="NAME", help="As this instance is set up (default: main)."
)


@contextmanager
def reading_store(app: App, instance: str) -> Iterator[ReadingStore]:
    """The database of an instance, for as long as the block lasts.

    Raises StoreUnavailable (not there, away) and SchemaError (nothing in it to be read).
    """
    settings, paths = app.settings(instance)
    store = open_reading(settings, paths.home)
    try:
        yield store
    finally:
        store.close()

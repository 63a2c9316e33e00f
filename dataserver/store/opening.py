"""From settings to a recorder: the engine, the database made ready, what it takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from dataserver.settings import Settings
from dataserver.store import sqlite_file
from dataserver.store.agents import Learning
from dataserver.store.engine import READING, limits, open_engine, open_readonly
from dataserver.store.errors import translating
from dataserver.store.layout import Layout
from dataserver.store.probe import prepare
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
    learning = Learning(
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

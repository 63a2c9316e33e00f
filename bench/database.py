"""The bare drivers: a connection for a database URL, as the limit and the checks use it."""

from __future__ import annotations

import sqlite3
from typing import Any
from urllib.parse import urlsplit

#: What SQL of each driver calls a parameter.
MARK = {"sqlite": "?", "mysql": "%s"}


def scheme(url: str) -> str:
    """``sqlite`` or ``mysql``."""
    return urlsplit(url).scheme


def connect(url: str) -> Any:
    """Open ``sqlite:////file`` or ``mysql://user@host:port/name``, as durable as the server's.

    The private MariaDB is durable by its own configuration.
    """
    parts = urlsplit(url)
    if parts.scheme == "mysql":
        # Imported here only: without the extra, SQLite can still be measured.
        import MySQLdb  # noqa: PLC0415

        return MySQLdb.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            database=parts.path.lstrip("/"),
            charset="utf8mb4",
        )
    connection = sqlite3.connect(parts.path.removeprefix("/"), timeout=30)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection

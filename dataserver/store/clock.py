"""The one clock that all servers of a database share: the database's own."""

from __future__ import annotations

import time

from sqlalchemy import Connection, text

# Not NOW(): its meaning depends on the session's time zone, and is doubled when clocks change.
_MYSQL = text("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")


def database_time(conn: Connection) -> float:
    """Epoch seconds, with a fraction.  SQLite has no clock but the machine's, where it lies."""
    if conn.dialect.name == "sqlite":
        return time.time()
    return int(conn.scalar(_MYSQL)) / 1e6

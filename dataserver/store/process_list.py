"""Reading back: the server processes that were at work on this database in the last day."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, null, select

from dataserver.store import schema
from dataserver.store.clock import database_time
from dataserver.store.layout import Layout
from dataserver.store.processes import STOPPED

#: Seconds by which a sign of life may lie ahead of the database's clock.
_AHEAD = 5.0


class Seen(NamedTuple):
    """What a process last said of itself; None: it could not tell.

    ``age`` is how long ago that was, in seconds; ``clock_offset`` how many seconds its machine's
    clock was ahead of the database's.  ``queue`` and ``rejected`` count packets, ``oldest_age`` is
    the age of the oldest one that waits, in seconds.
    """

    host: str
    instance: str
    server_name: str
    version: str
    age: float
    started: float
    has_left: bool
    configuration: str | None = None
    host_keys: str | None = None
    authorized_keys: str | None = None
    pair: str | None = None
    clock_offset: float | None = None
    pid: int | None = None
    queue: int | None = None
    oldest_age: float | None = None
    packets_per_second: float | None = None
    rejected: int | None = None


def processes_seen(conn: Connection, layout: Layout) -> list[Seen]:
    """Of each instance of each host the process that was heard of last; by host and instance."""
    table = schema.server_process
    if not layout.has(table):
        return []
    c = table.c
    optional = (
        # A database that no newer version has opened yet lacks some.
        column if layout.has(column) else null().label(column.key)
        for column in (c.configuration, c.host_keys, c.authorized_keys, c.pair, c.clock_offset)
    )
    who = (c.host, c.instance, c.server_name, c.version, c.heartbeat, c.started, c.state, c.pid)
    wanted = (*who, c.queue, c.oldest, c.packets_per_second, c.rejected)
    now = database_time(conn)
    rows = list(conn.execute(select(*wanted, *optional)))
    # One that lies ahead was written before the clock was set back: any other one is newer.
    rows.sort(key=lambda row: (row.heartbeat <= now + _AHEAD, row.heartbeat, row.started))
    latest = {
        (row.host, row.instance): Seen(
            host=row.host,
            instance=row.instance,
            server_name=row.server_name,
            version=row.version,
            age=abs(now - row.heartbeat),
            started=row.started,
            has_left=row.state == STOPPED,
            configuration=row.configuration,
            host_keys=row.host_keys,
            authorized_keys=row.authorized_keys,
            pair=row.pair,
            clock_offset=row.clock_offset,
            pid=row.pid,
            queue=row.queue,
            oldest_age=None if row.oldest is None else max(0.0, now - row.oldest),
            packets_per_second=row.packets_per_second,
            rejected=row.rejected,
        )
        for row in rows
    }
    return [latest[key] for key in sorted(latest)]

"""The server processes at work on this database: who they are, and what waits at each.

One row per process, renewed every few seconds.  Processes of one server name (instances of a
machine, the hosts of a pair) are summed from here into their one row of ``tserver``.  All times
in the rows are of the database's clock: what a process knows by its own, it tells as an age.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, null, select, update

from dataserver.store import columns, schema
from dataserver.store.layout import Layout
from dataserver.store.lease import database_time

#: Seconds after which the row of a process that is gone is removed.
_KEPT = 86_400
RUNNING, STOPPED = "running", "stopped"
#: An answer of the database's clock that took longer tells too little of it (seconds).
_SLOW = 0.5


class Process(NamedTuple):
    """Who a process is.  ``id`` is random, ``configuration`` a fingerprint of its settings."""

    id: str
    server_name: str
    server_type: int
    host: str
    instance: str
    pid: int
    version: str
    configuration: str | None = None


class ProcessStats(NamedTuple):
    """How a process does.  Ages in seconds; ``rejected`` and ``queue`` count files.

    ``oldest_age`` is the age of the oldest packet that waits and can be read, None: none does;
    ``scan_age`` how long ago its queue was looked at: what came since is not known yet.
    """

    queue: int = 0
    oldest_age: float | None = None
    scan_age: float = 0.0
    uptime: float = 0.0
    threads: int = 1
    packets_per_second: float = 0.0
    rejected: int = 0


class ProcessFingerprints(NamedTuple):
    """Fingerprints of files that the hosts of a pair must have in common; None: there is none."""

    host_keys: str | None = None
    authorized_keys: str | None = None
    pair: str | None = None


class Totals(NamedTuple):
    """All live processes of one server; ``lag`` is the age of the oldest packet, in seconds."""

    processes: int
    queue: int
    threads: int
    lag: int


class Processes:
    """Keeps the row of ``process``; one whose row is older than ``live`` seconds is gone.

    ``layout`` tells which columns there are, None: all.  ``own_clock`` is this machine's (epoch
    seconds), to be compared with the database's.
    """

    def __init__(
        self,
        process: Process,
        live: float,
        *,
        layout: Layout | None = None,
        clock: Callable[[Connection], float] = database_time,
        own_clock: Callable[[], float] = time.time,
    ) -> None:
        self._process = process
        self._live = live
        self._layout = layout
        self._clock = clock
        self._own_clock = own_clock

    def beat(
        self, conn: Connection, figures: ProcessStats, marks: ProcessFingerprints | None = None
    ) -> None:
        """This process is alive and does so."""
        self._write(conn, figures, RUNNING, marks)

    def leave(self, conn: Connection, figures: ProcessStats) -> None:
        """This process ends in good order, and leaves this behind."""
        self._write(conn, figures, STOPPED, None)

    def sums(self, conn: Connection) -> Totals:
        """What the live processes of this one's server come to."""
        c = schema.server_process.c
        query = select(
            func.count(),
            func.coalesce(func.sum(c.queue), 0),
            func.coalesce(func.sum(c.threads), 0),
            func.coalesce(func.max(c.heartbeat - c.oldest), 0),
        ).where(
            c.server_name == self._process.server_name,
            c.server_type == self._process.server_type,
            c.state == RUNNING,
            self._fresh(conn),
        )
        return Totals(*(int(number) for number in conn.execute(query).one()))

    def horizon(self, conn: Connection) -> int:
        """Up to when (epoch seconds) all that arrived at any server is known to be processed.

        What a process left behind counts until its row is as old as that of a dead one: it
        may be about to start again.
        """
        c = schema.server_process.c
        now = self._clock(conn)
        query = select(func.min(c.oldest), func.min(c.scanned)).where(self._fresh(conn))
        return int(min(time for time in (*conn.execute(query).one(), now) if time is not None))

    def prune(self, conn: Connection) -> None:
        """Remove rows of processes that are gone for a day."""
        c = schema.server_process.c
        conn.execute(delete(schema.server_process).where(c.heartbeat < self._clock(conn) - _KEPT))

    def _write(
        self, conn: Connection, figures: ProcessStats, state: str, marks: ProcessFingerprints | None
    ) -> None:
        now, offset = self._clocks(conn)
        table, process = schema.server_process, self._process
        oldest = None if figures.oldest_age is None else now - figures.oldest_age
        row: dict[str, Any] = {
            "server_name": columns.fit(table, "server_name", process.server_name),
            "server_type": process.server_type,
            "heartbeat": now,
            "state": state,
            "queue": figures.queue,
            "oldest": oldest,
            "scanned": now - figures.scan_age,
            "threads": figures.threads,
            "packets_per_second": figures.packets_per_second,
            "rejected": figures.rejected,
            "configuration": process.configuration,
            "clock_offset": offset,
            **(marks._asdict() if marks else {}),
        }
        if self._layout is not None:
            row = self._layout.present(table, row)
        here = table.c.id == process.id
        if conn.execute(update(table).where(here).values(row)).rowcount:
            return
        row |= {
            "id": process.id,
            "host": columns.fit(table, "host", process.host),
            "instance": columns.fit(table, "instance", process.instance),
            "pid": process.pid,
            "version": columns.fit(table, "version", process.version),
            "started": now - figures.uptime,
        }
        conn.execute(insert(table).values(row))

    def _clocks(self, conn: Connection) -> tuple[float, float | None]:
        """The database's time, and by how much this machine's is ahead; None: too slow to tell."""
        before = self._own_clock()
        now = self._clock(conn)
        after = self._own_clock()
        offset = (before + after) / 2 - now
        return now, round(offset, 3) if 0 <= after - before <= _SLOW else None

    def _fresh(self, conn: Connection) -> ColumnElement[bool]:
        """Rows of which the heartbeat is young; one ahead of the clock, which was set back, too."""
        now = self._clock(conn)
        return schema.server_process.c.heartbeat.between(now - self._live, now + self._live)


# -- reading back: the server processes that were at work on this database in the last day

#: Seconds by which a sign of life may lie ahead of the database's clock.
_AHEAD = 5.0


class ServerProcess(NamedTuple):
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


def processes_seen(conn: Connection, layout: Layout) -> list[ServerProcess]:
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
        (row.host, row.instance): ServerProcess(
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

"""The table of the server processes on this database: identity, queue, last heartbeat.

Each process keeps one row, renewed every few seconds (:class:`Processes`).  Processes of one server
name (instances of a machine, the hosts of a pair) are summed into their one row of ``tserver``.
All times in the rows are by the database's clock: what a process knows by its own clock, it
passes as an age.  :func:`processes_seen` lists the processes of the last day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, null, select, update

from dataserver.store import columns, schema
from dataserver.store.layout import Layout
from dataserver.store.lease import database_time

#: Seconds after its last heartbeat at which the row of a process is removed.
_KEEP_SECONDS = 86_400
RUNNING, STOPPED = "running", "stopped"
#: Seconds; if reading the database's clock took longer, the clocks cannot be compared.
_SLOW = 0.5


class Process(NamedTuple):
    """A process: ``id`` is random, ``configuration`` a fingerprint of its settings."""

    id: str
    server_name: str
    server_type: int
    host: str
    instance: str
    pid: int
    version: str
    configuration: str | None = None


class ProcessStats(NamedTuple):
    """The state of a process.  Ages in seconds; ``rejected`` and ``queue`` count files.

    ``oldest_age`` is the age of the oldest readable packet in the queue, None if there is none;
    ``scan_age`` is the age of the last scan: packets that arrived later are not counted yet.
    """

    queue: int = 0
    oldest_age: float | None = None
    scan_age: float = 0.0
    uptime: float = 0.0
    threads: int = 1
    packets_per_second: float = 0.0
    rejected: int = 0


class ProcessFingerprints(NamedTuple):
    """Fingerprints of files that must be equal on both hosts of a pair; None if missing."""

    host_keys: str | None = None
    authorized_keys: str | None = None
    pair: str | None = None


class Totals(NamedTuple):
    """Sums over the live processes of one server; ``lag``: age of the oldest packet, in seconds."""

    processes: int
    queue: int
    threads: int
    lag: int


class Processes:
    """Keeps the row of ``process``; a process whose row is older than ``live`` seconds is dead.

    ``layout`` says which columns exist, None means all.  ``own_clock`` is this machine's clock
    (epoch seconds), which is compared with the database's.
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
        self, conn: Connection, stats: ProcessStats, fingerprints: ProcessFingerprints | None = None
    ) -> None:
        """Write that this process is running, with its state."""
        self._write(conn, stats, RUNNING, fingerprints)

    def leave(self, conn: Connection, stats: ProcessStats) -> None:
        """Write that this process has stopped, and the state that it leaves behind."""
        self._write(conn, stats, STOPPED, None)

    def sums(self, conn: Connection) -> Totals:
        """The sums over the live processes of this process's server."""
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
        """The time (epoch seconds) up to which every packet at any server is known to be processed.

        The queue of a stopped process counts until its row is as old as that of a dead one, since
        the process may be about to start again.
        """
        c = schema.server_process.c
        now = self._clock(conn)
        query = select(func.min(c.oldest), func.min(c.scanned)).where(self._fresh(conn))
        return int(min(time for time in (*conn.execute(query).one(), now) if time is not None))

    def prune(self, conn: Connection) -> None:
        """Remove the rows of processes that have been gone for a day."""
        c = schema.server_process.c
        conn.execute(
            delete(schema.server_process).where(c.heartbeat < self._clock(conn) - _KEEP_SECONDS)
        )

    def _write(
        self,
        conn: Connection,
        stats: ProcessStats,
        state: str,
        fingerprints: ProcessFingerprints | None,
    ) -> None:
        now, offset = self._clocks(conn)
        table, process = schema.server_process, self._process
        oldest = None if stats.oldest_age is None else now - stats.oldest_age
        row: dict[str, Any] = {
            "server_name": columns.fit(table, "server_name", process.server_name),
            "server_type": process.server_type,
            "heartbeat": now,
            "state": state,
            "queue": stats.queue,
            "oldest": oldest,
            "scanned": now - stats.scan_age,
            "threads": stats.threads,
            "packets_per_second": stats.packets_per_second,
            "rejected": stats.rejected,
            "configuration": process.configuration,
            "clock_offset": offset,
            **(fingerprints._asdict() if fingerprints else {}),
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
            "started": now - stats.uptime,
        }
        conn.execute(insert(table).values(row))

    def _clocks(self, conn: Connection) -> tuple[float, float | None]:
        """The database's time, and the seconds by which this machine is ahead, None if unknown."""
        before = self._own_clock()
        now = self._clock(conn)
        after = self._own_clock()
        offset = (before + after) / 2 - now
        return now, round(offset, 3) if 0 <= after - before <= _SLOW else None

    def _fresh(self, conn: Connection) -> ColumnElement[bool]:
        """Condition for a recent heartbeat, or one slightly ahead since the clock was set back."""
        now = self._clock(conn)
        return schema.server_process.c.heartbeat.between(now - self._live, now + self._live)


# -- reading the processes of the last day --

#: Seconds by which a heartbeat may lie ahead of the database's clock.
_AHEAD = 5.0


class ServerProcess(NamedTuple):
    """The last row of a process; None for values that the process could not determine.

    ``age`` is the age of the row in seconds; ``clock_offset`` the seconds by which its machine's
    clock was ahead of the database's; ``has_left``: the process stopped in an orderly way.
    ``queue`` and ``rejected`` count packets, ``oldest_age`` is the age of the oldest packet in the
    queue, in seconds.
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
    """The latest process of each instance of each host, in order of host and instance."""
    table = schema.server_process
    if not layout.has(table):
        return []
    c = table.c
    optional = (
        # Missing in a database that only older versions have opened.
        column if layout.has(column) else null().label(column.key)
        for column in (c.configuration, c.host_keys, c.authorized_keys, c.pair, c.clock_offset)
    )
    who = (c.host, c.instance, c.server_name, c.version, c.heartbeat, c.started, c.state, c.pid)
    wanted = (*who, c.queue, c.oldest, c.packets_per_second, c.rejected)
    now = database_time(conn)
    rows = list(conn.execute(select(*wanted, *optional)))
    # A row ahead of the clock was written before the clock was set back: any other is newer.
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

"""A lease in the database: work that one process does for all servers, never two at a time.

The holder renews the lease in every transaction of its work, which locks the lease's row
until the commit.  So the work of two holders cannot overlap, however long one of them is
paused: a process that is stopped between two transactions finds the lease taken by another one;
stopped inside a transaction it keeps the others out (MariaDB ends such a transaction after a
while, see :mod:`dataserver.store.database`, and rolls it back).  The epoch grows with every
change of the holder, so that effects outside of the database can be attributed too.

The database's clock (:func:`database_time`) decides whether a lease has expired; the clocks of
the hosts do not matter.  On a Galera cluster the row is locked on one node only; there both
holders write it, and the one that commits second is rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, select, text, update
from sqlalchemy.exc import DBAPIError

from dataserver.store import schema
from dataserver.store.errors import code
from dataserver.store.sql import Sql

#: MariaDB's and MySQL's errors for NOWAIT on a locked row.
_LOCKED = frozenset({1205, 3572})
_NOBODY = ""
# Not NOW(): it depends on the session's time zone, and is ambiguous when clocks change.
_NOW = text("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")


def database_time(conn: Connection) -> float:
    """The database's clock in epoch seconds, with a fraction; for SQLite this machine's clock."""
    if conn.dialect.name == "sqlite":
        return time.time()
    return int(conn.scalar(_NOW)) / 1e6


class _Row(NamedTuple):
    """The lease's row: who holds it, and until when (epoch seconds)."""

    holder: str
    epoch: int
    expires: float


class Lease:
    """The lease ``name`` from the view of one process, ``holder`` being that process's random id.

    It lasts for ``seconds`` after the last call of :meth:`hold`.
    """

    def __init__(
        self,
        sql: Sql,
        name: str,
        holder: str,
        seconds: float,
        *,
        clock: Callable[[Connection], float] = database_time,
    ) -> None:
        self._sql = sql
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._clock = clock
        #: The epoch in which this process holds the lease, or None if it does not hold it.
        #: Valid inside the transaction that holds it.
        self.epoch: int | None = None

    def free(self, conn: Connection) -> bool:
        """Whether the lease is ours or available, as far as can be seen without a lock."""
        row = self._read(conn)
        return row is None or row.holder == self._holder or self._expired(conn, row)

    def hold(self, conn: Connection) -> bool:
        """Take or renew the lease until the end of this transaction, and ``seconds`` more.

        False if another process has it; never waits for that.  To be called first in a
        transaction.  Raises the database's errors.
        """
        self.epoch = None
        if not self.free(conn):
            return False
        row = self._lock(conn)
        # It may have been taken since the check without the lock.
        if row is None or (row.holder != self._holder and not self._expired(conn, row)):
            return False
        epoch = row.epoch if row.holder == self._holder else row.epoch + 1
        c = schema.lease.c
        conn.execute(
            update(schema.lease)
            .where(c.name == self._name)
            .values(holder=self._holder, epoch=epoch, expires=self._clock(conn) + self._seconds)
        )
        self.epoch = epoch
        return True

    def release(self, conn: Connection) -> None:
        """Release the lease so that the next holder need not wait; does nothing if not held."""
        if self.epoch is None:
            return
        self.epoch = None
        c = schema.lease.c
        conn.execute(
            update(schema.lease)
            .where(c.name == self._name, c.holder == self._holder)
            .values(holder=_NOBODY, expires=0.0)
        )

    def _read(self, conn: Connection, *, lock: bool = False) -> _Row | None:
        c = schema.lease.c
        query = select(c.holder, c.epoch, c.expires).where(c.name == self._name)
        row = conn.execute(query.with_for_update(nowait=True) if lock else query).first()
        return None if row is None else _Row(*row)

    def _lock(self, conn: Connection) -> _Row | None:
        """Lock the lease's row, created if missing; None if another process has it locked."""
        try:
            row = self._read(conn, lock=True)
            if row is None:
                keys = ("name", "holder", "epoch", "expires")
                self._sql.ensure(conn, schema.lease, keys, [(self._name, _NOBODY, 0, 0.0)])
                row = self._read(conn, lock=True)
        except DBAPIError as error:
            # On SQLite a transaction that may write locks the whole database anyway.
            if conn.dialect.name != "sqlite" and code(error) in _LOCKED:
                return None
            raise
        return row

    def _expired(self, conn: Connection, row: _Row) -> bool:
        """Whether it has expired, or lies so far ahead that the clock must have been set back."""
        now = self._clock(conn)
        return not now < row.expires <= now + self._seconds

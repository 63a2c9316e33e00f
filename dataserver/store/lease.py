"""A lease in the database: what one process does for all, and never two at the same moment.

The holder renews the lease in every transaction of its work, which locks the lease's row
until the commit.  So the work of two holders cannot overlap, however long one of them is
paused: stopped between two transactions it finds the lease taken by somebody else, stopped
inside one it keeps the others out (MariaDB ends such a transaction after a while, see
:mod:`dataserver.store.database`, and then nothing of it has happened).  The epoch grows with
every change of the holder, so that what was done outside of the database can be told apart
too.

Whether a lease has expired, the database's clock decides: the hosts' do not matter.  On a
Galera cluster the row is locked on one node only; there both holders write it, and the one
who commits second is rolled back.
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

# -- the one clock that all servers of a database share: the database's own

# Not NOW(): its meaning depends on the session's time zone, and is doubled when clocks change.
_MYSQL = text("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")


def database_time(conn: Connection) -> float:
    """Epoch seconds, with a fraction.  SQLite has no clock but the machine's, where it lies."""
    if conn.dialect.name == "sqlite":
        return time.time()
    return int(conn.scalar(_MYSQL)) / 1e6


# -- lease --

#: What MariaDB and MySQL say, at once, of a row that is locked.
_LOCKED = frozenset({1205, 3572})
_NOBODY = ""


class _Turn(NamedTuple):
    """The lease's row: whose turn it is."""

    holder: str
    epoch: int
    expires: float


class Lease:
    """The lease ``name`` as the process ``holder`` (a random id of its own) sees it.

    It lasts for ``seconds`` after it was held last.
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
        #: Which change of holders this one's turn came with; None: it does not hold the lease.
        #: Valid inside the transaction that holds it.
        self.epoch: int | None = None

    def free(self, conn: Connection) -> bool:
        """Whether the lease is ours or to be had, as far as can be seen without a lock."""
        turn = self._read(conn)
        return turn is None or turn.holder == self._holder or self._expired(conn, turn)

    def hold(self, conn: Connection) -> bool:
        """Have the lease until the end of this transaction, and ``seconds`` more.

        False: another one has it.  To be called first in a transaction; waits for nobody.
        Raises what the database raises.
        """
        self.epoch = None
        if not self.free(conn):
            return False
        turn = self._lock(conn)
        # What was free a moment ago may be taken, hence all of it again.
        if turn is None or (turn.holder != self._holder and not self._expired(conn, turn)):
            return False
        epoch = turn.epoch if turn.holder == self._holder else turn.epoch + 1
        c = schema.lease.c
        conn.execute(
            update(schema.lease)
            .where(c.name == self._name)
            .values(holder=self._holder, epoch=epoch, expires=self._clock(conn) + self._seconds)
        )
        self.epoch = epoch
        return True

    def release(self, conn: Connection) -> None:
        """Let go, so that the next one need not wait; does nothing where it is not ours."""
        if self.epoch is None:
            return
        self.epoch = None
        c = schema.lease.c
        conn.execute(
            update(schema.lease)
            .where(c.name == self._name, c.holder == self._holder)
            .values(holder=_NOBODY, expires=0.0)
        )

    def _read(self, conn: Connection, *, lock: bool = False) -> _Turn | None:
        c = schema.lease.c
        query = select(c.holder, c.epoch, c.expires).where(c.name == self._name)
        row = conn.execute(query.with_for_update(nowait=True) if lock else query).first()
        return None if row is None else _Turn(*row)

    def _lock(self, conn: Connection) -> _Turn | None:
        """Lock the lease's row, which is made if need be; None: somebody has it locked."""
        try:
            turn = self._read(conn, lock=True)
            if turn is None:
                keys = ("name", "holder", "epoch", "expires")
                self._sql.ensure(conn, schema.lease, keys, [(self._name, _NOBODY, 0, 0.0)])
                turn = self._read(conn, lock=True)
        except DBAPIError as error:
            # On SQLite every transaction that may write has the whole database to itself.
            if conn.dialect.name != "sqlite" and code(error) in _LOCKED:
                return None
            raise
        return turn

    def _expired(self, conn: Connection, turn: _Turn) -> bool:
        """Whether its time is over.  Further ahead than any lease lasts: the clock was set back."""
        now = self._clock(conn)
        return not now < turn.expires <= now + self._seconds

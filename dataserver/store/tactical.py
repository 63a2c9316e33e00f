"""Reads figures of a whole Pandora database for the tactical view of its console.

The console reads them as values of modules of the self-monitoring agent, by name.  One process
reads them for all, and only what is cheap: sums of the agents' counts, the database server's
counters, the catalogue's estimates; no history is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Engine, and_, case, func, literal, select, text

from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import Kind, Layout, reading
from dataserver.store.lease import Lease, database_time
from dataserver.store.sql import Sql

_DAY = 86_400
#: Events of a day are counted up to this number.
_MOST_EVENTS = 1_000_000
_MIB = 2**20

#: The number of rows is an estimate.
_SIZES = text(
    "SELECT SUM(t.data_length + t.index_length) AS bytes,"
    " SUM(CASE WHEN t.table_name = 'tagente_datos_string' THEN t.table_rows END) AS texts"
    " FROM information_schema.tables t WHERE t.table_schema = DATABASE()"
)
_READS = ("Com_select",)
_WRITES = (
    *("Com_insert", "Com_insert_select", "Com_update", "Com_update_multi", "Com_delete"),
    *("Com_delete_multi", "Com_replace", "Com_replace_select", "Com_load"),
)
_COUNTERS = text(
    "SHOW GLOBAL STATUS WHERE Variable_name IN "
    "(" + ", ".join(f"'{name}'" for name in (*_READS, *_WRITES)) + ")"
)


class Tactical:
    """Reads the figures if this process holds the lease; does nothing on other databases."""

    def __init__(
        self,
        engine: Engine,
        layout: Layout,
        holder: str,
        seconds: float,
        *,
        clock: Callable[[Connection], float] = database_time,
    ) -> None:
        """``holder`` is the process's random id; another one takes over after ``seconds``."""
        self._engine = engine
        self._layout = layout
        self._lease = Lease(Sql(engine.dialect), "tactical", holder, seconds, clock=clock)

    def read(self, now: int) -> dict[str, float]:
        """The figures at ``now`` (epoch seconds) by module; empty if another process reads them.

        Counters are the database server's, since its start.  Raises StoreError.
        """
        if self._layout.kind is not Kind.PANDORA:
            return {}
        with translating("read the console's figures"):
            with self._engine.begin() as conn:
                if not self._lease.hold(conn):
                    return {}
            with reading(self._engine) as conn:
                return self._counts(conn) | self._events(conn, now) | _server(conn)

    def leave(self) -> None:
        """Release the lease for another process or the next run of this one.  Raises StoreError."""
        if self._lease.epoch is not None:
            with (
                translating("release the lease of the console's figures"),
                self._engine.begin() as conn,
            ):
                self._lease.release(conn)

    def _counts(self, conn: Connection) -> dict[str, float]:
        a = schema.agent.c
        # The console calls an agent unknown if none of its modules is critical or warning.
        unknown = and_(a.unknown_count > 0, a.critical_count == 0, a.warning_count == 0)
        sums = (func.sum(a.total_count), func.sum(a.notinit_count), func.sum(case((unknown, 1))))
        row = conn.execute(select(*sums).where(a.disabled == 0)).one()
        groups = conn.scalar(select(func.count()).select_from(schema.group))
        modules, not_initialised, agents = (float(figure or 0) for figure in row)
        return {
            "total_modules": modules,
            "total_notinit": not_initialised,
            "total_unknown": agents,
            "total_groups": float(groups or 0),
        }

    def _events(self, conn: Connection, now: int) -> dict[str, float]:
        c = schema.event.c
        if not self._layout.has(c.time):
            return {}
        some = select(literal(1)).where(c.time > now - _DAY).limit(_MOST_EVENTS).subquery()
        return {"last_events_24h": float(conn.scalar(select(func.count()).select_from(some)) or 0)}


def _server(conn: Connection) -> dict[str, float]:
    """The figures of the database server itself."""
    size, texts = conn.execute(_SIZES).one()
    counters = {row[0]: float(row[1]) for row in conn.execute(_COUNTERS)}
    return {
        "mysql_size_of_data": float(size or 0) / _MIB,
        "total_string_data": float(texts or 0),
        "mysql_questions_reads": sum(counters.get(name, 0.0) for name in _READS),
        "mysql_questions_writes": sum(counters.get(name, 0.0) for name in _WRITES),
    }

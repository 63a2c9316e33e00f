"""Agents and modules put into a store as rows, and looked at as rows: for what acts on silence."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, insert, select, update

from dataserver.rules.times import local_text
from dataserver.store import schema
from dataserver.store.events import EventLog
from dataserver.store.sql import Sql
from tests.support.databases import Database
from tests.support.ingest import ZONE

#: The clock of these tests, and the interval of their agents and modules (s).
NOW = 1_800_000_000
INTERVAL = 300
#: A module whose newest value was processed then is overdue; :data:`LATELY`: not yet.
LONG_AGO, LATELY = NOW - 2 * INTERVAL - 1, NOW - 2 * INTERVAL

NORMAL, CRITICAL, WARNING, UNKNOWN, NOT_INITIALISED = range(5)


def text(time: int) -> str:
    """Local time, as the store writes it."""
    return local_text(time, ZONE)


class Monitored:
    """One prepared database and the means to fill and read it."""

    def __init__(self, database: Database) -> None:
        self.layout = database.prepare()
        self.engine = database.engine()
        self.sql = Sql(self.engine.dialect)
        self.events = EventLog(self.sql, self.layout)
        with self.engine.connect() as conn:
            t = schema.module_type.c
            self.types = {row.name: row.id for row in conn.execute(select(t.id, t.name))}

    def insert(self, table: Table, **values: Any) -> int:
        """A row; its id."""
        with self.engine.begin() as conn:
            key = conn.execute(insert(table).values(values)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def agent(self, name: str = "one", **values: Any) -> int:
        """An enabled agent that learns, last heard of long ago; its id."""
        row = {"group_id": 10, "mode": 1, "interval": INTERVAL, "contact": text(LONG_AGO)}
        return self.insert(schema.agent, name=name, alias=name, **row | values)

    def module(self, agent_id: int, name: str, kind: str = "generic_data", **values: Any) -> int:
        """A normal module with its state, overdue unless told otherwise; its id.

        ``values`` go to the columns of the state where it has such, else to the module's.
        """
        row = {"server_kind": 1, "type_id": self.types[kind], "agent_id": agent_id}
        state = {
            "processed": LONG_AGO,
            "current_interval": INTERVAL,
            "value": "5.00000",
            "local_time": text(LONG_AGO),
            "saved": text(LONG_AGO),
        }
        for key in ("status", "known_status", "last_status", "last_known_status"):
            state[key] = values.get("status", NORMAL)
        columns = schema.state.c
        state |= {key: value for key, value in values.items() if key in columns}
        row |= {key: value for key, value in values.items() if key not in columns}
        module_id = self.insert(schema.module, name=name, **row)
        self.insert(schema.state, module_id=module_id, agent_id=agent_id, **state)
        return module_id

    def set(self, table: Table, key: int, **values: Any) -> None:
        """Change a row of agents or modules by its id, or a state by its module's."""
        c = table.c
        found = c.module_id if table is schema.state else c.id
        with self.engine.begin() as conn:
            conn.execute(update(table).where(found == key).values(values))

    def rows(self, table: Table, *order: str) -> list[dict[str, Any]]:
        """All rows of a table, by the columns' English keys."""
        columns = self.layout.columns(table)
        query = select(*columns).order_by(*(table.c[key] for key in order or ("id",)))
        with self.engine.connect() as conn:
            return [
                {column.key: cell for column, cell in zip(columns, row, strict=True)}
                for row in conn.execute(query)
            ]

    def state(self, module_id: int) -> dict[str, Any]:
        """The state of one module."""
        return next(row for row in self.rows(schema.state) if row["module_id"] == module_id)

    def statuses(self) -> list[int]:
        """Of all modules, in their order."""
        return [row["status"] for row in self.rows(schema.state, "module_id")]

    def counts(self, agent_id: int) -> list[int]:
        """An agent's modules: normal, critical, warning, unknown, not initialised, in all."""
        row = next(row for row in self.rows(schema.agent) if row["id"] == agent_id)
        names = ("normal", "critical", "warning", "unknown", "notinit", "total")
        return [row[f"{name}_count"] for name in names]

    def versions(self) -> dict[int, tuple[int, int]]:
        """Version and newest packet time by agent."""
        rows = self.rows(schema.agent_version, "agent_id")
        return {row["agent_id"]: (row["version"], row["newest"]) for row in rows}

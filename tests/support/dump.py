"""All that a database holds, in a form in which two databases can be compared row for row.

Ids are given in the order in which things happen to be created, so each one is replaced by
the name of what it stands for.  What is left out, and why, is listed here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, select

from dataserver.store import schema

#: Columns that hold the clock of the run, count its transactions, or say which server ran: one
#: whose row is not there yet, at its very first batch, writes none.
CLOCKS = {
    schema.agent.c.contact,
    schema.state.c.processed,
    schema.state.c.running_by,
    schema.packet.c.arrived,
    schema.agent_version.c.version,
    schema.event.c.time,
    schema.event.c.local_time,
    schema.event.c.ack_utimestamp,
}

#: Names of rows that are only locked while something is created: a digest each, no content.
#: Who ran, when and how often is no part of what was taken in.
_LEFT_OUT = {schema.unique_name, schema.server, schema.server_process, schema.lease}

Names = dict[int, Any]
Dump = dict[str, list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class _Ids:
    """What stands behind the ids of a database."""

    agents: Names
    modules: Names
    addresses: Names
    inventories: Names

    @classmethod
    def read(cls, conn: Connection) -> _Ids:
        agents = _names(conn, select(schema.agent.c.id, schema.agent.c.name))
        module, inventory = schema.module.c, schema.inventory.c
        rows = conn.execute(select(module.id, module.agent_id, module.name))
        modules = {row[0]: (agents[row[1]], row[2]) for row in rows}
        rows = conn.execute(select(inventory.id, inventory.agent_id, inventory.inventory_module_id))
        inventories = {row[0]: (agents[row[1]], row[2]) for row in rows}
        addresses = _names(conn, select(schema.address.c.id, schema.address.c.ip))
        return cls(agents, modules, addresses, inventories)

    def of(self, key: str) -> Names | None:
        """The names behind the column ``key``; None where it is no id of something learned."""
        return {
            "agent_id": self.agents,
            "parent_id": self.agents,
            "module_id": self.modules,
            "parent_module_id": self.modules,
            "address_id": self.addresses,
            "inventory_id": self.inventories,
        }.get(key)


def dump(engine: Engine) -> Dump:
    """Every table's rows without ids and clocks, sorted, by the table's name."""
    with engine.connect() as conn:
        ids = _Ids.read(conn)
        tables = [*schema.pandora.sorted_tables, *schema.ours.sorted_tables]
        return {table.name: _rows(conn, table, ids) for table in tables if table not in _LEFT_OUT}


def differences(expected: Dump, found: Dump) -> list[str]:
    """Some of the rows that only one of two dumps has, in words; none where they are equal."""
    said = []
    for name, rows in expected.items():
        wanted, have = _counted(rows), _counted(found[name])
        for text, one, other in (("missing", wanted, have), ("too much", have, wanted)):
            only = [row for row, count in one.items() if count > other.get(row, 0)]
            said += [f"{name}: {text}: {row}" for row in only[:5]]
    return said


def _counted(rows: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], int]:
    counts: dict[tuple[Any, ...], int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    return counts


def _rows(conn: Connection, table: Table, ids: _Ids) -> list[tuple[Any, ...]]:
    # Without its id a row of these is still told from others: by its names.
    columns = [column for column in table.c if column not in CLOCKS and column.key != "id"]
    turn = [_translator(ids.of(column.key)) for column in columns]
    query = select(*columns)
    if table is schema.event:
        # Of no agent are those of the servers that came and went.
        query = query.where(table.c.agent_id != 0)
    found = conn.execute(query)
    rows = [tuple(f(cell) for f, cell in zip(turn, row, strict=True)) for row in found]
    return sorted(rows, key=repr)


def _translator(names: Names | None) -> Callable[[Any], Any]:
    if names is None:
        return lambda cell: bytes(cell) if isinstance(cell, bytes) else cell
    # Zero is nobody; an id without a row is a defect, which the comparison is to show.
    return lambda cell: cell and names.get(cell, f"id {cell} of nothing")


def _names(conn: Connection, query: Any) -> Names:
    return {row[0]: row[1] for row in conn.execute(query)}

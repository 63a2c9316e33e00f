"""Stores a packet's other sections: addresses, custom fields, inventory; and servers' own packets.

Most agents send the same in every packet, so the last sections are cached, and only differences
are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Table, insert, select, update

from dataserver.model import InventoryModule, Packet
from dataserver.rules import entities
from dataserver.rules.events import inventory_event
from dataserver.rules.refusals import Refusal
from dataserver.store import columns, schema
from dataserver.store.cache import AgentEntry, in_chunks
from dataserver.store.changes import Changes
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.ledger import KIND_ADDRESS, lock_names
from dataserver.store.reference import Reference
from dataserver.store.servers import Servers
from dataserver.store.sql import Sql

_INVENTORY = {
    schema.inventory_module: ("id", "os_id", "name"),
    schema.inventory: (
        *("id", "agent_id", "inventory_module_id", "data", "local_time", "time", "custom_fields"),
    ),
    schema.inventory_history: ("inventory_id", "data", "local_time", "time"),
}


class Sections:
    """Writes the sections of packets through one transaction's connection."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self._layout = layout
        # Written only if all of its columns exist; an older database may lack some or all.
        self._inventory = all(_has_all(layout, table, keys) for table, keys in _INVENTORY.items())
        self._servers = Servers(sql, layout, EventLog(sql, layout))

    def apply(
        self,
        conn: Connection,
        agent: AgentEntry,
        packet: Packet,
        time: int,
        local_text: str,
        reference: Reference,
        first: bool,
        batch: Changes,
    ) -> None:
        """Write what differs from the last packet; ``first``: this packet created the agent.

        Addresses and events are added to ``batch`` and written at its end.
        """
        sections = (packet.address, packet.custom_fields)
        if sections != agent.sections and (agent.mode != 0 or first):
            listed = columns.addresses(packet)
            # An agent in mode 0 keeps only the address of its first packet.
            if agent.mode == 0:
                del listed[1:]
            if listed:
                fitting = (columns.fit(schema.address, "ip", ip) for ip in listed)
                batch.addresses[agent.id] = list(dict.fromkeys(fitting))
            _set_custom_fields(conn, agent, packet.custom_fields, reference, batch)
        agent.sections = sections
        if self._inventory:
            for module in {module.name: module for module in packet.inventory}.values():
                self._set_inventory(conn, agent, module, time, local_text, reference, batch)

    def add_addresses(self, conn: Connection, by_agent: Mapping[int, Sequence[str]]) -> None:
        """Add missing addresses (given by agent id) and the agents' missing links to them."""
        wanted = sorted({ip for listed in by_agent.values() for ip in listed})
        known = _address_ids(conn, wanted)
        if missing := [ip for ip in wanted if ip not in known]:
            lock_names(conn, self._sql, KIND_ADDRESS, missing)
            known |= _address_ids(conn, missing)
            new = [(ip,) for ip in missing if ip not in known]
            if new:
                self._sql.insert(conn, schema.address, ("ip",), new)
                known |= _address_ids(conn, missing)
        linked = _links(conn, list(by_agent))
        rows = {
            (known[ip], agent_id): None
            for agent_id, listed in sorted(by_agent.items())
            for ip in listed
            if (known[ip], agent_id) not in linked
        }
        if rows:
            self._sql.insert(conn, schema.agent_address, ("address_id", "agent_id"), list(rows))

    def _set_inventory(
        self,
        conn: Connection,
        agent: AgentEntry,
        module: InventoryModule,
        time: int,
        local_text: str,
        reference: Reference,
        batch: Changes,
    ) -> None:
        """Store the current inventory, and a row of its history if it is new or differs."""
        module_id = reference.inventory_modules.get((agent.os_id, entities.encode(module.name)))
        if module_id is None:
            batch.refuse(agent, "", Refusal.INVENTORY, module.name)
            return
        c = schema.inventory.c
        data = entities.encode("".join(f"{row}\n" for row in module.rows)).encode(
            "utf-8", "replace"
        )
        here = (c.agent_id == agent.id, c.inventory_module_id == module_id)
        query = select(c.id, c.data, c.time).where(*here).order_by(c.id).limit(1)
        known = conn.execute(query).first()
        now = {"data": data, "local_time": local_text, "time": time}
        present = self._layout.present(schema.inventory, {**now, "interval": agent.interval})
        if known is None:
            row = {
                "agent_id": agent.id,
                "inventory_module_id": module_id,
                "custom_fields": b"",
                "flag": 0,
                **present,
            }
            row = self._layout.present(schema.inventory, row)
            result = conn.execute(insert(schema.inventory).values(row))
            assert result.inserted_primary_key is not None
            inventory_id = result.inserted_primary_key[0]
        else:
            inventory_id = known[0]
            conn.execute(update(schema.inventory).where(c.id == inventory_id).values(present))
        before = None if known is None else bytes(known[1] or b"")
        # A row that the console created and no packet has filled yet is not a change.
        is_filled = known is not None and known[2]
        makes_event = module_id not in reference.untold_inventory and not agent.quiet
        if before is not None and before != data and is_filled and makes_event:
            lists = before.decode("utf-8", "replace"), data.decode()
            batch.events.append(inventory_event(agent.id, agent.alias, module.name, *lists))
        if before != data:
            keys = ("inventory_id", *now)
            rows = [(inventory_id, *now.values())]
            self._sql.upsert(conn, schema.inventory_history, keys, rows)

    def server(self, conn: Connection, packet: Packet, now: int, now_text: str) -> None:
        """Store a server's own packet: see :mod:`dataserver.store.servers`."""
        self._servers.packet(conn, packet, now, now_text)


def _has_all(layout: Layout, table: Table, keys: Sequence[str]) -> bool:
    return all(layout.has(table.c[key]) for key in keys)


def _address_ids(conn: Connection, wanted: list[str]) -> dict[str, int]:
    """The ids of the addresses that exist; of duplicates the oldest."""
    c = schema.address.c
    found: dict[str, int] = {}
    for some in in_chunks(wanted):
        query = select(c.ip, c.id).where(c.ip.in_(some)).order_by(c.id.desc())
        found.update((row[0], row[1]) for row in conn.execute(query))
    # A collation may treat another spelling as equal.
    folded = {ip.casefold(): address_id for ip, address_id in found.items()}
    return {ip: folded[ip.casefold()] for ip in wanted if ip.casefold() in folded}


def _links(conn: Connection, agent_ids: list[int]) -> set[tuple[int, int]]:
    """The existing (address, agent) links."""
    c = schema.agent_address.c
    found: set[tuple[int, int]] = set()
    for ids in in_chunks(agent_ids):
        query = select(c.address_id, c.agent_id).where(c.agent_id.in_(ids))
        found.update((row[0], row[1]) for row in conn.execute(query))
    return found


def _set_custom_fields(
    conn: Connection,
    agent: AgentEntry,
    fields: tuple[tuple[str, str], ...],
    reference: Reference,
    batch: Changes,
) -> None:
    """Set the agent's values of the custom fields that the administrator defined."""
    c = schema.custom_value.c
    for name, text in dict(fields).items():  # the last of repeated fields counts
        field_id = reference.custom_fields.get(entities.encode(name))
        if field_id is None:
            batch.refuse(agent, "", Refusal.CUSTOM_FIELD, name)
            continue
        here = (c.field_id == field_id, c.agent_id == agent.id)
        known = conn.execute(select(c.value).where(*here)).first()
        value = columns.fit(schema.custom_value, "value", entities.encode(text))
        if known is None:
            row = {"field_id": field_id, "agent_id": agent.id, "value": value}
            conn.execute(insert(schema.custom_value).values(row))
        elif known[0] != value:
            conn.execute(update(schema.custom_value).where(*here).values(value=value))

"""A packet's other sections: addresses, custom fields, inventory, and servers' own packets.

Most agents send the same in every packet, so what was written last is remembered and
only a difference costs anything.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from dataserver import entities
from dataserver.model import InventoryModule, Packet
from dataserver.store import columns, schema
from dataserver.store.catalog import AgentEntry
from dataserver.store.ledger import KIND_ADDRESS, lock_names
from dataserver.store.probe import Layout
from dataserver.store.reference import Reference
from dataserver.store.sql import Sql

#: Type of a server that reports by packet and does not say (a satellite server).
_SATELLITE = 13


class Sections:
    """Writes the sections of packets through one transaction's connection."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self._inventory = layout.has(schema.inventory) and layout.has(schema.inventory_module)
        self._servers = layout.has(schema.server)

    def apply(
        self,
        conn: Connection,
        agent: AgentEntry,
        packet: Packet,
        time: int,
        local_text: str,
        reference: Reference,
        first: bool,
    ) -> None:
        """Write what differs from the last packet; ``first``: the one that created the agent."""
        told = (packet.address, packet.custom_fields)
        if told != agent.sections and (agent.mode != 0 or first):
            listed = columns.addresses(packet)
            # An agent that does not learn keeps the address it came with, and only that.
            self._add_addresses(conn, agent, listed[:1] if agent.mode == 0 else listed)
            _set_custom_fields(conn, agent, packet.custom_fields, reference)
        agent.sections = told
        if self._inventory:
            for module in packet.inventory:
                self._set_inventory(conn, agent, module, time, local_text, reference)

    def _add_addresses(self, conn: Connection, agent: AgentEntry, listed: list[str]) -> None:
        """Enter addresses and the agent's links to them, where they are missing."""
        wanted = [columns.fit(schema.address, "ip", text) for text in listed]
        if not wanted:
            return
        known = _address_ids(conn, wanted)
        if missing := [ip for ip in wanted if ip not in known]:
            lock_names(conn, self._sql, KIND_ADDRESS, missing)
            known |= _address_ids(conn, missing)
        link = schema.agent_address.c
        query = select(link.address_id).where(link.agent_id == agent.id)
        linked = {row[0] for row in conn.execute(query)}
        for ip in wanted:
            if ip not in known:
                result = conn.execute(insert(schema.address).values(ip=ip))
                assert result.inserted_primary_key is not None
                known[ip] = result.inserted_primary_key[0]
            if known[ip] not in linked:
                linked.add(known[ip])
                row = {"address_id": known[ip], "agent_id": agent.id}
                conn.execute(insert(schema.agent_address).values(row))

    def _set_inventory(
        self,
        conn: Connection,
        agent: AgentEntry,
        module: InventoryModule,
        time: int,
        local_text: str,
        reference: Reference,
    ) -> None:
        """Store the present inventory; a row of its history where it is new or differs."""
        module_id = reference.inventory_modules.get((agent.os_id, entities.encode(module.name)))
        if module_id is None:
            return
        c = schema.inventory.c
        data = entities.encode("".join(f"{row}\n" for row in module.rows)).encode("utf-8", "replace")
        here = (c.agent_id == agent.id, c.inventory_module_id == module_id)
        known = conn.execute(select(c.id, c.data).where(*here).order_by(c.id).limit(1)).first()
        now = {"data": data, "local_time": local_text, "time": time}
        if known is None:
            row = {"agent_id": agent.id, "inventory_module_id": module_id, "custom_fields": b"", **now}
            result = conn.execute(insert(schema.inventory).values(row))
            assert result.inserted_primary_key is not None
            inventory_id = result.inserted_primary_key[0]
        else:
            inventory_id = known[0]
            conn.execute(update(schema.inventory).where(c.id == inventory_id).values(now))
        if known is None or bytes(known[1] or b"") != data:
            keys = ("inventory_id", *now)
            rows = [(inventory_id, *now.values())]
            self._sql.upsert(conn, schema.inventory_history, keys, rows)

    def server(self, conn: Connection, packet: Packet, now: int, now_text: str) -> None:
        """A server's own packet: keep its row in ``tserver`` alive, creating it if need be."""
        if not self._servers or not packet.server_name:
            return
        c = schema.server.c
        name = columns.fit(schema.server, "name", packet.server_name)
        kind = columns.to_int(packet.server_type, 0, 255) or _SATELLITE
        row: dict[str, Any] = {
            "status": 1,
            "keepalive": now_text,
            "version": columns.fit(schema.server, "version", packet.version or ""),
            "server_keepalive_utimestamp": now,
        }
        if packet.address:
            row["ip_address"] = columns.fit(schema.server, "ip_address", packet.address)
        known = conn.scalar(
            select(c.id).where(c.name == name, c.server_type == kind).order_by(c.id).limit(1)
        )
        if known is not None:
            conn.execute(update(schema.server).where(c.id == known).values(row))
            return
        row |= {"name": name, "server_type": kind, "laststart": now_text, "ip_address": ""} | row
        conn.execute(insert(schema.server).values(row))


def _address_ids(conn: Connection, wanted: list[str]) -> dict[str, int]:
    """The ids of those addresses that are there, the oldest of doubles."""
    c = schema.address.c
    query = select(c.ip, c.id).where(c.ip.in_(wanted)).order_by(c.id.desc())
    return dict(conn.execute(query).tuples().all())


def _set_custom_fields(
    conn: Connection,
    agent: AgentEntry,
    fields: tuple[tuple[str, str], ...],
    reference: Reference,
) -> None:
    """Set the agent's values of those fields that the administrator defined."""
    c = schema.custom_value.c
    for name, text in fields:
        field_id = reference.custom_fields.get(entities.encode(name))
        if field_id is None:
            continue
        here = (c.field_id == field_id, c.agent_id == agent.id)
        known = conn.execute(select(c.value).where(*here)).first()
        value = columns.fit(schema.custom_value, "value", entities.encode(text))
        if known is None:
            row = {"field_id": field_id, "agent_id": agent.id, "value": value}
            conn.execute(insert(schema.custom_value).values(row))
        elif known[0] != value:
            conn.execute(update(schema.custom_value).where(*here).values(value=value))

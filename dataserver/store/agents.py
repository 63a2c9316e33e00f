"""Creates agents, and changes known ones as their packets say.

Pandora's table has no unique key on names, so creation is serialised by a row of ``tname`` per
name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import Connection, func, select, update

from dataserver.errors import PacketError, Reason
from dataserver.model import Packet
from dataserver.rules import entities
from dataserver.store import columns, schema
from dataserver.store.cache import AgentCache, AgentEntry, folded_name
from dataserver.store.layout import Layout
from dataserver.store.ledger import KIND_AGENT, lock_names
from dataserver.store.reference import Reference, read_satellites
from dataserver.store.sql import Sql


@dataclass(frozen=True, slots=True)
class AutoCreatePolicy:
    """Which agents and modules may be created, from the settings."""

    server_name: str
    autocreate: bool = True
    group_id: int = 10
    group_name: str = ""
    group_force: bool = False
    update_parent: bool = True
    max_agents: int = 100_000
    max_modules: int = 10_000


#: Counting agents reads a whole index, so it is done only after this many seconds, unless the
#: last count reached this share of the limit.
_COUNT_EVERY, _NEARLY = 60.0, 0.9


class Agents:
    """Creates and changes agents through one transaction's connection."""

    def __init__(
        self, sql: Sql, layout: Layout, catalog: AgentCache, learning: AutoCreatePolicy
    ) -> None:
        self._sql = sql
        self._layout = layout
        self._catalog = catalog
        self._learning = learning
        #: The number of agents, and when they were counted (monotonic seconds).
        self._counted = (0, float("-inf"))

    def check_name(self, raw: str) -> PacketError | None:
        """An error if the name ``raw`` is too long for any agent, so that it is not looked up."""
        name = entities.encode(entities.clean_name(raw))
        longest = columns.AGENT_NAME_LENGTH
        if len(name) <= longest:
            return None
        return PacketError(
            Reason.NAME_TOO_LONG,
            f"the agent's name takes {len(name)} characters as stored, the column {longest}",
        )

    def check(self, packet: Packet, reference: Reference) -> None:
        """Raise PacketError if the unknown agent of ``packet`` must not be created."""
        if not self._learning.autocreate:
            raise PacketError(Reason.NO_AGENT, "the agent is unknown and autocreate is off")
        if self._group(packet, reference) is None:
            raise PacketError(
                Reason.NO_GROUP, "neither the packet nor autocreate_group names an existing group"
            )

    def create(
        self, conn: Connection, packets: Mapping[str, Packet], reference: Reference, now_text: str
    ) -> dict[str, PacketError]:
        """Create the agents of ``packets`` (by name as written); returns errors by name."""
        refused: dict[str, PacketError] = {}
        for raw, packet in packets.items():
            try:
                self.check(packet, reference)
            except PacketError as error:
                refused[raw] = error
        wanted = [raw for raw in packets if raw not in refused]
        if wanted and self._learning.max_agents <= self._count(conn):
            # No name is locked for agents that cannot be created.
            refused |= dict.fromkeys(wanted, self._too_many())
            wanted = []
        if not wanted:
            return refused
        lock_names(conn, self._sql, KIND_AGENT, wanted)
        # Another server may have created some while we waited for the lock.
        self._catalog.find(conn, wanted)
        room = self._learning.max_agents - self._count(conn)
        rows: dict[str, dict[str, Any]] = {}
        for raw in wanted:
            # Two spellings of one name in a batch are one agent if the database treats them as
            # equal.  It is asked afterwards; until then only the first of similar names is created.
            key = folded_name(entities.encode(entities.clean_name(raw)))
            if self._catalog.get(raw) is not None or key in rows:
                continue
            if len(rows) >= room:
                refused[raw] = self._too_many()
                continue
            rows[key] = self._row(packets[raw], reference, now_text)
        if rows:
            self._insert(conn, list(rows.values()))
            self._counted = (self._counted[0] + len(rows), self._counted[1])
        missing = [raw for raw in wanted if raw not in refused and self._catalog.get(raw) is None]
        self._catalog.find(conn, missing)
        alike = [raw for raw in missing if self._catalog.get(raw) is None]
        for raw in missing:
            agent = self._catalog.get(raw)
            if agent is not None and agent.version < 0:
                agent.created = True
        self._set_parents(conn, packets, missing)
        # Names that were only similar are agents of their own.
        again = {raw: packets[raw] for raw in alike}
        return refused | (self.create(conn, again, reference, now_text) if again else {})

    def _too_many(self) -> PacketError:
        most = self._learning.max_agents
        return PacketError(Reason.TOO_MANY_AGENTS, f"there are {most} agents already")

    def _count(self, conn: Connection) -> int:
        """The number of agents: exact near the limit, else up to a minute old."""
        count, when = self._counted
        if count >= self._learning.max_agents * _NEARLY or monotonic() - when > _COUNT_EVERY:
            count = conn.scalar(select(func.count()).select_from(schema.agent)) or 0
            self._counted = (count, monotonic())
        return count

    def _row(self, packet: Packet, reference: Reference, now_text: str) -> dict[str, Any]:
        name = entities.encode(entities.clean_name(packet.agent_name))
        row = columns.new_agent(packet, name, now_text)
        learns = row["mode"] != 0
        row |= {
            "group_id": self._group(packet, reference),
            "os_id": reference.system(packet.os_name or ""),
            "server_name": self._learning.server_name,
            "os_version": columns.fit(
                schema.agent, "os_version", packet.os_version or "" if learns else ""
            ),
            "agent_version": columns.fit(
                schema.agent, "agent_version", packet.version or "" if learns else ""
            ),
        }
        return self._layout.present(schema.agent, row)

    def _insert(self, conn: Connection, rows: list[dict[str, Any]]) -> None:
        keys = tuple(rows[0])
        self._sql.insert(conn, schema.agent, keys, [tuple(row.values()) for row in rows])

    def _set_parents(
        self, conn: Connection, packets: Mapping[str, Packet], created: Sequence[str]
    ) -> None:
        """Set new agents' parents, which may be as new as they are."""
        rows = []
        for raw in created:
            agent = self._catalog.get(raw)
            parent_id = self._parent(conn, packets[raw]) if agent is not None else None
            if agent is not None and parent_id and parent_id != agent.id:
                rows.append((agent.id, parent_id))
        if rows:
            self._sql.update(conn, schema.agent, ("id", "parent_id"), sorted(rows))

    def _group(self, packet: Packet, reference: Reference) -> int | None:
        """The group of a new agent: the packet's or the configured one, in the configured order."""
        learning = self._learning
        named = reference.group(packet.group or "")
        if named is None and (group_id := columns.to_int(packet.group_id)) in reference.group_ids:
            named = group_id
        fallback = reference.group(learning.group_name)
        if fallback is None and learning.group_id in reference.group_ids:
            fallback = learning.group_id
        first, second = (fallback, named) if learning.group_force else (named, fallback)
        return first if first is not None else second

    def unknown_group(self, packet: Packet, reference: Reference) -> str | None:
        """The unknown group that a new agent's packet names, or None if it does not matter."""
        if self._learning.group_force or reference.group(packet.group or "") is not None:
            return None
        if columns.to_int(packet.group_id) in reference.group_ids:
            return None
        return packet.group or packet.group_id or None

    def _parent(self, conn: Connection, packet: Packet) -> int | None:
        """The id of the agent that the packet names as its parent, or None if it is unknown."""
        raw = packet.parent_agent_name
        if not raw or self.check_name(raw) is not None:
            return None
        if self._catalog.get(raw) is None:
            self._catalog.find(conn, [raw])
        parent = self._catalog.get(raw)
        return parent.id if parent is not None else None

    def update(
        self, conn: Connection, agent: AgentEntry, packet: Packet, reference: Reference
    ) -> None:
        """Change the agent's row as ``packet``, its newest, says.

        In mode 0 only its satellite server is changed (0 if the packet names no known one).
        """
        said = (
            packet.interval,
            packet.os_version,
            packet.version,
            packet.address,
            packet.timezone_offset,
            packet.parent_agent_name,
            packet.satellite_server,
        )
        if said == agent.applied and not agent.disabled:
            return
        agent.applied = said
        wanted = self._changes(conn, agent, packet) if agent.mode != 0 else {}
        wanted["satellite_server"] = self._satellite(conn, packet, reference)
        changed = {key: value for key, value in wanted.items() if getattr(agent, key) != value}
        if not changed:
            return
        if "interval" in changed:
            # Modules' intervals are multiples of it, so each must be evaluated again.
            for module in agent.modules.values():
                module.tags = None
        for key, value in changed.items():
            setattr(agent, key, value)
        row = self._layout.present(schema.agent, changed)
        if row:
            conn.execute(update(schema.agent).where(schema.agent.c.id == agent.id).values(row))

    def _satellite(self, conn: Connection, packet: Packet, reference: Reference) -> int:
        """The id of the satellite server that the packet names, or 0 if none is known."""
        name = packet.satellite_server
        if not name:
            return 0
        found = reference.satellites.get(name)
        if found is None:
            # It may have reported since the reference was read.
            found = read_satellites(conn, self._layout, name).get(name)
        return found or 0

    def _changes(self, conn: Connection, agent: AgentEntry, packet: Packet) -> dict[str, object]:
        table = schema.agent
        # As with the Perl server, these two get their defaults if the packet does not have them;
        # the others are kept.
        wanted: dict[str, object] = {
            "interval": columns.agent_interval(packet),
            "timezone_offset": columns.timezone_offset(packet),
        }
        if packet.os_version:
            wanted["os_version"] = columns.fit(table, "os_version", packet.os_version)
        if packet.version is not None:
            wanted["agent_version"] = columns.fit(table, "agent_version", packet.version)
        if self._learning.update_parent and (parent := self._parent(conn, packet)):
            wanted["parent_id"] = parent
        if not agent.fixed_ip and (first := columns.addresses(packet)[:1]):
            wanted["address"] = columns.fit(table, "address", first[0])
        if agent.disabled and agent.mode == 2:
            wanted["disabled"] = False
        return wanted

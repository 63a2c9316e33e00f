"""Learning: agents and modules that are new, and what packets may change of known ones.

Creation is serialised where Pandora's tables have no unique keys: agents by a row of
``tname`` per name, modules by the lock on their agent's version row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Table, func, select, update

from dataserver import entities
from dataserver.errors import PacketError, Reason
from dataserver.model import Module, Packet
from dataserver.status import FRESH, FRESH_ASYNC
from dataserver.store import columns, schema
from dataserver.store.catalog import (
    KEEP_ALIVE,
    AgentEntry,
    Catalog,
    ModuleEntry,
    folded_name,
    in_chunks,
)
from dataserver.store.ledger import KIND_AGENT, lock_names
from dataserver.store.probe import Layout
from dataserver.store.reference import Reference
from dataserver.store.sql import Sql
from dataserver.store.standing import rules_of
from dataserver.values import bounds, type_rule


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be learned, from the settings."""

    server_name: str
    autocreate: bool = True
    group_id: int = 10
    group_name: str = ""
    group_force: bool = False
    update_parent: bool = True
    max_agents: int = 100_000
    max_modules: int = 10_000


#: Counting agents reads an index from end to end: so seldom (s), while so far from the bound.
_COUNT_EVERY, _NEARLY = 60.0, 0.9


class Learner:
    """Creates and changes agents and modules through one transaction's connection."""

    def __init__(self, sql: Sql, layout: Layout, catalog: Catalog, rules: Rules) -> None:
        self._sql = sql
        self._layout = layout
        self._catalog = catalog
        self._rules = rules
        self._keys: dict[Table, frozenset[str]] = {}
        #: How many agents there are, and when they were counted (monotonic seconds).
        self._counted = (0, float("-inf"))

    # -- agents ----------------------------------------------------------------

    def check_name(self, raw: str) -> PacketError | None:
        """Why no agent can be called ``raw``; so long a name is not even to be looked up."""
        name = entities.encode(entities.clean_name(raw))
        longest = columns.AGENT_NAME_LENGTH
        if len(name) <= longest:
            return None
        return PacketError(
            Reason.NAME_TOO_LONG,
            f"the agent's name takes {len(name)} characters as stored, the column {longest}",
        )

    def check_agent(self, packet: Packet, reference: Reference) -> None:
        """Raise PacketError where the unknown agent of ``packet`` cannot be created."""
        if not self._rules.autocreate:
            raise PacketError(Reason.NO_AGENT, "the agent is not known and autocreate is off")
        if self._group(packet, reference) is None:
            raise PacketError(
                Reason.NO_GROUP, "neither the packet nor autocreate_group names an existing group"
            )

    def create_agents(
        self, conn: Connection, packets: Mapping[str, Packet], reference: Reference, now_text: str
    ) -> dict[str, PacketError]:
        """Create the agents of ``packets`` (by name as written); those that may not, and why."""
        refused: dict[str, PacketError] = {}
        for raw, packet in packets.items():
            try:
                self.check_agent(packet, reference)
            except PacketError as error:
                refused[raw] = error
        wanted = [raw for raw in packets if raw not in refused]
        if wanted and self._rules.max_agents <= self._count_agents(conn):
            # Not even a name is written down for what cannot be created.
            refused |= dict.fromkeys(wanted, self._too_many())
            wanted = []
        if not wanted:
            return refused
        lock_names(conn, self._sql, KIND_AGENT, wanted)
        # Another server may have created some while we waited for the lock.
        self._catalog.find(conn, wanted)
        room = self._rules.max_agents - self._count_agents(conn)
        rows: dict[str, dict[str, Any]] = {}
        for raw in wanted:
            # Two spellings of one name in a batch are one agent where the database says so; it is
            # asked afterwards, so here anything that looks alike is left to the first spelling.
            key = folded_name(entities.encode(entities.clean_name(raw)))
            if self._catalog.get(raw) is not None or key in rows:
                continue
            if len(rows) >= room:
                refused[raw] = self._too_many()
                continue
            rows[key] = self._agent_row(packets[raw], reference, now_text)
        if rows:
            self._insert_agents(conn, list(rows.values()))
            self._counted = (self._counted[0] + len(rows), self._counted[1])
        missing = [raw for raw in wanted if raw not in refused and self._catalog.get(raw) is None]
        self._catalog.find(conn, missing)
        alike = [raw for raw in missing if self._catalog.get(raw) is None]
        for raw in missing:
            agent = self._catalog.get(raw)
            if agent is not None and agent.version < 0:
                agent.created = True
        self._set_parents(conn, packets, missing)
        # What only looked alike is a name of its own.
        again = {raw: packets[raw] for raw in alike}
        return refused | (self.create_agents(conn, again, reference, now_text) if again else {})

    def _too_many(self) -> PacketError:
        most = self._rules.max_agents
        return PacketError(Reason.TOO_MANY_AGENTS, f"there are {most} agents already")

    def _count_agents(self, conn: Connection) -> int:
        """How many agents there are; near the bound exactly, far below it as of a minute ago."""
        count, when = self._counted
        if count >= self._rules.max_agents * _NEARLY or monotonic() - when > _COUNT_EVERY:
            count = conn.scalar(select(func.count()).select_from(schema.agent)) or 0
            self._counted = (count, monotonic())
        return count

    def _agent_row(self, packet: Packet, reference: Reference, now_text: str) -> dict[str, Any]:
        name = entities.encode(entities.clean_name(packet.agent_name))
        row = columns.new_agent(packet, name, now_text)
        learns = row["mode"] != 0
        row |= {
            "group_id": self._group(packet, reference),
            "os_id": reference.system(packet.os_name or ""),
            "server_name": self._rules.server_name,
            "os_version": columns.fit(
                schema.agent, "os_version", packet.os_version or "" if learns else ""
            ),
            "agent_version": columns.fit(
                schema.agent, "agent_version", packet.version or "" if learns else ""
            ),
        }
        return self._there(schema.agent, row)

    def _insert_agents(self, conn: Connection, rows: list[dict[str, Any]]) -> None:
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
        rules = self._rules
        named = reference.group(packet.group or "")
        if named is None and (group_id := columns.to_int(packet.group_id)) in reference.group_ids:
            named = group_id
        fallback = reference.group(rules.group_name)
        if fallback is None and rules.group_id in reference.group_ids:
            fallback = rules.group_id
        first, second = (fallback, named) if rules.group_force else (named, fallback)
        return first if first is not None else second

    def _parent(self, conn: Connection, packet: Packet) -> int | None:
        """The id of the agent that the packet names as its parent, if there is one."""
        raw = packet.parent_agent_name
        if not raw or self.check_name(raw) is not None:
            return None
        if self._catalog.get(raw) is None:
            self._catalog.find(conn, [raw])
        parent = self._catalog.get(raw)
        return parent.id if parent is not None else None

    def update_agent(self, conn: Connection, agent: AgentEntry, packet: Packet) -> None:
        """Let ``packet``, the agent's newest, change the agent's row (modes 1 and 2 only)."""
        told = (
            packet.interval,
            packet.os_version,
            packet.version,
            packet.address,
            packet.timezone_offset,
            packet.parent_agent_name,
        )
        if agent.mode == 0 or (told == agent.told and not agent.disabled):
            return
        agent.told = told
        wanted = self._agent_changes(conn, agent, packet)
        changed = {key: value for key, value in wanted.items() if getattr(agent, key) != value}
        if not changed:
            return
        if "interval" in changed:
            # Modules' intervals are multiples of it: each has to be looked at again.
            for module in agent.modules.values():
                module.tags = None
        for key, value in changed.items():
            setattr(agent, key, value)
        row = self._there(schema.agent, changed)
        if row:
            conn.execute(update(schema.agent).where(schema.agent.c.id == agent.id).values(row))

    def _agent_changes(
        self, conn: Connection, agent: AgentEntry, packet: Packet
    ) -> dict[str, object]:
        table = schema.agent
        wanted: dict[str, object] = {}
        if interval := columns.agent_interval(packet):
            wanted["interval"] = interval
        if packet.os_version:
            wanted["os_version"] = columns.fit(table, "os_version", packet.os_version)
        if packet.version:
            wanted["agent_version"] = columns.fit(table, "agent_version", packet.version)
        if packet.timezone_offset:
            wanted["timezone_offset"] = columns.timezone_offset(packet)
        if self._rules.update_parent and (parent := self._parent(conn, packet)):
            wanted["parent_id"] = parent
        if not agent.fixed_ip and (first := columns.addresses(packet)[:1]):
            wanted["address"] = columns.fit(table, "address", first[0])
        if agent.disabled and agent.mode == 2:
            wanted["disabled"] = False
        return wanted

    # -- modules ---------------------------------------------------------------

    def create_modules(
        self,
        conn: Connection,
        wanted: Sequence[tuple[AgentEntry, Module]],
        reference: Reference,
    ) -> list[tuple[AgentEntry, ModuleEntry]]:
        """Create each (agent, module) that the database does not know; those that were created.

        A module of unknown type, without a name or with one that does not fit, or of an agent
        that has its fill, is left out: its values will be refused.
        """
        rows: dict[tuple[int, str], dict[str, Any]] = {}
        pairs: list[tuple[AgentEntry, Module, str]] = []
        folded: dict[int, dict[str, str]] = {}
        seen: set[tuple[int, str]] = set()
        for agent, module in wanted:
            if (agent.id, module.name) in seen:
                continue
            seen.add((agent.id, module.name))
            name = module_name(module.name)
            if name is None:
                continue
            if name in agent.modules:
                agent.by_raw[module.name] = agent.modules[name]
                continue
            names = folded.get(agent.id)
            if names is None:
                names = folded[agent.id] = {folded_name(known): known for known in agent.modules}
            same = names.get(folded_name(name))
            if same is not None and (same == name or self._same_name(conn, agent, same, name)):
                pairs.append((agent, module, same))
                continue
            type_id = reference.types.get(module.type or "generic_data")
            if type_id is None or len(names) >= self._rules.max_modules:
                continue
            names[folded_name(name)] = name
            rows[agent.id, name] = self._module_row(agent, module, name, type_id, reference)
            pairs.append((agent, module, name))
        if rows:
            self._insert_modules(conn, list(rows.values()))
            self._enter_modules(conn, pairs, rows, reference)
        for agent, module, name in pairs:
            agent.by_raw[module.name] = agent.modules[name]
        by_id = {agent.id: agent for agent, _, _ in pairs}
        return [(by_id[agent_id], by_id[agent_id].modules[name]) for agent_id, name in rows]

    def _same_name(self, conn: Connection, agent: AgentEntry, one: str, other: str) -> bool:
        """Whether the database's own comparison takes two names for one."""
        if self._layout.dialect == "sqlite":
            return one.lower() == other.lower() if one.isascii() and other.isascii() else False
        # The column's collation decides, so a row that is there (if any) is asked.
        c = schema.module.c
        query = select(func.count()).where(c.agent_id == agent.id, c.name == one, c.name == other)
        if one in agent.modules:
            return bool(conn.scalar(query))
        return one.casefold() == other.casefold()

    def _module_row(
        self, agent: AgentEntry, module: Module, name: str, type_id: int, reference: Reference
    ) -> dict[str, Any]:
        row = columns.new_module(module, name, agent.interval)
        group = module.tags.get("module_group", "")
        row |= {
            "agent_id": agent.id,
            "type_id": type_id,
            "group_id": reference.module_groups.get(folded_name(group), 0) if group else 0,
        }
        return self._there(schema.module, row)

    def _insert_modules(self, conn: Connection, rows: list[dict[str, Any]]) -> None:
        keys = tuple(rows[0])
        self._sql.insert(conn, schema.module, keys, [tuple(row.values()) for row in rows])

    def _enter_modules(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Module, str]],
        rows: Mapping[tuple[int, str], dict[str, Any]],
        reference: Reference,
    ) -> None:
        """Read the new modules' ids and put them into their agents."""
        c = schema.module.c
        agents = {agent.id: agent for agent, _, _ in pairs}
        for ids in in_chunks(sorted({agent_id for agent_id, _ in rows})):
            query = select(c.id, c.agent_id, c.name).where(c.agent_id.in_(ids)).order_by(c.id)
            for module_id, agent_id, name in conn.execute(query):
                row = rows.get((agent_id, name))
                if row is not None and name not in agents[agent_id].modules:
                    agents[agent_id].modules[name] = _entry(module_id, row)
        for agent, module, name in pairs:
            entry = agent.modules[name]
            if (agent.id, name) in rows and entry.tags is None:
                entry.tags = module.tags
                if entry.type_id == KEEP_ALIVE:
                    agent.keep_alives.append(entry)
                # No news of an asynchronous module is good news.
                entry.stand(FRESH_ASYNC if type_rule(module.type).is_async else FRESH)
        self._add_tags(conn, pairs, reference)

    def _add_tags(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Module, str]],
        reference: Reference,
    ) -> None:
        links = set()
        for agent, module, name in pairs:
            if "tags" not in module.tags:
                continue
            for tag in module.tags["tags"].split(","):
                tag_id = reference.tags.get(entities.encode(tag.strip()))
                if tag_id is not None:
                    links.add((tag_id, agent.modules[name].id))
        if links:
            keys = ("tag_id", "module_id")
            self._sql.ensure(conn, schema.module_tag, keys, sorted(links))

    def update_module(
        self, conn: Connection, agent: AgentEntry, entry: ModuleEntry, module: Module
    ) -> None:
        """Let the newest packet change description, extended info and interval of a module."""
        entry.tags = module.tags
        if agent.mode == 0:
            return
        told = columns.fit(schema.module, "description", module.tags.get("description", ""))
        wanted = {
            # An empty description is no description: the one that is there stays.
            "description": told or entry.description,
            "extended_info": columns.extended_info(module),
            "interval": columns.module_interval(module, agent.interval),
        }
        changed = {key: value for key, value in wanted.items() if getattr(entry, key) != value}
        if not changed:
            return
        for key, value in changed.items():
            setattr(entry, key, value)
        if "interval" in changed:
            changed["module_interval"] = changed.pop("interval")
        row = self._there(schema.module, changed)
        if row:
            conn.execute(update(schema.module).where(schema.module.c.id == entry.id).values(row))

    def link_modules(self, conn: Connection, agent: AgentEntry, packet: Packet) -> None:
        """Set the parents that the packet's modules name (after all of them are known)."""
        if agent.mode == 0:
            return
        for module in packet.modules:
            tags = module.tags
            entry = agent.by_raw.get(module.name)
            if entry is None or not ("module_parent" in tags or "module_parent_unlink" in tags):
                continue
            parent_id = entry.parent_id
            if tags.get("module_parent_unlink", "").strip() == "1":
                parent_id = 0
            elif parent := agent.modules.get(module_name(tags.get("module_parent", "")) or ""):
                parent_id = parent.id
            if parent_id not in (entry.parent_id, entry.id):
                entry.parent_id = parent_id
                row = self._there(schema.module, {"parent_module_id": parent_id})
                if row:
                    query = update(schema.module).where(schema.module.c.id == entry.id)
                    conn.execute(query.values(row))

    def _there(self, table: Table, row: dict[str, Any]) -> dict[str, Any]:
        """``row`` without the columns that this database does not have."""
        there = self._keys.get(table)
        if there is None:
            there = frozenset(column.key for column in self._layout.columns(table))
            self._keys[table] = there
        return {key: value for key, value in row.items() if key in there}


def module_name(raw: str) -> str | None:
    """A module's name as stored; None where it is empty or does not fit its column."""
    name = entities.encode(entities.clean_name(raw))
    return name if name and len(name.encode("utf-8", "replace")) <= columns.TEXT_BYTES else None


def _entry(module_id: int, row: Mapping[str, Any]) -> ModuleEntry:
    entry = ModuleEntry(module_id, row["name"])
    entry.type_id = row["type_id"]
    entry.disabled = bool(row["disabled"])
    entry.interval = row["module_interval"]
    entry.bounds = bounds(row["post_process"], row["min"], row["max"])
    entry.description = row["description"] or ""
    entry.extended_info = row.get("extended_info") or ""
    entry.quiet = bool(row.get("quiet"))
    entry.rules = rules_of(row)
    return entry

"""Creates modules, and changes known ones as packets say.

Creation is serialised by the lock on the agent's version row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from dataserver.model import Module, Packet
from dataserver.rules import entities
from dataserver.rules.refusals import Refusal
from dataserver.rules.status import FRESH, FRESH_ASYNC
from dataserver.rules.values import bounds, type_rule
from dataserver.store import columns, schema
from dataserver.store.cache import (
    INSTRUCTIONS,
    KEEP_ALIVE,
    AgentEntry,
    ModuleEntry,
    about,
    folded_name,
    in_chunks,
    undeleted,
)
from dataserver.store.changes import Changes
from dataserver.store.layout import Layout
from dataserver.store.reference import Reference
from dataserver.store.sql import Sql
from dataserver.store.standing import RULE_TAGS, rules_of


class Modules:
    """Creates and changes modules through one transaction's connection.

    ``most``: the maximum number of modules of an agent; no more are created.
    """

    def __init__(self, sql: Sql, layout: Layout, most: int) -> None:
        self._sql = sql
        self._layout = layout
        self._most = most

    def create(
        self,
        conn: Connection,
        wanted: Sequence[tuple[AgentEntry, Module]],
        reference: Reference,
        batch: Changes,
    ) -> tuple[list[tuple[AgentEntry, ModuleEntry]], dict[tuple[int, str], Refusal]]:
        """Create each (agent, module) that the database does not have; returns the created ones.

        A module of unknown type, without a name or with too long a name, or of an agent with the
        maximum number of modules, is left out: its values will be refused, for the reason that is
        returned by agent id and module name as written.
        """
        refused: dict[tuple[int, str], Refusal] = {}
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
                has_name = entities.clean_name(module.name)
                reason = Refusal.NAME_TOO_LONG if has_name else Refusal.NO_NAME
                refused[agent.id, module.name] = reason
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
            if type_id is None or len(names) >= self._most:
                reason = Refusal.TOO_MANY_MODULES if type_id else Refusal.UNKNOWN_TYPE
                refused[agent.id, module.name] = reason
                continue
            names[folded_name(name)] = name
            rows[agent.id, name] = self._row(agent, module, name, type_id, reference, batch)
            pairs.append((agent, module, name))
        if rows:
            self._insert(conn, list(rows.values()))
            self._enter(conn, pairs, rows, reference, batch)
        for agent, module, name in pairs:
            agent.by_raw[module.name] = agent.modules[name]
        by_id = {agent.id: agent for agent, _, _ in pairs}
        created = [(by_id[agent_id], by_id[agent_id].modules[name]) for agent_id, name in rows]
        return created, refused

    def _same_name(self, conn: Connection, agent: AgentEntry, one: str, other: str) -> bool:
        """Whether the database's comparison treats two names as equal."""
        if self._layout.dialect == "sqlite":
            return one.lower() == other.lower() if one.isascii() and other.isascii() else False
        # The column's collation decides, which an existing row shows.
        c = schema.module.c
        query = select(func.count()).where(c.agent_id == agent.id, c.name == one, c.name == other)
        if one in agent.modules:
            return bool(conn.scalar(query))
        return one.casefold() == other.casefold()

    def _row(
        self,
        agent: AgentEntry,
        module: Module,
        name: str,
        type_id: int,
        reference: Reference,
        batch: Changes,
    ) -> dict[str, Any]:
        row = columns.new_module(module, name, agent.interval)
        group = module.tags.get("module_group", "")
        group_id = reference.module_groups.get(folded_name(group), 0) if group else 0
        if group and not group_id:
            batch.refuse(agent, name, Refusal.GROUP, group)
        for tag in columns.unread(module):
            batch.refuse(agent, name, Refusal.SETTING, f"{tag}: {module.tags[tag]}")
        row |= {"agent_id": agent.id, "type_id": type_id, "group_id": group_id}
        return self._layout.present(schema.module, row)

    def _insert(self, conn: Connection, rows: list[dict[str, Any]]) -> None:
        keys = tuple(rows[0])
        self._sql.insert(conn, schema.module, keys, [tuple(row.values()) for row in rows])

    def _enter(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Module, str]],
        rows: Mapping[tuple[int, str], dict[str, Any]],
        reference: Reference,
        batch: Changes,
    ) -> None:
        """Read the new modules' ids and put them into their agents."""
        c = schema.module.c
        agents = {agent.id: agent for agent, _, _ in pairs}
        for ids in in_chunks(sorted({agent_id for agent_id, _ in rows})):
            named = select(c.id, c.agent_id, c.name).where(c.agent_id.in_(ids)).order_by(c.id)
            # Not a deleted module of the same name that is not purged yet.
            query = undeleted(self._layout, named)
            for module_id, agent_id, name in conn.execute(query).all():
                row = rows.get((agent_id, name))
                if row is not None and name not in agents[agent_id].modules:
                    agents[agent_id].modules[name] = _entry(module_id, row)
        for agent, module, name in pairs:
            entry = agent.modules[name]
            if (agent.id, name) in rows and entry.tags is None:
                entry.tags = module.tags
                if entry.type_id == KEEP_ALIVE:
                    agent.keep_alives.append(entry)
                if not RULE_TAGS.isdisjoint(module.tags):
                    entry.rules = rules_of(rows[agent.id, name])
                row = rows[agent.id, name]
                entry.about = about("", *(row.get(key) for key in INSTRUCTIONS))
                entry.open_events = False
                # An asynchronous module without values is normal.
                entry.stand(FRESH_ASYNC if type_rule(module.type).is_async else FRESH)
        self._add_tags(conn, pairs, reference, batch)

    def _add_tags(
        self,
        conn: Connection,
        pairs: Sequence[tuple[AgentEntry, Module, str]],
        reference: Reference,
        batch: Changes,
    ) -> None:
        links = set()
        for agent, module, name in pairs:
            if "tags" not in module.tags:
                continue
            written = [entities.encode(tag.strip()) for tag in module.tags["tags"].split(",")]
            for tag in filter(None, set(written) - reference.tags.keys()):
                batch.refuse(agent, name, Refusal.TAG, entities.decode(tag))
            known = sorted({(reference.tags[tag], tag) for tag in written if tag in reference.tags})
            entry = agent.modules[name]
            entry.about = entry.about._replace(tags=",".join(tag for _, tag in known))
            links |= {(tag_id, entry.id) for tag_id, _ in known}
        if links:
            keys = ("tag_id", "module_id")
            self._sql.ensure(conn, schema.module_tag, keys, sorted(links))

    def update(
        self, conn: Connection, agent: AgentEntry, entry: ModuleEntry, module: Module
    ) -> None:
        """Set a module's description, extended info and interval as its newest packet says."""
        entry.tags = module.tags
        if agent.mode == 0:
            return
        description = columns.fit(schema.module, "description", module.tags.get("description", ""))
        wanted = {
            # An empty description keeps the existing one.
            "description": description or entry.description,
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
        row = self._layout.present(schema.module, changed)
        if row:
            conn.execute(update(schema.module).where(schema.module.c.id == entry.id).values(row))

    def link(self, conn: Connection, agent: AgentEntry, packet: Packet) -> None:
        """Set the parents that the packet's modules name, after all modules are known.

        Also in mode 0, as with the Perl server: nothing else of a module is changed there.
        """
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
                row = self._layout.present(schema.module, {"parent_module_id": parent_id})
                if row:
                    query = update(schema.module).where(schema.module.c.id == entry.id)
                    conn.execute(query.values(row))


def module_name(raw: str) -> str | None:
    """A module's name as stored; None where it is empty or does not fit its column."""
    name = entities.encode(entities.clean_name(raw))
    return name if name and len(name.encode("utf-8", "replace")) <= columns.TEXT_BYTES else None


def _entry(module_id: int, row: Mapping[str, Any]) -> ModuleEntry:
    entry = ModuleEntry(module_id, row["name"])
    entry.type_id = row["type_id"]
    entry.disabled = bool(row["disabled"])
    entry.interval = row["module_interval"]
    entry.cron = row.get("cron_interval") or ""
    entry.bounds = bounds(row["post_process"], row["min"], row["max"])
    entry.description = row["description"] or ""
    entry.extended_info = row.get("extended_info") or ""
    entry.quiet = bool(row.get("quiet"))
    return entry

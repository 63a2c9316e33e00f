"""A cache of agents and modules with their states, as far as packets need them.

The database is the truth.  Every agent has a version, raised by each batch of any server (table
``tagent_version``).  An entry whose version is not the database's, or which is older than
``cache_seconds`` (the console may have changed something), is read again.  A transaction changes
entries in place and, if it fails, forgets every agent that it touched, so that the cache is never
ahead of what is committed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, bindparam, func, null, select

from dataserver.rules import entities
from dataserver.rules.due import DEFAULT_INTERVAL
from dataserver.rules.events import NO_DETAILS, EventDetails, wants_event
from dataserver.rules.status import FRESH, PLAIN, Rules, Standing, Status, is_pending, shortcut
from dataserver.rules.times import from_local_text
from dataserver.rules.values import NO_BOUNDS, Bounds, TypeRule, bounds, type_rule
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.standing import RULE_KEYS, STANDING_KEYS, rules_from, standing_from

#: Different spellings of agents' names (in another case, for example) that are remembered.
_SPELLINGS = 10_000

#: Keys of one `IN (...)`; SQLite takes 32,766 parameters, MySQL plans short lists better.
IN_CHUNK = 1_000

#: ``server_kind`` of the modules of data servers.
OURS = 1
INSTRUCTIONS = ("critical_instructions", "warning_instructions", "unknown_instructions")
#: The module type whose value is the agent's contact.
KEEP_ALIVE = 100
#: Where a module's status columns begin in the rows of _modules_query.
_STANDING = 29 + len(RULE_KEYS)

_AGENT, _MODULE = schema.agent.c, schema.module.c
_STATE_ROWS = (
    select(schema.state.c.agent_id, func.count())
    .where(schema.state.c.agent_id.in_(bindparam("ids", expanding=True)))
    .group_by(schema.state.c.agent_id)
)


class ModuleEntry:
    """One module with its configuration and state, as far as packets need them."""

    __slots__ = (
        "about",
        "bounds",
        "counter",
        "counter_stored",
        "cron",
        "current_interval",
        "description",
        "dirty",
        "disabled",
        "expected",
        "extended_info",
        "grown",
        "history",
        "id",
        "interval",
        "judged",
        "name",
        "open_events",
        "own_times",
        "parent_id",
        "quiet",
        "rule",
        "rules",
        "running_by",
        "saved",
        "settled",
        "standing",
        "state_id",
        "tags",
        "tells_unknown",
        "time",
        "tried",
        "type_id",
        "value",
    )

    def __init__(self, module_id: int, name: str) -> None:
        self.id = module_id
        #: As stored, with entities.
        self.name = name
        self.type_id = 0
        self.disabled = False
        self.interval = 0
        #: Its ``cron_interval``; and the seconds until its next value is due, set by each value if
        #: the interval alone does not determine it.
        self.cron = ""
        self.expected = 0
        self.history = True
        self.bounds: Bounds = NO_BOUNDS
        self.description = ""
        self.extended_info = ""
        self.parent_id = 0
        #: The rules by which values are judged, and whether changes of status make no events.
        self.rules: Rules = PLAIN
        self.quiet = False
        #: Whether it gets an event when it becomes unknown, and so when it returns.
        self.tells_unknown = True
        #: Tags and instructions in its events; and whether some events may still be open.
        self.about: EventDetails = NO_DETAILS
        self.open_events = True
        #: The type in its last packet, with the rule of that type.
        self.rule: tuple[str, TypeRule] = ("", type_rule(""))
        #: The tags of the last packet that was applied; equal ones need not be applied again.
        self.tags: dict[str, str] | None = None
        # State: text of the newest value, its time, the time of the last saved one (epoch s).
        # ``saved`` is later than ``time`` if the clock was ahead and was corrected: then history
        # has rows before ``saved``.
        self.state_id = 0
        self.value = ""
        self.time = 0
        self.saved = 0
        #: Its status, with the shortcuts for values that keep it (see :func:`status.rest`); and the
        #: status that ``value`` has by these rules, or None if not known.
        self.standing: Standing = FRESH
        self.settled: Status | None = None
        self.grown: Standing | None = None
        self.judged: Status | None = None
        #: The interval in the state's row, which follows the module's with its next value.
        self.current_interval = 0
        #: The id in ``tserver`` of the server that stored its newest value.
        self.running_by = 0
        #: The remembered counter reading and its time.
        self.counter: tuple[float, int] | None = None
        self.counter_stored = False
        #: Whether it ever had values with times of their own (datalist).
        self.own_times = False
        #: What this batch must write of the state (bits, see changes.py); when a value was refused.
        self.dirty = 0
        self.tried = 0

    def next_interval(self) -> int:
        """Seconds until the next value is expected."""
        if self.rules.interval and is_pending(self.rules, self.standing):
            return self.rules.interval
        if self.interval and not self.cron:
            return self.interval
        return self.expected or self.interval or DEFAULT_INTERVAL

    def stand(self, standing: Standing) -> None:
        """Set its status."""
        self.standing = standing
        self.settled, self.grown = shortcut(self.rules, standing)


class AgentEntry:
    """One agent with its modules by name."""

    __slots__ = (
        "address",
        "agent_version",
        "alias",
        "applied",
        "by_raw",
        "created",
        "disabled",
        "fixed_ip",
        "foreign",
        "group_id",
        "id",
        "interval",
        "keep_alives",
        "loaded",
        "mode",
        "modules",
        "name",
        "newest",
        "os_id",
        "os_version",
        "packet_contact",
        "parent_id",
        "quiet",
        "satellite_server",
        "sections",
        "state_rows",
        "timezone_offset",
        "version",
    )

    def __init__(self, agent_id: int, name: str) -> None:
        self.id = agent_id
        #: As stored, with entities.
        self.name = name
        #: The name shown to people, as stored.
        self.alias = name
        self.mode = 1
        self.disabled = False
        self.group_id = 0
        #: Whether other servers have modules of it, whose changes we do not see.
        self.foreign = False
        #: Whether changes of its modules' statuses make no events.
        self.quiet = False
        self.interval = DEFAULT_INTERVAL
        self.os_id = 0
        self.os_version = ""
        self.agent_version = ""
        self.timezone_offset = 0
        self.parent_id = 0
        self.address = ""
        self.fixed_ip = False
        #: The id in ``tserver`` of the satellite server that its packets name, or 0.
        self.satellite_server = 0
        #: Modules by stored name, and by the names that packets used for them.
        self.modules: dict[str, ModuleEntry] = {}
        self.by_raw: dict[str, ModuleEntry] = {}
        #: Its modules of type ``keep_alive``, whose value is the agent's contact.
        self.keep_alives: list[ModuleEntry] = []
        #: From the version row; -1 if not read yet.
        self.version = -1
        self.newest = 0
        self.packet_contact = 0
        #: The number of state rows with its id, including those of modules that we ignore (deleted
        #: ones that are not purged yet, doubles), which must not be written.
        self.state_rows = 0
        #: When it was read (monotonic seconds).
        self.loaded = 0.0
        #: Whether the current batch created it.
        self.created = False
        #: What the last packet said about the agent, and its sections; equal ones need not be
        #: applied again.
        self.applied: object = None
        self.sections: object = None

    def counts(self) -> list[int] | None:
        """The number of its modules in each status, or None if the cache cannot be sure."""
        if self.foreign or self.state_rows != len(self.modules):
            return None
        counted = [0] * len(Status)
        for module in self.modules.values():
            if not module.disabled:
                counted[module.standing.status] += 1
        return counted


class AgentCache:
    """Agents by name and id; reads missing ones through the transaction's connection."""

    def __init__(self, zone: tzinfo, layout: Layout) -> None:
        self._zone = zone
        self._agents, self._modules = _agents_query(layout), _modules_query(layout)
        agent_id, module_id = _AGENT.id, _MODULE.id
        ids: ColumnElement[Any] = bindparam("ids", expanding=True)
        self._agent_ids = select(agent_id).where(agent_id.in_(ids))
        self._module_ids = undeleted(layout, select(module_id).where(module_id.in_(ids)))
        self._by_raw: dict[str, AgentEntry] = {}
        self._by_id: dict[int, AgentEntry] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, raw_name: str) -> AgentEntry | None:
        """The cached agent of that name, as the packet wrote it."""
        return self._by_raw.get(raw_name)

    def add(self, raw_name: str, agent: AgentEntry) -> None:
        """Remember ``agent`` under the name that a packet used."""
        self._by_raw[raw_name] = agent
        self._by_id[agent.id] = agent

    def forget(self, agents: Iterable[AgentEntry]) -> None:
        """Drop ``agents``, which may differ from what is committed."""
        # Those that were never read may have been created by a transaction that was rolled back.
        gone = {agent.id for agent in agents}
        gone |= {agent.id for agent in self._by_id.values() if not agent.loaded}
        for agent_id in gone:
            self._by_id.pop(agent_id, None)
        self._by_raw = {raw: a for raw, a in self._by_raw.items() if a.id not in gone}

    def trim(self) -> None:
        """Forget all names if there are far more spellings than agents."""
        if len(self._by_raw) > 2 * len(self._by_id) + _SPELLINGS:
            self._by_raw.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._by_raw.clear()
        self._by_id.clear()

    def find(self, conn: Connection, raw_names: Sequence[str]) -> None:
        """Look up the names in the database and add the agents that exist.

        They are added without modules and with version -1; :meth:`load` reads the rest.
        """
        wanted = {raw: entities.encode(entities.clean_name(raw)) for raw in raw_names}
        found: dict[str, Any] = {}
        table = schema.agent
        for names in in_chunks(list(dict.fromkeys(wanted.values()))):
            # Ordered so that of several agents of one name (Pandora has no unique key on it)
            # the oldest is taken by every server.
            query = (
                select(table.c.id, table.c.name).where(table.c.name.in_(names)).order_by(table.c.id)
            )
            for agent_id, name in conn.execute(query).all():
                found.setdefault(name, agent_id)
        folded = {folded_name(name): (name, agent_id) for name, agent_id in reversed(found.items())}
        for raw, name in wanted.items():
            hit = (name, found[name]) if name in found else folded.get(folded_name(name))
            if hit is not None:
                known = self._by_id.get(hit[1])
                self.add(raw, known if known is not None else AgentEntry(hit[1], hit[0]))

    def load(self, conn: Connection, agents: Sequence[AgentEntry], now: float) -> set[int]:
        """Read ``agents`` with their modules again; returns the ids of deleted or renamed ones."""
        by_id = {agent.id: agent for agent in agents}
        missing = set(by_id)
        for ids in in_chunks(list(by_id)):
            for row in conn.execute(self._agents, {"ids": ids}).all():
                agent = by_id[row[0]]
                if row[1] != agent.name:
                    continue  # renamed: packets of the old name belong to another agent now
                missing.discard(agent.id)
                self._fill_agent(agent, row, now)
            self._load_modules(conn, by_id, ids)
        return missing

    def gone(self, conn: Connection, agents: Iterable[int], modules: Iterable[int]) -> int:
        """The number of these ids that are not in the database any more."""
        missing = 0
        for ids, query in ((agents, self._agent_ids), (modules, self._module_ids)):
            for some in in_chunks(sorted(set(ids))):
                missing += len(some) - len(conn.execute(query, {"ids": some}).all())
        return missing

    def _fill_agent(self, agent: AgentEntry, row: Any, now: float) -> None:
        (_, _, agent.mode, disabled, interval, os_id, os_version, agent_version) = row[:8]
        offset, parent_id, address, fixed_ip, contact, quiet, alias, group_id, satellite = row[8:]
        agent.disabled = bool(disabled)
        agent.interval = interval or DEFAULT_INTERVAL
        agent.os_id = os_id or 0
        agent.os_version = os_version or ""
        agent.agent_version = agent_version or ""
        agent.timezone_offset = offset or 0
        agent.parent_id = parent_id or 0
        agent.address = address or ""
        agent.fixed_ip = bool(fixed_ip)
        agent.satellite_server = satellite or 0
        agent.quiet = bool(quiet)
        agent.group_id = group_id or 0
        agent.foreign = False
        agent.alias = alias or agent.name
        agent.packet_contact = self.epoch(contact)
        agent.loaded = now
        agent.modules = {}
        agent.by_raw = {}
        agent.keep_alives = []
        # The console may have changed what packets set, so the next packet is applied in full.
        agent.applied = agent.sections = None
        agent.state_rows = 0

    def _load_modules(self, conn: Connection, by_id: dict[int, AgentEntry], ids: list[int]) -> None:
        tags = tag_names(conn, _MODULE.agent_id, ids)
        for row in conn.execute(self._modules, {"ids": ids}).all():
            agent = by_id[row[0]]
            agent.foreign = agent.foreign or row[24] != OURS
            # Two modules of one name (possible in Pandora's tables): the older one counts.
            name = row[2] or ""
            if name not in agent.modules:
                module = agent.modules[name] = self._module(row)
                module.about = about(tags.get(module.id, ""), *row[25:28])
                if module.type_id == KEEP_ALIVE:
                    agent.keep_alives.append(module)
        for agent_id, rows in conn.execute(_STATE_ROWS, {"ids": ids}).all():
            by_id[agent_id].state_rows = rows

    def _module(self, row: Any) -> ModuleEntry:
        (_, module_id, name, type_id, disabled, interval, history, factor, low, high) = row[:10]
        description, extended_info, parent_id, state_id, value, local_time, saved = row[10:17]
        last_try, current_interval, counter_id, counter_value, counter_time, quiet, switched_off = (
            row[17:24]
        )
        module = ModuleEntry(module_id, name or "")
        module.type_id = type_id or 0
        module.disabled = bool(disabled)
        module.interval = interval or 0
        module.history = bool(history)
        module.bounds = bounds(factor, low, high)
        module.description = description or ""
        module.extended_info = extended_info or ""
        module.parent_id = parent_id or 0
        module.state_id = state_id or 0
        module.value = value or ""
        # The time of the last accepted value tells the two readings of a doubled hour apart.
        module.time = self.epoch(local_time, last_try)
        module.saved = self.epoch(saved, last_try)
        if module.saved > module.time >= (earlier := self.epoch(saved)):
            # Not ahead, but of a doubled hour: what is ahead is never left with two meanings.
            module.saved = earlier
        module.current_interval = current_interval or 0
        if counter_time is not None and counter_value is not None:
            module.counter = (counter_value, counter_time)
        module.counter_stored = counter_id is not None
        module.quiet = bool(quiet)
        module.tells_unknown = wants_event(switched_off, "going_unknown")
        module.cron = row[28] or ""
        module.rules = rules_from(tuple(row[29:_STANDING]))
        module.stand(standing_from(tuple(row[_STANDING:-1])))
        module.running_by = row[-1] or 0
        return module

    def epoch(self, local_time: Any, hint: int | None = None) -> int:
        """Epoch seconds of a local time as the driver gives it (text or datetime); 0: none."""
        if not local_time:
            return 0
        text = str(local_time)[:19]
        return 0 if text <= "1970-01-02" else from_local_text(text, self._zone, hint)


def _agents_query(layout: Layout) -> Select[Any]:
    c = schema.agent.c
    wanted = (
        c.id,
        c.name,
        c.mode,
        c.disabled,
        c.interval,
        c.os_id,
        c.os_version,
        c.agent_version,
        c.timezone_offset,
        c.parent_id,
        c.address,
        c.fixed_ip,
        c.packet_contact,
        c.quiet,
        c.alias,
        c.group_id,
        c.satellite_server,
    )
    return select(*_there(layout, wanted)).where(c.id.in_(bindparam("ids", expanding=True)))


def _modules_query(layout: Layout) -> Select[Any]:
    m, s, k = schema.module.c, schema.state.c, schema.counter.c
    joined = schema.module.outerjoin(schema.state, s.module_id == m.id)
    joined = joined.outerjoin(schema.counter, k.module_id == m.id)
    wanted = (
        m.agent_id,
        m.id,
        m.name,
        m.type_id,
        m.disabled,
        m.module_interval,
        m.history_data,
        m.post_process,
        m.min,
        m.max,
        m.description,
        m.extended_info,
        m.parent_module_id,
        s.id,
        s.value,
        s.local_time,
        s.saved,
        s.last_execution_try,
        s.current_interval,
        k.module_id,
        k.value,
        k.time,
        m.quiet,
        m.disabled_types_event,
        m.server_kind,
        *(m[key] for key in INSTRUCTIONS),
        m.cron_interval,
        *(m[key] for key in RULE_KEYS),
        *(s[key] for key in STANDING_KEYS),
        s.running_by,
    )
    query = select(*_there(layout, wanted)).select_from(joined)
    query = query.where(m.agent_id.in_(bindparam("ids", expanding=True)))
    return undeleted(layout, query).order_by(m.agent_id, m.id, s.id)


def undeleted(layout: Layout, query: Select[Any]) -> Select[Any]:
    """``query`` without modules that the console deleted and that are not purged yet."""
    pending = _MODULE.delete_pending
    return query.where(pending == 0) if layout.has(pending) else query


def _there(layout: Layout, wanted: Sequence[Column[Any]]) -> list[ColumnElement[Any]]:
    """The columns, with NULL in place of those that this database lacks."""
    return [column if layout.has(column) else null().label(column.key) for column in wanted]


def tag_names(conn: Connection, key: Column[Any], ids: Sequence[int]) -> dict[int, str]:
    """The tags of modules, separated by commas, by module; for rows whose ``key`` is in ``ids``."""
    t, link = schema.tag.c, schema.module_tag.c
    found: dict[int, str] = {}
    for some in in_chunks(list(ids)):
        query = (
            select(link.module_id, t.name)
            .join_from(schema.module_tag, schema.tag, t.id == link.tag_id)
            .where(key.in_(some))
            .order_by(t.id)
        )
        if key.table is schema.module:
            query = query.join(schema.module, _MODULE.id == link.module_id)
        for module_id, name in conn.execute(query):
            before = found.get(module_id)
            found[module_id] = f"{before},{name}" if before else name or ""
    return found


def about(
    tags: str, critical: str | None, warning: str | None, unknown: str | None
) -> EventDetails:
    """The tags and instructions of a module's events; for most modules the same object."""
    if not (tags or critical or warning or unknown):
        return NO_DETAILS
    return EventDetails(tags, critical or "", warning or "", unknown or "")


def folded_name(name: str) -> str:
    """A key that is equal for all names that any collation might treat as equal."""
    text = entities.decode(name).casefold()
    if text.isascii():
        return text.rstrip()
    text = unicodedata.normalize("NFKD", text)
    return "".join(char for char in text if not unicodedata.combining(char)).rstrip()


def in_chunks(items: list[Any], most: int = IN_CHUNK) -> Iterable[list[Any]]:
    """``items`` in lists of up to ``most``, short enough for an ``IN``."""
    return (items[start : start + most] for start in range(0, len(items), most))

"""What the server knows of agents and modules: a cache of the rows that packets meet.

The database is the truth.  Every agent has a version, raised by each batch of any
server (table ``tagent_version``); an entry whose version is not the database's, or
which is older than ``cache_seconds`` (the console may have changed something), is
read again.  A transaction changes entries in place and, when it fails, forgets every
agent that it touched: so the cache is never ahead of what is committed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, bindparam, func, null, select

from dataserver.rules import entities
from dataserver.rules.events import NOTHING_MORE, About, wants_event
from dataserver.rules.status import FRESH, PLAIN, Rules, Standing, Status, is_pending, rest
from dataserver.rules.times import from_local_text
from dataserver.rules.values import NO_BOUNDS, Bounds, TypeRule, bounds, type_rule
from dataserver.store import schema
from dataserver.store.probe import Layout
from dataserver.store.standing import RULE_KEYS, STANDING_KEYS, rules_from, standing_from

#: Names for one and the same agents (in another case, say) that are remembered.
_SPELLINGS = 10_000

#: Keys of one `IN (...)`; SQLite takes 32,766 parameters, MySQL plans short lists better.
IN_CHUNK = 1_000

#: Seconds, of a module whose configuration says none.
INTERVAL = 300
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
    """One module: what its configuration and its state say, as far as a packet needs it."""

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
        #: As stored, that is encoded.
        self.name = name
        self.type_id = 0
        self.disabled = False
        self.interval = 0
        #: Its ``cron_interval``; and how long, in seconds, to wait for its next value, set by
        #: each value where the interval alone does not say it.
        self.cron = ""
        self.expected = 0
        self.history = True
        self.bounds: Bounds = NO_BOUNDS
        self.description = ""
        self.extended_info = ""
        self.parent_id = 0
        #: How values are judged, and whether anybody is told.
        self.rules: Rules = PLAIN
        self.quiet = False
        #: Somebody is told when it becomes unknown, and so when it comes back.
        self.tells_unknown = True
        #: What its events say besides; and whether some of them may not be validated yet.
        self.about: About = NOTHING_MORE
        self.open_events = True
        #: The packet's type in the last packet, and what it means.
        self.rule: tuple[str, TypeRule] = ("", type_rule(""))
        #: The tags last learned from; equal ones need no second look.
        self.tags: dict[str, str] | None = None
        # State: text of the newest value, its time, the time of the last saved one (epoch s).
        # ``saved`` is later than ``time`` where the clock was ahead and was put right: then history
        # has rows before ``saved``.
        self.state_id = 0
        self.value = ""
        self.time = 0
        self.saved = 0
        #: Where it stands, and how it comes to rest there (see status.Rest); and the status that
        #: ``value`` has by these rules, None: not known.
        self.standing: Standing = FRESH
        self.settled: Status | None = None
        self.grown: Standing | None = None
        self.judged: Status | None = None
        #: The interval in the state's row, which follows the module's with its next value.
        self.current_interval = 0
        #: Which row of ``tserver`` the console counts it for: the server of its newest value.
        self.running_by = 0
        #: The remembered counter reading and its time.
        self.counter: tuple[float, int] | None = None
        self.counter_stored = False
        #: Some values came with times of their own (datalist).
        self.own_times = False
        #: What this batch has to write of the state (see batch.py); and when a value was refused.
        self.dirty = 0
        self.tried = 0

    def next_interval(self) -> int:
        """Seconds until the next value is to be expected."""
        if self.rules.interval and is_pending(self.rules, self.standing):
            return self.rules.interval
        if self.interval and not self.cron:
            return self.interval
        return self.expected or self.interval or INTERVAL

    def stand(self, standing: Standing) -> None:
        """Set where it stands."""
        self.standing = standing
        self.settled, self.grown = rest(self.rules, standing)


class AgentEntry:
    """One agent, its modules by name, and its place in time."""

    __slots__ = (
        "address",
        "agent_version",
        "alias",
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
        "told",
        "version",
    )

    def __init__(self, agent_id: int, name: str) -> None:
        self.id = agent_id
        #: As stored, that is encoded.
        self.name = name
        #: What people call it, likewise.
        self.alias = name
        self.mode = 1
        self.disabled = False
        self.group_id = 0
        #: Other servers have modules of it, of which they do not tell us.
        self.foreign = False
        #: Nobody is told of its modules' statuses.
        self.quiet = False
        self.interval = 300
        self.os_id = 0
        self.os_version = ""
        self.agent_version = ""
        self.timezone_offset = 0
        self.parent_id = 0
        self.address = ""
        self.fixed_ip = False
        #: The id of the satellite server that its packets name, in ``tserver``; 0: none.
        self.satellite_server = 0
        #: Modules by stored name, and by the names that packets used for them.
        self.modules: dict[str, ModuleEntry] = {}
        self.by_raw: dict[str, ModuleEntry] = {}
        #: Of these, the ones whose value is the agent's contact.
        self.keep_alives: list[ModuleEntry] = []
        #: Of the version row; -1: not read yet.
        self.version = -1
        self.newest = 0
        self.packet_contact = 0
        #: How many state rows bear its id, also those of modules that are none to us (deleted
        #: ones that wait to be cleared away, doubles): they are not to be written.
        self.state_rows = 0
        #: When it was read (monotonic seconds).
        self.loaded = 0.0
        #: Created by the batch under way.
        self.created = False
        #: What the last packet said of the agent itself, and in sections: the same again needs
        #: no second look.
        self.told: object = None
        self.sections: object = None

    def counts(self) -> list[int] | None:
        """How many of its modules are in each status; None: that is not for certain."""
        if self.foreign or self.state_rows != len(self.modules):
            return None
        counted = [0] * len(Status)
        for module in self.modules.values():
            if not module.disabled:
                counted[module.standing.status] += 1
        return counted


class AgentCache:
    """Agents by name and id; reads what it lacks through the transaction's connection."""

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
        """Drop ``agents``: what is known of them may not be what is committed."""
        # Those that were never read may be rows of a transaction that is void now.
        gone = {agent.id for agent in agents}
        gone |= {agent.id for agent in self._by_id.values() if not agent.loaded}
        for agent_id in gone:
            self._by_id.pop(agent_id, None)
        self._by_raw = {raw: a for raw, a in self._by_raw.items() if a.id not in gone}

    def trim(self) -> None:
        """Forget all names where there are far more of them than agents: spellings of a few."""
        if len(self._by_raw) > 2 * len(self._by_id) + _SPELLINGS:
            self._by_raw.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._by_raw.clear()
        self._by_id.clear()

    def find(self, conn: Connection, raw_names: Sequence[str]) -> None:
        """Look the names up in the database; those that are there are known afterwards.

        They are entered without modules and with version -1: :meth:`load` does the rest.
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
        """Read ``agents`` with their modules again; the ids of those that are gone or renamed."""
        by_id = {agent.id: agent for agent in agents}
        missing = set(by_id)
        for ids in in_chunks(list(by_id)):
            for row in conn.execute(self._agents, {"ids": ids}).all():
                agent = by_id[row[0]]
                if row[1] != agent.name:
                    continue  # renamed: its packets belong to whoever has the name now
                missing.discard(agent.id)
                self._fill_agent(agent, row, now)
            self._load_modules(conn, by_id, ids)
        return missing

    def gone(self, conn: Connection, agents: Iterable[int], modules: Iterable[int]) -> int:
        """How many of these ids are not in the database any more."""
        missing = 0
        for ids, query in ((agents, self._agent_ids), (modules, self._module_ids)):
            for some in in_chunks(sorted(set(ids))):
                missing += len(some) - len(conn.execute(query, {"ids": some}).all())
        return missing

    def _fill_agent(self, agent: AgentEntry, row: Any, now: float) -> None:
        (_, _, agent.mode, disabled, interval, os_id, os_version, agent_version) = row[:8]
        offset, parent_id, address, fixed_ip, contact, quiet, alias, group_id, satellite = row[8:]
        agent.disabled = bool(disabled)
        agent.interval = interval or 300
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
        # What the console changed is to be set again, so everything is told anew.
        agent.told = agent.sections = None
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
    """Without modules that the console deleted and that wait to be cleared away."""
    pending = _MODULE.delete_pending
    return query.where(pending == 0) if layout.has(pending) else query


def _there(layout: Layout, wanted: Sequence[Column[Any]]) -> list[ColumnElement[Any]]:
    """The columns, NULL in place of those that this database does not have."""
    return [column if layout.has(column) else null().label(column.key) for column in wanted]


def tag_names(conn: Connection, key: Column[Any], ids: Sequence[int]) -> dict[int, str]:
    """The names of modules' tags, with commas, by module; of those whose ``key`` is in ``ids``."""
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


def about(tags: str, critical: str | None, warning: str | None, unknown: str | None) -> About:
    """What a module's events say besides; for most modules one and the same object."""
    if not (tags or critical or warning or unknown):
        return NOTHING_MORE
    return About(tags, critical or "", warning or "", unknown or "")


def folded_name(name: str) -> str:
    """A key under which names fall together that any collation might call equal."""
    text = entities.decode(name).casefold()
    if text.isascii():
        return text.rstrip()
    text = unicodedata.normalize("NFKD", text)
    return "".join(char for char in text if not unicodedata.combining(char)).rstrip()


def in_chunks(items: list[Any], most: int = IN_CHUNK) -> Iterable[list[Any]]:
    """``items`` in lists of up to ``most``, short enough for an ``IN``."""
    return (items[start : start + most] for start in range(0, len(items), most))

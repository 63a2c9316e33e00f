"""One transaction's worth of work: what it has to write, gathered, then written in bulk.

Each table gets one statement (more only where a batch is very large).  State rows are
sorted by how much of them changed, since that is where the time goes:

* changed (:data:`CHANGED`): the row's value and times;
* seen again, unchanged (:data:`SEEN`): its times only;
* where every module of an agent was seen at one time, one row per agent sets the times of
  them all, and of those that changed only the value is written;
* of another standing (:data:`STATUS`): the status columns, in a statement of their own; where
  only its run of equal statuses grew (:data:`RUN`), that column, and of a whole agent at once;
* refused (:data:`TRIED`) or only remembered (:data:`REMEMBERED`): the time of the try;
* new (:data:`CREATED`): a row of its own, whether it had a value or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select

from dataserver.errors import StoreConflict
from dataserver.events import Event
from dataserver.store import schema
from dataserver.store.catalog import AgentEntry, ModuleEntry, in_chunks
from dataserver.store.layout import Layout
from dataserver.store.sql import Row, Sql
from dataserver.store.standing import StandingColumns
from dataserver.values import Kind

SEEN, CHANGED, TRIED, REMEMBERED, CREATED, STATUS, RUN = 1, 2, 4, 8, 16, 32, 64

_STATE_KEYS = (
    "id",
    "value",
    "local_time",
    "saved",
    "processed",
    "last_execution_try",
    "current_interval",
)
_NEW_STATE_KEYS = ("module_id", "agent_id", *_STATE_KEYS[1:])
_SEEN_KEYS = ("local_time", "processed", "last_execution_try")


@dataclass(slots=True)
class Tally:
    """What one transaction did, to be added up once it is committed."""

    packets: int = 0
    duplicates: int = 0
    late: int = 0
    late_counters_dropped: int = 0
    ignored: int = 0
    samples: int = 0
    stored: int = 0
    refused: int = 0
    new_agents: int = 0
    new_modules: int = 0

    def add(self, other: Tally) -> None:
        """Add ``other`` to this one."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class LateSample:
    """A value older than its module's newest: to be put into history exactly."""

    agent: AgentEntry
    module: ModuleEntry
    is_text: bool
    is_async: bool
    time: int
    value: float | str
    own_time: bool


@dataclass(slots=True)
class Batch:
    """Rows to write; entries are changed in place as packets are evaluated."""

    #: Epoch seconds of this transaction.
    now: int
    tally: Tally = field(default_factory=Tally)
    agents: dict[int, AgentEntry] = field(default_factory=dict)
    touched: list[tuple[AgentEntry, ModuleEntry]] = field(default_factory=list)
    numbers: list[Row] = field(default_factory=list)
    texts: list[Row] = field(default_factory=list)
    #: History rows for a second that already has one: (module, time, value).
    again_numbers: list[Row] = field(default_factory=list)
    again_texts: list[Row] = field(default_factory=list)
    counters: dict[int, ModuleEntry] = field(default_factory=dict)
    late: list[LateSample] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    #: Ids of modules that had, as far as is remembered for the first time, a value with a time
    #: of its own.
    own_times: set[int] = field(default_factory=set)
    #: Addresses that agents told, by the agents' ids.
    addresses: dict[int, list[str]] = field(default_factory=dict)
    #: What happened, in order.
    events: list[Event] = field(default_factory=list)
    #: Ids of modules of whose change of status nobody is told: their earlier events are overtaken.
    overtaken: set[int] = field(default_factory=set)
    #: Ids of agents whose modules' statuses are to be counted again.
    recount: set[int] = field(default_factory=set)
    #: Ids of modules created here.
    fresh: set[int] = field(default_factory=set)

    def touch(self, agent: AgentEntry, module: ModuleEntry, how: int) -> None:
        """Note that the module's state has to be written."""
        if not module.dirty:
            self.touched.append((agent, module))
        module.dirty |= how

    def point(self, module: ModuleEntry, kind: Kind, time: int, value: float | str) -> None:
        """A history row of ``module``."""
        again = time <= module.time
        if kind is Kind.TEXT:
            (self.again_texts if again else self.texts).append((module.id, time, value))
        else:
            (self.again_numbers if again else self.numbers).append((module.id, time, value))
        self.tally.stored += 1


class Writer:
    """Writes a :class:`Batch` through one connection."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self.has_ordinal = layout.has_ordinal
        self._counter_unique = layout.counter_unique
        self._standing = StandingColumns(layout)

    def history(self, conn: Connection, batch: Batch) -> None:
        """All history rows of the batch but the late ones."""
        for table, rows, again in (
            (schema.number_history, batch.numbers, batch.again_numbers),
            (schema.text_history, batch.texts, batch.again_texts),
        ):
            if rows:
                self._sql.insert(conn, table, ("module_id", "time", "value"), rows)
            if again:
                self.points(conn, table, again)

    def late_points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """History rows (module, time, value) that are to be the last word on their second.

        Where no ordinal says which of two rows of a second came later, they replace it.
        """
        if not self.has_ordinal:
            c = table.c
            rows = [(*key, value) for key, value in {row[:2]: row[2] for row in rows}.items()]
            for module_id, time, _ in rows:
                conn.execute(delete(table).where(c.module_id == module_id, c.time == time))
        self.points(conn, table, rows)

    def points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """History rows (module, time, value) whose second may be taken: each gets the next ordinal.

        In Pandora's own tables, which have none, the order of insertion says the same.
        """
        if not self.has_ordinal:
            self._sql.insert(conn, table, ("module_id", "time", "value"), rows)
            return
        taken = _last_ordinals(conn, table, rows)
        numbered = []
        for module_id, time, value in rows:
            ordinal = taken.get((module_id, time), -1) + 1
            taken[module_id, time] = ordinal
            numbered.append((module_id, time, value, ordinal))
        self._sql.insert(conn, table, ("module_id", "time", "value", "ordinal"), numbered)

    def counters(self, conn: Connection, batch: Batch) -> None:
        """The readings that counters are to remember."""
        keys = ("module_id", "value", "time")
        rows: list[Row] = []
        fresh: list[Row] = []
        for module in batch.counters.values():
            assert module.counter is not None
            known = self._counter_unique or module.counter_stored
            (rows if known else fresh).append((module.id, *module.counter))
            module.counter_stored = True
        if self._counter_unique:
            self._sql.upsert(conn, schema.counter, keys, rows)
            return
        if fresh:
            self._sql.insert(conn, schema.counter, keys, fresh)
        if rows:
            _expect(self._sql.update(conn, schema.counter, keys, rows), len(rows), "counters")

    def states(self, conn: Connection, batch: Batch, local_text: Any) -> None:
        """The state of every module touched."""
        plan = _StatePlan(batch, local_text, self._standing)
        for keys, rows in (
            (_STATE_KEYS, plan.changed),
            (("id", "value", "saved"), plan.values),
            (("id", *_SEEN_KEYS), plan.seen),
            (("id", "last_execution_try", "current_interval"), plan.tried),
            (("id", "last_execution_try", "current_interval", "processed"), plan.remembered),
            (("id", *self._standing.keys), plan.standings),
            (("id", "status_changes"), plan.runs),
        ):
            if rows:
                _expect(self._sql.update(conn, schema.state, keys, rows), len(rows), "modules")
        for keys, whole in (
            (("agent_id", *_SEEN_KEYS), plan.seen_agents),
            (("agent_id", "status_changes"), plan.run_agents),
        ):
            if whole:
                modules = sum(len(batch.agents[row[0]].modules) for row in whole)
                matched = self._sql.update(conn, schema.state, keys, whole)
                _expect(matched, modules, "modules")
                if matched > modules:
                    raise StoreConflict("modules were added by somebody else meanwhile")
        if plan.new:
            keys = (*_NEW_STATE_KEYS, *self._standing.keys)
            self._sql.insert(conn, schema.state, keys, plan.new)
            _read_state_ids(conn, plan.new_modules)
            for agent in plan.new_agents:
                agent.state_rows += 1
        for _, module in batch.touched:
            module.dirty = 0
            module.tried = 0


class _StatePlan:
    """Sorts the touched modules into the statements that write their state."""

    def __init__(self, batch: Batch, local_text: Any, standing: StandingColumns) -> None:
        self._now = batch.now
        self._text = local_text
        self._standing = standing
        self.changed: list[Row] = []
        self.values: list[Row] = []
        self.seen: list[Row] = []
        self.tried: list[Row] = []
        self.remembered: list[Row] = []
        self.standings: list[Row] = []
        self.runs: list[Row] = []
        self.run_agents: list[Row] = []
        self.new: list[Row] = []
        self.new_modules: dict[int, ModuleEntry] = {}
        #: The agent of each new row.
        self.new_agents: list[AgentEntry] = []
        self.seen_agents: list[Row] = []
        whole = {agent.id for agent in batch.agents.values() if self._whole(agent)}
        ran = {agent.id for agent in batch.agents.values() if self._ran(agent)}
        for agent, module in batch.touched:
            self._place(agent, module, agent.id in whole)
            self._place_standing(module, agent.id in ran)

    def _whole(self, agent: AgentEntry) -> bool:
        """Whether every module of ``agent`` was seen at one and the same time."""
        if agent.state_rows != len(agent.modules):
            return False
        time = -1
        for module in agent.modules.values():
            dirty = module.dirty & ~(STATUS | RUN)
            if not dirty or dirty & ~(SEEN | CHANGED) or not module.state_id:
                return False
            if module.current_interval != module.next_interval():
                return False
            if module.time != time:
                if time >= 0:
                    return False
                time = module.time
        if time < 0:
            return False
        self.seen_agents.append((agent.id, self._text(time), self._now, time))
        return True

    def _ran(self, agent: AgentEntry) -> bool:
        """Whether of every module of ``agent`` the run grew to one length, and no more changed."""
        if agent.state_rows != len(agent.modules):
            return False
        length = -1
        for module in agent.modules.values():
            if module.dirty & (STATUS | RUN) != RUN or not module.state_id:
                return False
            if module.standing.changes != length:
                if length >= 0:
                    return False
                length = module.standing.changes
        if length < 0:
            return False
        if self._standing.has_changes:
            self.run_agents.append((agent.id, length))
        return True

    def _place_standing(self, module: ModuleEntry, ran: bool) -> None:
        if not module.state_id:
            return  # in its new row
        if module.dirty & STATUS:
            self.standings.append((module.state_id, *self._standing.row(module.standing)))
        elif module.dirty & RUN and not ran and self._standing.has_changes:
            self.runs.append((module.state_id, module.standing.changes))

    def _place(self, agent: AgentEntry, module: ModuleEntry, whole: bool) -> None:
        dirty = module.dirty & ~(STATUS | RUN)
        if whole:
            if dirty & CHANGED:
                self.values.append((module.state_id, module.value, self._text(module.saved)))
            return
        interval = module.next_interval()
        if module.state_id and dirty == SEEN and module.current_interval == interval:
            row = (module.state_id, self._text(module.time), self._now, module.time)
            self.seen.append(row)
            return
        if dirty != CREATED:
            module.current_interval = interval
        if not module.state_id:
            self.new.append(self._new_row(agent, module, interval))
            self.new_modules[module.id] = module
            self.new_agents.append(agent)
        elif dirty & (SEEN | CHANGED):
            self.changed.append((module.state_id, *self._row(module, interval)))
        elif dirty & REMEMBERED:
            self.remembered.append((module.state_id, module.tried, interval, self._now))
        else:
            self.tried.append((module.state_id, module.tried, interval))

    def _row(self, module: ModuleEntry, interval: int) -> Row:
        text = self._text
        last_try = module.tried or module.time
        return (
            module.value,
            text(module.time),
            text(module.saved),
            self._now,
            last_try,
            interval,
        )

    def _new_row(self, agent: AgentEntry, module: ModuleEntry, interval: int) -> Row:
        row = self._row(module, interval)
        if not module.time:
            # Known by name only so far (disabled, or its first value was refused).
            row = ("", row[1], row[2], 0, module.tried, interval if module.tried else 0)
        return (module.id, agent.id, *row, *self._standing.row(module.standing))


def _last_ordinals(
    conn: Connection, table: Table, rows: Sequence[Row]
) -> dict[tuple[int, int], int]:
    """The last ordinal at each (module, time) between the first and the last of ``rows``."""
    c = table.c
    first, last = min(row[1] for row in rows), max(row[1] for row in rows)
    found: dict[tuple[int, int], int] = {}
    for ids in in_chunks(sorted({row[0] for row in rows})):
        query = (
            select(c.module_id, c.time, func.max(c.ordinal))
            .where(c.module_id.in_(ids), c.time.between(first, last))
            .group_by(c.module_id, c.time)
        )
        found.update({(row[0], row[1]): row[2] for row in conn.execute(query)})
    return found


def _read_state_ids(conn: Connection, modules: dict[int, ModuleEntry]) -> None:
    c = schema.state.c
    for ids in in_chunks(list(modules)):
        for state_id, module_id in conn.execute(
            select(c.id, c.module_id).where(c.module_id.in_(ids))
        ):
            modules[module_id].state_id = state_id


def _expect(matched: int, expected: int, what: str) -> None:
    """Fewer rows than the cache knows: somebody deleted some; read again and do it anew."""
    if matched < expected:
        raise StoreConflict(f"{expected - matched} {what} were deleted by somebody else meanwhile")

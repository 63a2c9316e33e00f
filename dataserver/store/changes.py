"""The changes of one transaction: collected while packets are evaluated, then written in bulk.

Each table gets one statement, or a few if a batch is very large.  The rows of states and late
values are written by :mod:`dataserver.store.write`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from sqlalchemy import Connection, Table, delete, func, select

from dataserver.errors import StoreConflict
from dataserver.rules.events import Event
from dataserver.rules.refusals import Refusal
from dataserver.rules.values import Kind, TypeRule
from dataserver.store import schema
from dataserver.store.cache import AgentEntry, ModuleEntry, in_chunks
from dataserver.store.clocks import Note
from dataserver.store.layout import Layout
from dataserver.store.refused import Refusals
from dataserver.store.sql import Row, Sql

#: Bits that say what a batch has to write of a module's state: see :mod:`dataserver.store.write`.
SEEN, CHANGED, TRIED, REMEMBERED, CREATED, STATUS, RUN = 1, 2, 4, 8, 16, 32, 64


@dataclass(frozen=True, slots=True)
class FirstRefused:
    """A value that was refused to an agent for the first time; names are decoded."""

    agent: str
    module: str
    reason: Refusal
    value: str


@dataclass(slots=True)
class Tally:
    """What one transaction did, in numbers; to be added up once it is committed."""

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
    #: Numbers of refused values by reason, and those that were refused for the first time.
    refused_by_reason: Counter[str] = field(default_factory=Counter)
    first_refused: list[FirstRefused] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add ``other`` to this one."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(frozen=True, slots=True)
class LateSample:
    """A value with later ones in its module's history, into which it is to be inserted."""

    agent: AgentEntry
    module: ModuleEntry
    is_text: bool
    is_async: bool
    time: int
    value: float | str
    own_time: bool
    #: The time up to which the module's history is right as it is.
    newest: int
    #: Whether it is its module's newest value although history has rows ahead of it.
    is_among: bool
    #: Whether it gets a row of its own, whatever history has at its time.
    has_row: bool


@dataclass(slots=True)
class Changes:
    """The rows that a transaction writes; cache entries are changed in place meanwhile."""

    #: Epoch seconds of this transaction.
    now: int
    tally: Tally = field(default_factory=Tally)
    #: Changes of status make no events: the console's "event storm protection".
    storm: bool = False
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
    #: Ids of modules that had a value with a time of its own, the first one that is cached.
    own_times: set[int] = field(default_factory=set)
    #: Addresses in agents' packets, by the agents' ids.
    addresses: dict[int, list[str]] = field(default_factory=dict)
    #: Events, in order.
    events: list[Event] = field(default_factory=list)
    #: Ids of modules whose status changed, with an event or without: their earlier events are
    #: validated.
    overtaken: set[int] = field(default_factory=set)
    #: Agents whose modules must be counted by status again, by id.
    recount: dict[int, AgentEntry] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    #: Agents' clocks that are ahead or were corrected.
    clocks: list[Note] = field(default_factory=list)

    def touch(self, agent: AgentEntry, module: ModuleEntry, how: int) -> None:
        """Note that the module's state must be written; ``how`` is one of the bits above."""
        if not module.dirty:
            self.touched.append((agent, module))
        module.dirty |= how

    def refuse(
        self, agent: AgentEntry, module: str, reason: Refusal, value: str | None, count: int = 1
    ) -> None:
        """Note that ``value`` was refused, the last one of ``count``.

        ``module`` is the name as stored, or '' for parts of no module.
        """
        self.refusals.add(agent.id, module, reason, value or "", count)
        self.tally.refused_by_reason[reason.value] += count

    def late_sample(
        self,
        agent: AgentEntry,
        module: ModuleEntry,
        rule: TypeRule,
        time: int,
        value: float | str,
        own_time: bool,
        *,
        has_row: bool,
        is_among: bool = False,
    ) -> None:
        """Note a value with later ones in the module's history, if the module keeps history."""
        kind, is_async, _ = rule
        if is_async or module.history:
            is_ahead = module.saved > module.time
            self.late.append(
                LateSample(
                    agent,
                    module,
                    kind is Kind.TEXT,
                    is_async,
                    time,
                    value,
                    own_time,
                    newest=module.saved - 1 if is_ahead else module.time,
                    is_among=is_among,
                    has_row=has_row or is_async,
                )
            )

    def point(self, module: ModuleEntry, kind: Kind, time: int, value: float | str) -> None:
        """Add a history row of ``module``."""
        again = time <= module.time
        if kind is Kind.TEXT:
            (self.again_texts if again else self.texts).append((module.id, time, value))
        else:
            (self.again_numbers if again else self.numbers).append((module.id, time, value))
        self.tally.stored += 1


class Writer:
    """Writes a :class:`Changes` through one connection."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self.layout = layout
        self._counter_unique = layout.counter_unique

    def history(self, conn: Connection, batch: Changes) -> None:
        """Write all history rows of the batch except the late ones."""
        for table, rows, again in (
            (schema.number_history, batch.numbers, batch.again_numbers),
            (schema.text_history, batch.texts, batch.again_texts),
        ):
            if rows:
                self._sql.insert(conn, table, ("module_id", "time", "value"), rows)
            if again:
                self.points(conn, table, again)

    def late_points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Write history rows (module, time, value) that determine the value of their second.

        Without an ordinal to say which of two rows of a second is later, they replace the other.
        """
        if not self.layout.has_ordinal:
            c = table.c
            rows = [(*key, value) for key, value in {row[:2]: row[2] for row in rows}.items()]
            for module_id, time, _ in rows:
                conn.execute(delete(table).where(c.module_id == module_id, c.time == time))
        self.points(conn, table, rows)

    def points(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Write history rows (module, time, value) at seconds that may have a row already.

        Each gets the next ordinal; in Pandora's own tables, which have none, the order of insertion
        has the same meaning.
        """
        if not self.layout.has_ordinal:
            self._sql.insert(conn, table, ("module_id", "time", "value"), rows)
            return
        taken = _last_ordinals(conn, table, rows)
        numbered = []
        for module_id, time, value in rows:
            ordinal = taken.get((module_id, time), -1) + 1
            taken[module_id, time] = ordinal
            numbered.append((module_id, time, value, ordinal))
        self._sql.insert(conn, table, ("module_id", "time", "value", "ordinal"), numbered)

    def counters(self, conn: Connection, batch: Changes) -> None:
        """Write the last readings of counters."""
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
            expect(self._sql.update(conn, schema.counter, keys, rows), len(rows), "counters")


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


def expect(matched: int, expected: int, what: str) -> None:
    """Raise StoreConflict if fewer rows matched than the cache knows: some were deleted."""
    if matched < expected:
        raise StoreConflict(
            f"{expected - matched} {what} were deleted by another program meanwhile"
        )

"""Writes the states of a batch's modules, and puts its late values into history.

:class:`States` updates each module's state row, and only the columns that changed, since most of
a batch's time goes there.  The module's ``dirty`` bits say which columns are written:

=================  =============================================================
``SEEN``           the times of its value
``CHANGED``        the value and the times
``TRIED``          a value was refused, or gave no result yet: the time of the try
``REMEMBERED``     a counter was restarted: as ``TRIED``, and the time of processing
``CREATED``        a row of its own, with or without a value
``STATUS``         in addition, the columns of its status
``RUN``            in addition, the length of its run of equal statuses
=================  =============================================================

If all modules of an agent were seen at the same time, one row per agent sets the times of all of
them, and likewise the length of the runs; what differs is then written by module.

:func:`write_late` inserts values that have later ones in history so that reading back gives what
every packet carried.  Such values come from late packets, and from agents whose clock was ahead
and was corrected, so that earlier rows lie ahead of their present.  The rule is
:func:`dataserver.rules.series.insert_late`; here the points that it needs are read, for all late
values of one agent at once, and the points that it adds are written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import IntEnum

from sqlalchemy import Connection, Table, and_, func, or_, select

from dataserver.errors import StoreConflict
from dataserver.rules import series
from dataserver.store import schema
from dataserver.store.cache import AgentEntry, ModuleEntry, in_chunks
from dataserver.store.changes import (
    CHANGED,
    CREATED,
    REMEMBERED,
    RUN,
    SEEN,
    STATUS,
    Changes,
    LateSample,
    Writer,
    expect,
)
from dataserver.store.layout import Layout
from dataserver.store.ledger import packet_times
from dataserver.store.sql import Row, Sql
from dataserver.store.standing import StandingColumns

#: Gives the local time of epoch seconds, as stored in the database.
_Text = Callable[[int], str]
_SEEN_KEYS = ("local_time", "processed", "last_execution_try")
_VALUE_KEYS = ("value", "saved")
_TRIED_KEYS = ("last_execution_try", "current_interval")
_RUN_KEYS = ("status_changes",)
_OWNER_KEY = "running_by"

_FULL_KEYS = (
    "value",
    "local_time",
    "saved",
    "processed",
    "last_execution_try",
    "current_interval",
)

#: By :class:`_Part`.
_PART_KEYS: tuple[tuple[str, ...], ...] = (
    (),
    _SEEN_KEYS,
    _VALUE_KEYS,
    _FULL_KEYS,
    _TRIED_KEYS,
    (*_TRIED_KEYS, "processed"),
)


class _Part(IntEnum):
    """Which columns of a value are written."""

    NOTHING = 0
    TIMES = 1
    VALUE = 2
    FULL = 3
    TRIED = 4
    REMEMBERED = 5


class _More(IntEnum):
    """Which columns of a status are written in addition."""

    NOTHING = 0
    RUN = 1
    ALL = 2


class States:
    """Writes the states of a batch's modules through one transaction's connection."""

    def __init__(self, sql: Sql, layout: Layout) -> None:
        self._sql = sql
        self._standing = StandingColumns(layout)
        self._has_owner = layout.has(schema.state.c.running_by)
        parts = list(_PART_KEYS)
        if self._has_owner:
            parts[_Part.FULL] = (*_FULL_KEYS, _OWNER_KEY)
        more_keys = ((), _RUN_KEYS, self._standing.keys)
        #: The columns of each statement, by :class:`_Part` and :class:`_More`.
        self._keys = [(*part, *more) for part in parts for more in more_keys]
        self._new_keys = ("module_id", "agent_id", *parts[_Part.FULL], *self._standing.keys)

    def write(self, conn: Connection, batch: Changes, text: _Text, *, running_by: int = 0) -> None:
        """Write the state of every touched module; ``text`` gives the local time of epoch seconds.

        ``running_by`` is the id of the server that stores these values, 0 to leave it unchanged.
        Raises StoreConflict if rows were deleted, or if there are more than the cache knows.
        """
        owner = running_by if self._has_owner else None
        plan = _Plan(batch, text, self._standing, owner)
        self._write_by_agent(conn, batch, _SEEN_KEYS, plan.seen)
        self._write_by_agent(conn, batch, _RUN_KEYS, plan.ran)
        self._write_by_agent(conn, batch, (*_SEEN_KEYS, *_RUN_KEYS), plan.seen_and_ran)
        for keys, rows in zip(self._keys, plan.modules, strict=True):
            if rows:
                matched = self._sql.update(conn, schema.state, ("id", *keys), rows)
                expect(matched, len(rows), "modules")
        if plan.new:
            self._sql.insert(conn, schema.state, self._new_keys, plan.new)
            _read_ids(conn, plan.new_modules)
            for agent in plan.new_agents:
                agent.state_rows += 1
        for _, module in batch.touched:
            module.dirty = 0
            module.tried = 0

    def _write_by_agent(
        self, conn: Connection, batch: Changes, keys: tuple[str, ...], rows: list[Row]
    ) -> None:
        if not rows:
            return
        known = sum(len(batch.agents[row[0]].modules) for row in rows)
        matched = self._sql.update(conn, schema.state, ("agent_id", *keys), rows)
        expect(matched, known, "modules")
        if matched > known:
            raise StoreConflict("modules were added by another program meanwhile")


class _Plan:
    """Sorts the touched modules into the statements that write their state."""

    def __init__(
        self, batch: Changes, text: _Text, standing: StandingColumns, owner: int | None
    ) -> None:
        self._now = batch.now
        #: The server to enter as the modules' own; 0: unchanged, None: the column is missing.
        self._owner = owner
        self._text = text
        self._standing = standing
        #: Rows that apply to all modules of an agent.
        self.seen: list[Row] = []
        self.ran: list[Row] = []
        self.seen_and_ran: list[Row] = []
        #: Rows of modules, by :class:`_Part` and :class:`_More`.
        self.modules: list[list[Row]] = [[] for _ in range(len(_Part) * len(_More))]
        self.new: list[Row] = []
        self.new_modules: dict[int, ModuleEntry] = {}
        #: The agent of each new row.
        self.new_agents: list[AgentEntry] = []
        whole = {agent.id: self._agent(agent) for agent in batch.agents.values()}
        for agent, module in batch.touched:
            if not module.state_id:
                self._place_new(agent, module)
                continue
            seen, ran = whole[agent.id]
            # For most modules their agent's row is all there is to write.
            if not seen or module.dirty & (CHANGED | STATUS) or (module.dirty & RUN and not ran):
                self._place(module, seen, ran)

    def _agent(self, agent: AgentEntry) -> tuple[bool, bool]:
        """Plan the rows that apply to all modules of ``agent``.

        Returns whether they set the times of the values, and whether the lengths of the runs.
        """
        if agent.state_rows != len(agent.modules):
            return False, False
        time, length = self._shared_time(agent), _shared_length(agent)
        if not self._standing.has_changes:
            length = None
        if time is not None:
            times = (agent.id, self._text(time), self._now, time)
            if length is not None:
                self.seen_and_ran.append((*times, length))
            else:
                self.seen.append(times)
        elif length is not None:
            self.ran.append((agent.id, length))
        return time is not None, length is not None

    def _place(self, module: ModuleEntry, seen: bool, ran: bool) -> None:
        """Plan the module's own row.

        ``seen`` and ``ran``: its agent's row sets the times, the lengths of runs.
        """
        part, fields = self._value(module, seen)
        more, dirty = _More.NOTHING, module.dirty
        if dirty & STATUS:
            more = _More.ALL
            fields = (*fields, *self._standing.row(module.standing))
        elif dirty & RUN and not ran and self._standing.has_changes:
            more = _More.RUN
            fields = (*fields, module.standing.changes)
        if fields:
            self.modules[part * len(_More) + more].append((module.state_id, *fields))

    def _value(self, module: ModuleEntry, seen: bool) -> tuple[_Part, Row]:
        """Which columns of the module's value are written, and their values."""
        dirty = module.dirty & ~(STATUS | RUN)
        if seen:
            if dirty & CHANGED:
                return _Part.VALUE, (module.value, self._text(module.saved))
            return _Part.NOTHING, ()
        interval = module.next_interval()
        if dirty == SEEN and not self._differs(module):
            return _Part.TIMES, (self._text(module.time), self._now, module.time)
        module.current_interval = interval
        if dirty & (SEEN | CHANGED):
            return _Part.FULL, (*self._full(module, interval), *self._owned(module))
        if dirty & REMEMBERED:
            return _Part.REMEMBERED, (module.tried, interval, self._now)
        return _Part.TRIED, (module.tried, interval)

    def _place_new(self, agent: AgentEntry, module: ModuleEntry) -> None:
        interval = module.next_interval()
        row = self._full(module, interval)
        if not module.time:
            # No value so far: it is disabled, or its first value was refused.
            row = ("", row[1], row[2], 0, module.tried, interval if module.tried else 0)
        if module.dirty != CREATED:
            module.current_interval = interval
        row = (*row, *self._owned(module))
        self.new.append((module.id, agent.id, *row, *self._standing.row(module.standing)))
        self.new_modules[module.id] = module
        self.new_agents.append(agent)

    def _full(self, module: ModuleEntry, interval: int) -> Row:
        text = self._text
        last_try = module.tried or module.time
        times = (text(module.time), text(module.saved), self._now, last_try)
        return (module.value, *times, interval)

    def _owned(self, module: ModuleEntry) -> Row:
        """The column of the server that the module runs on, which is set with its first value."""
        if self._owner is None:
            return ()
        if module.time:
            module.running_by = self._owner or module.running_by
        return (module.running_by,)

    def _differs(self, module: ModuleEntry) -> bool:
        """Whether a value changes more of the module's row than the usual columns."""
        if self._owner and module.running_by != self._owner:
            return True
        return module.current_interval != module.next_interval()

    def _shared_time(self, agent: AgentEntry) -> int | None:
        """The time at which all modules of ``agent`` were seen, or None if it differs."""
        shared = None
        for module in agent.modules.values():
            dirty = module.dirty & ~(STATUS | RUN)
            if not dirty or dirty & ~(SEEN | CHANGED) or not module.state_id:
                return None
            if self._differs(module):
                return None
            if module.time != shared:
                if shared is not None:
                    return None
                shared = module.time
        return shared


def _shared_length(agent: AgentEntry) -> int | None:
    """The length of all runs of ``agent``'s modules, or None if it differs or none has grown.

    Modules whose status changed do not matter: their rows are written afterwards.
    """
    shared = None
    grew = False
    for module in agent.modules.values():
        dirty = module.dirty
        if not module.state_id:
            return None
        if dirty & STATUS:
            continue
        grew = grew or dirty & RUN != 0
        if module.standing.changes != shared:
            if shared is not None:
                return None
            shared = module.standing.changes
    return shared if grew else None


def _read_ids(conn: Connection, modules: dict[int, ModuleEntry]) -> None:
    c = schema.state.c
    for ids in in_chunks(list(modules)):
        query = select(c.id, c.module_id).where(c.module_id.in_(ids))
        for state_id, module_id in conn.execute(query).all():
            modules[module_id].state_id = state_id


# -- late values --

#: Modules whose points one statement reads.
_MODULES_AT_ONCE = 100
_Points = dict[int, list[tuple[int, float | str]]]


def write_late(conn: Connection, writer: Writer, batch: Changes) -> None:
    """Write the batch's late values; its other history rows and its ledger must be written already.

    Raises what the database raises.
    """
    by_agent: defaultdict[int, list[LateSample]] = defaultdict(list)
    for sample in batch.late:
        by_agent[sample.agent.id].append(sample)
    for samples in by_agent.values():
        _write_late_of_agent(conn, writer, batch, samples[0].agent, samples)


def _write_late_of_agent(
    conn: Connection,
    writer: Writer,
    batch: Changes,
    agent: AgentEntry,
    samples: Sequence[LateSample],
) -> None:
    first = min(sample.time for sample in samples)
    known = packet_times(conn, agent.id, first)
    # After a clock was corrected, only the values of packets that were ahead are newer.
    ahead: Sequence[int] = ()
    if any(sample.is_among for sample in samples):
        ahead = packet_times(conn, agent.id, first, only_ahead=True)
    _read_own_times(conn, samples)
    for table, is_text in ((schema.number_history, False), (schema.text_history, True)):
        chosen = [
            (sample, _following(sample, ahead if sample.is_among else known))
            for sample in samples
            if sample.is_text is is_text
        ]
        if not chosen:
            continue
        points = _read_points(conn, table, chosen, writer.layout)
        rows: list[Row] = []
        for sample, following in sorted(chosen, key=lambda each: each[0].time):
            path = points.setdefault(sample.module.id, [])
            rows += [(sample.module.id, *point) for point in _added(path, sample, following)]
        if rows:
            writer.late_points(conn, table, rows)
            batch.tally.stored += len(rows)


def _read_own_times(conn: Connection, samples: Sequence[LateSample]) -> None:
    """Read which of the modules have ever had values with times of their own."""
    c = schema.own_times.c
    modules = {s.module.id: s.module for s in samples if not s.module.own_times}
    for ids in in_chunks(sorted(modules)):
        for module_id in conn.scalars(select(c.module_id).where(c.module_id.in_(ids))):
            modules[module_id].own_times = True


def _following(sample: LateSample, known: Sequence[int]) -> int | None:
    """The next time from which history is right as it is, or None if no such time is known."""
    if sample.is_async:
        # Every asynchronous value is stored, so each later one has a point of its own.
        return None
    if (sample.own_time or sample.module.own_times) and not sample.is_among:
        # The ledger does not have the times of a datalist's values.
        return sample.time + 1
    following = series.next_after(known, sample.time)
    if following is not None and following <= sample.newest:
        return following
    return sample.newest if sample.newest > sample.time else None


def _added(
    path: list[tuple[int, float | str]], sample: LateSample, following: int | None
) -> list[tuple[int, float | str]]:
    """The points that ``sample`` adds to its module's ``path``."""
    added = series.insert_late(path, sample.time, sample.value, following)
    # An equal point in the same second is enough, except for asynchronous types.
    if not added and sample.has_row:
        there = not sample.is_async and series.has_point(path, sample.time)
        return [] if there else [(sample.time, sample.value)]
    return added


def _read_points(
    conn: Connection,
    table: Table,
    chosen: Sequence[tuple[LateSample, int | None]],
    layout: Layout,
) -> _Points:
    """The points that inserting ``chosen`` needs, by module, in order.

    Each sample comes with the result of :func:`_following`.  Read are the last point before the
    first late value and all after it.
    """
    c = table.c
    samples = [sample for sample, _ in chosen]
    first = min(sample.time for sample in samples)
    last = max(following or sample.time for sample, following in chosen)
    points: _Points = {}
    for ids in in_chunks(sorted({sample.module.id for sample in samples}), _MODULES_AT_ONCE):
        latest = select(c.module_id, func.max(c.time)).where(c.module_id.in_(ids), c.time <= first)
        starts = dict.fromkeys(ids, first)
        starts.update((row[0], row[1]) for row in conn.execute(latest.group_by(c.module_id)))
        # A range for each module: with a join to the starts the server would read whole histories.
        ranges = (
            and_(c.module_id == key, c.time.between(start, last)) for key, start in starts.items()
        )
        query = select(c.module_id, c.time, c.value).where(or_(*ranges))
        for module_id, time, value in conn.execute(layout.in_order(query, table)):
            points.setdefault(module_id, []).append((time, value))
    return points

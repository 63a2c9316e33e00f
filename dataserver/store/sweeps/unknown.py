"""The unknown sweep: modules that had no value for too long.

Synchronous ones become unknown, asynchronous ones normal again: as the Perl server has it, when
twice the module's interval has passed since a value of it was processed.  Silence of a module of
type ``keep_alive`` is another matter: see :mod:`dataserver.store.sweeps.keep_alive`.

Pandora's tables have no index that finds them, so the states are looked through by their ids, a
span in each step.  A block of what is found is locked (the versions of its agents), looked at
again, since values may have come meanwhile, and changed with its events and counts.

What has a cron expression, or seconds in its place, is looked at apart and less often, by
:mod:`dataserver.rules.due`: another server on the database may have written an interval into its
state that means something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Join,
    Select,
    and_,
    false,
    func,
    or_,
    select,
    true,
)

from dataserver.rules.due import SHORTEST, silent_until
from dataserver.rules.events import Event, forgotten_event, unknown_event, wants_event
from dataserver.rules.status import Status
from dataserver.rules.values import type_rule
from dataserver.store import ledger, schema
from dataserver.store.counts import recount
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql

#: Modules changed by one step at most: so long it holds its locks.
BLOCK = 1_000
#: Ids of state rows that one step looks at: reading them takes a database about 0.1 s.
SPAN = 500_000

#: Seconds between two looks at all modules with cron expressions, and how many one step looks at:
#: the database finds them, but how long each may be silent is worked out here.
CRON_EVERY, CRON_PAGE = 60, 5_000

#: Characters of a module's value that its event is given.
_DATA_LENGTH = 255
#: A module's interval counts so often before it is unknown.
_INTERVALS = 2
#: Seconds, of a module without an interval of an agent without one.
_INTERVAL = 300
_KEEP_ALIVE = "keep_alive"

_AGENT, _MODULE, _STATE = schema.agent.c, schema.module.c, schema.state.c
_JOINED = schema.state.join(schema.module, _MODULE.id == _STATE.module_id).join(
    schema.agent, _AGENT.id == _MODULE.agent_id
)
#: In the order in which modules with cron expressions are found: few of many.
_JOINED_FROM_MODULES = schema.module.join(schema.state, _STATE.module_id == _MODULE.id).join(
    schema.agent, _AGENT.id == _MODULE.agent_id
)


#: A module whose interval alone does not say when its values come.
_BY_CRON = func.coalesce(func.length(_MODULE.cron_interval), 0) >= SHORTEST
#: What says when they do.
_CRON_DETAILS = (
    _MODULE.id.label("module_id"),
    _STATE.processed,
    _MODULE.cron_interval,
    _MODULE.module_interval,
    _AGENT.interval,
)


class Types(NamedTuple):
    """Ids of the module types that are not looked after like all others."""

    asynchronous: list[int]
    keep_alive: list[int]

    @property
    def other(self) -> list[int]:
        """Both: a module of these types never becomes unknown."""
        return self.asynchronous + self.keep_alive


def read_types(conn: Connection) -> Types:
    """The types of this database, told by their names."""
    types = Types([], [])
    for type_id, name in conn.execute(select(schema.module_type.c.id, schema.module_type.c.name)):
        if type_rule(name or "").is_async:
            types.asynchronous.append(type_id)
        elif name == _KEEP_ALIVE:
            types.keep_alive.append(type_id)
    return types


def unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """A number for a condition that is to choose no index.

    SQLite knows nothing of how many rows share a value, and would take the index of a flag that
    almost all rows have for as good as a key.
    """
    return column + 0


class UnknownSweep:
    """Looks through all modules, step by step; one process at a time does it for a database."""

    def __init__(
        self,
        sql: Sql,
        layout: Layout,
        events: EventLog,
        text: Callable[[int], str],
        zone: tzinfo = UTC,
    ) -> None:
        """``text`` gives the local time of epoch seconds, ``zone`` is that of cron expressions."""
        self._sql = sql
        self._layout = layout
        self._events = events
        self._text = text
        self._zone = zone
        #: The last id of a state row that the present pass has looked at.
        self._after = 0
        #: The last module with a cron expression likewise, and when that pass began.
        self._after_cron = 0
        self._cron_pass = 0
        self._has_cron = layout.has(_MODULE.cron_interval)
        self._details = (
            _STATE.id,
            _MODULE.agent_id,
            _MODULE.id,
            _MODULE.name,
            _MODULE.type_id,
            _any_set(layout, _AGENT.quiet, _MODULE.quiet),
            # As much of it as an event takes; a text may have megabytes.
            func.substr(_STATE.value, 1, _DATA_LENGTH),
            *self._there(_MODULE.disabled_types_event),
        )

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True: there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds: every packet that arrived up to ``horizon`` has
        been processed, so silence is certain up to then and not later.  Raises what the database
        raises.
        """
        span = self._next_span(conn)
        if span is None:
            return False
        types, until = read_types(conn), min(now, horizon)
        if self._is_time_for_cron(now) and self._sweep_cron(conn, types, until, now):
            # Locks are taken in the order of agents' ids: never those of two blocks in one step.
            return True
        picked = self._pick(conn, types, until, span)
        if len(picked) < BLOCK:
            self._after = span[1]
        if not picked:
            return self._after_cron != 0
        overdue = self._overdue(types, until, self._details)
        changed = self._condemn(conn, picked, overdue, types, now)
        return (changed and len(picked) == BLOCK) or self._after_cron != 0

    def _is_time_for_cron(self, now: int) -> bool:
        if self._after_cron or not self._has_cron:
            return self._has_cron
        if 0 <= now - self._cron_pass < CRON_EVERY:
            return False
        self._cron_pass = now
        return True

    def _sweep_cron(self, conn: Connection, types: Types, until: int, now: int) -> bool:
        """Look at a page of the modules with cron expressions; True: some were locked."""
        query = self._by_cron(types, until, (_STATE.id, _MODULE.agent_id, *_CRON_DETAILS))
        page = query.where(_MODULE.id > self._after_cron).order_by(_MODULE.id).limit(CRON_PAGE)
        rows = conn.execute(page).all()
        picked = [row for row in rows if self._is_overdue(row[2:], until)]
        if len(picked) > BLOCK:
            del picked[BLOCK:]
            self._after_cron = picked[-1].module_id
        else:
            self._after_cron = rows[-1].module_id if len(rows) == CRON_PAGE else 0
        if picked:
            overdue = self._by_cron(types, until, (*self._details, *_CRON_DETAILS))
            self._condemn(conn, [row[:2] for row in picked], overdue, types, now, until)
        return bool(picked)

    def _is_overdue(self, details: Sequence[Any], until: int) -> bool:
        """Whether a module with a cron expression, by _CRON_DETAILS, is silent for too long."""
        _, processed, cron, interval, agent_interval = details
        interval = interval or agent_interval or _INTERVAL
        return silent_until(cron, processed, interval, self._zone) < until

    def _condemn(
        self,
        conn: Connection,
        picked: Sequence[Any],
        overdue: Select[Any],
        types: Types,
        now: int,
        until: int | None = None,
    ) -> bool:
        """Lock what was picked (state and agent), change what is still ``overdue``; False: none.

        ``until``: by their cron expressions, at that time.
        """
        agent_ids = sorted({agent_id for _, agent_id in picked})
        versions = ledger.lock_versions(conn, self._sql, agent_ids)
        state_ids = [state_id for state_id, _ in picked]
        query = overdue.where(_STATE.id.in_(state_ids)).order_by(_STATE.id)
        rows: Sequence[Any] = conn.execute(query).all()
        if until is not None:
            details = len(self._details)
            rows = [row[:details] for row in rows if self._is_overdue(row[details:], until)]
        if not rows:
            return False  # all of them had values meanwhile
        self._change(conn, rows, types, now)
        touched = {row[1] for row in rows}
        recount(conn, self._sql, touched)
        ledger.raise_locked(conn, self._sql, {key: versions[key] for key in touched})
        return True

    def _next_span(self, conn: Connection) -> tuple[int, int] | None:
        """First and last id of the states to look at now; None: there are none at all."""
        query = select(func.min(_STATE.id))
        first = conn.scalar(query.where(_STATE.id > self._after))
        if first is None and self._after:
            first = conn.scalar(query)
        return None if first is None else (first, first + SPAN - 1)

    def _pick(
        self, conn: Connection, types: Types, until: int, span: tuple[int, int]
    ) -> Sequence[Any]:
        """State and agent of some overdue modules, unlocked."""
        query = self._overdue(types, until, (_STATE.id, _MODULE.agent_id))
        query = query.where(_STATE.id.between(*span)).order_by(_STATE.id).limit(BLOCK)
        return conn.execute(query).all()

    def _overdue(
        self, types: Types, until: int, wanted: Sequence[ColumnElement[Any]]
    ) -> Select[Any]:
        """Of the modules whose silence at ``until`` is to change them."""
        query = self._judged(types, wanted, _JOINED).where(
            # So written, no difference of the unsigned column can be below zero.
            _STATE.current_interval * _INTERVALS < until - _STATE.processed,
        )
        return query.where(~_BY_CRON) if self._has_cron else query

    def _by_cron(
        self, types: Types, until: int, wanted: Sequence[ColumnElement[Any]]
    ) -> Select[Any]:
        """Of the modules whose silence at ``until`` may change them, by their cron expressions."""
        query = self._judged(types, wanted, _JOINED_FROM_MODULES)
        return query.where(_BY_CRON, _STATE.processed < until)

    def _judged(
        self, types: Types, wanted: Sequence[ColumnElement[Any]], joined: Join
    ) -> Select[Any]:
        """Of the modules that silence changes, if it lasts too long."""
        return (
            # MySQL would begin with the agents and look at all states of all of them.
            select(*wanted)
            .prefix_with("STRAIGHT_JOIN", dialect="mysql")
            .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
            .select_from(joined)
            .where(
                _STATE.processed != 0,
                or_(
                    and_(
                        unindexed(_MODULE.type_id).not_in(types.other),
                        _STATE.status != Status.UNKNOWN.value,
                    ),
                    and_(
                        unindexed(_MODULE.type_id).in_(types.asynchronous),
                        _STATE.status != Status.NORMAL.value,
                    ),
                ),
                unindexed(_AGENT.disabled) == 0,
                unindexed(_MODULE.disabled) == 0,
                self._unset(_AGENT.ignore_unknown),
                self._unset(_MODULE.ignore_unknown),
                self._unset(_MODULE.delete_pending),
            )
        )

    def _change(self, conn: Connection, rows: Sequence[Any], types: Types, now: int) -> None:
        """Give the locked modules their status, and tell it."""
        events: list[Event] = []
        unknown: list[int] = []
        forgotten: list[int] = []
        overtaken: list[int] = []
        for state_id, agent_id, module_id, name, type_id, quiet, value, *switched_off in rows:
            is_async = type_id in types.asynchronous
            (forgotten if is_async else unknown).append(state_id)
            if not is_async and switched_off and not wants_event(switched_off[0], "going_unknown"):
                # What was told before still holds: its return to that is not told either.
                continue
            overtaken.append(module_id)
            if not quiet:
                event = forgotten_event if is_async else unknown_event
                events.append(event(agent_id, module_id, name or "", value or ""))
        self._set(
            conn,
            unknown,
            {
                _STATE.status: Status.UNKNOWN.value,
                _STATE.last_status: Status.UNKNOWN.value,
                _STATE.last_unknown_update: now,
                _STATE.last_status_change: now,
            },
        )
        self._set(
            conn,
            forgotten,
            {
                _STATE.status: Status.NORMAL.value,
                _STATE.known_status: Status.NORMAL.value,
                _STATE.last_status: Status.NORMAL.value,
                _STATE.last_known_status: Status.NORMAL.value,
                _STATE.last_status_change: now,
            },
        )
        self._events.write(conn, events, now, self._text(now), overtaken=overtaken)

    def _set(self, conn: Connection, ids: list[int], values: dict[Column[Any], int]) -> None:
        there = self._there(*values)
        keys = ("id", *(column.key for column in there))
        rest = tuple(values[column] for column in there)
        if ids:
            self._sql.update(conn, schema.state, keys, [(key, *rest) for key in ids])

    def _there(self, *columns: Column[Any]) -> tuple[Column[Any], ...]:
        return tuple(column for column in columns if self._layout.has(column))

    def _unset(self, column: Column[Any]) -> ColumnElement[bool]:
        """That the flag is not set; a column that this database does not have sets none."""
        return column == 0 if self._layout.has(column) else true()


def _any_set(layout: Layout, *flags: Column[Any]) -> ColumnElement[bool]:
    return or_(false(), *(column != 0 for column in flags if layout.has(column)))

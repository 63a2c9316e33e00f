"""The unknown sweep: finds modules that had no value for too long, and changes their status.

Synchronous modules become unknown and asynchronous ones normal again, as the Perl server does it,
when twice the module's interval has passed since its last value was processed.  Modules of type
``keep_alive`` are different: see :mod:`dataserver.store.sweeps.keep_alive`.

Pandora's tables have no index that finds these modules, so the states are read in the order of
their ids, one span in each step.  A block of overdue modules is locked (the versions of its
agents), checked again, since values may have arrived meanwhile, and changed with its events and
counts.

Modules with a cron expression, or with seconds in its place, are checked separately and less
often, by :mod:`dataserver.rules.due`: another server on the database may have written an interval
into their states that means something else.

The other sweeps over silent agents share :func:`read_types`, :func:`unindexed` and
:func:`is_agent_overdue`.
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

from dataserver.rules.due import DEFAULT_INTERVAL, SHORTEST, UNKNOWN_AFTER, silent_until
from dataserver.rules.events import Event, forgotten_event, unknown_event, wants_event
from dataserver.rules.status import Status
from dataserver.rules.values import type_rule
from dataserver.store import ledger, schema
from dataserver.store.counts import recount
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql

#: Modules changed by one step at most, which bounds how long it holds its locks.
BLOCK = 1_000
#: Ids of state rows that one step looks at: reading them takes a database about 0.1 s.
SPAN = 500_000

#: Seconds between two passes over all modules with cron expressions, and how many one step reads:
#: the database finds them, but how long each may be silent is computed here.
CRON_EVERY, CRON_PAGE = 60, 5_000

#: Characters of a module's value in its event.
_DATA_LENGTH = 255
_KEEP_ALIVE = "keep_alive"

_AGENT, _MODULE, _STATE = schema.agent.c, schema.module.c, schema.state.c
_JOINED = schema.state.join(schema.module, _MODULE.id == _STATE.module_id).join(
    schema.agent, _AGENT.id == _MODULE.agent_id
)
#: In the join order for modules with cron expressions, which are few of many.
_JOINED_FROM_MODULES = schema.module.join(schema.state, _STATE.module_id == _MODULE.id).join(
    schema.agent, _AGENT.id == _MODULE.agent_id
)


#: A module whose values are not due by its interval alone.
_BY_CRON = func.coalesce(func.length(_MODULE.cron_interval), 0) >= SHORTEST
#: The columns from which :func:`silent_until` computes when they are.
_CRON_DETAILS = (
    _MODULE.id.label("module_id"),
    _STATE.processed,
    _MODULE.cron_interval,
    _MODULE.module_interval,
    _AGENT.interval,
)


class Types(NamedTuple):
    """Ids of the module types that the unknown sweep treats differently from all others."""

    asynchronous: list[int]
    keep_alive: list[int]

    @property
    def other(self) -> list[int]:
        """All of them: a module of these types never becomes unknown."""
        return self.asynchronous + self.keep_alive


def read_types(conn: Connection) -> Types:
    """The special types of this database, recognised by their names."""
    types = Types([], [])
    for type_id, name in conn.execute(select(schema.module_type.c.id, schema.module_type.c.name)):
        if type_rule(name or "").is_async:
            types.asynchronous.append(type_id)
        elif name == _KEEP_ALIVE:
            types.keep_alive.append(type_id)
    return types


def unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """``column`` as an expression that uses no index.

    SQLite does not know how many rows share a value, and would use the index of a flag that almost
    all rows have as if it were a key.
    """
    return column + 0


def is_agent_overdue(
    contact: object, interval: int | None, until: int, text: Callable[[int], str]
) -> bool:
    """Whether at ``until`` (epoch seconds) an agent's last contact is too long ago.

    ``contact`` is the local time in the agent's row, ``text`` gives that of epoch seconds.
    """
    # Local times sort as texts, except in the doubled hour of a clock change.
    before = text(until - UNKNOWN_AFTER * (interval or DEFAULT_INTERVAL))
    return str(contact)[:19] < before


class UnknownSweep:
    """Checks all modules of a database, step by step; run by one process at a time."""

    def __init__(
        self,
        sql: Sql,
        layout: Layout,
        events: EventLog,
        text: Callable[[int], str],
        zone: tzinfo = UTC,
    ) -> None:
        """``text`` gives the local time of epoch seconds, ``zone`` applies to cron expressions."""
        self._sql = sql
        self._layout = layout
        self._events = events
        self._text = text
        self._zone = zone
        #: The last id of a state row that the current pass has checked.
        self._after = 0
        #: The same for modules with cron expressions, and when that pass began.
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
            # Cut to what an event holds; a text may have megabytes.
            func.substr(_STATE.value, 1, _DATA_LENGTH),
            *self._there(_MODULE.disabled_types_event),
        )

    def sweep(self, conn: Connection, now: int, horizon: int) -> bool:
        """One step inside the caller's transaction; True if there is more to do at once.

        ``now`` and ``horizon`` in epoch seconds: every packet that arrived up to ``horizon`` has
        been processed, so silence is certain up to then and not later.  Raises the database's
        errors.
        """
        span = self._next_span(conn)
        if span is None:
            return False
        types, until = read_types(conn), min(now, horizon)
        if self._is_time_for_cron(now) and self._sweep_cron(conn, types, until, now):
            # Locks are taken in the order of agents' ids, so one step locks only one block.
            return True
        picked = self._pick(conn, types, until, span)
        if len(picked) < BLOCK:
            self._after = span[1]
        if not picked:
            return self._after_cron != 0
        overdue = self._overdue(types, until, self._details)
        changed = self._change_overdue(conn, picked, overdue, types, now)
        return (changed and len(picked) == BLOCK) or self._after_cron != 0

    def _is_time_for_cron(self, now: int) -> bool:
        if self._after_cron or not self._has_cron:
            return self._has_cron
        if 0 <= now - self._cron_pass < CRON_EVERY:
            return False
        self._cron_pass = now
        return True

    def _sweep_cron(self, conn: Connection, types: Types, until: int, now: int) -> bool:
        """Check a page of the modules with cron expressions; True if some were locked."""
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
            self._change_overdue(conn, [row[:2] for row in picked], overdue, types, now, until)
        return bool(picked)

    def _is_overdue(self, details: Sequence[Any], until: int) -> bool:
        """Whether a module with a cron expression, by its ``_CRON_DETAILS``, is overdue."""
        _, processed, cron, interval, agent_interval = details
        interval = interval or agent_interval or DEFAULT_INTERVAL
        return silent_until(cron, processed, interval, self._zone) < until

    def _change_overdue(
        self,
        conn: Connection,
        picked: Sequence[Any],
        overdue: Select[Any],
        types: Types,
        now: int,
        until: int | None = None,
    ) -> bool:
        """Lock the picked modules (state and agent) and change those that are still ``overdue``.

        ``until``: judge by their cron expressions at that time.  False if none was overdue.
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
            return False  # all of them had values in the meantime
        self._change(conn, rows, types, now)
        touched = {row[1] for row in rows}
        recount(conn, self._sql, touched)
        ledger.raise_locked(conn, self._sql, {key: versions[key] for key in touched})
        return True

    def _next_span(self, conn: Connection) -> tuple[int, int] | None:
        """First and last id of the states to check now, or None if the database has none."""
        query = select(func.min(_STATE.id))
        first = conn.scalar(query.where(_STATE.id > self._after))
        if first is None and self._after:
            first = conn.scalar(query)
        return None if first is None else (first, first + SPAN - 1)

    def _pick(
        self, conn: Connection, types: Types, until: int, span: tuple[int, int]
    ) -> Sequence[Any]:
        """State and agent ids of some overdue modules, read without locks."""
        query = self._overdue(types, until, (_STATE.id, _MODULE.agent_id))
        query = query.where(_STATE.id.between(*span)).order_by(_STATE.id).limit(BLOCK)
        return conn.execute(query).all()

    def _overdue(
        self, types: Types, until: int, wanted: Sequence[ColumnElement[Any]]
    ) -> Select[Any]:
        """A query for the modules that are overdue at ``until`` by their interval."""
        query = self._changeable(types, wanted, _JOINED).where(
            # Written so that no difference of the unsigned column can be negative.
            _STATE.current_interval * UNKNOWN_AFTER < until - _STATE.processed,
        )
        return query.where(~_BY_CRON) if self._has_cron else query

    def _by_cron(
        self, types: Types, until: int, wanted: Sequence[ColumnElement[Any]]
    ) -> Select[Any]:
        """A query for the modules with cron expressions that may be overdue at ``until``."""
        query = self._changeable(types, wanted, _JOINED_FROM_MODULES)
        return query.where(_BY_CRON, _STATE.processed < until)

    def _changeable(
        self, types: Types, wanted: Sequence[ColumnElement[Any]], joined: Join
    ) -> Select[Any]:
        """A query for the modules that silence would change, however long it has lasted."""
        return (
            # Otherwise MySQL starts with the agents and reads all states of all of them.
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
        """Set the status of the locked modules, and write their events."""
        events: list[Event] = []
        unknown: list[int] = []
        forgotten: list[int] = []
        overtaken: list[int] = []
        for state_id, agent_id, module_id, name, type_id, quiet, value, *switched_off in rows:
            is_async = type_id in types.asynchronous
            (forgotten if is_async else unknown).append(state_id)
            if not is_async and switched_off and not wants_event(switched_off[0], "going_unknown"):
                # Its earlier event stays valid, so its return to that status makes no event either.
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
        """That the flag is not set, as it is when this database does not have the column."""
        return column == 0 if self._layout.has(column) else true()


def _any_set(layout: Layout, *flags: Column[Any]) -> ColumnElement[bool]:
    return or_(false(), *(column != 0 for column in flags if layout.has(column)))

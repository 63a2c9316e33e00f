"""The downtime sweep: carries out the planned downtimes that the console wrote, and ends them.

A sweep compares what the active downtimes want switched off with what was switched off for them
(``tdowntime_switch``), and corrects the difference, one block at a time.  So a start or an end
that no server saw, two downtimes over one agent, one that is changed or deleted while active, and
an interrupted sweep are all the same case.  Only what is in that table is ever switched on again:
what an operator disabled before stays disabled.

A downtime that another server started is taken over: what its marks say it switched off is
entered as if this server had done it.  A downtime that the console stops during its window stays
stopped until the window ends.

:class:`Downtimes` is the sweep; :func:`read` gives the downtimes that matter at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from dataserver.rules import entities
from dataserver.rules.downtimes import ONCE, Schedule, time_of_day
from dataserver.rules.events import INFORMATIONAL, Event
from dataserver.rules.times import local_text
from dataserver.store import ledger, schema
from dataserver.store.counts import recount
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.sql import Sql

log = logging.getLogger(__name__)

QUIET, DISABLE_AGENTS, DISABLE_MODULES = "quiet", "disable_agents", "disable_agent_modules"
DISABLE_ALERTS = "disable_agents_alerts"
TYPES = (QUIET, DISABLE_AGENTS, DISABLE_MODULES, DISABLE_ALERTS)
#: Agents or modules that are switched in one transaction.
BLOCK = 1_000
#: Agents that are switched on in one transaction, each with all of its modules.
AGENTS_ON = 100
#: After a check without a result, the next one waits this many times its duration.
_PAUSE_FACTOR: Final = 20
#: Invalid downtimes that are remembered as reported.
_MOST_REPORTED = 1_000
#: Kind of the rows that are no switch but mark a downtime as started.
_STARTED: Final = 0
#: A kind that is only switched on again: agents that earlier versions made quiet.
_QUIET_AGENTS: Final = 3
_downtime = schema.downtime.c
_of_agent = schema.downtime_agent.c
_of_module = schema.downtime_module.c
_alert = schema.alert.c
_switch = schema.downtime_switch.c
_SWITCH_KEYS = ("kind", "target", "agent_id")
#: An agent, module or alert to switch: its id and its agent's id.
_Pair = tuple[int, int]


class Downtimes:
    """Carries out the planned downtimes of one database; does nothing if it has no such tables."""

    def __init__(
        self,
        sql: Sql,
        layout: Layout,
        zone: tzinfo,
        server_name: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._sql = sql
        self._layout = layout
        self._zone = zone
        self._server_name = server_name
        self._events = EventLog(sql, layout)
        self._kinds = tuple(_kinds(layout))
        self._can_read = _can_read(layout)
        self._reported: set[tuple[int, str]] = set()
        #: The downtimes (id and type) for which nothing was left to do, and when to check again.
        self._settled: frozenset[tuple[int, str]] | None = None
        self._next_look = 0.0
        #: The last id that was switched off, by kind and query, in the current pass.
        self._after: dict[tuple[int, int], int] = {}

    def sweep(self, conn: Connection, now: int) -> bool:
        """Do a bounded part of the work due at ``now`` (epoch seconds); True if more is left.

        Runs inside the caller's transaction; called by one process at a time.
        """
        if not self._can_read:
            return False
        started = set(conn.scalars(_switched(_STARTED)))
        known = {it.id: it for it in read(conn, self._layout, now, sorted(started))}
        for it in known.values():
            self._report_fault(it)
        active = {key: it for key, it in known.items() if it.active(now, self._zone)}
        to_start = [it for key, it in active.items() if key not in started]
        to_stop = [
            it
            for key, it in known.items()
            # One of an unknown type may belong to another server.
            if key not in active and (key in started or (it.executed and it.type in TYPES))
        ]
        deleted = sorted(started - known.keys())
        events = [event for it in to_start for event in self._start(conn, it)]
        events += [event for it in to_stop for event in self._stop(conn, it, started)]
        events += [self._forget(conn, key) for key in deleted]
        if to_start or to_stop or deleted:
            self._events.write(conn, events, now, local_text(now, self._zone))
            return True
        # If the console stops a recurring downtime, only its ``executed`` flag shows it.
        wanted = [it for it in active.values() if it.executed or it.schedule.execution == ONCE]
        current = frozenset((it.id, it.type) for it in wanted)
        began = self._monotonic()
        if current == self._settled and began < self._next_look:
            return False
        more = any(self._adjust(conn, kind, wanted, now) for kind in self._kinds)
        # What an operator adds to an active downtime or removes from it is checked for all the
        # time, but with many modules that must not take most of the database's time.
        self._settled = None if more else current
        self._next_look = began + _PAUSE_FACTOR * (self._monotonic() - began)
        return more

    def _report_fault(self, found: Downtime) -> None:
        fault = found.fault()
        if fault is None or (found.id, fault) in self._reported:
            return
        if len(self._reported) >= _MOST_REPORTED:
            self._reported.clear()
        self._reported.add((found.id, fault))
        log.warning(
            "planned downtime %r never starts: %s; correct it in the console", found.name, fault
        )

    # -- starting and stopping a downtime --

    def _start(self, conn: Connection, it: Downtime) -> list[Event]:
        fresh = self._set_executed(conn, it, was=0, now=1)
        if not fresh:
            self._take_over(conn, it)
        elif it.type == DISABLE_AGENTS and self._layout.has(_of_agent.manually_disabled):
            self._note_disabled(conn, it)
        conn.execute(insert(schema.downtime_switch).values(_row(_STARTED, it.id, 0)))
        return [self._event(it, "started")] if fresh else []

    def _stop(self, conn: Connection, it: Downtime, started: set[int]) -> list[Event]:
        if it.id not in started:
            self._take_over(conn, it)
        conn.execute(_delete_switches(_STARTED, [it.id]))
        # If the console stopped it, the console wrote the event.
        ended = self._set_executed(conn, it, was=1, now=0)
        return [self._event(it, "stopped")] if ended else []

    def _forget(self, conn: Connection, downtime_id: int) -> Event:
        conn.execute(_delete_switches(_STARTED, [downtime_id]))
        text = f"Server {self._server_name} stopped planned downtime {downtime_id}: it was deleted"
        return Event("system", INFORMATIONAL, text)

    def _event(self, it: Downtime, verb: str) -> Event:
        # Both texts are Pandora's: that of a single downtime names its creator.
        maker = f"(Created by {it.user}) " if it.schedule.execution == ONCE else ""
        text = f"{maker}Server {self._server_name} {verb} planned downtime: {it.name}"
        return Event("system", INFORMATIONAL, text)

    def _set_executed(self, conn: Connection, it: Downtime, *, was: int, now: int) -> bool:
        is_so = _downtime.executed != 0 if was else _downtime.executed == 0
        changed = conn.execute(
            update(schema.downtime).where(_downtime.id == it.id, is_so).values(executed=now)
        )
        return changed.rowcount > 0

    def _note_disabled(self, conn: Connection, it: Downtime) -> None:
        """Mark the agents that an operator had disabled before: the downtime leaves them alone."""
        number = next(kind.number for kind in self._kinds if kind.type == DISABLE_AGENTS)
        disabled = select(schema.agent.c.id).where(schema.agent.c.disabled != 0)
        by_hand = and_(
            _of_agent.agent_id.in_(disabled), _of_agent.agent_id.not_in(_switched(number))
        )
        conn.execute(
            update(schema.downtime_agent)
            .where(_of_agent.downtime_id == it.id)
            .values(manually_disabled=case((by_hand, 1), else_=0))
        )

    def _take_over(self, conn: Connection, it: Downtime) -> None:
        """Enter what another server switched off for this downtime, as its marks show."""
        for kind in self._kinds:
            if kind.type != it.type:
                continue
            for targets in self._targets(kind, [it.id]):
                marked = select(literal(kind.number), kind.table.c.id, kind.agent_id).where(
                    kind.table.c.id.in_(targets),
                    kind.table.c.id.not_in(_switched(kind.number)),
                    kind.flag != 0,
                )
                if kind.mark is not None:
                    marked = marked.where(kind.mark != 0)
                statement = insert(schema.downtime_switch).from_select(list(_SWITCH_KEYS), marked)
                conn.execute(statement)

    # -- switching agents, modules and alerts --

    def _adjust(self, conn: Connection, kind: _Kind, active: Iterable[Downtime], now: int) -> bool:
        """Switch one block of agents, modules or alerts on or off; False if nothing is left."""
        ids = [it.id for it in active if it.type == kind.type]
        wanted = self._targets(kind, ids) if ids else []
        over = select(_switch.target, _switch.agent_id).where(
            _switch.kind == kind.number, *(_switch.target.not_in(targets) for targets in wanted)
        )
        pairs = _pairs(conn, over.limit(_most(kind)))
        if pairs:
            self._switch_on(conn, kind, pairs, now)
            return True
        for place, targets in enumerate(wanted):
            # Continues after the last block; anything left before that is found by the next pass.
            after = self._after.pop((kind.number, place), 0)
            pairs = _pairs(conn, _still_on(kind, targets, after).limit(BLOCK))
            if pairs:
                if len(pairs) == BLOCK:
                    self._after[kind.number, place] = pairs[-1][0]
                self._switch_off(conn, kind, pairs)
                return True
        return False

    def _switch_off(self, conn: Connection, kind: _Kind, pairs: Sequence[_Pair]) -> None:
        versions = ledger.lock_versions(conn, self._sql, _agents(pairs))
        # Read again under the locks: what was switched off by others meanwhile is not ours.
        query = select(kind.table.c.id, kind.agent_id).where(
            kind.table.c.id.in_(_ids(pairs)), kind.flag == 0
        )
        found = _pairs(conn, query.order_by(kind.table.c.id).with_for_update())
        switches = [(kind.number, target, agent_id) for target, agent_id in found]
        if switches:
            self._sql.insert(conn, schema.downtime_switch, _SWITCH_KEYS, switches)
        self._set(conn, kind, found, 1)
        ledger.raise_locked(conn, self._sql, versions)

    def _switch_on(self, conn: Connection, kind: _Kind, pairs: Sequence[_Pair], now: int) -> None:
        versions = ledger.lock_versions(conn, self._sql, _agents(pairs))
        self._set(conn, kind, pairs, 0)
        if kind.type in (DISABLE_AGENTS, DISABLE_MODULES):
            # They could not get values while switched off, so that does not count as silence.
            state = schema.state.c
            key = state.agent_id if kind.table is schema.agent else state.module_id
            conn.execute(
                update(schema.state)
                .where(key.in_(_ids(pairs)), state.processed != 0)
                .values(processed=now)
            )
        conn.execute(_delete_switches(kind.number, _ids(pairs)))
        ledger.raise_locked(conn, self._sql, versions)

    def _set(self, conn: Connection, kind: _Kind, pairs: Sequence[_Pair], value: int) -> None:
        columns = [kind.flag] if kind.mark is None else [kind.flag, kind.mark]
        conn.execute(
            update(kind.table)
            .where(kind.table.c.id.in_(_ids(pairs)))
            .values({column.key: value for column in columns})
        )
        if kind.type == DISABLE_MODULES:
            recount(conn, self._sql, _agents(pairs))

    def _targets(self, kind: _Kind, ids: Sequence[int]) -> list[Select[Any]]:
        """Queries for the ids of ``kind``'s table that the downtimes ``ids`` want switched off."""
        all_modules: ColumnElement[Any] = literal(1)
        if self._layout.has(_of_agent.all_modules):
            all_modules = func.coalesce(_of_agent.all_modules, 1)
        agents = select(_of_agent.agent_id).where(_of_agent.downtime_id.in_(ids))
        modules = select(_of_module.module_id).where(_of_module.downtime_id.in_(ids))
        if kind.type == DISABLE_AGENTS:
            if self._layout.has(_of_agent.manually_disabled):
                agents = agents.where(func.coalesce(_of_agent.manually_disabled, 0) == 0)
            return [agents]
        if kind.type == DISABLE_ALERTS:
            join = schema.alert.join(schema.module, schema.module.c.id == _alert.module_id)
            alerts = select(_alert.id).select_from(join)
            return [alerts.where(schema.module.c.agent_id.in_(agents))]
        if kind.number == _QUIET_AGENTS:
            return []
        # "All modules" is the column's default: if some are named, only those are meant.
        # One query for each downtime, or MariaDB reads all named modules for every agent.
        return [modules, *(self._whole_agents(key, all_modules) for key in ids)]

    def _whole_agents(self, downtime_id: int, all_modules: ColumnElement[Any]) -> Select[Any]:
        """The modules of the agents for which the downtime names no module."""
        m = schema.module.c
        named = select(_of_module.agent_id).where(_of_module.downtime_id == downtime_id)
        return (
            select(m.id)
            .join_from(schema.downtime_agent, schema.module, m.agent_id == _of_agent.agent_id)
            .where(
                _of_agent.downtime_id == downtime_id,
                all_modules != 0,
                _of_agent.agent_id.not_in(named),
            )
        )


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a type of downtime switches; the columns are of one table."""

    number: int
    type: str
    table: Table
    #: 1 means switched off.
    flag: Column[Any]
    #: 1 means by a downtime, which the console shows; None if the database lacks the column.
    mark: Column[Any] | None

    @property
    def agent_id(self) -> ColumnElement[Any]:
        """The agent that a row belongs to."""
        if self.table is schema.alert:
            m = schema.module.c
            return select(m.agent_id).where(m.id == _alert.module_id).scalar_subquery()
        return self.table.c.id if self.table is schema.agent else self.table.c.agent_id


def _kinds(layout: Layout) -> Iterator[_Kind]:
    """The switches that the database has columns for."""
    a, m = schema.agent.c, schema.module.c
    every = (
        (1, DISABLE_AGENTS, schema.agent, a.disabled, a.disabled_by_downtime),
        (2, DISABLE_MODULES, schema.module, m.disabled, m.disabled_by_downtime),
        (_QUIET_AGENTS, QUIET, schema.agent, a.quiet, None),
        (4, QUIET, schema.module, m.quiet, m.quiet_by_downtime),
        (5, DISABLE_ALERTS, schema.alert, _alert.disabled, _alert.disabled_by_downtime),
    )
    for number, type_, table, flag, mark in every:
        if layout.has(flag):
            has_mark = mark is not None and layout.has(mark)
            yield _Kind(number, type_, table, flag, mark if has_mark else None)


def _most(kind: _Kind) -> int:
    """How many rows of this kind are switched on in one transaction."""
    return min(AGENTS_ON, BLOCK) if kind.type == DISABLE_AGENTS else BLOCK


def _switched(number: int) -> Select[Any]:
    return select(_switch.target).where(_switch.kind == number)


def _still_on(kind: _Kind, targets: Select[Any], after: int) -> Select[Any]:
    """Those of ``targets`` with ids after ``after`` that are to be switched off, in order of id.

    One that was switched on again by hand during its downtime is left alone.
    """
    key = kind.table.c.id
    # Written so that MariaDB does not turn it into a join, which it would sort for each block.
    is_target = key.in_(targets).is_(true())
    return (
        select(key, kind.agent_id)
        .where(key > after, is_target, kind.flag == 0)
        .where(key.not_in(_switched(kind.number)))
        .order_by(key)
    )


def _pairs(conn: Connection, query: Select[Any]) -> list[_Pair]:
    return [(row[0], row[1]) for row in conn.execute(query)]


def _ids(pairs: Iterable[_Pair]) -> list[int]:
    return [pair[0] for pair in pairs]


def _agents(pairs: Iterable[_Pair]) -> list[int]:
    return sorted({pair[1] for pair in pairs})


def _delete_switches(number: int, targets: Sequence[int]) -> Any:
    return delete(schema.downtime_switch).where(_switch.kind == number, _switch.target.in_(targets))


def _row(kind: int, target: int, agent_id: int) -> dict[str, int]:
    return dict(zip(_SWITCH_KEYS, (kind, target, agent_id), strict=True))


# -- reading planned downtimes --

#: The default of the database column, which the console never writes.
_ALERTS_MISSPELT = "disabled_agents_alerts"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NEEDED = ("id", "name", "begins", "ends", "executed", "type", "execution", "periodicity")


@dataclass(frozen=True, slots=True)
class Downtime:
    """One planned downtime; its name is decoded, its type one of ``TYPES`` if it is valid."""

    id: int
    name: str
    type: str
    user: str
    schedule: Schedule
    executed: bool

    def active(self, now: int, zone: tzinfo) -> bool:
        """Whether it is active at ``now`` (epoch seconds); an invalid one never is."""
        return self.type in TYPES and self.schedule.active(now, zone)

    def fault(self) -> str | None:
        """Why it can never be active, as a clause, or None if it is valid."""
        if self.type not in TYPES:
            return f"its type {self.type!r} is unknown"
        return self.schedule.fault()


def _can_read(layout: Layout) -> bool:
    """Whether the database has the tables and columns of planned downtimes."""
    tables = (schema.downtime, schema.downtime_agent, schema.downtime_module)
    return all(map(layout.has, tables)) and all(layout.has(_downtime[key]) for key in _NEEDED)


def read(conn: Connection, layout: Layout, now: int, started: Sequence[int]) -> Iterator[Downtime]:
    """The downtimes that may be active at ``now`` (epoch seconds) or were, in order of id.

    Those that are over for good are left out unless their id is in ``started``.
    """
    present = layout.columns(schema.downtime)
    times = {_downtime.time_from.name, _downtime.time_to.name}
    # A TIME may be out of the range of the driver's type for it.
    columns = [cast(c, String(20)).label(c.key) if c.name in times else c for c in present]
    may_be_on = or_(
        _downtime.execution != ONCE,
        and_(_downtime.begins <= now, _downtime.ends > now),
        _downtime.executed != 0,
        _downtime.id.in_(started),
    )
    for row in conn.execute(select(*columns).where(may_be_on).order_by(_downtime.id)):
        values = {column.key: value for column, value in zip(present, row, strict=True)}
        yield _from_row(values)


def _from_row(row: Mapping[str, Any]) -> Downtime:
    schedule = Schedule(
        execution=row["execution"],
        periodicity=row["periodicity"],
        begins=row["begins"],
        ends=row["ends"],
        weekdays=frozenset(day for day, key in enumerate(_DAYS) if row.get(key)),
        time_from=time_of_day(row.get("time_from")),
        time_to=time_of_day(row.get("time_to")),
        day_from=row.get("day_from"),
        day_to=row.get("day_to"),
        cron_from=row.get("cron_from") or "",
        cron_to=row.get("cron_to") or "",
    )
    return Downtime(
        id=row["id"],
        name=entities.decode(row["name"]),
        type=_type(row),
        user=str(row.get("user_id") or ""),
        schedule=schedule,
        executed=bool(row["executed"]),
    )


def _type(row: Mapping[str, Any]) -> str:
    """What it switches off; in older databases a flag marks downtimes of alerts only."""
    written = str(row["type"])
    about_alerts = row.get("only_alerts") and written != QUIET
    return DISABLE_ALERTS if about_alerts or written == _ALERTS_MISSPELT else written

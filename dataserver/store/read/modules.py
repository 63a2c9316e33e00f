"""Reads agents and modules as records for people, with one query for each list."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, NamedTuple, Self

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, func, null, select

from dataserver.rules import entities
from dataserver.rules.status import Status, status_of
from dataserver.rules.times import from_local_text
from dataserver.rules.values import Kind, parse_number, type_rule
from dataserver.store import schema
from dataserver.store.layout import Layout

#: Characters of a value in lists; a text may have 16 million.
SHORT = 4_000
_SHORT_VALUE = func.substr(schema.state.c.value, 1, SHORT).label(schema.state.c.value.key)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of an agent's enabled modules by status, as stored in its row."""

    critical: int
    warning: int
    unknown: int
    normal: int
    not_initialised: int
    total: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self | None:
        """From a row of :func:`agents_query`; None if the database has no counts."""
        if row.total_count is None:
            return None
        return cls(
            critical=row.critical_count or 0,
            warning=row.warning_count or 0,
            unknown=row.unknown_count or 0,
            normal=row.normal_count or 0,
            not_initialised=row.notinit_count or 0,
            total=row.total_count,
        )

    @property
    def worst(self) -> Status:
        """The status of the agent: that of its worst module."""
        for status, count in (
            (Status.CRITICAL, self.critical),
            (Status.WARNING, self.warning),
            (Status.UNKNOWN, self.unknown),
            (Status.NORMAL, self.normal),
        ):
            if count > 0:
                return status
        return Status.NOT_INITIALISED


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One agent.  Names are decoded; times in epoch seconds, None for never.

    ``contact`` is when its last packet was stored, ``packet_time`` the time in that packet;
    ``modules`` counts its modules including disabled ones, ``interval`` is in seconds.  ``mode``
    is 0 (normal: its packets change only values), 1 (learning) or 2 (autodisable: learning, and
    enabled again by its packets).  ``counts`` is None if the database has no columns for them.
    """

    id: int
    name: str
    alias: str
    group: str | None
    os: str | None
    contact: int | None
    packet_time: int | None
    modules: int
    interval: int
    mode: int
    disabled: bool
    quiet: bool
    counts: Counts | None

    @property
    def status(self) -> Status | None:
        """The status of its worst module, or None if the database has no counts."""
        return None if self.counts is None else self.counts.worst

    @classmethod
    def from_row(cls, row: Row[Any], zone: tzinfo) -> Self:
        """From a row of :func:`agents_query`."""
        return cls(
            id=row.id,
            name=entities.decode(row.name),
            alias=entities.decode(row.alias or ""),
            group=_decoded(row.group_name),
            os=_decoded(row.os_name),
            contact=_epoch(row.contact, zone),
            packet_time=_epoch(row.packet_contact, zone),
            modules=row.modules or 0,
            interval=row.interval,
            mode=row.mode,
            disabled=bool(row.disabled),
            quiet=bool(row.quiet),
            counts=Counts.from_row(row),
        )


class ModuleName(NamedTuple):
    """A module's name and status, for choosing from a list; ``status`` is None without a state."""

    id: int
    name: str
    status: Status | None
    disabled: bool


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """One module and its state.  Times in epoch seconds, None for never.

    ``value`` is the newest one, a float if it is a number, None before the first; ``time`` is its
    time, ``saved`` the time of the last value that was stored in history.
    ``status`` (None without a state) holds since ``since``; ``pending`` is the status of newer
    values that flip-flop protection keeps the module from taking yet.
    ``interval`` in seconds.  Texts are decoded, as the console shows them.
    """

    id: int
    name: str
    type: str | None
    value: float | str | None
    unit: str
    time: int | None
    saved: int | None
    interval: int
    description: str
    disabled: bool
    quiet: bool
    status: Status | None
    pending: Status | None
    since: int | None

    @classmethod
    def from_row(cls, row: Row[Any], zone: tzinfo) -> Self:
        """From a row of :func:`_modules_query`."""
        # In a doubled hour, the meaning that fits the last value.
        time = _epoch(row.local_time, zone, row.last_execution_try)
        return cls(
            id=row.id,
            name=entities.decode(row.name or ""),
            type=row.type,
            value=None if time is None else _value(row.value or "", row.type),
            unit=entities.decode(row.unit or ""),
            time=time,
            saved=_epoch(row.saved, zone, row.last_execution_try),
            interval=row.module_interval or 0,
            description=entities.decode(row.description or ""),
            disabled=bool(row.disabled),
            quiet=bool(row.quiet),
            status=None if row.status is None else status_of(row.status),
            pending=_pending(row),
            since=row.last_status_change or None,
        )


def agents(conn: Connection, layout: Layout, zone: tzinfo) -> Iterator[AgentRecord]:
    """All agents in order of name, as a lazy iterator."""
    return (
        AgentRecord.from_row(row, zone)
        for row in conn.execute(
            agents_query(layout).order_by(schema.agent.c.name, schema.agent.c.id)
        )
    )


def modules(
    conn: Connection, layout: Layout, zone: tzinfo, agent_id: int
) -> Iterator[ModuleRecord]:
    """The modules of one agent in order of name, as a lazy iterator."""
    query = _modules_query(layout).where(schema.module.c.agent_id == agent_id)
    return (ModuleRecord.from_row(row, zone) for row in conn.execute(query))


def agent(conn: Connection, layout: Layout, zone: tzinfo, agent_id: int) -> AgentRecord | None:
    """One agent, or None if the id is unknown."""
    row = conn.execute(agents_query(layout, schema.agent.c.id == agent_id)).one_or_none()
    return None if row is None else AgentRecord.from_row(row, zone)


def module(
    conn: Connection, layout: Layout, zone: tzinfo, module_id: int
) -> tuple[int, ModuleRecord] | None:
    """A module's agent id and the module, its value cut to SHORT; None if the id is unknown."""
    query = _modules_query(layout, _SHORT_VALUE).add_columns(schema.module.c.agent_id)
    row = conn.execute(query.where(schema.module.c.id == module_id)).first()
    return None if row is None else (row.agent_id, ModuleRecord.from_row(row, zone))


def some_modules(
    conn: Connection, layout: Layout, zone: tzinfo, ids: Collection[int]
) -> list[ModuleRecord]:
    """The modules with these ids, in order of name, their values cut to SHORT."""
    query = _modules_query(layout, _SHORT_VALUE).where(schema.module.c.id.in_(ids))
    return [ModuleRecord.from_row(row, zone) for row in conn.execute(query)]


def module_names(conn: Connection, layout: Layout, agent_id: int) -> list[ModuleName]:
    """The names of one agent's modules, in order; does not read values, which may be long."""
    m, s = schema.module.c, schema.state.c
    query = (
        select(m.id, m.name, s.status, m.disabled)
        .select_from(schema.module.outerjoin(schema.state, s.module_id == m.id))
        .where(m.agent_id == agent_id)
        .order_by(m.name, m.id)
    )
    if layout.has(m.delete_pending):
        query = query.where(m.delete_pending == 0)
    return [
        ModuleName(
            row.id,
            entities.decode(row.name or ""),
            None if row.status is None else status_of(row.status),
            bool(row.disabled),
        )
        for row in conn.execute(query)
    ]


def agents_query(layout: Layout, which: ColumnElement[bool] | None = None) -> Select[Any]:
    """A query for the rows of :class:`AgentRecord`, of all agents or of ``which``, unordered."""
    a, g, o, m = schema.agent.c, schema.group.c, schema.os.c, schema.module.c
    counted = select(m.agent_id, func.count().label("modules")).group_by(m.agent_id)
    if layout.has(m.delete_pending):
        counted = counted.where(m.delete_pending == 0)
    if which is not None:
        # Otherwise the modules of all agents are counted.
        counted = counted.where(m.agent_id.in_(select(a.id).where(which)))
    count = counted.subquery()
    joined = (
        schema.agent.outerjoin(schema.group, g.id == a.group_id)
        .outerjoin(schema.os, o.id == a.os_id)
        .outerjoin(count, count.c.agent_id == a.id)
    )
    return (
        select(
            a.id,
            a.name,
            a.alias,
            g.name.label("group_name"),
            o.name.label("os_name"),
            a.contact,
            a.packet_contact,
            count.c.modules,
            a.interval,
            a.mode,
            a.disabled,
            _optional(layout, a.quiet),
            *(_optional(layout, a[key]) for key in schema.COUNT_KEYS),
        )
        .select_from(joined)
        .where(*(() if which is None else (which,)))
    )


def _modules_query(layout: Layout, value: ColumnElement[Any] = schema.state.c.value) -> Select[Any]:
    m, s, t = schema.module.c, schema.state.c, schema.module_type.c
    joined = schema.module.outerjoin(schema.state, s.module_id == m.id).outerjoin(
        schema.module_type, t.id == m.type_id
    )
    query = select(
        m.id,
        m.name,
        t.name.label("type"),
        value,
        _optional(layout, m.unit),
        s.local_time,
        s.saved,
        s.last_execution_try,
        m.module_interval,
        m.description,
        m.disabled,
        _optional(layout, m.quiet),
        s.status,
        s.last_status,
        _optional(layout, s.last_status_change),
    ).select_from(joined)
    if layout.has(m.delete_pending):
        query = query.where(m.delete_pending == 0)
    return query.order_by(m.name, m.id)


def _optional(layout: Layout, column: Column[Any]) -> ColumnElement[Any]:
    """``column``, or NULL if the database does not have it."""
    return column if layout.has(column) else null().label(column.key)


def _pending(row: Row[Any]) -> Status | None:
    if row.status is None or row.last_status is None or row.last_status == row.status:
        return None
    newest = status_of(row.last_status)
    # Values have one of these three statuses; before its first value nothing is pending.
    is_of_value = newest in (Status.NORMAL, Status.CRITICAL, Status.WARNING)
    return newest if is_of_value and row.status != Status.NOT_INITIALISED else None


def _decoded(text: str | None) -> str | None:
    return None if text is None else entities.decode(text)


def _value(text: str, type_name: str | None) -> float | str:
    """The state's value as a number if it is one and the module's type is not text."""
    if type_rule(type_name or "").kind is Kind.TEXT:
        return text
    number = parse_number(text)
    return text if number is None else number


def _epoch(local_time: object, zone: tzinfo, hint: int | None = None) -> int | None:
    """Epoch seconds of a date column (text or datetime); None for no date and 1970-01-01."""
    text = str(local_time)[:19] if local_time else ""
    return from_local_text(text, zone, hint) or None if text > "1970-01-02" else None

"""Agents as a list that may be long: searched, filtered, sorted, a page at a time.

Counts and pages are the database's work.  A search looks at every name in Python, since names are
stored with entities: to the database ``20`` is a part of every name with a blank (``&#x20;``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    bindparam,
    case,
    func,
    literal,
    select,
)

from dataserver import entities
from dataserver.status import Status
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.listing import AgentRecord, agents_query

_a, _m, _s = schema.agent.c, schema.module.c, schema.state.c
#: From the gravest; an agent has the status of its worst module.
_RANKS = (
    (Status.CRITICAL, 4),
    (Status.WARNING, 3),
    (Status.UNKNOWN, 2),
    (Status.NORMAL, 1),
    (Status.NOT_INITIALISED, 0),
)
_RANK_OF = dict(_RANKS)
_STATUS_OF = {rank: status for status, rank in _RANKS}


class Order(StrEnum):
    """How a list is sorted; those that are equal by name."""

    NAME = "name"
    #: The worst first.
    STATUS = "status"
    #: The one heard of last first.
    CONTACT = "contact"


@dataclass(frozen=True, slots=True)
class WantedAgents:
    """Which agents are asked for; "" and None: all.  ``text`` is in the name or the alias."""

    text: str = ""
    group_id: int | None = None
    status: Status | None = None
    order: Order = Order.NAME


@dataclass(frozen=True, slots=True)
class AgentPage:
    """Some of the wanted agents, each with its status.

    ``counts`` are those of all that fit but for the status asked for, ``total`` those that fit.
    """

    agents: tuple[tuple[AgentRecord, Status], ...]
    counts: dict[Status, int]
    total: int


def agent_page(
    conn: Connection, layout: Layout, zone: tzinfo, wanted: WantedAgents, first: int, size: int
) -> AgentPage:
    """``size`` of the wanted agents, from the ``first`` (0) on."""
    rank, ranked = _ranked(layout)
    conditions: list[ColumnElement[bool]] = []
    if wanted.group_id is not None:
        conditions.append(_a.group_id == wanted.group_id)
    if wanted.text:
        conditions.append(_is_one_of(_matching(conn, wanted.text)))
    counting = select(rank, func.count()).select_from(ranked).where(*conditions).group_by(rank)
    counts = {_STATUS_OF[number]: count for number, count in conn.execute(counting)}
    if wanted.status is not None:
        conditions.append(rank == _RANK_OF[wanted.status])
    order = {
        Order.NAME: (),
        Order.STATUS: (rank.desc(),),
        Order.CONTACT: (_a.contact.desc(),),
    }[wanted.order]
    chosen = (
        select(_a.id, rank)
        .select_from(ranked)
        .where(*conditions)
        .order_by(*order, _a.name, _a.id)
        .limit(size)
        .offset(first)
    )
    ranks: dict[int, int] = dict(conn.execute(chosen).tuples().all())
    rows = conn.execute(agents_query(layout, _is_one_of(list(ranks)))) if ranks else ()
    records = {row.id: AgentRecord.from_row(row, zone) for row in rows}
    total = sum(counts.values()) if wanted.status is None else counts.get(wanted.status, 0)
    return AgentPage(
        agents=tuple(
            (records[agent_id], _STATUS_OF[number])
            for agent_id, number in ranks.items()
            if agent_id in records
        ),
        counts={status: counts.get(status, 0) for status, _ in _RANKS},
        total=total,
    )


def groups(conn: Connection) -> dict[int, str]:
    """The groups that have agents, by id, in order of name."""
    g = schema.group.c
    used = select(_a.group_id).distinct()
    found = conn.execute(select(g.id, g.name).where(g.id.in_(used)))
    return dict(
        sorted(
            ((group_id, entities.decode(name or "")) for group_id, name in found),
            key=lambda each: each[1].casefold(),
        )
    )


def _ranked(layout: Layout) -> tuple[ColumnElement[int], FromClause]:
    """How grave an agent's status is, and where from."""
    counts = (_a.critical_count, _a.warning_count, _a.unknown_count, _a.normal_count)
    if all(map(layout.has, counts)):
        ranks = zip(counts, _RANKS, strict=False)
        return case(*((count > 0, rank) for count, (_, rank) in ranks), else_=0), schema.agent
    # A database that does not count: all states are looked at.
    worst: Select[Any] = (
        select(
            _m.agent_id,
            func.max(case(*((_s.status == status, rank) for status, rank in _RANKS))).label("rank"),
        )
        .join(schema.state, _s.module_id == _m.id)
        .where(_m.disabled == 0)
        .group_by(_m.agent_id)
    )
    of = worst.subquery()
    joined = schema.agent.outerjoin(of, of.c.agent_id == _a.id)
    return func.coalesce(of.c.rank, literal(0)), joined


def _matching(conn: Connection, text: str) -> list[int]:
    """The ids of the agents whose name or alias has ``text`` in it, whatever the case."""
    wanted = text.casefold()
    return [
        agent_id
        for agent_id, name, alias in conn.execute(select(_a.id, _a.name, _a.alias))
        if wanted in entities.decode(name or "").casefold()
        or (alias and alias != name and wanted in entities.decode(alias).casefold())
    ]


def _is_one_of(ids: list[int]) -> ColumnElement[bool]:
    # Written into the statement: SQLite takes only so many variables.
    return _a.id.in_(bindparam("ids", ids, expanding=True, literal_execute=True))

"""Agents as a list that may be long: searched, filtered, sorted, a page at a time.

Counts and pages are the database's work.  A search is decided in Python, since names are stored
with entities: to the database ``20`` is a part of every name with a blank (``&#x20;``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, or_, select

from dataserver import entities
from dataserver.status import Status
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.listing import AgentRecord, agents_query

_a = schema.agent.c
#: A text that is stored as it is.
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
#: From the gravest; an agent has the status of its worst module.
_RANKS = (
    (Status.CRITICAL, 4),
    (Status.WARNING, 3),
    (Status.UNKNOWN, 2),
    (Status.NORMAL, 1),
    (Status.NOT_INITIALISED, 0),
)
_COUNTS = (_a.critical_count, _a.warning_count, _a.unknown_count, _a.normal_count)
_RANK: ColumnElement[Any] = case(
    *((count > 0, rank) for count, (_, rank) in zip(_COUNTS, _RANKS, strict=False)), else_=0
)
#: What an agent is called on a page.
_SHOWN = func.lower(func.coalesce(func.nullif(_a.alias, ""), _a.name))
_RANK_OF = dict(_RANKS)
_STATUS_OF = {rank: status for status, rank in _RANKS}


class Order(StrEnum):
    """How a list is sorted; those that are equal by name."""

    NAME = "name"
    #: The worst first.
    STATUS = "status"
    #: The one heard of last first.
    CONTACT = "contact"
    #: The one not heard of for the longest time first.
    SILENT = "silent"


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
    conditions: list[ColumnElement[bool]] = []
    if wanted.group_id is not None:
        conditions.append(_a.group_id == wanted.group_id)
    if wanted.text:
        conditions.append(_is_one_of(_matching(conn, wanted.text)))
    counting = select(_RANK, func.count()).where(*conditions).group_by(_RANK)
    counts = {_STATUS_OF[number]: count for number, count in conn.execute(counting)}
    if wanted.status is not None:
        conditions.append(_RANK.in_([_RANK_OF[wanted.status]]))
    order = {
        Order.NAME: (),
        Order.STATUS: (_RANK.desc(),),
        Order.CONTACT: (_a.contact.desc(),),
        Order.SILENT: (_a.contact,),
    }[wanted.order]
    chosen = (
        select(_a.id, _RANK)
        .where(*conditions)
        .order_by(*order, _SHOWN, _a.id)
        .limit(size)
        .offset(first)
    )
    ranks = {row[0]: row[1] for row in conn.execute(chosen)}
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


class Group(NamedTuple):
    """A group of agents."""

    id: int
    name: str


def groups(conn: Connection) -> tuple[Group, ...]:
    """The groups that have agents, in order of name."""
    g = schema.group.c
    used = select(_a.group_id).distinct()
    found = conn.execute(select(g.id, g.name).where(g.id.in_(used)))
    named = (Group(row[0], entities.decode(row[1] or "")) for row in found)
    return tuple(sorted(named, key=lambda group: (group.name.casefold(), group.id)))


def _matching(conn: Connection, text: str) -> list[int]:
    """The ids of the agents whose name or alias has ``text`` in it, whatever the case."""
    wanted = text.casefold()
    query = select(_a.id, _a.name, _a.alias)
    if _PLAIN.fullmatch(text):
        # No entity stands for these, so the database may leave out most of the others.
        query = query.where(
            or_(_a.name.contains(text, autoescape=True), _a.alias.contains(text, autoescape=True))
        )
    return [
        agent_id
        for agent_id, name, alias in conn.execute(query)
        if wanted in _folded(name or "") or (alias and alias != name and wanted in _folded(alias))
    ]


def _folded(stored: str) -> str:
    # Blanks are what most names have entities for, and this is twice as fast with them.
    return entities.decode(stored.replace("&#x20;", " ")).casefold()


def _is_one_of(ids: list[int]) -> ColumnElement[bool]:
    # Written into the statement: SQLite takes only so many variables.
    return _a.id.in_(bindparam("ids", ids, expanding=True, literal_execute=True))

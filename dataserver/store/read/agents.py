"""Agents as a list that may be long: searched, filtered, sorted, a page at a time.

Counts and pages are the database's work.  A search is decided in Python, since names are stored
with entities: to the database ``20`` is a part of every name with a blank (``&#x20;``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import tzinfo
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, func, or_, select

from dataserver.errors import UsageError
from dataserver.rules import entities
from dataserver.rules.status import Status
from dataserver.store import schema
from dataserver.store.cache import folded_name
from dataserver.store.columns import AGENT_NAME_LENGTH
from dataserver.store.layout import Layout
from dataserver.store.read.modules import AgentRecord, ModuleRecord, agents_query

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


# -- from names to ids: what an operator typed (or what is near), what packets say

#: So many names are told where one is meant and none, or several, are found.
_TOLD = 5


class Agent(NamedTuple):
    """An agent's id, and its name as people read it."""

    id: int
    name: str


class _Candidate(NamedTuple):
    """An agent with its names as stored."""

    id: int
    name: str
    alias: str


def find_agent(conn: Connection, text: str) -> Agent:
    """The agent whose name is ``text``, else the one whose alias it is.

    Each exactly, else without regard to case.  Raises UsageError: none, or several.
    """
    a = schema.agent.c
    spelled = (entities.encode(entities.clean_name(text)), text)
    query = select(a.id, a.name, a.alias).order_by(a.id)
    spelled_so = query.where(or_(a.name.in_(spelled), a.alias.in_(spelled)))
    found = [_Candidate(*row) for row in conn.execute(spelled_so)]
    if not found:
        everyone = [_Candidate(*row) for row in conn.execute(query)]
        wanted = folded_name(text)
        found = [each for each in everyone if wanted in map(folded_name, each[1:])]
        if not found:
            names = {entities.decode(name) for each in everyone for name in each[1:] if name}
            raise UsageError(f"there is no agent {text!r}", hint=_advice(text, names))
    return _one_of(found, spelled, text)


def agent_ids(conn: Connection, names: Collection[str]) -> dict[str, int]:
    """The ids of the agents that exist, by their names as packets have them."""
    a = schema.agent.c
    stored = {name: entities.encode(entities.clean_name(name)) for name in names}
    # A longer one is nobody's, and may be longer than a statement.
    stored = {name: key for name, key in stored.items() if len(key) <= AGENT_NAME_LENGTH}
    query = select(a.name, a.id).where(a.name.in_(list(stored.values()))).order_by(a.id.desc())
    found = {folded_name(row[0]): row[1] for row in conn.execute(query)} if stored else {}
    known = {name: found.get(folded_name(key)) for name, key in stored.items()}
    return {name: agent_id for name, agent_id in known.items() if agent_id is not None}


def _one_of(candidates: list[_Candidate], spelled: tuple[str, str], text: str) -> Agent:
    """Of the agents that some comparison found, the one that is meant."""
    folded = folded_name(text)
    named = [each for each in candidates if each.name in spelled] or [
        each for each in candidates if folded_name(each.name) == folded
    ]
    # Of several agents of one name the server uses the oldest, too.
    found = named[:1] or [each for each in candidates if each.alias in spelled] or candidates
    if len(found) > 1:
        names = _listed(entities.decode(each.name) for each in found)
        raise UsageError(
            f"{len(found)} agents have the alias {text!r}", hint=f"say which by its name: {names}"
        )
    return Agent(found[0].id, entities.decode(found[0].name))


def choose_module(text: str, modules: Iterable[ModuleRecord]) -> ModuleRecord:
    """The one of an agent's modules whose name is ``text``; case matters only if it must.

    Raises UsageError: none, or several that differ in case only.
    """
    by_name = {module.name: module for module in sorted(modules, key=lambda each: -each.id)}
    wanted = entities.clean_name(text)
    if wanted in by_name:
        return by_name[wanted]
    alike = [name for name in by_name if name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        return by_name[alike[0]]
    hint = f"there are {_listed(alike)}" if alike else _advice(wanted, by_name)
    raise UsageError(f"there is no module {text!r}", hint=hint)


def _advice(text: str, names: Iterable[str]) -> str | None:
    """What may have been meant; case is the commonest mistake and must not count."""
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(text.casefold(), folded, n=_TOLD, cutoff=0.5)
    if near:
        return f"did you mean {_listed(folded[each] for each in near)}?"
    return f"there are {_listed(sorted(folded.values()))}" if folded else None


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    shown = ", ".join(repr(name) for name in found[:_TOLD])
    return f"{shown} and {len(found) - _TOLD} more" if len(found) > _TOLD else shown

"""Finds agents: in pages of a long list, filtered and sorted, and by the names people type.

Counting, sorting and paging are done by the database (:func:`agent_page`).  Searching is done in
Python, since names are stored with entities: to the database every name with a blank
(``&#x20;``) contains ``20``.

:func:`find_agent` and :func:`choose_module` turn what an operator typed into an agent and a
module, with suggestions if nothing matches; :func:`agent_ids` does it for names in packets.
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
#: A text that is stored without entities.
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")

#: Statuses with their rank, from the worst; an agent has the status of its worst module.
_RANKS = (
    (Status.CRITICAL, 4),
    (Status.WARNING, 3),
    (Status.UNKNOWN, 2),
    (Status.NORMAL, 1),
    (Status.NOT_INITIALISED, 0),
)

_RANK: ColumnElement[Any] = case(
    *((_a[schema.STATUS_COUNT_KEYS[status]] > 0, rank) for status, rank in _RANKS if rank), else_=0
)

_RANK_OF = dict(_RANKS)
_STATUS_OF = {rank: status for status, rank in _RANKS}
#: The name by which an agent is shown.
_SHOWN = func.lower(func.coalesce(func.nullif(_a.alias, ""), _a.name))


class Order(StrEnum):
    """How a list of agents is sorted, before their names."""

    NAME = "name"
    #: The worst status first.
    STATUS = "status"
    #: The latest contact first.
    CONTACT = "contact"
    #: The earliest contact first.
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class WantedAgents:
    """A filter for agents; "" and None allow all.  ``text`` is part of the name or the alias."""

    text: str = ""
    group_id: int | None = None
    status: Status | None = None
    order: Order = Order.NAME


@dataclass(frozen=True, slots=True)
class AgentPage:
    """Some of the matching agents, each with its status.

    ``counts``: agents by status that match the filter without its status; ``total``: those that
    match all of it.
    """

    agents: tuple[tuple[AgentRecord, Status], ...]
    counts: dict[Status, int]
    total: int


def agent_page(
    conn: Connection, layout: Layout, zone: tzinfo, wanted: WantedAgents, first: int, size: int
) -> AgentPage:
    """``size`` of the matching agents, starting with number ``first`` (from 0)."""
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


def _matching(conn: Connection, text: str) -> list[int]:
    """The ids of the agents whose name or alias contains ``text``, ignoring case."""
    wanted = text.casefold()
    query = select(_a.id, _a.name, _a.alias)
    if _PLAIN.fullmatch(text):
        # These characters are stored as they are, so the database can rule out most agents.
        query = query.where(
            or_(_a.name.contains(text, autoescape=True), _a.alias.contains(text, autoescape=True))
        )
    return [
        agent_id
        for agent_id, name, alias in conn.execute(query)
        if wanted in _folded(name or "") or (alias and alias != name and wanted in _folded(alias))
    ]


def _folded(stored: str) -> str:
    # Most entities in names are blanks; replacing these first makes this twice as fast.
    return entities.decode(stored.replace("&#x20;", " ")).casefold()


def _is_one_of(ids: list[int]) -> ColumnElement[bool]:
    # As literals: SQLite limits the number of bound variables.
    return _a.id.in_(bindparam("ids", ids, expanding=True, literal_execute=True))


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


# -- from names to ids --

#: Names that an error message suggests at most.
_SUGGESTED = 5


class Agent(NamedTuple):
    """An agent's id and its decoded name."""

    id: int
    name: str


class _Candidate(NamedTuple):
    """An agent with its names as stored."""

    id: int
    name: str
    alias: str


def find_agent(conn: Connection, text: str) -> Agent:
    """The agent whose name is ``text``, else the agent whose alias it is.

    An exact match comes before one that ignores case.  Raises UsageError if no agent or several
    match.
    """
    a = schema.agent.c
    spelled = (entities.encode(entities.clean_name(text)), text)
    query = select(a.id, a.name, a.alias).order_by(a.id)
    spelled_so = query.where(or_(a.name.in_(spelled), a.alias.in_(spelled)))
    found = [_Candidate(*row) for row in conn.execute(spelled_so)]
    if not found:
        candidates = [_Candidate(*row) for row in conn.execute(query)]
        wanted = folded_name(text)
        found = [each for each in candidates if wanted in map(folded_name, each[1:])]
        if not found:
            names = {entities.decode(name) for each in candidates for name in each[1:] if name}
            raise UsageError(f"there is no agent {text!r}", hint=_suggestion(text, names))
    return _best_match(found, spelled, text)


def _best_match(candidates: list[_Candidate], spelled: tuple[str, str], text: str) -> Agent:
    """The best match of ``candidates``.  Raises UsageError if several agents have the alias."""
    folded = folded_name(text)
    named = [each for each in candidates if each.name in spelled] or [
        each for each in candidates if folded_name(each.name) == folded
    ]
    # Of several agents of one name the oldest, as the server does.
    found = named[:1] or [each for each in candidates if each.alias in spelled] or candidates
    if len(found) > 1:
        names = _listed(entities.decode(each.name) for each in found)
        raise UsageError(
            f"{len(found)} agents have the alias {text!r}", hint=f"say which by its name: {names}"
        )
    return Agent(found[0].id, entities.decode(found[0].name))


def agent_ids(conn: Connection, names: Collection[str]) -> dict[str, int]:
    """The ids of the existing agents with these names, by name as packets write it."""
    a = schema.agent.c
    stored = {name: entities.encode(entities.clean_name(name)) for name in names}
    # A longer name cannot exist, and may be longer than a statement.
    stored = {name: key for name, key in stored.items() if len(key) <= AGENT_NAME_LENGTH}
    query = select(a.name, a.id).where(a.name.in_(list(stored.values()))).order_by(a.id.desc())
    found = {folded_name(row[0]): row[1] for row in conn.execute(query)} if stored else {}
    known = {name: found.get(folded_name(key)) for name, key in stored.items()}
    return {name: agent_id for name, agent_id in known.items() if agent_id is not None}


def choose_module(text: str, modules: Iterable[ModuleRecord]) -> ModuleRecord:
    """The module of an agent whose name is ``text``; an exact match before one ignoring case.

    Raises UsageError if none matches, or several that differ only in case.
    """
    by_name = {module.name: module for module in sorted(modules, key=lambda each: -each.id)}
    wanted = entities.clean_name(text)
    if wanted in by_name:
        return by_name[wanted]
    alike = [name for name in by_name if name.casefold() == wanted.casefold()]
    if len(alike) == 1:
        return by_name[alike[0]]
    hint = f"there are {_listed(alike)}" if alike else _suggestion(wanted, by_name)
    raise UsageError(f"there is no module {text!r}", hint=hint)


def _suggestion(text: str, names: Iterable[str]) -> str | None:
    """A hint with the names that are close to ``text``, ignoring case, or None."""
    folded = {name.casefold(): name for name in names}
    near = get_close_matches(text.casefold(), folded, n=_SUGGESTED, cutoff=0.5)
    if near:
        return f"did you mean {_listed(folded[each] for each in near)}?"
    return f"there are {_listed(sorted(folded.values()))}" if folded else None


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    shown = ", ".join(repr(name) for name in found[:_SUGGESTED])
    return f"{shown} and {len(found) - _SUGGESTED} more" if len(found) > _SUGGESTED else shown

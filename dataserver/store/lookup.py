"""From names to ids: what an operator typed (or what is near), what packets say."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import NamedTuple

from sqlalchemy import Connection, or_, select

from dataserver import entities
from dataserver.errors import UsageError
from dataserver.store import schema
from dataserver.store.catalog import folded_name
from dataserver.store.columns import AGENT_NAME_LENGTH
from dataserver.store.listing import ModuleRecord

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

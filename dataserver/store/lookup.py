"""From what an operator types to an agent or module; where there is none, what is near."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NamedTuple

from sqlalchemy import Connection, or_, select

from dataserver import entities
from dataserver.errors import UsageError
from dataserver.store import schema
from dataserver.store.catalog import folded_name
from dataserver.store.listing import ModuleRecord

#: So many names are told where one is meant and none, or several, are found.
_TOLD = 5


class Agent(NamedTuple):
    """An agent's id, and its name as people read it."""

    id: int
    name: str


def find_agent(conn: Connection, text: str) -> Agent:
    """The agent whose name is ``text``, else the one whose alias it is.

    Each exactly, else as the database compares.  Raises UsageError: none, or several.
    """
    a = schema.agent.c
    spelled = (entities.encode(entities.clean_name(text)), text)
    query = select(a.id, a.name, a.alias).where(or_(a.name.in_(spelled), a.alias.in_(spelled)))
    rows = conn.execute(query.order_by(a.id)).all()
    folded = {folded_name(each) for each in spelled}
    named = [row for row in rows if row.name in spelled] or [
        row for row in rows if folded_name(row.name) in folded
    ]
    if named:
        # Of several agents of one name the server uses the oldest, too.
        return Agent(named[0].id, entities.decode(named[0].name))
    called = [row for row in rows if row.alias in spelled] or rows
    if len(called) > 1:
        names = _listed(entities.decode(row.name) for row in called)
        raise UsageError(
            f"{len(called)} agents have the alias {text!r}", hint=f"say which by its name: {names}"
        )
    if not called:
        raise UsageError(f"there is no agent {text!r}", hint=_advice(text, _agent_names(conn)))
    return Agent(called[0].id, entities.decode(called[0].name))


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


def _agent_names(conn: Connection) -> set[str]:
    names = conn.execute(select(schema.agent.c.name, schema.agent.c.alias)).all()
    return {entities.decode(each) for row in names for each in row if each}


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

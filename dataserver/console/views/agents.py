"""Agents: a page of those that are wanted, with how many are in which status."""

from __future__ import annotations

from dataclasses import dataclass

from dataserver.console.source import Source
from dataserver.status import Status
from dataserver.store.agent_list import Group, WantedAgents, agent_page, groups
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.listing import AgentRecord

#: Agents of one page.
PAGE = 100
#: Intervals without contact after which an agent is shown as silent.
_SILENT_AFTER = 2


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent; ``status`` is that of its worst module, ``silent`` for how many seconds (None: no).

    Silent is one of which no packet came for two of its intervals.
    """

    agent: AgentRecord
    status: Status
    silent: int | None


@dataclass(frozen=True, slots=True)
class Agents:
    """A page of agents, ``pages`` from 1; ``counts`` of all statuses, ``total`` of the chosen."""

    rows: tuple[AgentRow, ...]
    counts: dict[str, int]
    total: int
    page: int
    pages: int
    groups: tuple[Group, ...]


def agents(source: Source, wanted: WantedAgents, page: int) -> Agents:
    """Raises StoreError."""
    store = source.store()
    with source.watched(), translating("list agents"), reading(store.engine) as conn:
        found = agent_page(conn, store.layout, store.zone, wanted, (page - 1) * PAGE, PAGE)
        pages = max(1, -(-found.total // PAGE))
        if page > pages:
            page = pages
            found = agent_page(conn, store.layout, store.zone, wanted, (page - 1) * PAGE, PAGE)
        names = groups(conn)
    now = source.now()
    return Agents(
        rows=tuple(AgentRow(agent, status, silent(agent, now)) for agent, status in found.agents),
        counts={status.name.lower(): count for status, count in found.counts.items()},
        total=found.total,
        page=page,
        pages=pages,
        groups=names,
    )


def silent(agent: AgentRecord, now: int) -> int | None:
    """For how long an agent has been silent, in seconds; None: it has not."""
    if agent.contact is None or agent.disabled or not agent.interval:
        return None
    seconds = now - agent.contact
    return seconds if seconds > _SILENT_AFTER * agent.interval else None

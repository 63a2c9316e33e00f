"""``dataserver agents``: the agents in the database, with their statuses."""

from __future__ import annotations

from dataclasses import asdict
from datetime import tzinfo
from typing import Any

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import (
    STATUSES,
    marks,
    painted,
    print_json,
    print_line,
    print_table,
    status_option,
    status_word,
    time_text,
)
from dataserver.cli.store import instance_option, reading_store
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.modules import AgentRecord, Counts
from dataserver.store.read.modules import agents as list_agents

_HEAD = "AGENT ALIAS GROUP OS STATUS COUNTS CONTACT PACKET MODULES INTERVAL MODE MARKS"
_MODES = {0: "normal", 1: "learning", 2: "autodisable"}


@click.command(cls=Command)
@status_option
@instance_option
@json_option
@pass_app
def agents(app: App, statuses: frozenset[str] | None, instance: str, as_json: bool) -> None:
    """List all agents in the database, in order of name.

    STATUS is the status of the agent's worst module (critical, warning, unknown, normal); COUNTS
    are its enabled modules by status; MODULES includes the disabled ones. CONTACT is when an
    agent's last packet was stored, PACKET the time in that packet. Times are in the configured
    zone; in JSON they are epoch seconds, or null for never. MODE: packets of a learning agent
    create and describe modules, those of a normal agent do not; an autodisable agent is a
    learning agent that is disabled when it falls silent, and enabled by its next packet.
    MARKS are disabled and quiet.

    \b
    Examples:
      dataserver agents
      dataserver agents --status critical,warning
      dataserver agents --json
    """
    with (
        reading_store(app, instance) as store,
        translating("list agents"),
        reading(store.engine) as conn,
    ):
        found = [
            agent
            for agent in list_agents(conn, store.layout, store.zone)
            if statuses is None or status_word(agent.status) in statuses
        ]
    if as_json:
        print_json([_agent_json(agent) for agent in found])
    elif found:
        print_table(_HEAD.split(), [_agent_row(agent, store.zone) for agent in found])
    else:
        print_line("none")


def _agent_json(agent: AgentRecord) -> dict[str, Any]:
    mode = _MODES.get(agent.mode, agent.mode)
    return {**asdict(agent), "mode": mode, "status": status_word(agent.status)}


def _agent_row(agent: AgentRecord, zone: tzinfo) -> tuple[object, ...]:
    return (
        agent.name,
        agent.alias or "-",
        agent.group or "-",
        agent.os or "-",
        painted(status_word(agent.status) or "-"),
        _counts_text(agent.counts),
        time_text(agent.contact, zone),
        time_text(agent.packet_time, zone),
        agent.modules,
        agent.interval,
        _MODES.get(agent.mode, agent.mode),
        marks(disabled=agent.disabled, quiet=agent.quiet),
    )


def _counts_text(counts: Counts | None) -> str:
    """Such as ``1 critical, 9 normal``: the counts above zero, the worst status first."""
    if counts is None:
        return "-"
    by_word = ((getattr(counts, status.name.lower()), word) for word, status in STATUSES.items())
    return ", ".join(f"{count} {word}" for count, word in by_word if count) or "-"

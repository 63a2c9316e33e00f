"""``dataserver agents`` and ``dataserver modules``: what the database knows, as lists."""

from __future__ import annotations

from dataclasses import asdict
from datetime import tzinfo
from typing import Any

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import print_json, print_line, print_table
from dataserver.cli.store import instance_option, reading_store
from dataserver.cli.text import number_text, shortened, time_text
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.listing import AgentRecord, ModuleRecord
from dataserver.store.listing import agents as list_agents
from dataserver.store.listing import modules as list_modules
from dataserver.store.lookup import find_agent

_MODES = {0: "normal", 1: "learning", 2: "autodisable"}


@click.command(cls=Command)
@instance_option
@json_option
@pass_app
def agents(app: App, instance: str, as_json: bool) -> None:
    """List all agents in the database, in order of name.

    CONTACT is when an agent's last packet was taken in, PACKET what that packet gave as its
    time. Times are local to the configured zone; in JSON they are epoch seconds, null for
    never. MODE: a learning agent's packets create and describe modules, a normal one's do
    not, an autodisable one's also enable it again.

    \b
    Examples:
      dataserver agents
      dataserver agents --json
    """
    with (
        reading_store(app, instance) as store,
        translating("list agents"),
        reading(store.engine) as conn,
    ):
        found = list(list_agents(conn, store.layout, store.zone))
    if as_json:
        print_json([_agent_json(agent) for agent in found])
    elif found:
        head = "AGENT ALIAS GROUP OS CONTACT PACKET MODULES INTERVAL MODE DISABLED"
        print_table(head.split(), [_agent_row(agent, store.zone) for agent in found])
    else:
        print_line("none")


@click.command(cls=Command)
@click.argument("agent", metavar="AGENT")
@instance_option
@json_option
@pass_app
def modules(app: App, agent: str, instance: str, as_json: bool) -> None:
    """List the modules of AGENT (its name or alias), each with its newest value.

    TIME is the newest value's own, SAVED that of the last one that was stored: a value that
    did not change is seen, but stored once a day only. In JSON times are epoch seconds, null
    for never, and values are whole.

    \b
    Examples:
      dataserver modules web1
      dataserver modules web1 --json
    """
    with (
        reading_store(app, instance) as store,
        translating("list modules"),
        reading(store.engine) as conn,
    ):
        meant = find_agent(conn, agent)
        found = list(list_modules(conn, store.layout, store.zone, meant.id))
    if as_json:
        print_json({"agent": meant.name, "modules": [asdict(module) for module in found]})
    elif found:
        head = "MODULE TYPE VALUE UNIT TIME SAVED INTERVAL DISABLED DESCRIPTION"
        print_table(head.split(), [_module_row(module, store.zone) for module in found])
    else:
        print_line("none")


def _agent_json(agent: AgentRecord) -> dict[str, Any]:
    return {**asdict(agent), "mode": _MODES.get(agent.mode, agent.mode)}


def _agent_row(agent: AgentRecord, zone: tzinfo) -> tuple[object, ...]:
    return (
        agent.name,
        agent.alias or "-",
        agent.group or "-",
        agent.os or "-",
        time_text(agent.contact, zone),
        time_text(agent.packet_time, zone),
        agent.modules,
        agent.interval,
        _MODES.get(agent.mode, agent.mode),
        "yes" if agent.disabled else "no",
    )


def _module_row(module: ModuleRecord, zone: tzinfo) -> tuple[object, ...]:
    value = module.value
    return (
        module.name,
        module.type or "-",
        shortened(value) if isinstance(value, str) else number_text(value),
        module.unit or "-",
        time_text(module.time, zone),
        time_text(module.saved, zone),
        module.interval,
        "yes" if module.disabled else "no",
        shortened(module.description),
    )

"""``dataserver refused``: what of stored packets was refused, and why."""

from __future__ import annotations

from dataclasses import asdict
from datetime import tzinfo

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import (
    beginning,
    print_json,
    print_line,
    print_table,
    shortened,
    time_text,
)
from dataserver.cli.store import instance_option, reading_store
from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.agents import find_agent
from dataserver.store.refused import RefusedRecord, list_refused

_HEAD = ("AGENT", "MODULE", "COUNT", "FIRST", "LAST", "VALUE", "WHY")


@click.command(cls=Command)
@click.argument("agent", metavar="[AGENT]", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    metavar="N",
    show_default=True,
    help="The newest so many.",
)
@instance_option
@json_option
@pass_app
def refused(app: App, agent: str | None, limit: int, instance: str, as_json: bool) -> None:
    """List values, modules and times that were refused, of all agents or of one.

    AGENT is its name or alias. The packets themselves were stored. There is a line for each
    module and reason, the newest first: how often, when for the first and the last time, and the
    last value. AGENT in it is the agent's alias, MODULE is "-" for what is the packet's own. A
    line goes 30 days after it was refused last. In JSON times are epoch seconds.

    \b
    Examples:
      dataserver refused
      dataserver refused web1
      dataserver refused web1 --json
    """
    with (
        reading_store(app, instance) as store,
        translating("list what was refused"),
        reading(store.engine) as conn,
    ):
        meant = find_agent(conn, agent) if agent is not None else None
        found = list_refused(conn, store.layout, meant.id if meant else None, limit)
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        print_table(_HEAD, [_row(each, store.zone) for each in found])
    elif store.layout.has(schema.refused):
        print_line("nothing was refused")
    else:
        print_line("not known: the next start of a server adds the table for it to this database")


def _row(each: RefusedRecord, zone: tzinfo) -> tuple[object, ...]:
    return (
        shortened(each.alias or each.agent),
        shortened(each.module) or "-",
        each.count,
        time_text(each.first, zone),
        time_text(each.last, zone),
        beginning(each.value) or "-",
        each.text,
    )

"""``dataserver refused``: values of stored packets that were refused, and why."""

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
    help="Show at most N lines.",
)
@instance_option
@json_option
@pass_app
def refused(app: App, agent: str | None, limit: int, instance: str, as_json: bool) -> None:
    """List refused values, modules and times, of all agents or of AGENT (its name or alias).

    The rest of the packets was stored. There is a line for each module and reason, the newest
    first: how often, the first and the last time, and the last value. The column AGENT shows the
    alias; MODULE is "-" for the packet itself. A line is removed 30 days after the last
    occurrence. In JSON times are epoch seconds.

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
        print_line(
            "unknown: this database has no table of refused values; a server's start adds it"
        )


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

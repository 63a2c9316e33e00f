"""``dataserver events``: the events in the database, and new ones as they come."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import tzinfo
from typing import Any

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import (
    EVENT_STATES,
    SEVERITIES,
    painted,
    print_cells,
    print_json_list,
    print_line,
    shortened,
    time_text,
    word_list,
    word_of,
)
from dataserver.cli.store import instance_option, reading_store
from dataserver.config.kinds import masked
from dataserver.errors import SchemaError, StoreError
from dataserver.logs import printable
from dataserver.rules import moments
from dataserver.rules.moments import duration_text
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.opening import ReadingStore
from dataserver.store.read.agents import choose_module, find_agent
from dataserver.store.read.events import TYPES, EventList, EventRecord, EventTail, Wanted
from dataserver.store.read.modules import modules as list_modules

_HEAD = ("TIME", "SEVERITY", "TYPE", "STATE", "AGENT", "MODULE", "TEXT")
#: Lines are printed as they come, so the widths fit usual values.
_WIDTHS = (19, 13, 20, 10, 16, 16, 0)
#: How much of an event's text a line shows: some carry a whole inventory.
_TEXT = 200

#: Seconds between two queries, and at most while the database is unavailable.
_PAUSE = 1.0
_LONGEST_PAUSE = 5.0


@click.command(cls=Command)
@click.argument("agent", metavar="[AGENT", required=False)
@click.argument("module", metavar="[MODULE]]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Keep printing new events, until Ctrl-C.")
@click.option(
    "--since",
    default="7d",
    metavar="SPAN",
    show_default=True,
    help="How far to look back: 300, 5m, 1h, 1d.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    metavar="N",
    show_default=True,
    help="Show at most N events.",
)
@click.option(
    "--type",
    "types",
    callback=word_list(TYPES),
    metavar="TYPE,...",
    help="Only events of these types.",
)
@click.option(
    "--severity",
    "severities",
    callback=word_list(SEVERITIES),
    metavar="SEVERITY,...",
    help=f"Only events of these severities: {', '.join(SEVERITIES)}.",
)
@click.option("--open", "open_only", is_flag=True, help="Only events that are not validated.")
@instance_option
@json_option
@pass_app
def events(
    app: App,
    agent: str | None,
    module: str | None,
    follow: bool,
    since: str,
    limit: int,
    types: frozenset[str] | None,
    severities: frozenset[str] | None,
    open_only: bool,
    instance: str,
    as_json: bool,
) -> None:
    """List the latest events, of all agents or of AGENT (name or alias) and MODULE, newest last.

    TYPE is going_up_critical, going_down_normal, going_unknown, new_agent, error, system and
    the like; STATE is new, validated or in-process. The column AGENT shows the alias. With
    --follow new events are printed until Ctrl-C; if the database becomes unavailable, the
    command waits for it.

    With --json texts are complete and times are epoch seconds; the output is a list, with
    --follow one object per line.

    \b
    Examples:
      dataserver events
      dataserver events web1 load --since 1d
      dataserver events --severity warning,critical --open --follow
    """
    span = moments.duration(since)
    with reading_store(app, instance) as store:
        found = EventList(store.engine, store.layout)
        wanted = Wanted(
            *_ids(store, agent, module),
            types=types or frozenset(),
            severities=frozenset(map(SEVERITIES.index, severities or ())),
            open_only=open_only,
        )
        start = int(time.time()) - span
        if follow:
            _end_at_once()
            tail = EventTail(found, wanted, time.monotonic())
            _follow(tail, limit, start, _json_printer() if as_json else _line_printer(store.zone))
            return
        records = found.newest(wanted, limit, start)
        if as_json:
            print_json_list(map(_event_json, records))
        elif not _print_lines(records, store.zone):
            print_line(
                f"no events in the last {duration_text(span)}; use --since to look further back"
            )


def _ids(
    store: ReadingStore, agent: str | None, module: str | None
) -> tuple[int | None, int | None]:
    """The ids of the agent and the module, each None if it is not named."""
    if agent is None:
        return None, None
    with translating("look up the agent"), reading(store.engine) as conn:
        meant = find_agent(conn, agent)
        if module is None:
            return meant.id, None
        modules = list_modules(conn, store.layout, store.zone, meant.id)
        return meant.id, choose_module(module, modules).id


def _end_at_once() -> None:
    """Let Ctrl-C end the process at once: there is nothing to clean up.

    Python's own handler would run only when the driver returns from a database that hangs.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _follow(tail: EventTail, limit: int, since: int, show: Callable[[EventRecord], None]) -> None:
    """Show the latest events and new ones, until Ctrl-C."""
    for record in tail.newest(limit, since, time.monotonic()):
        show(record)
    pause, away = _PAUSE, False
    while True:
        time.sleep(pause)
        try:
            for record in tail.look(time.monotonic()):
                show(record)
        except SchemaError:
            raise
        except StoreError as exc:
            if not away:
                _print_notice(f"{exc}; waiting for the database")
            pause, away = min(2 * pause, _LONGEST_PAUSE), True
        else:
            if away:
                _print_notice("the database is available again")
            pause, away = _PAUSE, False


def _print_notice(text: str) -> None:
    """Print a message about the database on stderr, apart from the events."""
    click.echo(f"dataserver: {printable(masked(text))}", err=True)


def _json_printer() -> Callable[[EventRecord], None]:
    return lambda record: click.echo(json.dumps(_event_json(record)))


def _line_printer(zone: tzinfo) -> Callable[[EventRecord], None]:
    print_cells(_HEAD, _WIDTHS)
    return lambda record: print_cells(_event_cells(record, zone), _WIDTHS)


def _print_lines(records: Iterable[EventRecord], zone: tzinfo) -> bool:
    """Print a head and a line per event; without events print nothing and return False."""
    show = None
    for record in records:
        show = show or _line_printer(zone)
        show(record)
    return show is not None


def _event_json(event: EventRecord) -> dict[str, Any]:
    severity = word_of(SEVERITIES, event.severity)
    return {**asdict(event), "severity": severity, "state": word_of(EVENT_STATES, event.state)}


def _event_cells(event: EventRecord, zone: tzinfo) -> tuple[object, ...]:
    return (
        time_text(event.time, zone),
        painted(word_of(SEVERITIES, event.severity)),
        event.type,
        word_of(EVENT_STATES, event.state),
        shortened(event.alias or event.agent or "-"),
        shortened(event.module or "-"),
        shortened(event.text, _TEXT),
    )

"""``dataserver series``: what a module was over time, read back from what is stored."""

from __future__ import annotations

import time
from itertools import dropwhile

import click

from dataserver import moments
from dataserver.cli import rendering
from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.rendering import About
from dataserver.cli.store import instance_option, reading_store
from dataserver.days import columns
from dataserver.series import Aggregate, aggregate, steps
from dataserver.store.errors import translating
from dataserver.store.history import History
from dataserver.store.layout import reading
from dataserver.store.listing import ModuleRecord
from dataserver.store.listing import modules as list_modules
from dataserver.store.lookup import choose_module, find_agent
from dataserver.store.readonly import ReadingStore


@click.command(cls=Command)
@click.argument("agent", metavar="AGENT")
@click.argument("module", metavar="MODULE")
@click.option(
    "--from", "start", metavar="TIME", help="Where to begin (default: a day before --to)."
)
@click.option("--to", "end", metavar="TIME", help="Where to end (default: the newest value).")
@click.option("--step", metavar="DURATION", help="Sum up spans of this length: 300, 5m, 1h, 1d.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(rendering.FORMATS)),
    default="table",
    show_default=True,
    help="How to print it.",
)
@instance_option
@json_option
@pass_app
def series(
    app: App,
    agent: str,
    module: str,
    start: str | None,
    end: str | None,
    step: str | None,
    form: str,
    instance: str,
    as_json: bool,
) -> None:
    """Show what MODULE of AGENT (its name or alias) was over time.

    A value holds until the next one. Without --step: the value at --from, then every value
    stored until --to. With --step: for each span the time-weighted mean, the least and the
    greatest value, and the one at its end; the part before the first value does not count,
    and text has only the one at the end. Steps of whole days are days of the configured zone, from
    midnight to midnight, and weeks begin on Monday; the first and the last may be shorter.

    TIME is "YYYY-MM-DD[ HH:MM[:SS]]" in the configured zone, epoch seconds, "now", or a
    duration before now such as -90s, -2h or -7d.

    \b
    Examples:
      dataserver series web1 load
      dataserver series web1 load --from -7d --step 1h
      dataserver series web1 load --from 2026-01-01 --to "2026-01-02 12:00" --format csv
    """
    with reading_store(app, instance) as store:
        name, meant = _find(store, agent, module)
        now = int(time.time())
        newest = now if meant.time is None else meant.time
        span = moments.span(start, end, step, newest=newest, now=now, zone=store.zone)
        about = About(name, meant.name, meant.type, meant.unit, span, store.zone)
        render = rendering.FORMATS["json" if as_json else form]
        points = History(store.engine, store.layout).points(meant.id, span.start, span.end)
        if span.step is None:
            lines = render.points(about, steps(points, span.start, span.end))
        else:
            spans = columns(span.start, span.end, span.step, store.zone)
            found = aggregate(points, spans.lefts, span.end)
            # Nobody asked for the time before there was anything.
            lines = render.spans(about, found if start else dropwhile(_is_empty, found))
        for line in lines:
            click.echo(line)


def _find(store: ReadingStore, agent: str, module: str) -> tuple[str, ModuleRecord]:
    """The agent's name, and the module."""
    with translating("look up the module"), reading(store.engine) as conn:
        found = find_agent(conn, agent)
        modules = list_modules(conn, store.layout, store.zone, found.id)
        return found.name, choose_module(module, modules)


def _is_empty(span: Aggregate) -> bool:
    return span.last is None

"""``dataserver graph``: a module's history, or an agent's packets, as a picture."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import TypeAlias, cast

import click

from dataserver.cli.base import App, Command, pass_app
from dataserver.cli.program import extra
from dataserver.cli.store import instance_option, reading_store
from dataserver.errors import UsageError
from dataserver.graphs.model import AccessGraph, ModuleGraph
from dataserver.graphs.reading import Graphs
from dataserver.pictures.options import (
    DARK,
    HEIGHT,
    LARGEST,
    LIGHT,
    SMALLEST,
    WIDTH,
    Look,
    form_of,
    publish,
)
from dataserver.rules import moments
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.opening import ReadingStore
from dataserver.store.read.agents import choose_module, find_agent
from dataserver.store.read.modules import modules as list_modules

_SIDE = click.IntRange(SMALLEST, LARGEST)
_STANDARD_OUTPUT = "-"
#: From a graph, its look, the zone of its times and the file format to a picture.
_Draw: TypeAlias = Callable[[ModuleGraph | AccessGraph, Look, tzinfo, str], bytes]


@click.command(cls=Command)
@click.argument("agent", metavar="AGENT")
@click.argument("module", metavar="[MODULE]", required=False)
@click.option(
    "--from", "start", metavar="TIME", help="Start of the span (default: a day before --to)."
)
@click.option("--to", "end", metavar="TIME", help="End of the span (default: the newest value).")
@click.option("--width", type=_SIDE, default=WIDTH, show_default=True, metavar="PIXELS")
@click.option("--height", type=_SIDE, default=HEIGHT, show_default=True, metavar="PIXELS")
@click.option("--dark", is_flag=True, help="Dark background.")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="A .png, .svg or .pdf file; - for PNG to standard output.",
)
@instance_option
@pass_app
def graph(
    app: App,
    agent: str,
    module: str | None,
    start: str | None,
    end: str | None,
    width: int,
    height: int,
    dark: bool,
    output: str,
    instance: str,
) -> None:
    """Draw the history of MODULE of AGENT (its name or alias) into FILE.

    A value holds until the next one; where the agent sent no packets the graph is hatched.
    Without MODULE: how many packets came from AGENT, and how many were due.

    TIME has the same formats as in `dataserver series`.

    \b
    Examples:
      dataserver graph web1 load -o load.png
      dataserver graph web1 load --from -7d --width 1600 -o week.svg
      dataserver graph web1 --from -30d -o access.png
    """
    form = _form(output)
    draw = _drawing()
    look = Look(width, height, DARK if dark else LIGHT)
    with reading_store(app, instance) as store:
        found = _read(store, agent, module, start, end, look)
        picture = draw(found, look, store.zone, form)
    if output == _STANDARD_OUTPUT:
        sys.stdout.buffer.write(picture)
    else:
        publish(Path(output), picture)


def _form(output: str) -> str:
    """The format to write; UsageError before anything is read."""
    if output != _STANDARD_OUTPUT:
        return form_of(Path(output))
    if sys.stdout.isatty():
        raise UsageError("a picture cannot go to a terminal", hint="name a file with -o FILE.png")
    return "png"


def _drawing() -> _Draw:
    """The function that draws; matplotlib is an extra, and takes a second to load."""
    try:
        # It logs about its font cache and the like.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        return cast(_Draw, importlib.import_module("dataserver.pictures.drawing").draw)
    except ImportError as error:
        raise UsageError(
            f"drawing needs matplotlib, which cannot be loaded ({error})",
            hint=f"install it: {extra('graph')}",
        ) from error


def _read(
    store: ReadingStore,
    agent: str,
    module: str | None,
    start: str | None,
    end: str | None,
    look: Look,
) -> ModuleGraph | AccessGraph:
    now = int(time.time())
    with translating("look up what to draw"), reading(store.engine) as conn:
        found = find_agent(conn, agent)
        listed = list(list_modules(conn, store.layout, store.zone, found.id))
    graphs = Graphs(store.engine, store.layout, store.zone)
    if module is None:
        newest = max((each.time for each in listed if each.time is not None), default=now)
        span = _span(store, start, end, newest, now)
        # A bar should be a few pixels wide, so that it can be seen.
        return graphs.access(found.id, *span, max(1, look.width // 4), now)
    meant = choose_module(module, listed)
    span = _span(store, start, end, now if meant.time is None else meant.time, now)
    return graphs.module(meant.id, *span, look.width, now)


def _span(
    store: ReadingStore, start: str | None, end: str | None, newest: int, now: int
) -> tuple[int, int]:
    """Start and end; the end is not included."""
    span = moments.span(start, end, None, newest=newest, now=now, zone=store.zone)
    return span.start, max(span.end, span.start + 1)

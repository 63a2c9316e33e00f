"""``dataserver series``: the stored values of a module over time, as table, CSV or JSON.

The text is made line by line, since a series may be long.
"""

from __future__ import annotations

import csv
import io
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import dropwhile
from typing import Any, NamedTuple

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import number_text, shortened, time_text
from dataserver.cli.store import instance_option, reading_store
from dataserver.logs import printable
from dataserver.rules import moments
from dataserver.rules.days import columns
from dataserver.rules.moments import Span
from dataserver.rules.series import Aggregate, Point, aggregate, steps
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.opening import ReadingStore
from dataserver.store.read.agents import choose_module, find_agent
from dataserver.store.read.history import History
from dataserver.store.read.modules import ModuleRecord
from dataserver.store.read.modules import modules as list_modules

# -- a series as lines of text --

Value = float | str | None

#: Decimals of a mean; values themselves are stored with five.
_DECIMALS = 5


class About(NamedTuple):
    """What a series describes; ``zone`` is that of the times shown."""

    agent: str
    module: str
    type: str | None
    unit: str
    span: Span
    zone: tzinfo


class Rendering(ABC):
    """One output format."""

    @abstractmethod
    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """The lines of a series of points."""

    @abstractmethod
    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """The lines of a series of spans."""


class Table(Rendering):
    """Columns of fixed width, long texts cut."""

    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """A line for each point."""
        yield _columns(("TIME", "VALUE"))
        for when, value in points:
            yield _columns((time_text(when, about.zone), _shown(value)))

    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """A line for each span."""
        yield _columns(("FROM", "MEAN", "MIN", "MAX", "LAST"))
        for span in spans:
            numbers = (number_text(span.mean, _DECIMALS), _shown(span.minimum))
            begin = time_text(span.start, about.zone)
            yield _columns((begin, *numbers, _shown(span.maximum), _shown(span.last)))


class Csv(Rendering):
    """For spreadsheets and scripts: epoch seconds and local time, control characters escaped."""

    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """A head, then a line for each point."""
        yield "time,local,value"
        for when, value in points:
            yield _csv_line((when, time_text(when, about.zone), value))

    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """A head, then a line for each span."""
        yield "start,end,local,mean,min,max,last"
        for start, end, last, minimum, maximum, mean in spans:
            local = time_text(start, about.zone)
            yield _csv_line((start, end, local, mean, minimum, maximum, last))


class Json(Rendering):
    """For programs: one object with a list, an element per line."""

    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """The object, with ``points``."""
        return _json_lines(about, "points", ({"time": t, "value": value} for t, value in points))

    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """The object, with ``spans``."""
        return _json_lines(about, "spans", (_span_json(span) for span in spans))


FORMATS: dict[str, Rendering] = {"table": Table(), "csv": Csv(), "json": Json()}


def _columns(cells: Sequence[str]) -> str:
    """Cells as wide as a time, then as numbers; printable, the last one not padded."""
    widths = (19, *(14 for _ in cells[1:-1]), 0)
    padded = (printable(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def _shown(value: Value) -> str:
    return shortened(value) if isinstance(value, str) else number_text(value)


def _csv_line(cells: Sequence[Value]) -> str:
    line = io.StringIO()
    shown = [printable(cell) if isinstance(cell, str) else cell for cell in cells]
    csv.writer(line, lineterminator="").writerow(shown)
    return line.getvalue()


def _span_json(span: Aggregate) -> dict[str, Any]:
    return {
        "start": span.start,
        "end": span.end,
        "mean": span.mean,
        "min": span.minimum,
        "max": span.maximum,
        "last": span.last,
    }


def _json_lines(about: About, key: str, elements: Iterable[object]) -> Iterator[str]:
    head = {
        "agent": about.agent,
        "module": about.module,
        "type": about.type,
        "unit": about.unit,
        "from": about.span.start,
        "to": about.span.end,
        "step": about.span.step,
    }
    yield f'{json.dumps(head)[:-1]}, "{key}": ['
    waiting: str | None = None
    for element in elements:
        if waiting is not None:
            yield f"  {waiting},"
        waiting = json.dumps(element)
    if waiting is not None:
        yield f"  {waiting}"
    yield "]}"


# -- the command --


@click.command(cls=Command)
@click.argument("agent", metavar="AGENT")
@click.argument("module", metavar="MODULE")
@click.option(
    "--from", "start", metavar="TIME", help="Start of the span (default: a day before --to)."
)
@click.option("--to", "end", metavar="TIME", help="End of the span (default: the newest value).")
@click.option(
    "--step", metavar="DURATION", help="Aggregate over spans of this length: 300, 5m, 1h, 1d."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="table",
    show_default=True,
    help="The output format.",
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
    """Show the values of MODULE of AGENT (its name or alias) over time.

    A value holds until the next one. Without --step: the value at --from, then every value
    stored until --to. With --step: for each span the time-weighted mean, the minimum, the
    maximum, and the value at its end; the part before the first value does not count, and text
    has only the value at the end. Steps of whole days are days of the configured zone, from
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
        render = FORMATS["json" if as_json else form]
        points = History(store.engine, store.layout).points(meant.id, span.start, span.end)
        if span.step is None:
            lines = render.points(about, steps(points, span.start, span.end))
        else:
            spans = columns(span.start, span.end, span.step, store.zone)
            found = aggregate(points, spans.lefts, span.end)
            # Without --from, the empty spans before the first value are left out.
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

"""A module's values as a CSV file, made line by line: it may be long."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo

from dataserver.console.source import Source
from dataserver.graphs.model import Span
from dataserver.series import steps
from dataserver.store.history import History, Point

#: Characters that come at once.
_CHUNK = 65_536
#: What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def name(module_id: int, span: Span) -> str:
    """What the file is called: nothing of it came from a packet."""
    return f"module-{module_id}-{span.start}-{span.end}.csv"


def chunks(source: Source, module_id: int, span: Span) -> Iterator[bytes]:
    """The file, the value at the span's beginning first.  Raises StoreError."""
    store = source.store()
    points = History(store.engine, store.layout).points(module_id, span.start, span.end)
    with source.watched():
        yield from encoded(steps(points, span.start, span.end), store.zone)


def encoded(points: Iterable[Point], zone: tzinfo) -> Iterator[bytes]:
    """RFC 4180, in UTF-8: a head, then a line for each point."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("time", "local_time", "value"))
    for time, value in points:
        writer.writerow((time, _local(time, zone), _cell(value)))
        if text.tell() >= _CHUNK:
            yield text.getvalue().encode(errors="replace")
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode(errors="replace")


def _cell(value: float | str) -> str:
    """A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return f"{value:.15g}"
    return f"'{value}" if value.startswith(_FORMULA) else value


def _local(time: int, zone: tzinfo) -> str:
    """With its offset: an hour that a change of clocks doubles is told apart."""
    try:
        return datetime.fromtimestamp(time, zone).isoformat(sep=" ")
    except (ValueError, OverflowError, OSError):
        return ""

"""A series as lines of text: table, CSV, JSON; line by line, since it may be long."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import Any, NamedTuple

from dataserver.cli.text import number_text, shortened, time_text
from dataserver.logs import printable
from dataserver.moments import Span
from dataserver.series import Aggregate, Point

Value = float | str | None

#: Decimals of a mean; values themselves are stored with five.
_DECIMALS = 5


class About(NamedTuple):
    """What a series is of; ``zone`` is that of the times shown."""

    agent: str
    module: str
    type: str | None
    unit: str
    span: Span
    zone: tzinfo


class Rendering(ABC):
    """One format."""

    @abstractmethod
    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """The lines of a series of points."""

    @abstractmethod
    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """The lines of a series of spans."""


class Table(Rendering):
    """For people: columns of fixed width, long texts cut."""

    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """A line for each point."""
        yield _columns(("TIME", "VALUE"))
        for time, value in points:
            yield _columns((time_text(time, about.zone), _shown(value)))

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
        for time, value in points:
            yield _csv_line((time, time_text(time, about.zone), value))

    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """A head, then a line for each span."""
        yield "start,end,local,mean,min,max,last"
        for start, end, last, minimum, maximum, mean in spans:
            local = time_text(start, about.zone)
            yield _csv_line((start, end, local, mean, minimum, maximum, last))


class Json(Rendering):
    """For programs: one object, whose list comes an element a line."""

    def points(self, about: About, points: Iterable[Point[float | str]]) -> Iterator[str]:
        """The object, with ``points``."""
        return _json_lines(about, "points", ({"time": t, "value": value} for t, value in points))

    def spans(self, about: About, spans: Iterable[Aggregate]) -> Iterator[str]:
        """The object, with ``spans``."""
        return _json_lines(about, "spans", (_span_json(span) for span in spans))


FORMATS: dict[str, Rendering] = {"table": Table(), "csv": Csv(), "json": Json()}


def _columns(cells: Sequence[str]) -> str:
    """Cells of the width of a time, then of numbers; printable, the last one unpadded."""
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

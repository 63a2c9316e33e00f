"""Draws a module's graph: the step function, silences, zones, events, statuses."""

from __future__ import annotations

import math
from datetime import tzinfo
from itertools import pairwise

from dataserver.graphs.model import ModuleGraph, Shape, Silences
from dataserver.pictures.canvas import Canvas, count, one_line, shares
from dataserver.pictures.options import Look

#: Characters of a name, a unit and a text that are shown.
_NAME, _UNIT, _TEXT = 60, 20, 80
_MIXED = "xxxx"


def module_canvas(graph: ModuleGraph, look: Look, zone: tzinfo) -> Canvas:
    """A canvas with the graph, ready to be rendered."""
    canvas = Canvas(look, graph.start, graph.end, zone, strip=True)
    canvas.titles(_title(graph), _details(graph))
    silences(canvas, graph.silences, graph.start, graph.until)
    if graph.shape is Shape.NUMBER:
        _numbers(canvas, graph)
    else:
        canvas.rows()
        (_up_and_down if graph.shape is Shape.BOOLEAN else _texts)(canvas, graph)
    if graph.marks:
        times = [mark.time for mark in graph.marks]
        colours = [canvas.colours.severity(mark.severity) for mark in graph.marks]
        name = f"newest {len(times)} events" if graph.has_more_marks else "event"
        canvas.marks(times, colours, name)
    for span in graph.statuses:
        canvas.block(span.start, span.end, canvas.colours.status(span.status), strip=True)
        canvas.explain(span.status or "status not known", canvas.colours.status(span.status))
    return canvas


def silences(canvas: Canvas, found: Silences, start: int, until: int) -> None:
    """Draw the spans without a packet, and those of which nothing is known."""
    for span in found.spans:
        canvas.hatched(span.start, span.end, "no packet")
    known = until if found.known_since is None else min(found.known_since, until)
    if known > start:
        canvas.tinted(start, known, "packets not known")


def agent_name(name: str, alias: str) -> str:
    """The name by which the agent is shown."""
    return one_line(alias or name, _NAME)


def _title(graph: ModuleGraph) -> str:
    agent = agent_name(graph.agent, graph.alias)
    return f"{agent}: {one_line(graph.module.name, _NAME)}"


def _details(graph: ModuleGraph) -> str:
    parts = [shares(graph.shares), f"{count(graph.changes)} changes"]
    if graph.shape is Shape.NUMBER and not graph.is_exact:
        parts.append("line: mean over time")
    return " | ".join(part for part in parts if part)


# -- numbers --


def _numbers(canvas: Canvas, graph: ModuleGraph) -> None:
    canvas.unit(one_line(graph.module.unit, _UNIT))
    if graph.is_exact:
        values = [point.value for point in graph.points]
        times = [point.time for point in graph.points]
        low, high = values, values
    else:
        times = [column.start for column in graph.columns]
        low = [_number(column.minimum) for column in graph.columns]
        high = [_number(column.maximum) for column in graph.columns]
        values = [_number(column.mean) for column in graph.columns]
    there = [value for value in (*low, *high) if math.isfinite(value)]
    canvas.reach(*((min(there), max(there)) if there else (0.0, 1.0)))
    for zone in graph.zones:
        canvas.zone(zone.low, zone.high, zone.status)
    if not there:
        return
    # The last value holds until the end of the data.
    edges = [*times, max(graph.until, times[-1])]
    if not graph.is_exact:
        canvas.between(edges, [*low, low[-1]], [*high, high[-1]], "least to greatest")
    canvas.steps(edges, [*values, values[-1]])


def _number(value: float | None) -> float:
    return math.nan if value is None else value


# -- booleans --


def _up_and_down(canvas: Canvas, graph: ModuleGraph) -> None:
    words = {
        True: ("up", canvas.colours.normal, None),
        False: ("down", canvas.colours.critical, None),
        None: ("up and down", canvas.colours.warning, _MIXED),
    }
    for start, end, is_up in _bands(graph):
        word, colour, hatch = words[is_up]
        canvas.block(start, end, colour, hatch=hatch, text=word)
        canvas.explain(word, colour, hatch=hatch)


def _bands(graph: ModuleGraph) -> list[tuple[int, int, bool | None]]:
    """Spans of up (True), down (False) and both (None), with equal neighbours joined."""
    spans: list[tuple[int, int, bool | None]]
    if graph.is_exact:
        edges = [*(point.time for point in graph.points), graph.until]
        spans = [
            (start, end, point.value != 0)
            for point, (start, end) in zip(graph.points, pairwise(edges), strict=True)
        ]
    else:
        spans = [
            (column.start, column.end, _is_up(column.minimum, column.maximum))
            for column in graph.columns
            if column.minimum is not None and column.maximum is not None
        ]
    joined: list[tuple[int, int, bool | None]] = []
    for start, end, is_up in spans:
        if joined and joined[-1][2] is is_up and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end, is_up)
        elif end > start:
            joined.append((start, end, is_up))
    return joined


def _is_up(low: float, high: float) -> bool | None:
    if low == high:
        return low != 0
    # If 0 lies within the range, the module may have been down in between.
    return None if low <= 0 <= high else True


# -- texts --


def _texts(canvas: Canvas, graph: ModuleGraph) -> None:
    colours = (canvas.colours.band, canvas.colours.other)
    for place, band in enumerate(graph.bands):
        many = band.changes > 1
        text = f"{band.changes} changes" if many else one_line(band.text, _TEXT)
        colour = canvas.colours.grid if many else colours[place % 2]
        canvas.block(band.start, band.end, colour, hatch=_MIXED if many else None, text=text)
        if many:
            canvas.explain("several changes", colour, hatch=_MIXED)

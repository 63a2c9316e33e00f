"""Draws an agent's access graph: packets, expected packets, and silences."""

from __future__ import annotations

from datetime import tzinfo

from dataserver.graphs.model import AccessGraph
from dataserver.pictures.canvas import Canvas, count, percent
from dataserver.pictures.module import agent_name, silences
from dataserver.pictures.options import Look


def access_canvas(graph: AccessGraph, look: Look, zone: tzinfo) -> Canvas:
    """A canvas with the graph, ready to be rendered."""
    canvas = Canvas(look, graph.start, graph.end, zone, strip=False)
    step = f"packets in {_duration(graph.step)}"
    canvas.titles(
        f"{agent_name(graph.agent, graph.alias)}: {_share(graph)}",
        f"{count(graph.packets)} packets, one each {_duration(graph.interval)} expected",
    )
    canvas.unit(step)
    until = max((column.end for column in graph.columns), default=graph.start)
    silences(canvas, graph.silences, graph.start, until)
    heights = [float(column.packets) for column in graph.columns]
    due = [column.expected for column in graph.columns]
    canvas.axes.set_ylim(0, max([1.0, *heights, *due]) * 1.12)
    if graph.columns:
        canvas.bars([(each.start, each.end) for each in graph.columns], heights, "packets")
        edges = [*(column.start for column in graph.columns), until]
        canvas.level(edges, [*due, due[-1]], "expected")
    return canvas


def _share(graph: AccessGraph) -> str:
    if graph.share is None:
        return "no packet was expected"
    return f"{percent(graph.share)} of {count(graph.expected)} expected packets arrived"


def _duration(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

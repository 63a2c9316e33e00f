"""How commands print: JSON, tables, times; text from packets never reaches a terminal raw."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import click

from dataserver.logs import printable

#: Characters of a table's column: nothing that we name ourselves is longer, but what agents send
#: may be.
WIDEST = 40
_GAP = "..."


class Painted(NamedTuple):
    """A cell that has a colour where there are colours; None: it has none."""

    text: str
    colour: str | None

    def __str__(self) -> str:
        return self.text


def print_json(value: object) -> None:
    """One JSON value, indented; ASCII only, so that any terminal and any file name will do."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_json_list(elements: Iterable[object]) -> None:
    """A JSON list, an element a line, as they come: it may be long."""
    head = "["
    for element in elements:
        click.echo(f"{head}\n  {json.dumps(element, default=str)}", nl=False)
        head = ","
    click.echo("[]" if head == "[" else "\n]")


def print_line(text: str = "") -> None:
    """One line of text, whatever came from a packet escaped."""
    click.echo(printable(text))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what stands in them, up to :data:`WIDEST`, the last one unpadded."""
    lines = [head, *rows]
    widths = [
        min(WIDEST, max(len(printable(str(cell))) for cell in column))
        for column in zip(*lines, strict=True)
    ]
    for line in lines:
        print_cells(line, widths)


def print_cells(cells: Sequence[object], widths: Sequence[int]) -> None:
    """One line of a table: cells of these widths.

    A longer one is as long as it is, so that programs get the whole; on a terminal, unless it is
    the last, no more than :data:`WIDEST` of it is shown.
    """
    colours = has_colours()
    is_terminal = sys.stdout.isatty()
    line = ""
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True), 1):
        text = printable(str(cell))
        if is_terminal and place < len(cells):
            text = _without_middle(text, max(width, WIDEST))
        colour = cell.colour if colours and isinstance(cell, Painted) else None
        line += click.style(text, fg=colour) if colour else text
        line += " " * (max(width - len(text), 0) + 2)
    click.echo(line.rstrip())


def _without_middle(text: str, width: int) -> str:
    """``text`` in so many characters: names of files and hosts differ at either end."""
    if len(text) <= width:
        return text
    tail = (width - len(_GAP)) // 2
    return f"{text[: width - len(_GAP) - tail]}{_GAP}{text[-tail:]}"


def has_colours() -> bool:
    """Whether the output goes to a terminal that shows colours and may (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def local_time(epoch: float) -> str:
    """A time for people, in this system's zone."""
    return datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")

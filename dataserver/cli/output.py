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
    """Columns as wide as what stands in them, the last one unpadded."""
    lines = [head, *rows]
    widths = [
        max(len(printable(str(cell))) for cell in column) for column in zip(*lines, strict=True)
    ]
    for line in lines:
        print_cells(line, widths)


def print_cells(cells: Sequence[object], widths: Sequence[int]) -> None:
    """One line of a table: cells of these widths, a longer one as long as it is."""
    colours = has_colours()
    line = ""
    for cell, width in zip(cells, widths, strict=True):
        text = printable(str(cell))
        colour = cell.colour if colours and isinstance(cell, Painted) else None
        line += click.style(text, fg=colour) if colour else text
        line += " " * (max(width - len(text), 0) + 2)
    click.echo(line.rstrip())


def has_colours() -> bool:
    """Whether the output goes to a terminal that shows colours and may (https://no-color.org)."""
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def local_time(epoch: float) -> str:
    """A time for people, in this system's zone."""
    return datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""How commands print: JSON, tables, times; text from packets never reaches a terminal raw."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from dataserver.logs import printable


def print_json(value: object) -> None:
    """One JSON value, indented; ASCII only, so that any terminal and any file name will do."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_line(text: str = "") -> None:
    """One line of text, whatever came from a packet escaped."""
    click.echo(printable(text))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what stands in them, the last one unpadded."""
    lines = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())


def local_time(epoch: float) -> str:
    """A time for people, in this system's zone."""
    return datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """A duration for people in at most two units: ``45 s``, ``3 min 5 s``, ``2 d 4 h``."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"

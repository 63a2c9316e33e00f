"""How commands print: JSON, tables, times; text from packets is always escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

import click

from dataserver.logs import printable
from dataserver.rules.status import Status
from dataserver.rules.times import local_text

#: Characters of a table's column: no name of ours is longer, but texts of agents may be.
WIDEST = 40
_GAP = "..."


class Painted(NamedTuple):
    """A cell that is shown in ``colour`` (or None) if the output has colours."""

    text: str
    colour: str | None

    def __str__(self) -> str:
        return self.text


def print_json(value: object) -> None:
    """Print a JSON value, indented; in ASCII, since file names need not be valid UTF-8."""
    click.echo(json.dumps(value, indent=2, default=str))


def print_json_list(elements: Iterable[object]) -> None:
    """Print a JSON list, one element per line, as the elements come: it may be long."""
    head = "["
    for element in elements:
        click.echo(f"{head}\n  {json.dumps(element, default=str)}", nl=False)
        head = ","
    click.echo("[]" if head == "[" else "\n]")


def print_line(text: str = "") -> None:
    """Print a line of text, with control characters escaped."""
    click.echo(printable(text))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns as wide as their cells, up to :data:`WIDEST`; the last one is not padded."""
    lines = [head, *rows]
    widths = [
        min(WIDEST, max(len(printable(str(cell))) for cell in column))
        for column in zip(*lines, strict=True)
    ]
    for line in lines:
        print_cells(line, widths)


def print_cells(cells: Sequence[object], widths: Sequence[int]) -> None:
    """Print one line of a table: cells of these widths.

    A longer cell is printed in full, so that programs get all of it; on a terminal it is cut to
    :data:`WIDEST` characters, unless it is the last one.
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
    """``text`` cut to ``width`` characters: names of files and hosts differ at either end."""
    if len(text) <= width:
        return text
    tail = (width - len(_GAP)) // 2
    return f"{text[: width - len(_GAP) - tail]}{_GAP}{text[-tail:]}"


def has_colours() -> bool:
    """Whether the output is a terminal with colours, and NO_COLOR is not set.

    Source: https://no-color.org
    """
    refused = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not refused


def local_time(epoch: float) -> str:
    """A time (epoch seconds) in this system's zone."""
    return datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")


# -- words and colours of statuses, severities and the like --

#: Words of statuses, the worst first.
STATUSES = {
    "critical": Status.CRITICAL,
    "warning": Status.WARNING,
    "unknown": Status.UNKNOWN,
    "normal": Status.NORMAL,
    "not-initialised": Status.NOT_INITIALISED,
}
#: Words of severities, by their numbers.
SEVERITIES = ("maintenance", "informational", "normal", "warning", "critical", "minor", "major")
#: Words of the states of events, by their numbers.
EVENT_STATES = ("new", "validated", "in-process")

_Callback = Callable[[click.Context, click.Parameter, str | None], frozenset[str] | None]
_STATUS_WORDS = {status: word for word, status in STATUSES.items()}
_COLOURS = {
    "critical": "red",
    "major": "red",
    "warning": "yellow",
    "minor": "magenta",
    "unknown": "magenta",
    "normal": "green",
}


def word_list(choice: Sequence[str]) -> _Callback:
    """A callback that reads an option's comma-separated words; None if it is not given."""

    def read(
        context: click.Context, option: click.Parameter, value: str | None
    ) -> frozenset[str] | None:
        if value is None:
            return None
        words = frozenset(word.strip().lower() for word in value.split(","))
        for word in sorted(words.difference(choice)):
            raise click.BadParameter(
                f"unknown word {word!r}; choose from {', '.join(choice)}", context, option
            )
        return words

    return read


status_option = click.option(
    "--status",
    "statuses",
    callback=word_list(tuple(STATUSES)),
    metavar="STATUS,...",
    help=f"Only these statuses: {', '.join(STATUSES)}.",
)


def status_word(status: Status | None) -> str | None:
    """The word of a status, or None without a status."""
    return None if status is None else _STATUS_WORDS[status]


def word_of(words: tuple[str, ...], number: int) -> str:
    """The word of a number, or the number itself if it has no word."""
    return words[number] if 0 <= number < len(words) else str(number)


def painted(text: str, word: str | None = None) -> Painted:
    """``text`` in the colour of the status or severity ``word`` (default: ``text`` itself)."""
    return Painted(text, _COLOURS.get(word or text))


def marks(*, disabled: bool, quiet: bool) -> str:
    """The marks that are set in the console, or a dash."""
    return ", ".join([*["disabled"] * disabled, *["quiet"] * quiet]) or "-"


# -- values and times in tables --

#: How much of a text a table shows, in characters.
WIDTH = 60


def time_text(epoch: int | None, zone: tzinfo) -> str:
    """A time in ``zone``, or as epoch seconds if the calendar cannot represent it."""
    if epoch is None:
        return "-"
    try:
        return local_text(epoch, zone)
    except (ValueError, OverflowError, OSError):
        return str(epoch)


def number_text(number: float | None, decimals: int | None = None) -> str:
    """A number without trailing zeros, rounded to ``decimals``; a dash for None."""
    if number is None:
        return "-"
    return f"{number if decimals is None else round(number, decimals):.15g}"


def shortened(text: str, width: int = WIDTH) -> str:
    """``text`` cut to ``width`` characters, with its length."""
    return text if len(text) <= width else f"{text[:width]}... ({len(text)} characters)"


def beginning(text: str, width: int = WIDTH) -> str:
    """As :func:`shortened`, for a text that may have been cut before: without its length."""
    return text if len(text) <= width else f"{text[:width]}..."

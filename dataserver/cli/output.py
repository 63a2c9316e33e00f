"""How commands print: JSON, tables, times; text from packets never reaches a terminal raw."""

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


# -- the words of statuses, severities and the like: as shown, as asked for, and their colours

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
#: Words of what became of an event, by their numbers.
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
    """What reads an option's value: words of a choice, separated by commas; None: not given."""

    def read(
        context: click.Context, option: click.Parameter, value: str | None
    ) -> frozenset[str] | None:
        if value is None:
            return None
        words = frozenset(word.strip().lower() for word in value.split(","))
        for word in sorted(words.difference(choice)):
            raise click.BadParameter(
                f"there is no {word!r}; choose from {', '.join(choice)}", context, option
            )
        return words

    return read


status_option = click.option(
    "--status",
    "statuses",
    callback=word_list(tuple(STATUSES)),
    metavar="STATUS,...",
    help=f"Only those that are one of: {', '.join(STATUSES)}.",
)


def status_word(status: Status | None) -> str | None:
    """A status as it is called; None where there is none."""
    return None if status is None else _STATUS_WORDS[status]


def word_of(words: tuple[str, ...], number: int) -> str:
    """The word of a number, the number itself where it has none."""
    return words[number] if 0 <= number < len(words) else str(number)


def painted(text: str, word: str | None = None) -> Painted:
    """``text`` in the colour of a status or severity (default: which it is itself)."""
    return Painted(text, _COLOURS.get(word or text))


def marks(*, disabled: bool, quiet: bool) -> str:
    """What the console has switched off."""
    return ", ".join([*["disabled"] * disabled, *["quiet"] * quiet]) or "-"


# -- values and times as tables show them; where there is none, a dash

#: How much of a text a table shows, in characters.
WIDTH = 60


def time_text(epoch: int | None, zone: tzinfo) -> str:
    """A time in ``zone``; what lies outside of the calendar as plain epoch seconds."""
    if epoch is None:
        return "-"
    try:
        return local_text(epoch, zone)
    except (ValueError, OverflowError, OSError):
        return str(epoch)


def number_text(number: float | None, decimals: int | None = None) -> str:
    """A number without needless zeros, rounded to so many decimals."""
    if number is None:
        return "-"
    return f"{number if decimals is None else round(number, decimals):.15g}"


def shortened(text: str, width: int = WIDTH) -> str:
    """``text`` as far as it fits a table."""
    return text if len(text) <= width else f"{text[:width]}... ({len(text)} characters)"


def beginning(text: str, width: int = WIDTH) -> str:
    """The same of a text that was cut before, so that its length is not known."""
    return text if len(text) <= width else f"{text[:width]}..."

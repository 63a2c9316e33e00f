"""The words of statuses, severities and the like: as shown, as asked for, and their colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from dataserver.cli.output import Painted
from dataserver.status import Status

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

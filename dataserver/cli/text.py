"""Values and times as tables show them; where there is none, a dash."""

from __future__ import annotations

from datetime import tzinfo

from dataserver.times import local_text

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

"""Times in packets: from text in a local time zone to epoch seconds, and back.  Pure.

A time in the hour that a change of clocks doubles has two meanings; the one nearer to a known
time is used.  A time in the hour that a change skips is moved forward by the length of the gap.

Everything that the Perl server accepts is accepted, with the same meaning: a date and a time
anywhere in the text, and a part that is too large is carried over (02/30 is March 2, 24:00:00 the
next day).  ISO 8601 is accepted as well; a time with an offset of its own is absolute.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from dataserver.model import Packet

#: Whole numbers between these count as epoch seconds: 2001-01-01 and 2100-01-01, UTC.
EARLIEST: Final = 978_307_200
LATEST: Final = 4_102_444_800
#: Seconds by which a file's number may be ahead of its modification time and still count as a
#: time.  For buffered packets it is days behind; a serial number may be any number.
NUMBER_AHEAD: Final = 86_400
#: Seconds by which a time may be ahead of the server's clock and still count as the present.
SLACK: Final = 300
#: Offsets of more hours than this are ignored.
MAX_OFFSET_HOURS: Final = 24

#: The end of a time in ISO 8601: a fraction of a second, which is dropped, and an offset.
_ISO_END: Final = r"(?:[.,][0-9]*)?)?\s*(?P<zone>Z|UTC|GMT|([+-])([0-9]{1,2})(?::?([0-9]{2}))?)?\s*"
#: A time with separators, in ISO 8601 without them, and anywhere in a text as for Perl.
_WRITTEN: Final = re.compile(
    r"\s*([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})(?:\s+|T)"
    r"([0-9]{1,2}):([0-9]{1,2})(?::([0-9]{1,2})" + _ISO_END,
    re.IGNORECASE,
)
_BASIC: Final = re.compile(
    r"\s*([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})(?:([0-9]{2})" + _ISO_END,
    re.IGNORECASE,
)
_ANYWHERE: Final = re.compile(
    r"(?<![0-9])([0-9]{4})[/-]([0-9]+)[/-]([0-9]+) +([0-9]+):([0-9]+):([0-9]+)(?P<zone>)"
)
#: A date column's text; operators write slashes and single digits, too.
_STORED: Final = re.compile(
    r"([0-9]{4})[/-]([0-9]{1,2})[/-]([0-9]{1,2})\s+([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})"
)
_EPOCH: Final = re.compile(r"\s*([0-9]{9,10})(?:\.[0-9]*)?\s*")
#: Longer texts are not times, and stay out of the cache.
_LONGEST: Final = 64
_SECONDS_PER_HOUR: Final = 3600
_SECONDS_PER_MINUTE: Final = 60


def packet_time(packet: Packet, *, zone: tzinfo, number: int, modified: int) -> int | None:
    """The time of a packet in epoch seconds, or None if its timestamp is invalid.

    ``number`` is the one in the file's name, ``modified`` the file's modification time
    (epoch seconds).

    1. Without a timestamp (missing, empty, ``AUTO``) it is the number, if that is a
       plausible epoch and not ahead of the modification time; else the modification time.
       Both are absolute: the offset does not apply.
    2. Else it is the timestamp, local to ``zone``, plus ``timezone_offset`` hours, in a
       doubled hour the meaning nearer to the time of step 1.  One that has an offset of its own
       (``Z``, ``+01:00``) is absolute as well.
    """
    is_epoch = EARLIEST <= number <= min(LATEST, modified + NUMBER_AHEAD)
    known = number if is_epoch else modified
    written = _given(packet.timestamp)
    if written is None:
        return known
    return _shifted(written, packet.timezone_offset, zone, known)


def sample_time(
    text: str | None, *, packet_time: int | None, offset: str | None, zone: tzinfo
) -> int | None:
    """The time of one value in epoch seconds, or None if it is invalid.

    ``text`` is the timestamp of a ``datalist`` value or of a module.  Agents write local
    time in one and epoch seconds in the other; both are accepted in either place.
    Missing, empty or ``AUTO`` means the packet's time.  ``offset`` is the packet's
    ``timezone_offset``; it applies once, and to local times only, which those with an offset
    of their own are not.
    """
    written = _given(text)
    if written is None:
        return packet_time
    epoch = _EPOCH.fullmatch(written)
    if epoch is None:
        return _shifted(written, offset, zone, packet_time)
    seconds = int(epoch[1])
    return seconds if EARLIEST <= seconds <= LATEST else None


@lru_cache(maxsize=8192)
def local_text(epoch: int, zone: tzinfo) -> str:
    """``YYYY-MM-DD HH:MM:SS`` in ``zone``, as the database's date columns hold it.

    Raises ValueError, OverflowError or OSError outside of the years 1 to 9999.
    """
    return str(datetime.fromtimestamp(epoch, zone).replace(tzinfo=None))


def from_local_text(text: str, zone: tzinfo, hint: int | None = None) -> int:
    """Epoch seconds of what :func:`local_text` wrote.

    In a doubled hour it is the meaning nearer to ``hint``, or the earlier one without a hint.
    A text that is not a time (MySQL's ``0000-00-00 00:00:00``) is 0, which stands for never;
    nothing is carried over.
    """
    meanings = _stored(text, zone) if len(text) <= _LONGEST else None
    return 0 if meanings is None else _nearest(*meanings, hint)


def is_auto_time(text: str | None) -> bool:
    """Whether a timestamp is missing, blank or ``AUTO``, so that the server chooses the time."""
    return not text or text.isspace() or text.strip().upper() == "AUTO"


def past_doubled_hour(epoch: int, zone: tzinfo) -> int:
    """``epoch``, or a time soon after it whose local text has one meaning only."""
    text = local_text(epoch, zone)
    # Without a hint the earlier meaning, with a late one the later: they differ if there are two.
    while from_local_text(text, zone) != from_local_text(text, zone, LATEST):
        epoch += _SECONDS_PER_HOUR // 4
        text = local_text(epoch, zone)
    return epoch


def _given(text: str | None) -> str | None:
    return None if is_auto_time(text) else text


def is_valid_offset(text: str) -> bool:
    """Whether ``text`` is a valid ``timezone_offset``; an invalid one is ignored.

    A blank one is valid and counts as zero.
    """
    return len(text) <= _LONGEST and abs(_hours(text)) <= MAX_OFFSET_HOURS


class _Meanings(NamedTuple):
    """The meanings of a time in epoch seconds, different only in a doubled hour."""

    earlier: int
    later: int
    is_local: bool


def _shifted(text: str, offset: str | None, zone: tzinfo, near: int | None) -> int | None:
    """A time, plus the packet's offset if it is local; None if it is invalid or before 1970."""
    meanings = _parsed(text, zone) if len(text) <= _LONGEST else None
    if meanings is None:
        return None
    shift = _offset_seconds(offset) if offset and meanings.is_local else 0
    seconds = _nearest(meanings.earlier + shift, meanings.later + shift, near)
    return seconds if seconds >= 0 else None


def _nearest(earlier: int, later: int, near: int | None) -> int:
    """The meaning nearer to ``near``, or the earlier one if that is None."""
    if earlier == later or near is None or abs(earlier - near) <= abs(later - near):
        return earlier
    return later


@lru_cache(maxsize=8192)
def _parsed(text: str, zone: tzinfo) -> _Meanings | None:
    """The meanings of a timestamp, or None if it is not a time."""
    match = _WRITTEN.fullmatch(text) or _BASIC.fullmatch(text) or _ANYWHERE.search(text)
    if match is None:
        return None
    try:
        written = _carried(*(int(match[part] or 0) for part in range(1, 7)))
        if match["zone"]:
            absolute = int(written.timestamp()) - _written_offset(match)
            return _Meanings(absolute, absolute, is_local=False)
        return _Meanings(*_both(written.replace(tzinfo=zone)), is_local=True)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=8192)
def _stored(text: str, zone: tzinfo) -> tuple[int, int] | None:
    """Both meanings of a date column's text, or None if it is not a time."""
    match = _STORED.fullmatch(text)
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        return _both(datetime(year, month, day, hour, minute, second, tzinfo=zone))
    except (ValueError, OverflowError):
        return None


def _both(local: datetime) -> tuple[int, int]:
    """The meanings of a local time in epoch seconds, different only in a doubled hour."""
    standing = int(local.timestamp())
    folded = int(local.replace(fold=1).timestamp())
    # In a skipped hour the folded meaning is the smaller one: moved back, not forward.
    return standing, max(standing, folded)


def _carried(year: int, month: int, day: int, hour: int, minute: int, second: int) -> datetime:
    """The time in UTC; a part that is too large is carried over as ``mktime`` does."""
    years, month = divmod(month - 1, 12)
    parts = timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second)
    return datetime(year + years, month + 1, 1, tzinfo=UTC) + parts


def _written_offset(match: re.Match[str]) -> int:
    """Seconds by which a time with an offset of its own is ahead of UTC.

    Raises ValueError for more than a day.
    """
    sign, hours, minutes = match.groups()[7:]
    if sign is None:
        return 0
    seconds = int(hours) * _SECONDS_PER_HOUR + int(minutes or 0) * _SECONDS_PER_MINUTE
    if seconds > MAX_OFFSET_HOURS * _SECONDS_PER_HOUR:
        raise ValueError("an offset of more than a day")
    return -seconds if sign == "-" else seconds


@lru_cache(maxsize=256)
def _hours(text: str) -> float:
    """``text`` as a number: 0 if it is blank, nan if it is not a number."""
    try:
        return float(text.replace(",", ".").strip() or 0)
    except ValueError:
        return math.nan


def _offset_seconds(text: str) -> int:
    """``timezone_offset`` in seconds, or 0 if it is not a number of hours within a day."""
    return round(_hours(text) * _SECONDS_PER_HOUR) if is_valid_offset(text) else 0

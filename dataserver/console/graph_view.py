"""The parameters of a page's graph: its span, the spans to choose, the zone, the refresh time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dataserver.graphs.model import Span

HOUR, DAY = 3600, 86_400
_RANGES = (
    ("hour", HOUR),
    ("6 hours", 6 * HOUR),
    ("day", DAY),
    ("week", 7 * DAY),
    ("month", 30 * DAY),
    ("year", 365 * DAY),
)
#: The initial span, in seconds.
FIRST = DAY
#: The folder of zone files; the rest of the path is the zone's name.
_ZONES = "zoneinfo"


class Range(NamedTuple):
    """A span that can be chosen: the last ``seconds``."""

    name: str
    seconds: int
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class GraphView:
    """Times in epoch seconds.

    ``is_live``: it ends now, and is updated every ``refresh`` seconds; ``zone`` is an IANA name
    or an offset such as "+02:00".
    """

    start: int
    end: int
    now: int
    is_live: bool
    refresh: int
    zone: str
    ranges: tuple[Range, ...]

    @classmethod
    def of(
        cls, span: Span, *, now: int, is_live: bool, refresh: int, zone: tzinfo, first: int | None
    ) -> GraphView:
        """``first`` is the time of the first value, or None if there is none yet."""
        ranges = tuple(_ranges(span.end - span.start, is_live, first, now))
        return cls(span.start, span.end, now, is_live, refresh, zone_name(zone, now), ranges)


def zone_name(zone: tzinfo, now: int) -> str:
    """A zone's IANA name, or its offset at ``now`` (epoch seconds) if it has none."""
    key = zone.key if isinstance(zone, ZoneInfo) else None
    if key is not None and not key.startswith("/"):
        return key
    if zone is UTC:
        return "UTC"
    if key is not None:
        named = _name_of_file(key)
        if named is not None:
            return named
    return datetime.fromtimestamp(now, zone).isoformat()[-6:]


def _name_of_file(path: str) -> str | None:
    """The name of a zone file, from its real path; None outside of the zone folders."""
    real = Path(path).resolve().parts
    if _ZONES not in real:
        return None
    name = "/".join(real[real.index(_ZONES) + 1 :])
    return name.removeprefix("posix/") or None


def _ranges(length: int, is_live: bool, first: int | None, now: int) -> Iterator[Range]:
    for name, seconds in _RANGES:
        yield Range(name, seconds, is_live and seconds == length)
    if first is not None and first < now:
        # From a little before the first value, so that its beginning is visible.
        seconds = (now - first) * 51 // 50 + 60
        yield Range("all", seconds, is_live and abs(seconds - length) < 60)

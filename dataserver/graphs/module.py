"""Turns a module's history into the data of its graph.

:class:`ModuleDrawing` gives every change if there is room, else columns; with them the statuses
over time, which follow from the module's thresholds (:class:`Zones`) and its agent's silence.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from dataserver.graphs.model import Band, Column, Point, Shape, Span, StatusSpan, Zone
from dataserver.rules.days import Columns
from dataserver.rules.series import Bucket
from dataserver.rules.status import Interval, Rules, Status, judge_text
from dataserver.rules.values import Kind, TypeRule, type_rule
from dataserver.store.read.history import Buckets, HistorySpan
from dataserver.store.read.modules import ModuleRecord

#: Up to this many points for each column of the width, every point is shown.
_POINTS_PER_COLUMN = 2
#: Characters of a text that a graph shows.
_TEXT_LENGTH = 200
NORMAL = Status.NORMAL.name.lower()
CRITICAL, WARNING = Status.CRITICAL.name.lower(), Status.WARNING.name.lower()
UNKNOWN = "unknown"
NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Query:
    """A requested graph: [start, end) of a module, with data up to ``until``."""

    module: ModuleRecord
    rules: Rules
    start: int
    end: int
    until: int
    width: int
    #: The columns of [start, end).
    columns: Columns

    @property
    def rule(self) -> TypeRule:
        """The rule of the module's type."""
        return type_rule(self.module.type or "")

    @property
    def shape(self) -> Shape:
        """How the module is drawn."""
        if self.rule.kind is Kind.TEXT:
            return Shape.TEXT
        return Shape.BOOLEAN if self.rule.is_proc else Shape.NUMBER

    @property
    def last(self) -> int:
        """The last second that is read."""
        return max(self.start, self.until - 1)

    @property
    def lefts(self) -> Sequence[int]:
        """The beginnings of the columns that have data."""
        lefts = self.columns.lefts
        return lefts[: bisect_left(lefts, self.until)]


class ModuleDrawing:
    """The data of one module's graph; ``unknown``: spans in which its agent was silent too long."""

    def __init__(self, buckets: Buckets, query: Query, unknown: Sequence[Span]) -> None:
        self._buckets = buckets
        self._query = query
        self._unknown = unknown
        self._zones = zones_of(query.rules, is_proc=query.rule.is_proc)

    def graph_fields(self) -> dict[str, Any]:
        """The fields of a :class:`ModuleGraph` that come from history.  Raises StoreError."""
        query = self._query
        is_text = query.shape is Shape.TEXT
        most = query.width * _POINTS_PER_COLUMN
        changes = self._buckets.count(
            query.module.id, query.start, query.last, most + 1, texts=is_text
        )
        is_exact = changes <= most
        fields: dict[str, Any] = {
            "shape": query.shape,
            "is_exact": is_exact,
            "changes": changes,
            "points": (),
            "columns": (),
            "bands": (),
            "zones": () if is_text else drawn_zones(self._zones),
        }
        if is_text:
            fields |= self._texts(is_exact)
        else:
            fields |= self._points() if is_exact else self._columns()
        seconds = fields.pop("seconds")
        fields["shares"] = shares(seconds, max(1, query.end - query.start))
        return fields

    def _points(self) -> dict[str, Any]:
        query = self._query
        before = self._buckets.number_before(query.module.id, query.start)
        found = [] if before is None else [Point(query.start, before)]
        inside = self._buckets.points(query.module.id, query.start, query.last)
        found += (Point(*point) for point in inside)
        spans = statuses_of_points(
            found, self._number_status, query.start, query.until, self._unknown
        )
        return {"points": tuple(found), **_statuses(spans)}

    def _columns(self) -> dict[str, Any]:
        query = self._query
        asked = self._zones or Zones()
        span = (query.start, query.last, query.lefts, query.until)
        summed = self._buckets.numbers(HistorySpan(query.module.id, *span, asked.edges))
        before = self._buckets.number_before(query.module.id, query.start)
        columns = list(_columns(query, summed, before))
        by_column = {bucket.column: bucket for bucket in summed}
        parts = (
            (Span(column.start, column.end), self._seconds(column, by_column.get(place), held))
            for place, (column, held) in enumerate(columns)
        )
        spans, seconds = statuses_of_columns(parts, self._unknown)
        return {
            "columns": tuple(column for column, _ in columns),
            "changes": sum(bucket.changes for bucket in summed),
            "statuses": tuple(spans),
            "seconds": seconds,
        }

    def _texts(self, is_exact: bool) -> dict[str, Any]:
        query = self._query
        lefts = range(query.start, query.until) if is_exact else query.lefts
        summed = self._buckets.texts(query.module.id, query.start, query.last, lefts)
        before = self._buckets.text_before(query.module.id, query.start)
        begun = [] if before is None else [(query.start, before, 1)]
        if is_exact:
            begun += ((each.time, each.last, 1) for each in summed)
        else:
            # Of several texts in a column only the last is kept, from the column's beginning.
            begun += (
                (
                    each.time if each.changes == 1 else lefts[each.column],
                    each.last,
                    each.changes,
                )
                for each in summed
            )
        bands = tuple(_bands(begun, query.until))
        points = [(band.start, band.text if band.changes == 1 else None) for band in bands]
        spans = statuses_of_points(
            points, self._text_status, query.start, query.until, self._unknown
        )
        changes = sum(each.changes for each in summed)
        return {"bands": bands, "changes": changes, **_statuses(spans)}

    def _seconds(
        self, column: Column, bucket: Bucket | None, before: float | None
    ) -> dict[str | None, float]:
        """Seconds by status in a column in which ``before`` held until the first point."""
        whole = column.end - column.start
        if self._zones is None:
            return {None: float(whole)}
        head = whole if bucket is None else bucket.first - column.start
        found = {} if bucket is None else self._zones.seconds(whole - head, bucket.over)
        status = None if before is None else self._zones.status(before)
        found[status] = found.get(status, 0.0) + head
        return found

    def _number_status(self, value: float) -> str | None:
        return None if self._zones is None else self._zones.status(value)

    def _text_status(self, text: str | None) -> str | None:
        rules = self._query.rules
        if rules.critical_text is None and rules.warning_text is None:
            return NORMAL
        return None if text is None else text_status(rules, text)


def _columns(
    query: Query, summed: Sequence[Bucket], before: float | None
) -> Iterator[tuple[Column, float | None]]:
    """The columns, each with the value that held at its beginning."""
    by_column = {bucket.column: bucket for bucket in summed}
    held = before
    for place, (left, right) in enumerate(pairwise([*query.lefts, query.until])):
        bucket = by_column.get(place)
        if bucket is None:
            yield Column(left, right, held, held, held, held, 0), held
        else:
            yield _column(left, right, bucket, held), held
            held = bucket.last


def _column(left: int, right: int, bucket: Bucket, held: float | None) -> Column:
    low, high, area = bucket.minimum, bucket.maximum, bucket.area
    since = bucket.first
    if held is not None and bucket.first > left:
        low, high = min(low, held), max(high, held)
        area += held * (bucket.first - left)
        since = left
    mean = area / (right - since) if right > since else bucket.last
    # Rounding must not move the mean out of the range.
    return Column(left, right, low, high, min(max(mean, low), high), bucket.last, bucket.changes)


def _bands(begun: Sequence[tuple[int, str, int]], until: int) -> Iterator[Band]:
    """Bands from texts with their beginnings; equal neighbours are joined."""
    bands: list[Band] = []
    for place, (start, text, changes) in enumerate(begun):
        end = begun[place + 1][0] if place + 1 < len(begun) else until
        shown = text[:_TEXT_LENGTH]
        if end <= start:
            continue
        last = bands[-1] if bands else None
        if last is not None and last.text == shown and last.changes == changes == 1:
            bands[-1] = Band(last.start, end, shown)
        else:
            bands.append(Band(start, end, shown, changes))
    yield from bands


def _statuses(spans: Sequence[StatusSpan]) -> dict[str, Any]:
    return {"statuses": tuple(spans), "seconds": seconds_of(spans)}


# -- thresholds --


class Zones(NamedTuple):
    """The intervals, not in percent, in which numbers are critical and warning; None for none."""

    critical: Interval | None = None
    warning: Interval | None = None

    @property
    def edges(self) -> tuple[float, ...]:
        """The values at which the status may change, in ascending order."""
        zones = [zone for zone in self if zone is not None]
        return tuple(sorted({edge for zone in zones for edge in (zone.low, zone.high)}))

    def status(self, value: float) -> str:
        """The status of a number."""
        if self.critical is not None and self.critical.holds(value, None):
            return CRITICAL
        if self.warning is not None and self.warning.holds(value, None):
            return WARNING
        return NORMAL

    def seconds(self, whole: float, over: Sequence[float]) -> dict[str | None, float]:
        """Seconds by status, of ``whole`` seconds of which ``over`` were at or above each edge.

        Between two edges the status is that of the lower one, since intervals include their lower
        end.
        """
        found: dict[str | None, float] = {}
        above = [whole, *over]
        for place, value in enumerate((-math.inf, *self.edges)):
            held = above[place] - (above[place + 1] if place + 1 < len(above) else 0)
            status = self.status(value)
            found[status] = found.get(status, 0.0) + held
        return found


def zones_of(rules: Rules, *, is_proc: bool) -> Zones | None:
    """A module's zones, or None if its thresholds are relative to the value before."""
    critical, warning = rules.critical, rules.warning
    if critical is None and is_proc:
        critical = rules.down
    if any(zone is not None and zone.percent for zone in (critical, warning)):
        return None
    return Zones(critical, warning)


def drawn_zones(zones: Zones | None) -> tuple[Zone, ...]:
    """The zones to draw, warning first, since critical is drawn over it."""
    if zones is None:
        return ()
    return (*_zone_parts(WARNING, zones.warning), *_zone_parts(CRITICAL, zones.critical))


def _zone_parts(status: str, zone: Interval | None) -> Iterator[Zone]:
    if zone is None:
        return
    high = zone.high if zone.high >= zone.low else None
    if not zone.inverse:
        yield Zone(status, zone.low, high)
        return
    yield Zone(status, None, zone.low)
    if high is not None:
        yield Zone(status, high, None)


def text_status(rules: Rules, text: str) -> str:
    """The status of a text."""
    return judge_text(rules, text).name.lower()


# -- statuses over time --

#: In order of importance, for columns with room for one status only.
_BY_SEVERITY = (CRITICAL, WARNING, UNKNOWN, NORMAL)
_V = TypeVar("_V")


def statuses_of_points(
    points: Sequence[tuple[int, _V]],
    judge: Callable[[_V], str | None],
    start: int,
    until: int,
    unknown: Sequence[Span],
) -> list[StatusSpan]:
    """The statuses of a step function in [start, until), unknown in the spans ``unknown``."""
    spans: list[StatusSpan] = []
    first = points[0][0] if points else until
    if start < first:
        spans.append(StatusSpan(start, min(first, until), None))
    for place, (time, value) in enumerate(points):
        end = points[place + 1][0] if place + 1 < len(points) else until
        span = StatusSpan(max(time, start), min(end, until), judge(value))
        if span.start < span.end:
            spans.append(span)
    return _joined(_overlaid(spans, unknown))


def statuses_of_columns(
    columns: Iterable[tuple[Span, dict[str | None, float]]], unknown: Sequence[Span]
) -> tuple[list[StatusSpan], dict[str | None, float]]:
    """The worst status of each column, and the seconds of each status in all of them.

    Each column comes with its seconds by status.  If the module is unknown for a part of a column,
    that part is taken from its statuses in proportion, since when each of them held within the
    column is not known any more.
    """
    spans: list[StatusSpan] = []
    sums: dict[str | None, float] = {}
    place = 0
    for column, seconds in columns:
        while place < len(unknown) and unknown[place].end <= column.start:
            place += 1
        silent = _overlap(column, unknown, place)
        # Before its first value a module cannot become unknown.
        known = sum(held for status, held in seconds.items() if status is not None)
        silent = min(silent, known)
        left = 1 - silent / known if known else 1.0
        shared = {
            status: held if status is None else held * left for status, held in seconds.items()
        }
        if silent:
            shared[UNKNOWN] = shared.get(UNKNOWN, 0.0) + silent
        for status, held in shared.items():
            sums[status] = sums.get(status, 0.0) + held
        worst = next((status for status in _BY_SEVERITY if shared.get(status, 0) > 0), None)
        spans.append(StatusSpan(column.start, column.end, worst))
    return _joined(spans), sums


def seconds_of(spans: Iterable[StatusSpan]) -> dict[str | None, float]:
    """The seconds for which each status held."""
    sums: dict[str | None, float] = {}
    for start, end, status in spans:
        sums[status] = sums.get(status, 0.0) + (end - start)
    return sums


def shares(seconds: dict[str | None, float], whole: int) -> dict[str, float]:
    """The part of each status in ``whole`` seconds; the rest is "not known"."""
    known = {status: held / whole for status, held in seconds.items() if status is not None}
    found = {status: known.get(status, 0.0) for status in reversed(_BY_SEVERITY)}
    return {**found, NOT_KNOWN: max(0.0, 1 - sum(found.values()))}


def _overlap(column: Span, unknown: Sequence[Span], place: int) -> float:
    """Seconds of the column in the spans ``unknown``, which are searched from ``place`` on."""
    found = 0.0
    while place < len(unknown) and unknown[place].start < column.end:
        start, end = unknown[place]
        found += max(0, min(end, column.end) - max(start, column.start))
        place += 1
    return found


def _overlaid(spans: Iterable[StatusSpan], unknown: Sequence[Span]) -> Iterator[StatusSpan]:
    """The spans with their unknown parts replaced; spans without a status are kept."""
    place = 0
    for span in spans:
        at = span.start
        while place < len(unknown) and unknown[place].end <= at:
            place += 1
        while span.status is not None and place < len(unknown) and unknown[place].start < span.end:
            start, end = unknown[place]
            if start > at:
                yield StatusSpan(at, start, span.status)
            yield StatusSpan(max(at, start), min(end, span.end), UNKNOWN)
            at = min(end, span.end)
            if end > span.end:
                break
            place += 1
        if at < span.end:
            yield StatusSpan(at, span.end, span.status)


def _joined(spans: Iterable[StatusSpan]) -> list[StatusSpan]:
    """The spans with neighbours of the same status joined."""
    found: list[StatusSpan] = []
    for span in spans:
        if found and found[-1].status == span.status and found[-1].end == span.start:
            found[-1] = StatusSpan(found[-1].start, span.end, span.status)
        else:
            found.append(span)
    return found

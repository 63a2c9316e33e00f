"""One module's history made into what its graph shows: every change, or columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dataserver.days import Columns
from dataserver.graphs import statuses, zones
from dataserver.graphs.model import Band, Column, Point, Shape, Span, StatusSpan
from dataserver.graphs.zones import Zones
from dataserver.series import Bucket
from dataserver.status import Rules
from dataserver.store.buckets import Buckets, Cut
from dataserver.store.listing import ModuleRecord
from dataserver.values import Kind, TypeRule, type_rule

#: So many points for each column of the width are shown as they are.
_EACH = 2
#: Characters of a text that a graph shows.
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: [start, end) of a module, known up to ``until``."""

    module: ModuleRecord
    rules: Rules
    start: int
    end: int
    until: int
    width: int
    #: All of [start, end): where they begin, and their length.
    columns: Columns

    @property
    def rule(self) -> TypeRule:
        """What follows from the module's type."""
        return type_rule(self.module.type or "")

    @property
    def shape(self) -> Shape:
        """How it is drawn."""
        if self.rule.kind is Kind.TEXT:
            return Shape.TEXT
        return Shape.BOOLEAN if self.rule.is_proc else Shape.NUMBER

    @property
    def last(self) -> int:
        """The last second that is looked at."""
        return max(self.start, self.until - 1)

    @property
    def lefts(self) -> Sequence[int]:
        """Where the columns begin that are known."""
        lefts = self.columns.lefts
        return lefts[: bisect_left(lefts, self.until)]


class Drawing:
    """Draws one module; ``unknown`` are the spans in which its agent was silent for too long."""

    def __init__(self, buckets: Buckets, query: Query, unknown: Sequence[Span]) -> None:
        self._buckets = buckets
        self._query = query
        self._unknown = unknown
        self._zones = zones.zones_of(query.rules, is_proc=query.rule.is_proc)

    def drawn(self) -> dict[str, Any]:
        """The fields of a ModuleGraph that come from history.  Raises StoreError."""
        query = self._query
        is_text = query.shape is Shape.TEXT
        most = query.width * _EACH
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
            "zones": () if is_text else zones.shown(self._zones),
        }
        draw = self._texts if is_text else self._points if is_exact else self._columns
        fields |= draw(is_exact)
        seconds = fields.pop("seconds")
        fields["shares"] = statuses.shares(seconds, max(1, query.end - query.start))
        return fields

    def _points(self, _: bool) -> dict[str, Any]:
        query = self._query
        before = self._buckets.number_before(query.module.id, query.start)
        found = [] if before is None else [Point(query.start, before)]
        inside = self._buckets.points(query.module.id, query.start, query.last)
        found += (Point(*point) for point in inside)
        spans = statuses.of_points(
            found, self._number_status, query.start, query.until, self._unknown
        )
        return {"points": tuple(found), **_statuses(spans)}

    def _columns(self, _: bool) -> dict[str, Any]:
        query = self._query
        asked = self._zones or Zones()
        span = (query.start, query.last, query.lefts, query.until)
        summed = self._buckets.numbers(Cut(query.module.id, *span, asked.edges))
        before = self._buckets.number_before(query.module.id, query.start)
        columns = list(_columns(query, summed, before))
        by_column = {bucket.column: bucket for bucket in summed}
        parts = (
            (Span(column.start, column.end), self._seconds(column, by_column.get(place), held))
            for place, (column, held) in enumerate(columns)
        )
        spans, seconds = statuses.of_columns(parts, self._unknown)
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
            # Of several in a column only the last is told, from where the first of them may be.
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
        spans = statuses.of_points(
            points, self._text_status, query.start, query.until, self._unknown
        )
        changes = sum(each.changes for each in summed)
        return {"bands": bands, "changes": changes, **_statuses(spans)}

    def _seconds(
        self, column: Column, bucket: Bucket | None, before: float | None
    ) -> dict[str | None, float]:
        """Seconds by status in a column, in which ``before`` held until its first point."""
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
            return "normal"
        return None if text is None else zones.text_status(rules, text)


def _columns(
    query: Query, summed: Sequence[Bucket], before: float | None
) -> Iterator[tuple[Column, float | None]]:
    """Each column, with the value that held at its beginning."""
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
    # Rounding must not carry it out of what it is the mean of.
    return Column(left, right, low, high, min(max(mean, low), high), bucket.last, bucket.changes)


def _bands(begun: Sequence[tuple[int, str, int]], until: int) -> Iterator[Band]:
    """Texts with their beginnings as bands; equal neighbours are one."""
    bands: list[Band] = []
    for place, (start, text, changes) in enumerate(begun):
        end = begun[place + 1][0] if place + 1 < len(begun) else until
        shown = text[:_LONGEST]
        if end <= start:
            continue
        last = bands[-1] if bands else None
        if last is not None and last.text == shown and last.changes == changes == 1:
            bands[-1] = Band(last.start, end, shown)
        else:
            bands.append(Band(start, end, shown, changes))
    yield from bands


def _statuses(spans: Sequence[StatusSpan]) -> dict[str, Any]:
    return {"statuses": tuple(spans), "seconds": statuses.seconds_of(spans)}

"""A module's statuses over time, told from its values and its agent's silence; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from dataserver.graphs.model import Span, StatusSpan

NOT_KNOWN = "not known"
UNKNOWN = "unknown"
#: In order of what an operator has to see where there is room for one only.
_BY_WEIGHT = ("critical", "warning", UNKNOWN, "normal")

_V = TypeVar("_V")


def of_points(
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
    return _together(_overlaid(spans, unknown))


def of_columns(
    columns: Iterable[tuple[Span, dict[str | None, float]]], unknown: Sequence[Span]
) -> tuple[list[StatusSpan], dict[str | None, float]]:
    """The gravest status of each column, and the seconds of each status in all of them.

    Each column comes with its seconds by status.  Where it is unknown for a part, that part is
    taken from its statuses in proportion: when in a column each held is not known any more.
    """
    spans: list[StatusSpan] = []
    sums: dict[str | None, float] = {}
    place = 0
    for column, seconds in columns:
        while place < len(unknown) and unknown[place].end <= column.start:
            place += 1
        silent = _overlap(column, unknown, place)
        # Before its first value a module is not unknown.
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
        gravest = next((status for status in _BY_WEIGHT if shared.get(status, 0) > 0), None)
        spans.append(StatusSpan(column.start, column.end, gravest))
    return _together(spans), sums


def seconds_of(spans: Iterable[StatusSpan]) -> dict[str | None, float]:
    """How long each status held."""
    sums: dict[str | None, float] = {}
    for start, end, status in spans:
        sums[status] = sums.get(status, 0.0) + (end - start)
    return sums


def shares(seconds: dict[str | None, float], whole: int) -> dict[str, float]:
    """Each status's part of the ``whole`` seconds; the rest is not known."""
    known = {status: held / whole for status, held in seconds.items() if status is not None}
    found = {status: known.get(status, 0.0) for status in reversed(_BY_WEIGHT)}
    return {**found, NOT_KNOWN: max(0.0, 1 - sum(found.values()))}


def _overlap(column: Span, unknown: Sequence[Span], place: int) -> float:
    """Seconds of the column in those spans, from ``place`` on."""
    found = 0.0
    while place < len(unknown) and unknown[place].start < column.end:
        start, end = unknown[place]
        found += max(0, min(end, column.end) - max(start, column.start))
        place += 1
    return found


def _overlaid(spans: Iterable[StatusSpan], unknown: Sequence[Span]) -> Iterator[StatusSpan]:
    """The spans cut where the module is unknown; what is not known stays so."""
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


def _together(spans: Iterable[StatusSpan]) -> list[StatusSpan]:
    """Neighbours of one status as one."""
    found: list[StatusSpan] = []
    for span in spans:
        if found and found[-1].status == span.status and found[-1].end == span.start:
            found[-1] = StatusSpan(found[-1].start, span.end, span.status)
        else:
            found.append(span)
    return found

"""An agent's silence: the spans without a packet, what was expected in them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from dataserver.graphs.model import Silences, Span
from dataserver.store.accesses import Heard

#: Intervals without a packet that are no silence yet: agents are not punctual.
PATIENCE = 1.5
#: Intervals without a value after which a module is unknown.
UNKNOWN_AFTER = 2


def longest_gap(interval: int) -> int:
    """Seconds between two packets of an agent that has not been silent."""
    return int(interval * PATIENCE)


def silences(
    heard: Sequence[Heard], since: int | None, interval: int, start: int, until: int
) -> Silences:
    """The silences in [start, until): each from when a packet was due to the next one."""
    gaps = _gaps(heard, longest_gap(interval), until)
    return Silences(since, tuple(clipped((Span(a + interval, b) for a, b in gaps), start, until)))


def unknown_spans(
    heard: Sequence[Heard], agent_interval: int, interval: int, start: int, until: int
) -> list[Span]:
    """When a module of ``interval`` is unknown, since its agent was silent for too long."""
    after = UNKNOWN_AFTER * interval
    gaps = _gaps(heard, max(after, longest_gap(agent_interval)), until)
    return clipped((Span(a + after, b) for a, b in gaps), start, until)


def clipped(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """What of the spans lies in [start, end)."""
    cut = (Span(max(a, start), min(b, end)) for a, b in spans)
    return [span for span in cut if span.start < span.end]


def arrived(
    heard: Sequence[Heard], packets: int, since: int | None, interval: int, start: int, until: int
) -> tuple[float, float | None]:
    """How many packets were expected in [start, until), and the share of them that arrived.

    Expected are those that arrived and, for each silence, those that were due in it: so it does
    not count against an agent that it is a little early or late.  What is older than the ledger
    is not expected.
    """
    known = max(start, until if since is None else since)
    if known >= until:
        return 0.0, None
    gaps = clipped(
        (Span(a, b) for a, b in _gaps(heard, longest_gap(interval), until)), known, until
    )
    # Of a gap that ends with a packet that one was due too, and came.
    ends = {run.first for run in heard}
    missing = sum(
        max(0, round((gap.end - gap.start) / interval) - (gap.end in ends)) for gap in gaps
    )
    expected = packets + missing
    return float(expected), packets / expected if expected else None


def _gaps(heard: Sequence[Heard], longest: int, until: int) -> list[Span]:
    """From a packet to the next one, where that is longer than ``longest``; the last: to now."""
    gaps = [Span(one.last, other.first) for one, other in pairwise(heard)]
    if heard:
        gaps.append(Span(heard[-1].last, until))
    return [gap for gap in gaps if gap.end - gap.start > longest]

"""Reads from the ledger when an agent's packets arrived: counts in columns, and the gaps.

For the last ``ledger_days`` the ledger has the time of every packet, for the time before only the
number of packets in each hour; so an older gap is known to the hour only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, func, select

from dataserver.store import schema
from dataserver.store.errors import translating
from dataserver.store.layout import Layout, reading
from dataserver.store.read.history import column_of

HOUR = 3600


class ActiveSpan(NamedTuple):
    """``packets`` packets arrived from ``first`` to ``last`` without a long gap."""

    first: int
    last: int
    packets: int


class PacketActivity:
    """Reads the ledger of one database; without one (a Perl server's database) all is unknown."""

    def __init__(self, engine: Engine, layout: Layout) -> None:
        self._engine = engine
        self._has_ledger = layout.has(schema.packet) and layout.has(schema.packet_hour)

    def heard(self, agent_id: int, start: int, end: int, longest: int) -> list[ActiveSpan]:
        """The spans with packets, from the last packet not after ``start`` up to ``end``.

        In order; between two spans lie more than ``longest`` seconds without any packet.  A folded
        hour counts as active throughout.  Raises StoreError.
        """
        if not self._has_ledger:
            return []
        with translating("read the ledger"), reading(self._engine) as conn:
            hours = _hours(conn, agent_id, start, end)
            found = _unfolded(conn, agent_id, start, end, longest)
        found += [ActiveSpan(hour, hour + HOUR, packets) for hour, packets in hours]
        return _merged(sorted(found), longest)

    def first(self, agent_id: int) -> int | None:
        """The agent's first time in the ledger, or None if it has none.  Raises StoreError."""
        if not self._has_ledger:
            return None
        p, h = schema.packet.c, schema.packet_hour.c
        with translating("read the ledger"), reading(self._engine) as conn:
            times = (
                conn.scalar(select(func.min(p.time)).where(p.agent_id == agent_id)),
                conn.scalar(select(func.min(h.hour)).where(h.agent_id == agent_id)),
            )
        return min((time for time in times if time is not None), default=None)

    def folded_until(self, agent_id: int) -> int:
        """The time before which only whole hours are known, 0 if every packet is known."""
        if not self._has_ledger:
            return 0
        h = schema.packet_hour.c
        with translating("read the ledger"), reading(self._engine) as conn:
            last = conn.scalar(select(func.max(h.hour)).where(h.agent_id == agent_id))
        return 0 if last is None else last + HOUR

    def counts(self, agent_id: int, lefts: Sequence[int], end: int) -> dict[int, int]:
        """Packets until ``end`` by index of the column (they begin at ``lefts``), without zeros.

        A folded hour counts where it begins.  Raises StoreError.
        """
        found: dict[int, int] = {}
        if not (self._has_ledger and lefts):
            return found
        p, h = schema.packet.c, schema.packet_hour.c
        at_packet, at_hour = column_of(p.time, lefts), column_of(h.hour, lefts)
        start = lefts[0]
        queries = (
            select(at_packet, func.count())
            .where(p.agent_id == agent_id, p.time >= start, p.time < end)
            .group_by(at_packet),
            select(at_hour, func.sum(h.packets))
            .where(h.agent_id == agent_id, h.hour >= start, h.hour < end)
            .group_by(at_hour),
        )
        with translating("read the ledger"), reading(self._engine) as conn:
            for query in queries:
                for column, packets in conn.execute(query):
                    found[column] = found.get(column, 0) + int(packets)
        return found


def _hours(conn: Connection, agent_id: int, start: int, end: int) -> list[tuple[int, int]]:
    h = schema.packet_hour.c
    whose = h.agent_id == agent_id
    before = select(func.max(h.hour)).where(whose, h.hour <= start).scalar_subquery()
    query = select(h.hour, h.packets).where(
        whose, h.hour >= func.coalesce(before, start), h.hour <= end
    )
    return [(hour, packets) for hour, packets in conn.execute(query)]


def _unfolded(
    conn: Connection, agent_id: int, start: int, end: int, longest: int
) -> list[ActiveSpan]:
    """The spans of packets that are not folded; the database finds the gaps between them."""
    p = schema.packet.c
    whose = p.agent_id == agent_id
    before = select(func.max(p.time)).where(whose, p.time <= start).scalar_subquery()
    inside = (whose, p.time >= func.coalesce(before, start), p.time <= end)
    first, last, packets = conn.execute(
        select(func.min(p.time), func.max(p.time), func.count()).where(*inside)
    ).one()
    if not packets:
        return []
    order: dict[str, Any] = {"order_by": p.time}
    listed = (
        select(
            p.time,
            func.lead(p.time).over(**order).label("following"),
            func.row_number().over(**order).label("number"),
        )
        .where(*inside)
        .subquery()
    )
    c = listed.c
    gaps = select(c.time, c.following, c.number).where(c.following - c.time > longest)
    spans: list[ActiveSpan] = []
    begun, counted = first, 0
    for time, following, number in conn.execute(gaps.order_by(c.time)):
        spans.append(ActiveSpan(begun, time, number - counted))
        begun, counted = following, number
    return [*spans, ActiveSpan(begun, last, packets - counted)]


def _merged(spans: list[ActiveSpan], longest: int) -> list[ActiveSpan]:
    """Spans of both tables, in order, as one sequence; spans close to each other are joined."""
    found: list[ActiveSpan] = []
    for span in spans:
        if found and span.first - found[-1].last <= longest:
            before = found[-1]
            last = max(before.last, span.last)
            found[-1] = ActiveSpan(before.first, last, before.packets + span.packets)
        else:
            found.append(span)
    return found

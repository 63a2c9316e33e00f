"""Late values: put into history so that reading back gives what every packet carried.

Late for its module is a value with later ones in history: of a late packet, or of an agent whose
clock was ahead and was put right, so that rows of before lie ahead of its present.

The rule is :func:`dataserver.series.insert_late`; here its points are read, for all the
late values of one agent at once, and what it adds is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, Table, and_, func, or_, select

from dataserver import series
from dataserver.store import schema
from dataserver.store.batch import Batch, LateSample, Writer
from dataserver.store.catalog import AgentEntry, in_chunks
from dataserver.store.layout import Layout
from dataserver.store.ledger import packet_times
from dataserver.store.sql import Row

#: Modules whose points one statement reads.
_MODULES_AT_ONCE = 100

Points = dict[int, list[tuple[int, float | str]]]


def write_late(conn: Connection, writer: Writer, batch: Batch) -> None:
    """Write the batch's late values; its other rows and its ledger are there already."""
    by_agent: defaultdict[int, list[LateSample]] = defaultdict(list)
    for sample in batch.late:
        by_agent[sample.agent.id].append(sample)
    for samples in by_agent.values():
        _write_agent(conn, writer, batch, samples[0].agent, samples)


def _write_agent(
    conn: Connection,
    writer: Writer,
    batch: Batch,
    agent: AgentEntry,
    samples: Sequence[LateSample],
) -> None:
    first = min(sample.time for sample in samples)
    known = packet_times(conn, agent.id, first)
    # Where a clock was put right, no value is newer but those of packets that were ahead.
    ahead: Sequence[int] = ()
    if any(sample.is_among for sample in samples):
        ahead = packet_times(conn, agent.id, first, only_ahead=True)
    _recall_own_times(conn, samples)
    for table, is_text in ((schema.number_history, False), (schema.text_history, True)):
        chosen = [
            (sample, _following(sample, ahead if sample.is_among else known))
            for sample in samples
            if sample.is_text is is_text
        ]
        if not chosen:
            continue
        points = _read_points(conn, table, chosen, writer.layout)
        rows: list[Row] = []
        for sample, following in sorted(chosen, key=lambda each: each[0].time):
            path = points.setdefault(sample.module.id, [])
            rows += [(sample.module.id, *point) for point in _added(path, sample, following)]
        if rows:
            writer.late_points(conn, table, rows)
            batch.tally.stored += len(rows)


def _recall_own_times(conn: Connection, samples: Sequence[LateSample]) -> None:
    """Whether a module ever had values with times of their own, is remembered in the database."""
    c = schema.own_times.c
    modules = {s.module.id: s.module for s in samples if not s.module.own_times}
    for ids in in_chunks(sorted(modules)):
        for module_id in conn.scalars(select(c.module_id).where(c.module_id.in_(ids))):
            modules[module_id].own_times = True


def _following(sample: LateSample, known: Sequence[int]) -> int | None:
    """The next time at which history is known to be right as it is; None: there is none."""
    if sample.is_async:
        # Every async value is stored as it comes, so each later one has a point of its own.
        return None
    if (sample.own_time or sample.module.own_times) and not sample.is_among:
        # Values of a datalist lie at seconds that the ledger does not know.
        return sample.time + 1
    following = series.next_after(known, sample.time)
    if following is not None and following <= sample.newest:
        return following
    return sample.newest if sample.newest > sample.time else None


def _added(
    path: list[tuple[int, float | str]], sample: LateSample, following: int | None
) -> list[tuple[int, float | str]]:
    """The points that ``sample`` adds to its module's ``path``."""
    added = series.insert_late(path, sample.time, sample.value, following)
    # An equal point of this very second does as well, but not for the values of async types.
    if not added and sample.has_row:
        there = not sample.is_async and series.has_point(path, sample.time)
        return [] if there else [(sample.time, sample.value)]
    return added


def _read_points(
    conn: Connection,
    table: Table,
    chosen: Sequence[tuple[LateSample, int | None]],
    layout: Layout,
) -> Points:
    """The points of the samples' modules that matter, given with each what :func:`_following` says.

    That is from the last one before the first late value on.
    """
    c = table.c
    samples = [sample for sample, _ in chosen]
    first = min(sample.time for sample in samples)
    last = max(following or sample.time for sample, following in chosen)
    points: Points = {}
    for ids in in_chunks(sorted({sample.module.id for sample in samples}), _MODULES_AT_ONCE):
        latest = select(c.module_id, func.max(c.time)).where(c.module_id.in_(ids), c.time <= first)
        starts = dict.fromkeys(ids, first)
        starts.update((row[0], row[1]) for row in conn.execute(latest.group_by(c.module_id)))
        # A range for each module: joined to the starts, the server would read whole histories.
        ranges = (
            and_(c.module_id == key, c.time.between(start, last)) for key, start in starts.items()
        )
        query = select(c.module_id, c.time, c.value).where(or_(*ranges))
        for module_id, time, value in conn.execute(layout.in_order(query, table)):
            points.setdefault(module_id, []).append((time, value))
    return points

"""Late values: put into history so that reading back gives what every packet carried.

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
    known = packet_times(conn, agent.id, min(sample.time for sample in samples))
    _recall_own_times(conn, samples)
    for table, is_text in ((schema.number_history, False), (schema.text_history, True)):
        chosen = [sample for sample in samples if sample.is_text is is_text]
        if not chosen:
            continue
        points = _read_points(conn, table, chosen, writer.layout)
        rows: list[Row] = []
        for sample in sorted(chosen, key=lambda each: each.time):
            path = points.setdefault(sample.module.id, [])
            rows += [(sample.module.id, *point) for point in _added(path, sample, known)]
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


def _added(
    path: list[tuple[int, float | str]], sample: LateSample, known: Sequence[int]
) -> list[tuple[int, float | str]]:
    """The points that ``sample`` adds to its module's ``path``."""
    if sample.is_async:
        # Every async value is stored as it comes, so each later one has a point of its own.
        return series.insert_late(path, sample.time, sample.value, None) or [
            (sample.time, sample.value)
        ]
    if sample.own_time or sample.module.own_times:
        # Values of a datalist lie at seconds that the ledger does not know.
        following: int | None = sample.time + 1
    else:
        following = series.next_after(known, sample.time)
        newest = sample.module.time
        if following is None or following > newest > sample.time:
            following = newest
    return series.insert_late(path, sample.time, sample.value, following)


def _read_points(
    conn: Connection, table: Table, samples: Sequence[LateSample], layout: Layout
) -> Points:
    """The points of the samples' modules from the last one before the first late value on."""
    c = table.c
    first = min(sample.time for sample in samples)
    points: Points = {}
    for ids in in_chunks(sorted({sample.module.id for sample in samples}), _MODULES_AT_ONCE):
        latest = select(c.module_id, func.max(c.time)).where(c.module_id.in_(ids), c.time <= first)
        starts = dict.fromkeys(ids, first)
        starts.update((row[0], row[1]) for row in conn.execute(latest.group_by(c.module_id)))
        # A range for each module: joined to the starts, the server would read whole histories.
        ranges = (and_(c.module_id == key, c.time >= start) for key, start in starts.items())
        query = select(c.module_id, c.time, c.value).where(or_(*ranges))
        for module_id, time, value in conn.execute(layout.in_order(query, table)):
            points.setdefault(module_id, []).append((time, value))
    return points

"""What must hold in a database whatever order its packets came in, and through how many servers.

The checks of invariants 5 and 7: each compares the database with what the packets said, and
gives the places where they disagree.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Engine, inspect, select

from dataserver.rules import entities, series
from dataserver.store import schema
from tests.faults.corpus import START, TEXT, File, Key, Told, Value, local, told

agent, module, state = schema.agent.c, schema.module.c, schema.state.c

#: Points of a module's history, in order.
Points = defaultdict[Key, list[tuple[int, Value]]]


def faults(engine: Engine, files: Sequence[File]) -> list[str]:
    """Everything that is wrong in a database that has taken in ``files``; empty: nothing is."""
    said = told(files)
    with engine.connect() as conn:
        points = _history(conn)
        return [
            *_doubles(conn, files),
            *_history_faults(points, said),
            *_rate_faults(points, said),
            *_state_faults(conn, said),
            *_counter_faults(conn, said),
            *_count_faults(conn),
            *_event_faults(conn),
        ]


def _doubles(conn: Connection, files: Sequence[File]) -> Iterator[str]:
    """Nothing is there twice: no packet, agent, module, state, address, link or value."""
    packet, link = schema.packet.c, schema.agent_address.c
    rows = Counter((row[0], row[1]) for row in conn.execute(select(packet.agent_id, packet.time)))
    if len(rows) != len({(file.agent, file.time) for file in files}):
        yield f"{len(rows)} packets in the ledger, not those that were sent"
    yield from (f"packet {key} is in the ledger {n} times" for key, n in rows.items() if n > 1)
    for what, *columns in (
        ("agent", agent.name),
        ("module", module.agent_id, module.name),
        ("state", state.module_id),
        ("counter", schema.counter.c.module_id),
        ("address", schema.address.c.ip),
        ("address of an agent", link.agent_id, link.address_id),
        ("number", *_all_but_ordinal(schema.number_history.c)),
        ("text", *_all_but_ordinal(schema.text_history.c)),
    ):
        counts = Counter(tuple(row) for row in conn.execute(select(*columns)))
        yield from (f"{what} {key} is there {n} times" for key, n in counts.items() if n > 1)


def _all_but_ordinal(columns: Any) -> list[Column[Any]]:
    return [columns.module_id, columns.time, columns.value]


def _history_faults(points: Points, said: Told) -> Iterator[str]:
    """At each time at which a packet carried a value, the step function gives that value."""
    for key, values in said.values.items():
        for time, value in values.items():
            found = series.value_at(points[key], time)
            if found != value:
                yield f"{key} at {time - START}: {found!r} instead of {value!r}"


def _rate_faults(points: Points, said: Told) -> Iterator[str]:
    """Every rate is the difference of two real readings, of which the later one is its own."""
    for key, readings in said.counters.items():
        for time, rate in points[key]:
            if time not in readings:
                yield f"{key} has a rate at {time - START}, when nothing was read"
                continue
            possible = [
                (readings[time] - before) / (time - earlier)
                for earlier, before in readings.items()
                if earlier < time
            ]
            if not any(math.isclose(rate, each, abs_tol=1e-5) for each in possible):
                yield f"{key} at {time - START}: no two readings give the rate {rate}"


def _state_faults(conn: Connection, said: Told) -> Iterator[str]:
    """Each module's state is that of the newest packet that carried it."""
    query = select(agent.name, module.name, state.value, state.local_time).where(
        state.module_id == module.id, module.agent_id == agent.id
    )
    states = {
        (row[0], entities.decode(row[1])): (row[2], str(row[3])) for row in conn.execute(query)
    }
    for key, values in said.values.items():
        time = max(values)
        value = values[time]
        text = value if key[1] == TEXT else f"{value:.5f}"
        wanted = (text, local(time).replace("/", "-"))
        if states.get(key) != wanted:
            yield f"state of {key}: {states.get(key)} instead of {wanted}"


def _counter_faults(conn: Connection, said: Told) -> Iterator[str]:
    """Each counter remembers its newest reading."""
    counter = schema.counter.c
    query = select(agent.name, module.name, counter.time, counter.value).where(
        counter.module_id == module.id, module.agent_id == agent.id
    )
    found = {(row[0], entities.decode(row[1])): (row[2], row[3]) for row in conn.execute(query)}
    for key, readings in said.counters.items():
        wanted = (max(readings), readings[max(readings)])
        if found.get(key) != wanted:
            yield f"counter {key}: {found.get(key)} instead of {wanted}"


def _history(conn: Connection) -> Points:
    """Every module's points; of those of one second, the last one written is the last here."""
    columns = inspect(conn).get_columns(schema.number_history.name)
    has_ordinal = any(column["name"] == "ordinal" for column in columns)
    points: Points = defaultdict(list)
    for table in (schema.number_history, schema.text_history):
        c = table.c
        query = (
            select(agent.name, module.name, c.time, c.value)
            .where(c.module_id == module.id, module.agent_id == agent.id)
            .order_by(c.module_id, c.time, *([c.ordinal] if has_ordinal else []))
        )
        for agent_name, name, time, value in conn.execute(query):
            points[agent_name, entities.decode(name)].append((time, value))
    return points


def _count_faults(conn: Connection) -> Iterator[str]:
    """The counts in each agent's row are those of its modules' statuses."""
    a = schema.agent.c
    stored = (
        a.normal_count,
        a.critical_count,
        a.warning_count,
        a.unknown_count,
        a.notinit_count,
        a.total_count,
    )
    counted: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for agent_id, status in conn.execute(select(state.agent_id, state.status)):
        counted[agent_id][status] += 1
    for agent_id, name, *counts in conn.execute(select(a.id, a.name, *stored)):
        found = counted[agent_id]
        expected = [*(found[status] for status in range(5)), found.total()]
        if counts != expected:
            yield f"{name}: counts {counts} instead of {expected}"


def _event_faults(conn: Connection) -> Iterator[str]:
    """A module has one open event of its status at most, which is its newest and tells it."""
    e = schema.event.c
    query = select(e.module_id, e.type, e.module_status, e.status).order_by(e.id)
    events: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for module_id, kind, status, validated in conn.execute(query):
        if kind.startswith("going_"):
            events[module_id].append((status, validated))
    if not events:
        yield "no event of any status: nothing is tested"
    now = {row[0]: row[1] for row in conn.execute(select(state.module_id, state.status))}
    for module_id, events_of in events.items():
        if not all(validated for _, validated in events_of[:-1]):
            yield f"module {module_id}: an overtaken event is open: {events_of}"
        status, validated = events_of[-1]
        if not validated and status != now[module_id]:
            yield f"module {module_id}: {status} is told and open, it is {now[module_id]}"

"""A database filled by bulk SQL, where only reading it is measured: a long history, many agents."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, Engine, Table, insert, select, update

from bench.generator import START
from bench.workloads import TEN, Kind
from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.database import open_engine
from dataserver.store.layout import Layout, inspect

MINUTE, HOUR, DAY = 60, 3_600, 86_400
#: One value a minute for a year.
YEAR = 365 * DAY // MINUTE
#: Days of which the ledger has each packet, as the server's default is; before: hours.
_LEDGER_DAYS = 7

#: Rows of one statement.
_PAGE = 10_000

#: How many of 1,000 agents have as their worst module one that is: critical, warning, unknown.
CRITICAL, WARNING, UNKNOWN = 20, 50, 30
_NORMAL, _CRITICAL, _WARNING, _UNKNOWN = 0, 1, 2, 3

Row = dict[str, Any]


class Filling:
    """One database that the server has made its tables in."""

    def __init__(self, url: str, folder: Path) -> None:
        self._engine: Engine = open_engine(url, home=folder, read_timeout=600.0)
        self._layout: Layout = inspect(self._engine)

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()

    def history(self, points: int) -> int:
        """Give the only agent's first module ``points`` values, the last one before START.

        Its agent sent a packet with each.  Returns: the module's id.
        """
        with self._engine.begin() as conn:
            query = select(schema.module.c.id, schema.module.c.agent_id).order_by("id").limit(1)
            module_id, agent_id = conn.execute(query).one()
            conn.execute(update(schema.agent).values(interval=MINUTE))
            self._insert(conn, schema.number_history, _points(module_id, points))
            self._insert(conn, schema.packet, _packets(agent_id, points))
            self._insert(conn, schema.packet_hour, _hours(agent_id, points))
        return int(module_id)

    def agents(self, count: int) -> None:
        """Make agents of ten modules each, with their states and counts."""
        with self._engine.begin() as conn:
            types = select(schema.module_type.c.name, schema.module_type.c.id)
            kinds = {row.name: row.id for row in conn.execute(types)}
            groups = list(conn.scalars(select(schema.group.c.id).order_by("id")))
            self._insert(conn, schema.agent, _agents(count, groups))
            self._insert(conn, schema.module, _modules(count, kinds))
            self._insert(conn, schema.state, _states(count))

    def _insert(self, conn: Connection, table: Table, rows: Iterator[Row]) -> None:
        while page := [self._layout.present(table, row) for row in islice(rows, _PAGE)]:
            # Inline: no column that this database lacks is asked for afterwards.
            conn.execute(insert(table).inline(), page)


# -- a long history --------------------------------------------------------------------


def _points(module_id: int, points: int) -> Iterator[Row]:
    """A walk in which each value differs from the one before."""
    random = Random(module_id)
    value = 50.0
    for number in range(points):
        step = random.choice((-1, 1)) * random.randint(1, 300) / 100
        value = round(value + (step if 0 <= value + step <= 100 else -step), 2)
        time = START - (points - number) * MINUTE
        yield {"module_id": module_id, "time": time, "value": value, "ordinal": 0}


def _packets(agent_id: int, points: int) -> Iterator[Row]:
    for number in range(min(points, _LEDGER_DAYS * DAY // MINUTE)):
        yield {
            "agent_id": agent_id,
            "time": START - (number + 1) * MINUTE,
            "digest": number.to_bytes(16, "big"),
            "server": "bench",
            "arrived": START,
        }


def _hours(agent_id: int, points: int) -> Iterator[Row]:
    for number in range(_LEDGER_DAYS * DAY // HOUR, points * MINUTE // HOUR):
        hour = START - (number + 1) * HOUR
        yield {"agent_id": agent_id, "hour": hour, "packets": HOUR // MINUTE}


# -- many agents -----------------------------------------------------------------------


def worst(number: int) -> int:
    """The status of the gravest module of agent ``number``, in Pandora's numbers."""
    # 7,919 is prime: as many of each status in any thousand, but not one after the other.
    place = number * 7_919 % 1_000
    for share, status in ((CRITICAL, _CRITICAL), (WARNING, _WARNING), (UNKNOWN, _UNKNOWN)):
        if place < share:
            return status
        place -= share
    return _NORMAL


def name(number: int) -> str:
    """An agent's name, as people read it."""
    return f"rack {number % 97:02} host-{number:05}"


def _agents(count: int, groups: list[int]) -> Iterator[Row]:
    contact = "2026-01-01 00:00:00"
    modules = len(TEN)
    for number in range(1, count + 1):
        status = worst(number)
        yield {
            "id": number,
            "name": entities.encode(name(number)),
            "alias": entities.encode(f"Host {number:05} (rack {number % 97:02})"),
            "group_id": groups[number % len(groups)],
            "os_id": 1,
            "contact": contact,
            "packet_contact": contact,
            "interval": 300,
            "mode": 1,
            "normal_count": modules - (status != _NORMAL),
            "critical_count": int(status == _CRITICAL),
            "warning_count": int(status == _WARNING),
            "unknown_count": int(status == _UNKNOWN),
            "total_count": modules,
        }


def _modules(count: int, kinds: dict[str, int]) -> Iterator[Row]:
    for number in range(1, count + 1):
        for place, kind in enumerate(TEN):
            yield {
                "id": _module_id(number, place),
                "agent_id": number,
                "type_id": kinds[kind],
                "name": entities.encode(f"Module {place}"),
                "description": "",
                "server_kind": 1,
                "module_interval": 300,
            }


def _states(count: int) -> Iterator[Row]:
    for number in range(1, count + 1):
        for place, kind in enumerate(TEN):
            yield {
                "module_id": _module_id(number, place),
                "agent_id": number,
                "value": "up" if kind is Kind.STRING else str(number % 100),
                "local_time": "2026-01-01 00:00:00",
                "saved": "2026-01-01 00:00:00",
                "status": worst(number) if place == 0 else _NORMAL,
                "processed": START,
                "last_execution_try": START,
                "current_interval": 300,
            }


def _module_id(number: int, place: int) -> int:
    return (number - 1) * len(TEN) + place + 1

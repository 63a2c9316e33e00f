"""The limit: what reading, parsing and writing the same rows cost when nothing else is done.

Every file is read and parsed with lxml, the text of each element is taken into Python, and
the rows that the server ends up with are written by the bare driver's ``executemany`` to
tables of the same shape, empty at first: the history of the values that changed, the ledger,
and once for each module its newest state and counter.  One transaction holds the packets of
whole agents, 500 at least.  What the server does besides is absent: no catalog (a module's id
is a running number), no status, no late packets, no locks, no checks.
"""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

from lxml import etree
from sqlalchemy import Table
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from bench.database import MARK, connect, scheme
from bench.workloads import INTERVAL, Kind
from dataserver.store import schema

#: Packets in one transaction.
GROUP = 500

_COLUMNS: tuple[tuple[Table, tuple[str, ...]], ...] = (
    (schema.number_history, ("module_id", "value", "time", "ordinal")),
    (schema.text_history, ("module_id", "value", "time", "ordinal")),
    (schema.packet, ("agent_id", "time", "digest", "server", "arrived")),
    (schema.counter, ("module_id", "value", "time")),
    (
        schema.state,
        (
            *("module_id", "agent_id", "value", "local_time", "saved", "processed"),
            *("current_interval", "last_execution_try", "status", "last_status_change"),
        ),
    ),
)


Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """What was taken in, and the seconds it took."""

    packets: int
    samples: int
    stored: int
    seconds: float


@dataclass(slots=True)
class _Module:
    """What is known of one module: its ids, its last value, the rows of its newest state."""

    id: int
    agent_id: int
    value: str | None = None
    saved: str = ""
    reading: float | None = None
    time: int = 0


@dataclass(slots=True)
class _Rows:
    """The rows of one transaction, for each table."""

    numbers: list[Row] = field(default_factory=list)
    texts: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    touched: dict[int, _Module] = field(default_factory=dict)

    def tables(self) -> tuple[list[Row], ...]:
        """The rows in the order of ``_COLUMNS``."""
        modules = self.touched.values()
        counters: list[Row] = [(m.id, m.reading, m.time) for m in modules if m.reading is not None]
        return self.numbers, self.texts, self.ledger, counters, [_state(m) for m in modules]


def _state(module: _Module) -> Row:
    now = int(time.time())
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(module.time))
    value = module.value or ""
    return module.id, module.agent_id, value, local, module.saved, now, INTERVAL, now, 0, 0


class _Taker:
    """Takes packets in; keeps between the groups what decides whether a value is new."""

    def __init__(self) -> None:
        self.samples = 0
        self._modules: dict[tuple[int, str], _Module] = {}
        self._agents: dict[str, int] = {}

    def take(self, path: Path, rows: _Rows) -> None:
        """Read one file and add its rows."""
        content = path.read_bytes()
        root = etree.fromstring(content)
        stamp = root.get("timestamp") or ""
        at = epoch(stamp)
        agent = self._agents.setdefault(root.get("agent_name") or "", len(self._agents) + 1)
        digest = blake2b(content, digest_size=16).digest()
        rows.ledger.append((agent, at, digest, "bench", at))
        for element in root:
            tags = {child.tag: child.text or "" for child in element}
            self._value(agent, at, stamp, tags, rows)

    def _value(self, agent: int, at: int, stamp: str, tags: dict[Any, str], rows: _Rows) -> None:
        self.samples += 1
        key = (agent, tags["name"])
        module = self._modules.get(key)
        if module is None:
            module = self._modules[key] = _Module(len(self._modules) + 1, agent)
        rows.touched[module.id] = module
        text, number = _read(module, tags["type"], tags["data"], at)
        module.time = at
        if text is None or text == module.value:
            return
        module.value = text
        module.saved = stamp
        history = rows.texts if number is None else rows.numbers
        history.append((module.id, text if number is None else number, at, 0))


def epoch(stamp: str) -> int:
    """A packet's timestamp, ``YYYY/MM/DD HH:MM:SS`` in UTC, in seconds."""
    day, clock = stamp.split(" ")
    return timegm((*map(int, day.split("/")), *map(int, clock.split(":"))))


def _read(module: _Module, kind: str, data: str, at: int) -> tuple[str | None, float | None]:
    """The value's text, None where a counter has none yet, and its number."""
    if kind == Kind.STRING:
        return data, None
    number = float(data)
    if kind == Kind.COUNTER:
        last, module.reading = module.reading, number
        if last is None:
            return None, None
        number = (number - last) / (at - module.time)
    return f"{number:.5f}", number


def _agent_of(path: Path) -> str:
    return path.name.partition(".")[0]


def groups(paths: Iterable[Path], size: int = GROUP) -> Iterator[list[Path]]:
    """Lists of at least ``size`` paths (the last may be shorter), whole agents each, in order."""
    group: list[Path] = []
    for _, of_agent in groupby(sorted(paths, key=lambda path: path.name), key=_agent_of):
        group += of_agent
        if len(group) >= size:
            yield group
            group = []
    if group:
        yield group


def _create(connection: Any, url: str) -> None:
    dialect = sqlite.dialect() if scheme(url) == "sqlite" else mysql.dialect()
    cursor = connection.cursor()
    for table, _ in _COLUMNS:
        cursor.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in table.indexes:
            cursor.execute(str(CreateIndex(index).compile(dialect=dialect)))
    connection.commit()


def _inserts(mark: str) -> list[str]:
    statements = []
    for table, keys in _COLUMNS:
        names = ", ".join(f"`{table.c[key].name}`" for key in keys)
        marks = ", ".join([mark] * len(keys))
        statements.append(f"INSERT INTO {table.name} ({names}) VALUES ({marks})")
    return statements


def measure(url: str, before: Iterable[Path], measured: Iterable[Path]) -> Limit:
    """Take in the files ``before`` without writing, then ``measured`` against the clock."""
    connection = connect(url)
    _create(connection, url)
    inserts = _inserts(MARK[scheme(url)])
    taker = _Taker()
    for path in sorted(before):
        taker.take(path, _Rows())
    taker.samples = 0
    todo = list(groups(measured))
    stored = 0
    cursor = connection.cursor()
    start = time.perf_counter()
    for group in todo:
        rows = _Rows()
        for path in group:
            taker.take(path, rows)
        for statement, values in zip(inserts, rows.tables(), strict=True):
            cursor.executemany(statement, values)
        connection.commit()
        stored += len(rows.numbers) + len(rows.texts)
    seconds = time.perf_counter() - start
    connection.close()
    return Limit(sum(map(len, todo)), taker.samples, stored, seconds)

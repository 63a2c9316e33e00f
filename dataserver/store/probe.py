"""Prepares a database for storing, and checks it for an administrator.

:func:`prepare` is called by a server when it starts; :func:`check` changes nothing.
The layout of a database is read by :mod:`dataserver.store.layout`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    Table,
    func,
    insert,
    literal,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from dataserver.errors import SchemaError, StoreConflict, StoreError, StoreLacking
from dataserver.store import schema
from dataserver.store.database import limits
from dataserver.store.errors import code, translating
from dataserver.store.layout import MARK, Kind, Layout, faults, inspect, reading
from dataserver.store.schema import SEEDS

log = logging.getLogger(__name__)

#: What to do about alerts.
ACCEPTING = "set accept_no_alerts = true to run without alerts, or delete them in the console"
# "Table exists" and "index exists": another process is creating the same database.
_EXISTS = {1050, 1061}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``dataserver db check``."""

    name: str
    ok: bool
    text: str


def prepare(engine: Engine, *, accept_no_alerts: bool = False) -> Layout:
    """Create the missing tables of our own, and refuse a database that cannot be used.

    An empty database becomes one of our own; one of our own is completed; a Pandora database gets
    our own tables.  Optional tables and columns that earlier versions did not have are added if
    the user has the right to.  Any number of processes may do this at the same time.

    A Pandora database with alerts, which this server does not evaluate, is refused at the first
    start unless ``accept_no_alerts``.  One that this server has used before is not refused: an
    alert may be defined at any time, and must not stop a server.
    Raises SchemaError, StoreUnavailable, StoreConflict.
    """
    layout = inspect(engine)
    if layout.kind is Kind.PANDORA:
        verify(layout)
        if not accept_no_alerts:
            _refuse_alerts(engine, layout)
        if not _is_complete(layout, schema.ours):
            _create_tables(engine, schema.ours.sorted_tables)
            layout = inspect(engine)
    elif not (_is_complete(layout, schema.pandora) and _is_complete(layout, schema.ours)):
        create(engine)
        layout = inspect(engine)
    layout = _completed(engine, layout)
    verify(layout)
    return layout


def create(engine: Engine) -> None:
    """Create the tables and stock rows of a database of our own; existing ones are not changed.

    Idempotent, and safe while another process does the same.
    """
    # The order shows whether a creation is complete: the mark says whose database it is, and our
    # own tables, which come last, that all others exist.
    rest = [table for table in schema.pandora.sorted_tables if table is not MARK]
    _create_tables(engine, [MARK, *rest])
    with translating("fill the new database"), engine.begin() as conn:
        for table, rows in SEEDS.items():
            if not conn.scalar(select(func.count()).select_from(table)):
                _insert_new(conn, table, rows)
    _create_tables(engine, schema.ours.sorted_tables)


def verify(layout: Layout) -> None:
    """Raise a SchemaError that names all faults of the layout, if there are any."""
    found = list(faults(layout))
    if found:
        raise SchemaError(
            "the database cannot be used: " + "; ".join(found), hint="run: dataserver db check"
        )


def check(engine: Engine, *, accept_no_alerts: bool = False) -> list[Finding]:
    """What an administrator should know about the database; changes nothing."""
    layout = inspect(engine)
    findings = [
        Finding("connection", True, f"{layout.dialect} {layout.version}"),
        Finding("kind", True, _KIND_TEXT[layout.kind]),
    ]
    if layout.kind is not Kind.EMPTY:
        findings += _check_tables(layout)
    with translating("inspect the database"), reading(engine) as conn:
        findings.append(_check_alerts(conn, layout, accept_no_alerts=accept_no_alerts))
        findings += _check_server(conn)
    return findings


_KIND_TEXT = {
    Kind.EMPTY: "empty: the first start creates the tables",
    Kind.OWN: "a database of our own",
    Kind.PANDORA: "an existing Pandora FMS database: its tables are used as they are",
}


def _is_complete(layout: Layout, metadata: MetaData) -> bool:
    """Whether all tables of ``metadata`` exist, apart from optional ones."""
    return all(
        layout.has(table) for table in metadata.tables.values() if table not in schema.OPTIONAL
    )


def has_alerts(layout: Layout) -> bool:
    """Whether the database has the table in which the console defines alerts."""
    return layout.has(schema.alert)


def count_alerts(conn: Connection, layout: Layout) -> int:
    """How many alerts are defined: pairs of a module and a template.

    The table is the console's; a database of our own does not have it, so the count is 0.
    """
    if not has_alerts(layout):
        return 0
    return conn.scalar(select(func.count()).select_from(schema.alert)) or 0


def alerts_text(count: int) -> str:
    """The message that ``count`` alerts are defined but not evaluated."""
    return (
        f"{count} {'alert is' if count == 1 else 'alerts are'} defined in the console, "
        "which this server does not evaluate"
    )


def _refuse_alerts(engine: Engine, layout: Layout) -> None:
    """Raise SchemaError if alerts are defined and this server has not used the database before."""
    with translating("look for alerts"), reading(engine) as conn:
        count = count_alerts(conn, layout)
        if count and not _has_been_used(conn, layout):
            raise SchemaError(alerts_text(count), hint=ACCEPTING)


def _has_been_used(conn: Connection, layout: Layout) -> bool:
    """Whether this server has used the database before: one of our own tables has a row."""
    there = (table for table in schema.ours.sorted_tables if layout.has(table))
    return any(conn.scalar(select(literal(1)).select_from(each).limit(1)) for each in there)


# -- creating tables and columns --


def _create_tables(engine: Engine, tables: Sequence[Table]) -> None:
    with translating("create the tables"), engine.begin() as conn:
        for table in tables:
            _unless_exists(conn, CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                _create_index(conn, index)


def _create_index(conn: Connection, index: Index) -> None:
    # MySQL has no CREATE INDEX IF NOT EXISTS (MariaDB has): there the error is ignored.
    quiet = conn.dialect.name == "sqlite"
    _unless_exists(conn, CreateIndex(index, if_not_exists=quiet))


def _unless_exists(conn: Connection, statement: CreateTable | CreateIndex) -> None:
    try:
        conn.execute(statement)
    except DBAPIError as exc:
        if conn.dialect.name == "sqlite" or code(exc) not in _EXISTS:
            raise


def _completed(engine: Engine, layout: Layout) -> Layout:
    """The layout after adding the optional tables and columns that earlier versions did not have.

    If the user has no right to add them, the server logs that and works without them.
    """
    lacking = list(_lacking(layout))
    if not lacking:
        return layout
    failed: StoreError | None = None
    for item in lacking:
        try:
            _add(engine, item)
        except StoreConflict:
            raise
        except StoreError as error:
            failed = error
    layout = inspect(engine)
    # If none is missing now, another process has added them meanwhile.
    if failed is not None and (missing := list(_lacking(layout))):
        if not isinstance(failed, StoreLacking):
            raise failed
        log.warning("without %s: %s", ", ".join(map(_full_name, missing)), failed)
    return layout


def _lacking(layout: Layout) -> Iterator[Table | Column[object]]:
    for table in schema.ours.sorted_tables:
        if layout.has(table):
            yield from (each for each in table.columns if each.nullable and not layout.has(each))
        elif table in schema.OPTIONAL:
            yield table


def _full_name(item: Table | Column[object]) -> str:
    return item.name if isinstance(item, Table) else f"{item.table.name}.{item.name}"


def _add(engine: Engine, item: Table | Column[object]) -> None:
    if isinstance(item, Table):
        _create_tables(engine, [item])
        return
    column = item
    what = f"add {_full_name(column)}"
    definition = CreateColumn(column).compile(dialect=engine.dialect)
    with translating(what), engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")


def _insert_new(conn: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    prefix = "OR IGNORE" if conn.dialect.name == "sqlite" else "IGNORE"
    conn.execute(insert(table).prefix_with(prefix), rows)


# -- checking --


def _check_tables(layout: Layout) -> list[Finding]:
    found = "; ".join(faults(layout))
    findings = [Finding("tables", not found, found or "all needed ones exist")]
    optional = [
        f"{table.name}.{column.name}"
        for table in schema.pandora.sorted_tables
        if layout.has(table)
        for column in table.columns
        if not layout.has(column) and column.key != "ordinal"
    ]
    absent = [table.name for table in schema.pandora.sorted_tables if not layout.has(table)]
    left_out = ", ".join(absent + optional)
    text = f"missing, so not written: {left_out}" if left_out else "all exist"
    findings.append(Finding("optional", True, text))
    return findings


def _check_alerts(conn: Connection, layout: Layout, *, accept_no_alerts: bool) -> Finding:
    count = count_alerts(conn, layout)
    if not count:
        return Finding("alerts", True, "none defined")
    if accept_no_alerts or _has_been_used(conn, layout):
        return Finding("alerts", True, alerts_text(count))
    return Finding("alerts", False, f"{alerts_text(count)}; {ACCEPTING}")


def _check_server(conn: Connection) -> list[Finding]:
    """Whether the database server's settings keep committed packets safe."""
    if conn.dialect.name == "sqlite":
        mode = conn.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return [Finding("journal", True, f"journal_mode {mode}, synchronous FULL")]
    flush = int(conn.exec_driver_sql("SELECT @@innodb_flush_log_at_trx_commit").scalar_one())
    packet = limits(conn).statement
    durable = "every commit is on disk" if flush == 1 else "a crash loses packets: set it to 1"
    return [
        Finding("durability", flush == 1, f"innodb_flush_log_at_trx_commit {flush}: {durable}"),
        Finding("max_allowed_packet", packet >= 16 << 20, f"{packet >> 20} MiB (16 or more)"),
    ]

"""What kind of database this is, whether it can be written to, and making one of our own.

A database is ``empty`` (none of Pandora's tables), ``own`` (created from
:mod:`dataserver.store.schema`: its history has an ordinal) or ``pandora`` (an
installation of Pandora FMS, whose tables are used as found and never altered).
:func:`prepare` is what a server calls at its start; :func:`check` tells an administrator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, Connection, Engine, Index, MetaData, Table, func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from dataserver.errors import SchemaError
from dataserver.store import schema
from dataserver.store.engine import READING, limits
from dataserver.store.errors import code, translating
from dataserver.store.found import Found, find
from dataserver.store.seeds import SEEDS


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Columns without which nothing can be stored, by their English keys.  A table that is not
#: here may be missing, and so may every other column: what it would hold is then left out.
NEEDED: dict[Table, frozenset[str]] = {
    schema.agent: _keys(
        "id name alias address description group_id contact packet_contact mode interval os_id "
        "os_version agent_version disabled parent_id server_name"
    ),
    schema.module: _keys(
        "id agent_id type_id name description min max module_interval group_id server_kind "
        "disabled post_process history_data min_warning max_warning min_critical "
        "max_critical"
    ),
    schema.state: _keys(
        "id module_id agent_id value local_time status saved processed current_interval "
        "last_execution_try last_status"
    ),
    schema.number_history: frozenset({"module_id", "value", "time"}),
    schema.text_history: frozenset({"module_id", "value", "time"}),
    schema.counter: frozenset({"module_id", "value", "time"}),
    schema.custom_field: frozenset({"id", "name"}),
    schema.custom_value: frozenset({"field_id", "agent_id", "value"}),
    schema.address: frozenset({"id", "ip"}),
    schema.agent_address: frozenset({"id", "address_id", "agent_id"}),
    schema.group: frozenset({"id", "name"}),
    schema.os: frozenset({"id", "name"}),
    schema.module_group: frozenset({"id", "name"}),
    schema.module_type: frozenset({"id", "name"}),
    schema.tag: frozenset({"id", "name"}),
    schema.module_tag: frozenset({"tag_id", "module_id"}),
}

#: Made first: an own database whose making was cut short is known by it.
_MARK = schema.number_history

# "Table exists" and "index exists": another process is making the same database.
_EXISTS = {1050, 1061}


class Kind(StrEnum):
    """Whose tables these are."""

    EMPTY = "empty"
    OWN = "own"
    PANDORA = "pandora"


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of one database, as found.

    ``dialect`` is "sqlite", "mysql" or "mariadb"; ``has_ordinal``: history is keyed by
    (module, time, ordinal), ours; ``counter_unique``: at most one counter row per module.
    """

    kind: Kind
    dialect: str
    version: str
    found: Found
    has_ordinal: bool
    counter_unique: bool

    @property
    def tables(self) -> frozenset[str]:
        """Names of the tables found, as in the database."""
        return frozenset(self.found.columns)

    def has(self, thing: Table | Column[object]) -> bool:
        """Whether this table or column is there."""
        if isinstance(thing, Table):
            return thing.name in self.found.columns
        return thing.name.lower() in self.found.columns.get(thing.table.name, {})

    def columns(self, table: Table) -> tuple[Column[object], ...]:
        """The columns of ``table`` that are there, in the order of the schema."""
        return tuple(column for column in table.columns if self.has(column))

    def length(self, column: Column[object]) -> int | None:
        """How many characters a text column takes (SQLite: the number we declared)."""
        return self.found.columns.get(column.table.name, {}).get(column.name.lower())


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``dataserver db check``."""

    name: str
    ok: bool
    text: str


def inspect(engine: Engine) -> Layout:
    """Look at the database; changes nothing.  Raises StoreUnavailable."""
    with translating("look at the database"), _reading(engine) as conn:
        found = find(conn)
        has_ordinal = "ordinal" in found.columns.get(_MARK.name, {})
        return Layout(
            kind=_kind(found, has_ordinal=has_ordinal),
            dialect="mariadb" if getattr(conn.dialect, "is_mariadb", False) else conn.dialect.name,
            version=".".join(map(str, conn.dialect.server_version_info or ())),
            found=found,
            has_ordinal=has_ordinal,
            counter_unique=frozenset({schema.counter.c.module_id.name})
            in found.unique.get(schema.counter.name, frozenset()),
        )


def prepare(engine: Engine, *, accept_no_alerts: bool = False) -> Layout:
    """Make the database ready to be written to: create what is ours, refuse what will not do.

    An empty database becomes one of our own; an own one is completed; to a Pandora
    database our own tables are added.  Any number of processes may do it at once.
    Raises SchemaError, StoreUnavailable, StoreConflict.
    """
    layout = inspect(engine)
    if layout.kind is Kind.PANDORA:
        verify(layout)
        _refuse_alerts(engine, layout, accepted=accept_no_alerts)
        if _all_there(layout, schema.ours):
            return layout
        _create_tables(engine, schema.ours.sorted_tables)
    elif not (_all_there(layout, schema.pandora) and _all_there(layout, schema.ours)):
        create(engine)
    layout = inspect(engine)
    verify(layout)
    return layout


def create(engine: Engine) -> None:
    """Make a database of our own in an empty one; what is there already stays as it is.

    Idempotent, and safe while another process does the same.
    """
    rest = [table for table in schema.pandora.sorted_tables if table is not _MARK]
    _create_tables(engine, [_MARK, *rest, *schema.ours.sorted_tables])
    with translating("fill the new database"), engine.begin() as conn:
        for table, rows in SEEDS.items():
            if not conn.scalar(select(func.count()).select_from(table)):
                _insert_new(conn, table, rows)


def verify(layout: Layout) -> None:
    """Raise one SchemaError that names everything that is missing or will not do."""
    faults = list(_faults(layout))
    if faults:
        raise SchemaError(
            "the database cannot be used: " + "; ".join(faults), hint="run: dataserver db check"
        )


def check(engine: Engine, *, accept_no_alerts: bool = False) -> list[Finding]:
    """Everything an administrator should know about the database; changes nothing."""
    layout = inspect(engine)
    findings = [
        Finding("connection", True, f"{layout.dialect} {layout.version}"),
        Finding("kind", True, _KIND_TEXT[layout.kind]),
    ]
    if layout.kind is not Kind.EMPTY:
        findings += _check_tables(layout)
    with translating("look at the database"), _reading(engine) as conn:
        findings.append(_check_alerts(conn, layout, accept_no_alerts=accept_no_alerts))
        findings += _check_server(conn)
    return findings


_KIND_TEXT = {
    Kind.EMPTY: "empty: the first start makes a database of our own",
    Kind.OWN: "a database of our own",
    Kind.PANDORA: "an existing Pandora FMS database: its tables are used as they are",
}


def _reading(engine: Engine) -> Connection:
    return engine.connect().execution_options(**{READING: True})


# -- deciding -----------------------------------------------------------------


def _kind(found: Found, *, has_ordinal: bool) -> Kind:
    if has_ordinal:
        return Kind.OWN
    return Kind.PANDORA if any(table.name in found.columns for table in NEEDED) else Kind.EMPTY


def _all_there(layout: Layout, metadata: MetaData) -> bool:
    return all(layout.has(table) for table in metadata.sorted_tables)


def _faults(layout: Layout) -> Iterator[str]:
    """What keeps this database from being written to, each as a clause."""
    tables = [table.name for table in NEEDED if not layout.has(table)]
    if tables:
        yield "missing tables: " + ", ".join(tables)
    columns = [column for table in NEEDED for column in _missing(layout, table)]
    if columns:
        yield "missing columns: " + ", ".join(columns)
    engines = [
        f"{table.name} ({layout.found.engines[table.name]})"
        for table in [*schema.pandora.sorted_tables, *schema.ours.sorted_tables]
        if layout.found.engines.get(table.name, "InnoDB").lower() != "innodb"
    ]
    if engines:
        yield "tables that are not InnoDB, so that a batch could be half stored: " + ", ".join(
            engines
        )


def _missing(layout: Layout, table: Table) -> list[str]:
    if not layout.has(table):
        return []
    needed = (table.columns[key] for key in sorted(NEEDED[table]))
    return [f"{table.name}.{column.name}" for column in needed if not layout.has(column)]


def _refuse_alerts(engine: Engine, layout: Layout, *, accepted: bool) -> None:
    with translating("look for alerts"), _reading(engine) as conn:
        count = _alerts(conn, layout)
    if count and not accepted:
        raise SchemaError(
            f"the database has alerts on {count} modules, which this server does not evaluate",
            hint="set accept_no_alerts = true to run without them",
        )


def _alerts(conn: Connection, layout: Layout) -> int:
    if schema.alerts.name not in layout.tables:
        return 0
    return conn.scalar(select(func.count()).select_from(schema.alerts)) or 0


# -- making -------------------------------------------------------------------


def _create_tables(engine: Engine, tables: list[Table]) -> None:
    with translating("create the tables"), engine.begin() as conn:
        for table in tables:
            _unless_exists(conn, CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                _create_index(conn, index)


def _create_index(conn: Connection, index: Index) -> None:
    # MySQL has no CREATE INDEX IF NOT EXISTS (MariaDB has): there the error says it.
    quiet = conn.dialect.name == "sqlite"
    _unless_exists(conn, CreateIndex(index, if_not_exists=quiet))


def _unless_exists(conn: Connection, statement: CreateTable | CreateIndex) -> None:
    try:
        conn.execute(statement)
    except DBAPIError as exc:
        if conn.dialect.name == "sqlite" or code(exc) not in _EXISTS:
            raise


def _insert_new(conn: Connection, table: Table, rows: list[dict[str, object]]) -> None:
    prefix = "OR IGNORE" if conn.dialect.name == "sqlite" else "IGNORE"
    conn.execute(insert(table).prefix_with(prefix), rows)


# -- telling ------------------------------------------------------------------


def _check_tables(layout: Layout) -> list[Finding]:
    faults = list(_faults(layout))
    findings = [Finding("tables", not faults, "; ".join(faults) or "all that is needed")]
    optional = [
        f"{table.name}.{column.name}"
        for table in schema.pandora.sorted_tables
        if layout.has(table)
        for column in table.columns
        if not layout.has(column) and column.key != "ordinal"
    ]
    absent = [table.name for table in schema.pandora.sorted_tables if not layout.has(table)]
    left_out = ", ".join(absent + optional)
    text = f"not there, so not written: {left_out}" if left_out else "all known"
    findings.append(Finding("optional", True, text))
    return findings


def _check_alerts(conn: Connection, layout: Layout, *, accept_no_alerts: bool) -> Finding:
    count = _alerts(conn, layout)
    if not count:
        return Finding("alerts", True, "none defined")
    text = f"{count} modules have alerts, which this server does not evaluate"
    return Finding("alerts", accept_no_alerts, text)


def _check_server(conn: Connection) -> list[Finding]:
    """What the server's settings mean for what we promise."""
    if conn.dialect.name == "sqlite":
        mode = conn.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        return [Finding("journal", True, f"journal_mode {mode}, synchronous FULL")]
    flush = int(conn.exec_driver_sql("SELECT @@innodb_flush_log_at_trx_commit").scalar_one())
    packet = limits(conn).statement
    durable = "every commit is on disk" if flush == 1 else "a crash loses committed packets: set 1"
    return [
        Finding("durability", flush == 1, f"innodb_flush_log_at_trx_commit {flush}: {durable}"),
        Finding("max_allowed_packet", packet >= 16 << 20, f"{packet >> 20} MiB (16 or more)"),
    ]

"""The layout of a database: its kind, its tables and columns, and the faults that prevent its use.

A database is ``empty`` (none of Pandora's tables), ``own`` (created from
:mod:`dataserver.store.schema`: its history has an ordinal) or ``pandora`` (an
installation of Pandora FMS, whose tables are used as found and never altered).
:func:`inspect` reads the database's catalogue (:class:`Found`) and decides the kind;
:func:`faults` names what is missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Engine, Select, Table, text

from dataserver.store import schema
from dataserver.store.database import READING
from dataserver.store.errors import translating


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: Columns without which nothing can be stored, by their English keys.  Every other table and
#: column may be missing; its values are then not stored.
NEEDED: dict[Table, frozenset[str]] = {
    schema.agent: _keys(
        "id name alias address description group_id contact packet_contact mode interval os_id "
        "os_version agent_version disabled parent_id server_name"
    )
    | set(schema.COUNT_KEYS),
    schema.module: _keys(
        "id agent_id type_id name description min max module_interval group_id server_kind "
        "disabled post_process history_data min_warning max_warning min_critical "
        "max_critical"
    ),
    schema.state: _keys(
        "id module_id agent_id value local_time status saved processed current_interval "
        "last_execution_try last_status known_status last_known_status"
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

#: Created first, and recognised by its ordinal, so even a half-created database of ours is known.
MARK = schema.number_history


class Kind(StrEnum):
    """Who created the tables."""

    EMPTY = "empty"
    OWN = "own"
    PANDORA = "pandora"


@dataclass(frozen=True, slots=True)
class Found:
    """The tables of a database as its catalogue lists them.

    ``columns``: table -> column (lower case) -> maximum length in characters, None if not text.
    ``engines``: table -> storage engine, on MySQL and MariaDB only (a view: "VIEW").
    ``unique``: table -> the sets of columns that a unique or primary key is over.
    ``indexes``: table -> index -> its columns (lower case) in order, on MySQL and MariaDB only.
    """

    columns: Mapping[str, Mapping[str, int | None]]
    engines: Mapping[str, str]
    unique: Mapping[str, frozenset[frozenset[str]]]
    indexes: Mapping[str, Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of one database, and what follows from them for reading and writing.

    ``dialect`` is "sqlite", "mysql" or "mariadb"; ``has_ordinal``: history is keyed by
    (module, time, ordinal), as in databases of our own; ``counter_unique``: a module has at most
    one counter row.
    """

    kind: Kind
    dialect: str
    version: str
    found: Found
    has_ordinal: bool
    counter_unique: bool
    #: Keys of missing columns, by table, filled on demand.
    _missing: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tables(self) -> frozenset[str]:
        """Names of the existing tables, as in the database."""
        return frozenset(self.found.columns)

    def has(self, item: Table | Column[object]) -> bool:
        """Whether this table or column exists."""
        if isinstance(item, Table):
            return item.name in self.found.columns
        return item.name.lower() in self.found.columns.get(item.table.name, {})

    def columns(self, table: Table) -> tuple[Column[object], ...]:
        """The existing columns of ``table``, in the order of the schema."""
        return tuple(column for column in table.columns if self.has(column))

    def present(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        """``row`` (by the schema's keys) without the columns that the database lacks."""
        missing = self._missing.get(table.name)
        if missing is None:
            there = frozenset(column.key for column in self.columns(table))
            missing = self._missing[table.name] = frozenset(table.columns.keys()) - there
        if missing.isdisjoint(row):
            return dict(row)
        return {key: value for key, value in row.items() if key not in missing}

    def in_order(
        self, query: Select[Any], table: Table, *, newest_first: bool = False
    ) -> Select[Any]:
        """``query``, which reads the history ``table``, in order of module, time and insertion.

        Pandora's own tables have no column that orders the values of one second, but InnoDB keeps
        equal entries of an index over module and time in the order of their hidden row numbers.
        Sorting would mix them up, so the server is made to read along that index.
        """
        c = table.c
        order = (c.module_id, c.time, c.ordinal) if self.has_ordinal else (c.module_id, c.time)
        hinted = query if self.has_ordinal else self.along_index(query, table)
        return hinted.order_by(*(column.desc() if newest_first else column for column in order))

    def along_index(self, query: Select[Any], table: Table) -> Select[Any]:
        """``query``, made to read the history ``table`` along its index over module and time."""
        c = table.c
        for index, columns in self.found.indexes.get(table.name, {}).items():
            # An index over more columns would order the values of one second by those.
            if columns == (c.module_id.name, c.time.name):
                # Both SQLAlchemy and the driver format the statement with %.
                quoted = index.replace("`", "``").replace("%", "%%%%")
                return query.with_hint(table, f"FORCE INDEX (`{quoted}`)")
        return query

    def length(self, column: Column[object]) -> int | None:
        """The maximum length of a text column in characters (SQLite: as declared)."""
        return self.found.columns.get(column.table.name, {}).get(column.name.lower())


def inspect(engine: Engine) -> Layout:
    """Read the layout of the database; changes nothing.  Raises StoreUnavailable."""
    with translating("inspect the database"), reading(engine) as conn:
        found = _find(conn)
        has_ordinal = "ordinal" in found.columns.get(MARK.name, {})
        return Layout(
            kind=_kind(found, has_ordinal=has_ordinal),
            dialect="mariadb" if getattr(conn.dialect, "is_mariadb", False) else conn.dialect.name,
            version=".".join(map(str, conn.dialect.server_version_info or ())),
            found=found,
            has_ordinal=has_ordinal,
            counter_unique=frozenset({schema.counter.c.module_id.name})
            in found.unique.get(schema.counter.name, frozenset()),
        )


def _kind(found: Found, *, has_ordinal: bool) -> Kind:
    if has_ordinal:
        return Kind.OWN
    return Kind.PANDORA if any(table.name in found.columns for table in NEEDED) else Kind.EMPTY


def reading(engine: Engine) -> Connection:
    """A connection for reading only, which on SQLite does not queue behind the writers."""
    return engine.connect().execution_options(**{READING: True})


def faults(layout: Layout) -> Iterator[str]:
    """Why this database cannot be written to, each reason as a clause."""
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
        yield "tables that are not InnoDB, so a batch could be half stored: " + ", ".join(engines)


def _missing(layout: Layout, table: Table) -> list[str]:
    if not layout.has(table):
        return []
    needed = (table.columns[key] for key in sorted(NEEDED[table]))
    return [f"{table.name}.{column.name}" for column in needed if not layout.has(column)]


# -- reading the catalogue --

_COLUMNS = text(
    "SELECT c.table_name AS tab, c.column_name AS col, c.character_maximum_length AS len"
    " FROM information_schema.columns c WHERE c.table_schema = DATABASE()"
)

_ENGINES = text(
    "SELECT t.table_name AS tab, COALESCE(t.engine, t.table_type) AS eng"
    " FROM information_schema.tables t WHERE t.table_schema = DATABASE()"
)

_INDEXES = text(
    "SELECT s.table_name AS tab, s.index_name AS idx, s.column_name AS col, s.non_unique AS plain"
    " FROM information_schema.statistics s"
    " WHERE s.table_schema = DATABASE() ORDER BY s.table_name, s.index_name, s.seq_in_index"
)

#: SQLAlchemy's own inspection asks for each table and takes nine times as long (19 ms).
_SQLITE_COLUMNS = text(
    "SELECT t.name AS tab, c.name AS col, c.type AS type, c.pk AS pk"
    " FROM sqlite_master t JOIN pragma_table_info(t.name) c"
    " WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~'"
)

_SQLITE_UNIQUE = text(
    "SELECT t.name AS tab, i.name AS idx, c.name AS col"
    " FROM sqlite_master t JOIN pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c"
    " WHERE t.type = 'table' AND i.origin = 'u'"
)

_LENGTH = re.compile(r"CHAR\((\d+)\)", re.IGNORECASE)


def _find(conn: Connection) -> Found:
    """Read the catalogue of the connection's database."""
    return _find_sqlite(conn) if conn.dialect.name == "sqlite" else _find_mysql(conn)


def _find_mysql(conn: Connection) -> Found:
    columns: dict[str, dict[str, int | None]] = defaultdict(dict)
    for row in conn.execute(_COLUMNS):
        columns[row.tab][row.col.lower()] = row.len
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    indexes: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for row in conn.execute(_INDEXES):
        column = row.col or ""  # NULL for an index over an expression
        if not row.plain:
            keys[row.tab, row.idx].add(column)
        before = indexes[row.tab].get(row.idx, ())
        indexes[row.tab][row.idx] = (*before, column.lower())
    engines = {row.tab: row.eng for row in conn.execute(_ENGINES)}
    unique = _by_table((tab, cols) for (tab, _), cols in keys.items())
    return Found(dict(columns), engines, unique, dict(indexes))


def _find_sqlite(conn: Connection) -> Found:
    columns: dict[str, dict[str, int | None]] = defaultdict(dict)
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in conn.execute(_SQLITE_COLUMNS):
        length = _LENGTH.search(row.type)
        columns[row.tab][row.col.lower()] = int(length[1]) if length else None
        if row.pk:
            keys[row.tab, ""].add(row.col)
    for row in conn.execute(_SQLITE_UNIQUE):
        keys[row.tab, row.idx].add(row.col)
    unique = _by_table((tab, cols) for (tab, _), cols in keys.items())
    return Found(dict(columns), {}, unique, {})


def _by_table(keys: Iterable[tuple[str, set[str]]]) -> dict[str, frozenset[frozenset[str]]]:
    unique: dict[str, set[frozenset[str]]] = defaultdict(set)
    for table, columns in keys:
        unique[table].add(frozenset(columns))
    return {table: frozenset(sets) for table, sets in unique.items()}

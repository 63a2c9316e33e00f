"""An existing Pandora FMS database, as MariaDB statements built from the facts in tests/pandora.

The tables are as an installation has them: no primary key on history, plain indexes,
the server's own character set, and the stock rows that the data server looks up.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

FACTS = Path(__file__).parent.parent / "pandora"

#: An index over a TEXT column needs a length; Pandora's own script gives this one.
_TEXT_PREFIX = 254

#: Rows that the golden cases were made with, beside the stock ones.
_DEFINED = (
    "INSERT INTO tagent_custom_fields (id_field, name) VALUES"
    " (1, 'Serial&#x20;Number'), (2, 'Department')",
    "INSERT INTO tmodule_inventory (id_module_inventory, id_os, name, code) VALUES"
    " (1, 1, 'Software', ''), (2, 1, 'Init&#x20;services', ''),"
    " (3, 1, 'Process', ''), (4, 1, 'File&#x20;system', '')",
)

_STOCK = {
    "ttipo_modulo": "module_types",
    "tconfig_os": "os",
    "tgrupo": "groups",
    "tmodule_group": "module_groups",
}


@functools.cache
def statements() -> tuple[str, ...]:
    """Everything from an empty database to a new installation's."""
    return (*_tables(), *_rows(), *_DEFINED)


def facts(name: str) -> list[dict[str, str]]:
    """The rows of ``tests/pandora/NAME.tsv``."""
    with (FACTS / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def _tables() -> Iterator[str]:
    indexes = facts("indexes")
    for table, columns in groupby(facts("columns"), itemgetter("table_name")):
        rows = sorted(columns, key=lambda row: int(row["n"]))
        types = {row["column_name"]: row["column_type"] for row in rows}
        parts = [_column(row) for row in rows]
        parts += [_index(row, types) for row in indexes if row["table_name"] == table]
        yield f"CREATE TABLE {table} ({', '.join(parts)}) ENGINE=InnoDB"


def _column(row: dict[str, str]) -> str:
    null = "NOT NULL" if row["nullable"] == "NO" else "NULL"
    default = "" if row["dflt"] == "NULL" else f"DEFAULT {row['dflt']}"
    return f"`{row['column_name']}` {row['column_type']} {null} {default} {row['extra']}"


def _index(row: dict[str, str], types: dict[str, str]) -> str:
    columns = ", ".join(
        f"`{name}`({_TEXT_PREFIX})" if types[name].endswith("text") else f"`{name}`"
        for name in row["columns"].split(",")
    )
    if row["index_name"] == "PRIMARY":
        return f"PRIMARY KEY ({columns})"
    unique = "UNIQUE " if row["non_unique"] == "0" else ""
    return f"{unique}KEY `{row['index_name']}` ({columns})"


def _rows() -> Iterator[str]:
    for table, name in _STOCK.items():
        rows = facts(name)
        columns = ", ".join(rows[0])
        values = ", ".join(
            "(" + ", ".join(_quoted(value) for value in row.values()) + ")" for row in rows
        )
        yield f"INSERT INTO {table} ({columns}) VALUES {values}"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"

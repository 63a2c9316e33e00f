"""The tables as we declare them are Pandora's, but for the keys that its history lacks."""

from __future__ import annotations

from sqlalchemy import MetaData, select, text

from dataserver.store import schema
from tests.support.databases import Database
from tests.support.pandora import facts

TABLES = [*schema.pandora.sorted_tables, *schema.ours.sorted_tables]

#: Ours in Pandora's tables: what makes a history row unique.
ADDED = {(table.name, "ordinal") for table in (schema.number_history, schema.text_history)}

#: A key has to be there, so these cannot be NULL as Pandora's may.
KEYED = {(table.name, column.name) for table in TABLES for column in table.primary_key}


def test_every_column_is_pandoras_by_name() -> None:
    known = {(row["table_name"], row["column_name"]) for row in facts("columns")}
    declared = {(t.name, c.name) for t in schema.pandora.sorted_tables for c in t.columns}
    assert declared - known == ADDED


def test_no_column_of_a_table_that_we_use_is_left_out() -> None:
    # A database of our own must be readable by the console, which selects them all.
    known = {
        (row["table_name"], row["column_name"])
        for row in facts("columns")
        if row["table_name"] in schema.pandora.tables
    }
    declared = {(t.name, c.name) for t in schema.pandora.sorted_tables for c in t.columns}
    assert known - declared == set()


def test_on_mariadb_every_column_has_pandoras_type_default_and_nullability(
    mariadb_database: Database,
) -> None:
    with mariadb_database.engine().connect() as conn:
        rows = conn.execute(
            text(
                "SELECT table_name, column_name, column_type, is_nullable, column_default"
                " FROM information_schema.columns WHERE table_schema = DATABASE()"
            )
        )
        ours = {(row[0], row[1]): (row[2], row[3], _default(row[4])) for row in rows}
    differing = {}
    for row in facts("columns"):
        name = (row["table_name"], row["column_name"])
        theirs = (row["column_type"], row["nullable"], _default(row["dflt"]))
        compared = slice(0, 1) if name in KEYED else slice(0, 3)
        if name in ours and ours[name][compared] != theirs[compared]:
            differing[name] = (ours[name], theirs)
    assert differing == {}


def test_every_table_of_ours_has_a_primary_key() -> None:
    assert [table.name for table in TABLES if not table.primary_key.columns] == []


def test_no_table_is_declared_twice() -> None:
    assert not set(schema.pandora.tables) & set(schema.ours.tables)


def test_a_new_database_starts_with_pandoras_stock_rows(database: Database) -> None:
    for table, name, columns in (
        (schema.module_type, "module_types", ("id_tipo", "nombre")),
        (schema.os, "os", ("id_os", "name")),
        (schema.group, "groups", ("id_grupo", "nombre")),
        (schema.module_group, "module_groups", ("id_mg", "name")),
    ):
        with database.engine().connect() as conn:
            rows = conn.execute(select(table.c.id, table.c.name)).all()
        stock = {tuple(row[column] for column in columns) for row in facts(name)}
        assert {(str(row.id), row.name) for row in rows} == stock, name


def test_names_that_differ_in_ascii_case_are_the_same_in_every_store(database: Database) -> None:
    agent = schema.agent
    with database.engine().begin() as conn:
        conn.execute(agent.insert().values(name="Web&#x20;One", alias="x"))
        assert conn.scalar(select(agent.c.alias).where(agent.c.name == "WEB&#x20;one")) == "x"


def test_reserved_and_spanish_names_round_trip_through_the_english_keys(database: Database) -> None:
    state = schema.state
    with database.engine().begin() as conn:
        conn.execute(
            state.insert().values(module_id=1, value="2.00000", saved="2026-01-01 00:00:00")
        )
        row = conn.execute(select(state.c.value, state.c.processed, state.c.status)).one()
    assert row == ("2.00000", 0, 0)


def test_the_metadata_objects_hold_only_tables() -> None:
    assert isinstance(schema.pandora, MetaData)
    assert schema.alert.name not in schema.pandora.tables


def _default(value: str | None) -> str:
    """A default as text, however the catalogue quotes it ("no default" and NULL are one)."""
    return "NULL" if value is None else value.strip("'") or "''"

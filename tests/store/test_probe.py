"""Recognising a database, making one of our own, and refusing what cannot be written to."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import func, select, text

from dataserver.errors import SchemaError, StoreUnavailable
from dataserver.store import probe, schema
from dataserver.store.probe import Finding, Kind
from dataserver.store.seeds import SEEDS
from tests.support.databases import PANDORA, SQLITE, Database


def existing(mariadb_database: Database, *statements: str) -> Database:
    """The existing Pandora database after these statements of its administrator."""
    assert mariadb_database.server is not None
    mariadb_database.server.execute(*statements, database=mariadb_database.name)
    return mariadb_database


@pytest.fixture
def pandora(pandora_database: Database) -> Database:
    return pandora_database


def findings(database: Database, **options: bool) -> dict[str, Finding]:
    return {finding.name: finding for finding in probe.check(database.engine(), **options)}


def test_a_database_is_recognised_before_and_after(database: Database) -> None:
    before = probe.inspect(database.engine()).kind
    after = database.prepare().kind
    if database.kind == PANDORA:
        assert (before, after) == (Kind.PANDORA, Kind.PANDORA)
    else:
        assert (before, after) == (Kind.EMPTY, Kind.OWN)


def test_looking_changes_nothing(database: Database) -> None:
    engine = database.engine()
    before = probe.inspect(engine)
    probe.check(engine)
    assert probe.inspect(engine) == before


def test_what_the_layout_says_of_each_kind(database: Database) -> None:
    layout = database.prepare()
    own = database.kind != PANDORA
    assert layout.dialect == ("sqlite" if database.kind == SQLITE else "mariadb")
    assert layout.version[0].isdigit()
    assert layout.has_ordinal == own
    assert layout.counter_unique == own
    assert layout.has(schema.number_history.c.ordinal) == own
    assert layout.has(schema.packet)
    assert layout.has(schema.agent.c.description)
    assert layout.length(schema.agent.c.name) == 600
    assert layout.columns(schema.custom_value) == tuple(schema.custom_value.columns)


def test_preparing_again_changes_nothing_and_keeps_what_was_deleted_deleted(
    database: Database,
) -> None:
    first = database.prepare()
    with database.engine().begin() as conn:
        conn.execute(schema.group.delete().where(schema.group.c.name == "Web"))
    assert database.prepare() == first
    with database.engine().connect() as conn:
        assert conn.scalar(select(func.count()).where(schema.group.c.name == "Web")) == 0


def test_several_servers_may_prepare_the_same_database_at_once(database: Database) -> None:
    engines = [database.engine() for _ in range(4)]
    start = threading.Barrier(len(engines), timeout=10)
    results: list[object] = []

    def prepare(index: int) -> None:
        start.wait()
        try:
            results.append(probe.prepare(engines[index]).kind)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the test shows it
            results.append(exc)

    threads = [threading.Thread(target=prepare, args=(i,)) for i in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == len(engines)
    assert len(set(results)) == 1, results
    with engines[0].connect() as conn:
        seeded = conn.scalar(select(func.count()).select_from(schema.module_type))
        assert seeded == len(SEEDS[schema.module_type])


def test_a_creation_that_was_cut_short_is_completed(database: Database) -> None:
    if database.kind == PANDORA:
        return
    database.prepare()
    with database.engine().begin() as conn:
        conn.execute(text("DROP TABLE tagente"))
        conn.execute(text("DROP TABLE tpacket"))
    layout = database.prepare()
    assert layout.kind is Kind.OWN
    assert layout.has(schema.agent)
    assert layout.has(schema.packet)


def test_a_creation_that_was_cut_short_before_its_rows_is_completed(database: Database) -> None:
    if database.kind == PANDORA:
        return
    database.prepare()
    with database.engine().begin() as conn:
        conn.execute(schema.module_type.delete())
        conn.execute(text("DROP TABLE tname"))
    database.prepare()
    with database.engine().connect() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.module_type))


def test_a_user_who_may_not_create_tables_is_told_which_rights_are_needed(
    pandora: Database,
) -> None:
    with pytest.raises(StoreUnavailable, match=r"grant the user .* CREATE"):
        probe.prepare(as_plain_user(pandora).engine())


def test_once_our_tables_are_there_no_right_to_create_is_needed(pandora: Database) -> None:
    pandora.prepare()
    assert probe.prepare(as_plain_user(pandora).engine()).kind is Kind.PANDORA


def as_plain_user(database: Database) -> Database:
    """The same database for a user who may only read and write rows."""
    existing(
        database,
        "CREATE OR REPLACE USER plain@127.0.0.1",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database.name}.* TO plain@127.0.0.1",
    )
    return replace(database, url=database.url.replace("root@", "plain@"))


def test_the_tables_of_an_existing_database_are_not_altered(pandora: Database) -> None:
    before = definitions(pandora)
    pandora.prepare()
    after = definitions(pandora)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == set(schema.ours.tables)


def test_our_tables_take_part_in_transactions_whatever_the_default_engine(
    pandora: Database,
) -> None:
    pandora.prepare()
    for name in schema.ours.tables:
        assert "ENGINE=InnoDB" in definitions(pandora)[name]


def test_everything_missing_is_named_in_one_error(pandora: Database) -> None:
    existing(
        pandora,
        "ALTER TABLE tagente DROP COLUMN intervalo",
        "ALTER TABLE tagente_estado DROP COLUMN last_try",
        "DROP TABLE tagente_datos_string",
    )
    with pytest.raises(SchemaError) as caught:
        pandora.prepare()
    for name in ("tagente.intervalo", "tagente_estado.last_try", "tagente_datos_string"):
        assert name in str(caught.value)
    assert not findings(pandora)["tables"].ok


def test_nothing_is_added_to_a_database_that_is_refused(pandora: Database) -> None:
    existing(pandora, "ALTER TABLE tagente DROP COLUMN intervalo")
    with pytest.raises(SchemaError):
        pandora.prepare()
    assert not set(schema.ours.tables) & set(definitions(pandora))


def test_a_missing_optional_column_or_table_is_tolerated_and_told(pandora: Database) -> None:
    existing(
        pandora,
        "ALTER TABLE tagente DROP COLUMN fixed_ip",
        "DROP TABLE tagent_module_inventory",
    )
    layout = pandora.prepare()
    assert not layout.has(schema.agent.c.fixed_ip)
    assert not layout.has(schema.inventory)
    told = findings(pandora)["optional"].text
    assert "tagente.fixed_ip" in told
    assert "tagent_module_inventory" in told


def test_a_column_written_in_another_case_is_the_same(pandora: Database) -> None:
    existing(pandora, "ALTER TABLE tagente CHANGE nombre NOMBRE varchar(600) NOT NULL DEFAULT ''")
    assert pandora.prepare().has(schema.agent.c.name)


def test_a_needed_table_that_is_not_innodb_is_refused_by_name(pandora: Database) -> None:
    existing(pandora, "ALTER TABLE tagente_datos ENGINE = MyISAM")
    with pytest.raises(SchemaError, match=r"tagente_datos \(MyISAM\)"):
        pandora.prepare()


def test_alerts_are_refused_unless_accepted(pandora: Database) -> None:
    existing(
        pandora,
        "INSERT INTO talert_template_modules (id_agent_module, id_alert_template) VALUES (1, 1)",
    )
    with pytest.raises(SchemaError, match="accept_no_alerts"):
        pandora.prepare()
    assert not findings(pandora)["alerts"].ok
    assert probe.prepare(pandora.engine(), accept_no_alerts=True).kind is Kind.PANDORA
    assert findings(pandora, accept_no_alerts=True)["alerts"].ok


def test_a_healthy_database_has_no_bad_finding(database: Database) -> None:
    database.prepare()
    assert [finding for finding in findings(database).values() if not finding.ok] == []


def test_a_server_that_does_not_sync_its_commits_is_told(pandora: Database) -> None:
    existing(pandora, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        assert not findings(pandora)["durability"].ok
    finally:
        existing(pandora, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")


def definitions(database: Database) -> dict[str, str]:
    """Every table's own CREATE statement."""
    with database.engine().connect() as conn:
        names = conn.scalars(text("SHOW TABLES")).all()
        return {name: conn.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1] for name in names}

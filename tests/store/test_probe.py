"""Recognising a database, making one of our own, and refusing what cannot be written to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from dataserver.errors import SchemaError, StoreLacking
from dataserver.store import probe, schema
from dataserver.store.layout import Kind, inspect
from dataserver.store.probe import Finding
from dataserver.store.schema import SEEDS
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database, opened
from tests.support.waiting import PATIENCE


def existing(pandora: Database, *statements: str) -> None:
    """Statements of the existing database's administrator."""
    assert pandora.server is not None
    pandora.server.execute(*statements, database=pandora.name)


@pytest.fixture
def pandora(tmp_path: Path) -> Iterator[Database]:
    """An existing Pandora database that no server of ours saw yet."""
    with opened(PANDORA, tmp_path, bare=True) as new:
        yield new


@pytest.fixture
def plain_user(pandora: Database) -> Iterator[Database]:
    """The same database for a user who may only read and write rows."""
    existing(
        pandora,
        "CREATE OR REPLACE USER plain@127.0.0.1",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {pandora.name}.* TO plain@127.0.0.1",
    )
    plain = replace(pandora, url=pandora.url.replace("root@", "plain@"))
    yield plain
    plain.dispose()
    existing(pandora, "DROP USER plain@127.0.0.1")


#: Only what is our own is made by us.
our_own = pytest.mark.parametrize("bare_database", [SQLITE, MARIADB], indirect=True)


def findings(database: Database, **options: bool) -> dict[str, Finding]:
    return {finding.name: finding for finding in probe.check(database.engine(), **options)}


def test_a_database_is_recognised_before_and_after(bare_database: Database) -> None:
    before = inspect(bare_database.engine()).kind
    after = bare_database.prepare().kind
    if bare_database.kind == PANDORA:
        assert (before, after) == (Kind.PANDORA, Kind.PANDORA)
    else:
        assert (before, after) == (Kind.EMPTY, Kind.OWN)


def test_looking_changes_nothing(bare_database: Database) -> None:
    engine = bare_database.engine()
    before = inspect(engine)
    probe.check(engine)
    assert inspect(engine) == before


def test_what_the_layout_says_of_each_kind(bare_database: Database) -> None:
    layout = bare_database.prepare()
    own = bare_database.kind != PANDORA
    assert layout.dialect == ("sqlite" if bare_database.kind == SQLITE else "mariadb")
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


def test_several_servers_may_prepare_the_same_database_at_once(bare_database: Database) -> None:
    patient = dict.fromkeys(("lock_timeout", "idle_timeout", "read_timeout"), PATIENCE)
    engines = [bare_database.engine(**patient) for _ in range(4)]
    start = threading.Barrier(len(engines), timeout=PATIENCE)
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
        thread.join()
    assert len(results) == len(engines)
    assert len(set(results)) == 1, results
    with engines[0].connect() as conn:
        seeded = conn.scalar(select(func.count()).select_from(schema.module_type))
        assert seeded == len(SEEDS[schema.module_type])


@our_own
def test_a_creation_that_was_cut_short_is_completed(bare_database: Database) -> None:
    bare_database.prepare()
    with bare_database.engine().begin() as conn:
        conn.execute(text("DROP TABLE tagente"))
        conn.execute(text("DROP TABLE tpacket"))
    layout = bare_database.prepare()
    assert layout.kind is Kind.OWN
    assert layout.has(schema.agent)
    assert layout.has(schema.packet)


@our_own
def test_a_creation_that_was_cut_short_before_its_rows_is_completed(
    bare_database: Database,
) -> None:
    bare_database.prepare()
    with bare_database.engine().begin() as conn:
        conn.execute(schema.module_type.delete())
        conn.execute(text("DROP TABLE tname"))
    bare_database.prepare()
    with bare_database.engine().connect() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.module_type))


def test_a_user_who_may_not_create_tables_is_told_which_rights_are_needed(
    plain_user: Database,
) -> None:
    with pytest.raises(StoreLacking, match=r"grant the user .* CREATE"):
        plain_user.prepare()


def test_once_our_tables_are_there_no_right_to_create_is_needed(
    pandora: Database, plain_user: Database
) -> None:
    pandora.prepare()
    assert plain_user.prepare().kind is Kind.PANDORA


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
    made = definitions(pandora)
    for name in schema.ours.tables:
        assert "ENGINE=InnoDB" in made[name]


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
    # Nothing was stored: it is as if no server of ours had been here.
    with pytest.raises(SchemaError, match="accept_no_alerts"):
        pandora.prepare()


def test_alerts_refuse_no_server_that_has_worked_on_the_database(pandora: Database) -> None:
    pandora.prepare()
    with pandora.engine().begin() as conn:
        conn.execute(schema.agent_version.insert().values(agent_id=1, version=1, newest=0))
    existing(
        pandora,
        "INSERT INTO talert_template_modules (id_agent_module, id_alert_template) VALUES (1, 1)",
    )
    assert pandora.prepare().kind is Kind.PANDORA
    told = findings(pandora)["alerts"]
    assert told.ok
    assert "1 alert is defined" in told.text


def test_a_healthy_database_has_no_bad_finding(database: Database) -> None:
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

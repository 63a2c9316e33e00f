"""Counting an agent's modules by status: what counts, and recounts that the console asks for."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, text, update
from sqlalchemy.exc import OperationalError

from dataserver.store import counts, ledger, schema
from dataserver.store.counts import BLOCK, recount, recount_fired, recount_flagged
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.monitored import (
    CRITICAL,
    NORMAL,
    NOT_INITIALISED,
    UNKNOWN,
    WARNING,
    Monitored,
)

database = database_of(SQLITE, PANDORA)


def step(store: Monitored) -> bool:
    with store.engine.begin() as conn:
        return recount_flagged(conn, store.sql, store.layout)


def flags(store: Monitored) -> list[int]:
    return [row["update_module_count"] for row in store.rows(schema.agent)]


def test_enabled_modules_of_servers_are_counted_by_status(database: Database) -> None:
    store = Monitored(database)
    agent, other = store.agent("one"), store.agent("two")
    statuses = (NORMAL,) * 5 + (CRITICAL,) * 4 + (WARNING,) * 3 + (UNKNOWN,) * 2
    for number, status in enumerate((*statuses, NOT_INITIALISED)):
        store.module(agent, f"m{number}", status=status)
    store.module(agent, "disabled", disabled=1)
    store.module(agent, "nobody's", server_kind=0)
    store.module(agent, "other server's", server_kind=2)
    store.module(other, "m", status=UNKNOWN)
    with store.engine.begin() as conn:
        recount(conn, store.sql, [agent])
    assert store.counts(agent) == [6, 4, 3, 2, 1, 16]
    assert store.counts(other) == [0] * 6


def test_the_console_asks_for_a_recount_and_gets_it(database: Database) -> None:
    store = Monitored(database)
    flagged = store.agent("flagged", update_module_count=1, normal_count=7, total_count=9)
    left = store.agent("left", normal_count=7)
    for agent in (flagged, left):
        store.module(agent, "m", status=CRITICAL)
    assert not step(store)
    assert store.counts(flagged) == [0, 1, 0, 0, 0, 1]
    assert store.counts(left) == [7, 0, 0, 0, 0, 0]
    assert flags(store) == [0, 0]
    # Caches are to look: the console changed something.
    assert store.versions() == {flagged: (1, 0)}


def test_without_a_flag_nothing_is_done(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent(normal_count=7)
    assert not step(store)
    assert store.counts(agent) == [7, 0, 0, 0, 0, 0]
    assert store.versions() == {}


def test_an_agent_without_modules_has_none_of_any_status(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent(update_module_count=1, normal_count=7, total_count=7)
    step(store)
    assert store.counts(agent) == [0] * 6


def test_many_agents_are_recounted_block_by_block(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BLOCK > 1
    monkeypatch.setattr(counts, "BLOCK", 2)
    store = Monitored(database)
    for number in range(5):
        store.module(store.agent(str(number), update_module_count=1), "m")
    assert [step(store), step(store), step(store)] == [True, True, False]
    assert flags(store) == [0] * 5
    assert sum(row["normal_count"] for row in store.rows(schema.agent)) == 5


def test_a_flag_that_another_server_cleared_meanwhile_is_not_served_twice(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "BLOCK", 1)
    store = Monitored(mariadb_database)
    agent = store.agent(update_module_count=1, normal_count=7)
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        store.set(schema.agent, agent, update_module_count=0)
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    assert not step(store)
    assert store.counts(agent) == [7, 0, 0, 0, 0, 0]
    assert store.versions() == {agent: (0, 0)}


def test_a_flag_set_while_the_agent_is_counted_waits_and_is_served_next(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Monitored(mariadb_database)
    agent = store.agent(update_module_count=1)
    count, blocked = counts.recount, []

    def console(conn: Connection) -> None:
        # It does not wait for a lock at all.
        conn.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 0")
        conn.execute(update(schema.agent).values(update_module_count=1))

    def slow_count(*args: object, **options: object) -> None:
        with pytest.raises(OperationalError) as told, store.engine.begin() as conn:
            console(conn)
        blocked.append(told.value.orig.args[0])  # type: ignore[union-attr]
        count(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(counts, "recount", slow_count)
    step(store)
    assert blocked == [1205]
    assert flags(store) == [0]
    with store.engine.begin() as conn:
        console(conn)
    assert flags(store) == [1]
    assert store.counts(agent) == [0] * 6


def test_a_database_without_the_flag_asks_for_nothing(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    drop = "ALTER TABLE tagente DROP COLUMN update_module_count"
    server.execute(drop, database=pandora_database.name)
    store = Monitored(pandora_database)
    store.agent()
    assert not step(store)


# -- alerts ------------------------------------------------------------------------------


def alert(store: Monitored, module: int, template: int, **values: int) -> None:
    row = {"times_fired": 1, "disabled": 0, **values, "module": module, "template": template}
    with store.engine.begin() as conn:
        conn.execute(
            text(
                "INSERT INTO talert_template_modules"
                " (id_agent_module, id_alert_template, times_fired, disabled)"
                " VALUES (:module, :template, :times_fired, :disabled)"
            ),
            row,
        )


def step_alerts(store: Monitored) -> bool:
    with store.engine.begin() as conn:
        return recount_fired(conn, store.sql, store.layout)


def fired(store: Monitored) -> list[tuple[int, int]]:
    rows = store.rows(schema.agent)
    return [(row["fired_count"], row["update_alert_count"]) for row in rows]


def test_fired_alerts_are_counted_where_the_console_asks(pandora_database: Database) -> None:
    store = Monitored(pandora_database)
    asked = store.agent("asked", update_alert_count=1, fired_count=7)
    left = store.agent("left", fired_count=7)
    nothing = store.agent("nothing", update_alert_count=1, fired_count=7)
    store.module(nothing, "m")
    for agent in (asked, left):
        module = store.module(agent, "m")
        alert(store, module, 1)
        alert(store, module, 2, times_fired=5)
        alert(store, module, 3, times_fired=0)
        alert(store, module, 4, disabled=1)
        alert(store, store.module(agent, "disabled", disabled=1), 1)
    assert not step_alerts(store)
    assert fired(store) == [(2, 0), (7, 0), (0, 0)]


def test_a_database_without_alerts_has_nothing_to_count(database: Database) -> None:
    store = Monitored(database)
    store.agent("one", update_alert_count=1, fired_count=0)
    assert not step_alerts(store)

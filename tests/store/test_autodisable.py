"""Agents of mode 2: disabled when they fell silent, and back with their next packet."""

from __future__ import annotations

import pytest

from dataserver.store import ledger, schema
from dataserver.store.counts import recount
from dataserver.store.sweeps import autodisable
from dataserver.store.sweeps.autodisable import Autodisable
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import Ingest
from tests.support.kinds import database_of
from tests.support.monitored import (
    CRITICAL,
    INTERVAL,
    LATELY,
    LONG_AGO,
    NORMAL,
    NOT_INITIALISED,
    NOW,
    UNKNOWN,
    WARNING,
    Monitored,
    text,
)
from tests.support.packets import arrival_at

database = database_of(SQLITE, PANDORA)


class Sweeper:
    """Sweeps one database, each step a transaction of its own."""

    def __init__(self, store: Monitored) -> None:
        self._store = store
        self._sweep = Autodisable(store.sql, store.layout, text)

    def step(self, now: int = NOW, horizon: int | None = None) -> bool:
        agents = [row["id"] for row in self._store.rows(schema.agent)]
        with self._store.engine.begin() as conn:
            recount(conn, self._store.sql, agents)
        with self._store.engine.begin() as conn:
            return self._sweep.sweep(conn, now, now if horizon is None else horizon)


def disabled(store: Monitored) -> list[str]:
    return [row["name"] for row in store.rows(schema.agent) if row["disabled"]]


def test_an_agent_is_disabled_when_all_its_modules_are_unknown(database: Database) -> None:
    store = Monitored(database)
    silent = store.agent("silent", mode=2)
    for number in range(2):
        store.module(silent, f"m{number}", status=UNKNOWN)
    alive = store.agent("alive", mode=2)
    store.module(alive, "m0", status=UNKNOWN)
    store.module(alive, "m1", status=WARNING)
    assert not Sweeper(store).step()
    assert disabled(store) == ["silent"]
    assert store.versions() == {silent: (1, 0)}


def test_modules_that_cannot_be_unknown_have_no_say(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent("silent", mode=2)
    store.module(agent, "unknown", status=UNKNOWN)
    store.module(agent, "disabled", disabled=1)
    store.module(agent, "deleted", delete_pending=1)
    store.module(agent, "never", processed=0, status=NOT_INITIALISED)
    store.module(agent, "async", "async_proc", status=NORMAL)
    store.module(agent, "alive", "keep_alive", status=CRITICAL)
    Sweeper(store).step()
    assert disabled(store) == ["silent"]


def test_who_is_never_disabled(database: Database) -> None:
    store = Monitored(database)
    for mode in (0, 1):
        store.module(store.agent(f"mode {mode}", mode=mode), "m", status=UNKNOWN)
    store.agent("without modules", mode=2)
    only_async = store.agent("only async", mode=2)
    store.module(only_async, "m", "async_data", status=UNKNOWN)
    store.module(store.agent("never", mode=2), "m", processed=0, status=NOT_INITIALISED)
    before = store.rows(schema.agent)
    Sweeper(store).step()
    assert disabled(store) == []
    assert [row["name"] for row in before] == [row["name"] for row in store.rows(schema.agent)]
    assert store.versions() == {}


def test_an_agent_that_is_still_heard_of_stays_enabled(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent("talking", mode=2, contact=text(LATELY))
    store.module(agent, "m", status=UNKNOWN)
    sweeper = Sweeper(store)
    sweeper.step()
    assert disabled(store) == []
    sweeper.step(NOW + 5, horizon=NOW)
    assert disabled(store) == []
    # Nor is it locked for nothing.
    assert store.versions() == {}
    sweeper.step(NOW + 1)
    assert disabled(store) == ["talking"]


def test_an_agent_without_any_contact_is_silent(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent("other servers'", mode=2, contact="1970-01-01 00:00:00", interval=0)
    store.module(agent, "m", status=UNKNOWN)
    Sweeper(store).step()
    assert disabled(store) == ["other servers'"]


def test_agents_are_looked_at_block_by_block(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autodisable, "BLOCK", 2)
    store = Monitored(database)
    for number in range(5):
        contact = text(NOW if number < 2 else LONG_AGO)
        agent = store.agent(str(number), mode=2, contact=contact)
        store.module(agent, "m", status=UNKNOWN)
    sweeper = Sweeper(store)
    # The first block stays as it is and does not stop the pass.
    assert [sweeper.step(), sweeper.step(), sweeper.step()] == [True, True, False]
    assert disabled(store) == ["2", "3", "4"]
    assert sweeper.step()
    assert not sweeper.step()


def test_a_packet_that_comes_before_the_lock_keeps_its_agent_enabled(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Monitored(mariadb_database)
    saved, lost = (store.agent(name, mode=2) for name in ("saved", "lost"))
    for agent in (saved, lost):
        store.module(agent, "m", status=UNKNOWN)
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        store.set(schema.agent, saved, contact=text(NOW))
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    Sweeper(store).step()
    assert disabled(store) == ["lost"]
    assert store.versions()[lost] == (1, 0)


def test_an_older_database_marks_no_deleted_modules(
    pandora_database: Database,
) -> None:
    server = pandora_database.server
    assert server is not None
    drop = "ALTER TABLE tagente_modulo DROP COLUMN delete_pending"
    server.execute(drop, database=pandora_database.name)
    store = Monitored(pandora_database)
    store.module(store.agent("silent", mode=2), "m", status=UNKNOWN)
    Sweeper(store).step()
    assert disabled(store) == ["silent"]


def test_the_next_packet_enables_the_agent_again(database: Database) -> None:
    ingest, store = Ingest(database), Monitored(database)
    root = {"interval": str(INTERVAL), "agent_mode": "2"}
    ingest.record([arrival_at(0, {"load": "1"}, **root)])
    later = NOW + 2 * INTERVAL + 1
    with store.engine.begin() as conn:
        UnknownSweep(store.sql, store.layout, store.events, text).sweep(conn, later, later)
    Sweeper(store).step(later)
    assert disabled(store) == ["web1"]
    assert store.statuses() == [UNKNOWN]
    ingest.record([arrival_at(20, {"load": "1"}, **root)])
    assert disabled(store) == []
    assert store.statuses() == [NORMAL]
    (agent,) = store.rows(schema.agent)
    assert store.counts(agent["id"]) == [1, 0, 0, 0, 0, 1]

"""keep_alive modules: 1 with each packet of their agent, 0 when it fell silent."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dataserver.store import ledger, schema
from dataserver.store.sweeps import keep_alive as silence
from dataserver.store.sweeps.keep_alive import SilenceSweep
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import ZONE, Ingest
from tests.support.kinds import database_of
from tests.support.monitored import (
    CRITICAL,
    INTERVAL,
    LATELY,
    LONG_AGO,
    NORMAL,
    NOT_INITIALISED,
    NOW,
    WARNING,
    Monitored,
    text,
)
from tests.support.packets import arrival_at

database = database_of(SQLITE, PANDORA)


class Sweeper:
    """Sweeps one database, each step a transaction of its own."""

    def __init__(self, store: Monitored, zone: tzinfo = ZONE) -> None:
        self._engine = store.engine
        self._sweep = SilenceSweep(store.sql, store.layout, store.events, zone)

    def step(self, now: int = NOW, horizon: int | None = None) -> bool:
        with self._engine.begin() as conn:
            return self._sweep.sweep(conn, now, now if horizon is None else horizon)


def keep_alive(store: Monitored, agent: int, name: str = "alive", **values: Any) -> int:
    """A module that heard of its agent once and not since."""
    row = {"value": "1.00000", "last_execution_try": LONG_AGO, "history_data": 1}
    return store.module(agent, name, "keep_alive", **row | values)


def points(store: Monitored) -> list[tuple[int, int, float]]:
    """Module, time and value of the history of numbers."""
    rows = store.rows(schema.number_history, "module_id", "time")
    return [(row["module_id"], row["time"], row["value"]) for row in rows]


def values(store: Monitored) -> list[str]:
    return [row["value"] for row in store.rows(schema.state, "module_id")]


def event_types(store: Monitored) -> list[str]:
    return [row["type"] for row in store.rows(schema.event)]


def test_the_module_of_a_silent_agent_gets_zero_and_is_critical(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    module = keep_alive(store, agent)
    other = store.module(agent, "load")
    others = store.state(other)
    assert not Sweeper(store).step()
    state = store.state(module)
    columns = ("status", "known_status", "last_status", "last_known_status")
    assert [state[key] for key in columns] == [CRITICAL] * 4
    assert (state["value"], state["processed"], state["last_status_change"]) == (
        "0.00000",
        NOW,
        NOW,
    )
    assert (str(state["local_time"]), str(state["saved"])) == (text(NOW), text(NOW))
    assert state["current_interval"] == INTERVAL
    assert points(store) == [(module, NOW, 0.0)]
    assert store.counts(agent) == [1, 1, 0, 0, 0, 2]
    (event,) = store.rows(schema.event)
    assert (event["type"], event["severity"], event["data"]) == ("going_up_critical", 4, "0")
    assert (event["agent_id"], event["module_id"], event["time"]) == (agent, module, NOW)
    assert store.versions() == {agent: (1, 0)}
    assert store.state(other) == others


def test_silence_begins_after_twice_the_agents_interval(database: Database) -> None:
    store = Monitored(database)
    lately = {"processed": LATELY, "last_execution_try": LATELY}
    keep_alive(store, store.agent("one", contact=text(LATELY)), **lately)
    slow = store.agent("slow", interval=INTERVAL + 5, contact=text(LATELY))
    keep_alive(store, slow, **lately)
    sweeper = Sweeper(store)
    sweeper.step()
    assert values(store) == ["1.00000", "1.00000"]
    sweeper.step(NOW + 8, horizon=NOW)
    assert values(store) == ["1.00000", "1.00000"]
    sweeper.step(NOW + 1)
    assert values(store) == ["0.00000", "1.00000"]
    sweeper.step(NOW + 11)
    assert values(store) == ["0.00000", "0.00000"]


def test_silence_is_told_once_and_counted_again_and_again(database: Database) -> None:
    store = Monitored(database)
    module = keep_alive(store, store.agent())
    sweeper = Sweeper(store)
    sweeper.step()
    tables = (schema.state, schema.agent, schema.event)
    before = [store.rows(table) for table in tables], store.versions()
    sweeper.step(NOW + 2 * INTERVAL)
    assert ([store.rows(table) for table in tables], store.versions()) == before
    again = NOW + 2 * INTERVAL + 1
    sweeper.step(again)
    state = store.state(module)
    assert (state["processed"], str(state["local_time"])) == (again, text(again))
    sweeper.step(again + 2 * INTERVAL)
    assert store.state(module) == state
    assert event_types(store) == ["going_up_critical"]
    assert points(store) == [(module, NOW, 0.0)]


def test_flip_flop_counts_the_zeros(database: Database) -> None:
    store = Monitored(database)
    module = keep_alive(store, store.agent(), min_ff_event=2)
    sweeper = Sweeper(store)
    statuses = []
    for zero in range(4):
        sweeper.step(NOW + zero * (2 * INTERVAL + 1))
        statuses.append(store.state(module)["status"])
    assert statuses == [NORMAL, NORMAL, CRITICAL, CRITICAL]
    assert event_types(store) == ["going_up_critical"]


def test_a_disabled_module_is_told_of_contacts_and_not_of_silence(database: Database) -> None:
    ingest, store = Ingest(database), Monitored(database)
    ingest.record([arrival_at(0, {"load": "1"}, interval=str(INTERVAL))])
    (agent,) = [row["id"] for row in store.rows(schema.agent)]
    new = {"value": "", "processed": 0, "last_execution_try": 0, "status": NOT_INITIALISED}
    module = keep_alive(store, agent, disabled=1, **new)
    deleted = keep_alive(store, agent, "deleted", disabled=1, delete_pending=1, **new)
    ingest.recorder.catalog.clear()
    ingest.record([arrival_at(5, {"load": "1"})])
    assert (store.state(module)["value"], store.state(module)["status"]) == ("1.00000", NORMAL)
    assert store.state(deleted)["value"] == ""
    # It is no part of its agent's counts.
    assert store.counts(agent) == [1, 0, 0, 0, 0, 1]
    Sweeper(store).step(NOW + 100 * INTERVAL)
    assert store.state(module)["value"] == "1.00000"


def test_thresholds_say_what_silence_means(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    keep_alive(store, agent, min_warning=0, max_warning=1, min_critical=5, max_critical=6)
    Sweeper(store).step()
    assert store.statuses() == [WARNING]
    assert event_types(store) == ["going_up_warning"]


def test_an_agent_never_heard_of_is_silent_and_one_just_heard_of_is_not(
    database: Database,
) -> None:
    store = Monitored(database)
    new = {"value": "", "processed": 0, "last_execution_try": 0, "status": NOT_INITIALISED}
    never = keep_alive(store, store.agent("never", contact="1970-01-01 00:00:00"), **new)
    # The console made its module since the last packet.
    heard = keep_alive(store, store.agent("heard", contact=text(NOW)), **new)
    Sweeper(store).step()
    assert (store.state(never)["value"], store.state(never)["status"]) == ("0.00000", CRITICAL)
    assert (store.state(heard)["value"], store.state(heard)["status"]) == ("", NOT_INITIALISED)


def test_whom_the_sweep_leaves_alone(database: Database) -> None:
    store = Monitored(database)
    keep_alive(store, store.agent("disabled", disabled=1))
    agent = store.agent()
    keep_alive(store, agent, "disabled", disabled=1)
    keep_alive(store, agent, "deleted", delete_pending=1)
    keep_alive(store, agent, "zero", value="0.00000", processed=LATELY)
    store.module(agent, "load", value="1.00000")
    before = store.rows(schema.state)
    assert not Sweeper(store).step()
    assert store.rows(schema.state) == before
    assert event_types(store) == points(store) == []
    assert store.versions() == {}


def test_a_module_without_history_and_a_quiet_one(database: Database) -> None:
    store = Monitored(database)
    quiet = keep_alive(store, store.agent("quiet", quiet=1))
    never = "1970-01-01 00:00:00"
    plain = keep_alive(store, store.agent(), history_data=0, saved=never)
    Sweeper(store, ZoneInfo("Europe/Madrid")).step()
    assert store.statuses() == [CRITICAL, CRITICAL]
    assert [row["module_id"] for row in store.rows(schema.event)] == [plain]
    assert points(store) == [(quiet, NOW, 0.0)]
    assert str(store.state(plain)["saved"]) == never


def test_where_bounds_refuse_the_zero_it_is_tried_once_in_a_while(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    module = keep_alive(store, agent, min=1, max=2)
    sweeper = Sweeper(store)
    sweeper.step()
    assert (store.state(module)["value"], store.state(module)["last_execution_try"]) == (
        "1.00000",
        NOW,
    )
    sweeper.step(NOW + 5)
    assert store.versions() == {agent: (1, 0)}
    sweeper.step(NOW + 2 * INTERVAL + 1)
    assert store.versions() == {agent: (2, 0)}


def test_modules_are_looked_at_block_by_block(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "BLOCK", 2)
    store = Monitored(database)
    for number in range(5):
        # The first block is of agents that are heard of; it does not stop the pass.
        contact = text(NOW if number < 2 else LONG_AGO)
        keep_alive(store, store.agent(str(number), contact=contact))
    sweeper = Sweeper(store)
    assert [sweeper.step(), sweeper.step(), sweeper.step()] == [True, True, False]
    assert store.statuses() == [NORMAL] * 2 + [CRITICAL] * 3
    assert len(event_types(store)) == 3


def test_a_packet_that_comes_before_the_lock_is_a_sign_of_life(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Monitored(mariadb_database)
    agents = [store.agent(name) for name in ("contact", "value", "gone", "silent")]
    modules = [keep_alive(store, agent) for agent in agents]
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        store.set(schema.agent, agents[0], contact=text(NOW))
        store.set(schema.state, modules[1], processed=NOW)
        store.set(schema.agent, agents[2], name="renamed")
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    Sweeper(store).step()
    # A renamed agent is as silent as before.
    assert values(store) == ["1.00000", "1.00000", "0.00000", "0.00000"]
    assert [version for version, _ in store.versions().values()] == [0, 0, 1, 1]


def test_an_older_database_marks_no_deleted_modules(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    drop = "ALTER TABLE tagente_modulo DROP COLUMN delete_pending"
    server.execute(drop, database=pandora_database.name)
    store = Monitored(pandora_database)
    keep_alive(store, store.agent())
    Sweeper(store).step()
    assert values(store) == ["0.00000"]


def test_the_agents_next_packet_gives_one_again(database: Database) -> None:
    ingest, store = Ingest(database), Monitored(database)
    ingest.record([arrival_at(0, {"load": "1"}, interval=str(INTERVAL))])
    (agent,) = [row["id"] for row in store.rows(schema.agent)]
    new = {"value": "", "processed": 0, "last_execution_try": 0, "status": NOT_INITIALISED}
    module = keep_alive(store, agent, **new)
    # A console changes the version of nothing; here the cache is made to look again.
    ingest.recorder.catalog.clear()
    ingest.record([arrival_at(5, {"load": "1"})])
    assert (store.state(module)["value"], store.state(module)["status"]) == ("1.00000", NORMAL)
    later = NOW + 2 * INTERVAL + 1
    Sweeper(store).step(later)
    assert (store.state(module)["value"], store.state(module)["status"]) == ("0.00000", CRITICAL)
    # The contact's time is the server's clock: it goes on before the next packet comes.
    ingest.recorder.record([arrival_at(30, {"load": "1"})], later + 60)
    assert (store.state(module)["value"], store.state(module)["status"]) == ("1.00000", NORMAL)
    assert [point[1:] for point in points(store) if point[0] == module] == [
        (NOW, 1.0),
        (later, 0.0),
        (later + 60, 1.0),
    ]
    assert event_types(store) == ["new_agent", "going_up_critical", "going_down_normal"]
    assert store.counts(agent) == [2, 0, 0, 0, 0, 2]

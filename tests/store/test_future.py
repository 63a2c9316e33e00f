"""Times that lie ahead of the clock: brought back, so that silence is noticed after all."""

from __future__ import annotations

from dataserver.rules.times import SLACK
from dataserver.store import schema
from dataserver.store.sweeps.autodisable import Autodisable
from dataserver.store.sweeps.future import FutureSweep
from dataserver.store.sweeps.keep_alive import SilenceSweep
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database
from tests.support.ingest import ZONE
from tests.support.kinds import database_of
from tests.support.monitored import CRITICAL, INTERVAL, NOW, UNKNOWN, Monitored, text

database = database_of(SQLITE, MARIADB, PANDORA)

HOUR = 3_600
AHEAD = NOW + 12 * HOUR


class Sweeper:
    """The sweeps that judge silence, after the one that makes it possible."""

    def __init__(self, store: Monitored) -> None:
        self._engine = store.engine
        self._future = FutureSweep(store.sql, text)
        self._others = (
            UnknownSweep(store.sql, store.layout, store.events, text),
            SilenceSweep(store.sql, store.layout, store.events, ZONE),
            Autodisable(store.sql, store.layout, text),
        )

    def sweep(self, now: int) -> None:
        for step in (self._future, *self._others):
            for _ in range(3):
                with self._engine.begin() as conn:
                    step.sweep(conn, now, now)


def test_a_module_that_was_seen_in_the_future_becomes_unknown(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    module = store.module(agent, "load", processed=AHEAD)
    sweeper = Sweeper(store)
    sweeper.sweep(NOW)
    assert store.state(module)["processed"] == NOW
    assert store.state(module)["status"] != UNKNOWN
    sweeper.sweep(NOW + 2 * INTERVAL + 1)
    assert store.state(module)["status"] == UNKNOWN


def test_a_few_minutes_are_left(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent(contact=text(NOW + SLACK))
    module = store.module(agent, "load", processed=NOW + SLACK)
    Sweeper(store).sweep(NOW)
    assert store.state(module)["processed"] == NOW + SLACK
    assert str(store.rows(schema.agent)[0]["contact"])[:19] == text(NOW + SLACK)


def test_a_keep_alive_module_of_the_future_falls_silent(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent(contact=text(AHEAD))
    times = {"local_time": text(AHEAD), "saved": text(AHEAD), "last_execution_try": AHEAD}
    module = store.module(
        agent, "alive", "keep_alive", value="1.00000", processed=AHEAD, history_data=1, **times
    )
    sweeper = Sweeper(store)
    sweeper.sweep(NOW)
    assert store.state(module)["value"] == "1.00000"
    now = NOW + 2 * INTERVAL + 1
    sweeper.sweep(now)
    state = store.state(module)
    assert (state["value"], state["status"]) == ("0.00000", CRITICAL)
    assert str(state["local_time"])[:19] == text(now)


def test_an_agent_heard_of_in_the_future_is_disabled_when_it_is_silent(
    database: Database,
) -> None:
    store = Monitored(database)
    agent = store.agent(mode=2, contact=text(AHEAD), unknown_count=1)
    store.module(agent, "load", processed=AHEAD)
    sweeper = Sweeper(store)
    sweeper.sweep(NOW)
    assert str(store.rows(schema.agent)[0]["contact"])[:19] == text(NOW)
    sweeper.sweep(NOW + 2 * INTERVAL + 1)
    assert store.rows(schema.agent)[0]["disabled"] == 1

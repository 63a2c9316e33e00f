"""Modules with a cron expression: what is stored of it, and when their silence is too long."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from dataserver.rules.due import TOLERANCE
from dataserver.store import ledger, schema
from dataserver.store.sweeps import unknown
from dataserver.store.sweeps.unknown import CRON_EVERY, UnknownSweep
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.kinds import database_of
from tests.support.monitored import NORMAL, NOT_INITIALISED, UNKNOWN, Monitored, text
from tests.support.packets import START, module, packet

database = database_of(SQLITE, PANDORA)

NIGHTLY = "0 3 * * *"
HOUR, DAY = 3_600, 86_400
#: A night's run; and the time at which the second one after it was missed.
SEEN = START + 3 * HOUR + 5
MISSED = START + 2 * DAY + 3 * HOUR + TOLERANCE


class Sweeper:
    """Sweeps one database, until there is no more to do."""

    def __init__(self, store: Monitored) -> None:
        self._engine = store.engine
        self._sweep = UnknownSweep(store.sql, store.layout, store.events, text, ZONE)

    def step(self, now: int) -> bool:
        with self._engine.begin() as conn:
            return self._sweep.sweep(conn, now, now)

    def run(self, now: int) -> None:
        while self.step(now):
            pass


def seen(store: Monitored, agent: int, name: str, cron: str, **values: Any) -> int:
    """A module that had its value at SEEN."""
    row = {"processed": SEEN, "cron_interval": cron, "module_interval": 300}
    return store.module(agent, name, **row | values)


# -- what is stored ------------------------------------------------------------------


def stored(database: Database, *packets: tuple[int, dict[str, str]]) -> tuple[Any, ...]:
    """The columns of a module of these packets: seconds after the start, and its tags."""
    server, store = Ingest(database), Monitored(database)
    for time, tags in packets:
        content = packet("one", module("job", **tags), time=START + time, interval=300)
        server.recorder.record([arrival(content)], START + time)
    (row,), (state,) = store.rows(schema.module), store.rows(schema.state)
    return row["cron_interval"], row["module_interval"], state["current_interval"]


def test_the_expression_is_stored_beside_a_number(database: Database) -> None:
    tags = {"crontab": NIGHTLY, "cron_interval": "86395"}
    silence = MISSED - SEEN
    assert stored(database, (3 * HOUR + 5, tags)) == (NIGHTLY, 86_395, (silence + 1) // 2)


@pytest.mark.parametrize("crontab", ["*/5 * * * *", "1,2 3 * * *", "0 3 * *", "0  3 * * *", ""])
def test_another_form_leaves_the_number(sqlite_database: Database, crontab: str) -> None:
    tags = {"crontab": crontab, "cron_interval": "86395"}
    assert stored(sqlite_database, (0, tags)) == ("86395", 86_395, 86_395)


def test_later_packets_change_the_interval_and_not_the_expression(database: Database) -> None:
    first = {"crontab": NIGHTLY, "cron_interval": "10795"}
    later = {"crontab": "0 4 * * *", "cron_interval": "86395"}
    assert stored(database, (5, first), (3 * HOUR + 5, later))[:2] == (NIGHTLY, 86_395)


def test_without_an_interval_of_its_own_it_has_its_agents(database: Database) -> None:
    server, store = Ingest(database), Monitored(database)
    content = packet("one", module("job"), time=START, interval=60)
    server.record([arrival(content)])
    (agent,), (job,) = store.rows(schema.agent), store.rows(schema.module)
    store.set(schema.agent, agent["id"], mode=0)
    store.set(schema.module, job["id"], module_interval=0)
    intervals = []
    for minute, value in enumerate(["2", "none", "3"], 1):
        server.recorder.catalog.clear()
        server.record([arrival(packet("one", module("job", value), time=START + 60 * minute))])
        intervals.append(store.state(job["id"])["current_interval"])
    # One that was refused sets 300, as with the Perl server.
    assert intervals == [60, 300, 60]


# -- when it is unknown ----------------------------------------------------------------


def test_a_nightly_module_is_unknown_after_its_second_missed_night(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    # What another server may have written: too short, too long, nothing.
    for interval in (10, 300, 86_395, 10 * 365 * DAY, 0):
        seen(store, agent, f"every {interval}", NIGHTLY, current_interval=interval)
    sweeper = Sweeper(store)
    for now in (SEEN + 21, SEEN + 601, MISSED - DAY, MISSED):
        sweeper.run(now)
        assert set(store.statuses()) == {NORMAL}, str(datetime.fromtimestamp(now, ZONE))
    sweeper.run(MISSED + CRON_EVERY)
    assert set(store.statuses()) == {UNKNOWN}
    assert store.counts(agent) == [0, 0, 0, 5, 0, 5]
    assert [row["type"] for row in store.rows(schema.event)] == ["going_unknown"] * 5
    assert store.versions()[agent][0] == 1


def test_seconds_in_place_of_an_expression_are_an_interval(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    seen(store, agent, "daily", "86400")
    # In four digits it is the module's interval that counts, as with the Perl server.
    seen(store, agent, "short", "3600")
    seen(store, agent, "list", "1,2 3 * * *", module_interval=0)
    sweeper = Sweeper(store)
    sweeper.run(SEEN + 600)
    assert store.statuses() == [NORMAL] * 3
    sweeper.run(SEEN + 600 + CRON_EVERY)
    assert store.statuses() == [NORMAL, UNKNOWN, UNKNOWN]
    sweeper.run(SEEN + 2 * DAY)
    assert store.statuses()[0] == NORMAL
    sweeper.run(SEEN + 2 * DAY + CRON_EVERY)
    assert store.statuses()[0] == UNKNOWN


def test_a_module_that_the_console_made_and_no_value_came_for(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    made = {"value": "", "status": NOT_INITIALISED, "current_interval": 0}
    seen(store, agent, "untouched", NIGHTLY, processed=0, **made)
    seen(store, agent, "expected", NIGHTLY, **made)
    sweeper = Sweeper(store)
    sweeper.run(MISSED)
    assert store.statuses() == [NOT_INITIALISED, NOT_INITIALISED]
    sweeper.run(MISSED + CRON_EVERY)
    assert store.statuses() == [NOT_INITIALISED, UNKNOWN]


def test_whom_the_sweep_leaves_alone(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    seen(store, store.agent("disabled", disabled=1), "load", NIGHTLY)
    seen(store, agent, "disabled", NIGHTLY, disabled=1)
    seen(store, agent, "indifferent", NIGHTLY, ignore_unknown=1)
    seen(store, agent, "deleted", NIGHTLY, delete_pending=1)
    seen(store, agent, "already", NIGHTLY, status=UNKNOWN)
    before = store.rows(schema.state)
    Sweeper(store).run(MISSED + 30 * DAY)
    assert store.rows(schema.state) == before
    assert store.rows(schema.event) == []


def test_modules_are_looked_at_page_by_page_once_a_minute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown, "CRON_PAGE", 3)
    monkeypatch.setattr(unknown, "BLOCK", 2)
    store = Monitored(database)
    agent = store.agent()
    for number in range(8):
        # The first page has nothing to do.
        seen(store, agent, str(number), NIGHTLY, processed=SEEN if number > 2 else MISSED)
    sweeper, now = Sweeper(store), MISSED + 1
    found = []
    for _ in range(5):
        more = sweeper.step(now)
        found.append((store.statuses().count(UNKNOWN), more))
    # Two of the three of a page are a block; the third is of the next page.
    assert found == [(0, True), (2, True), (4, True), (5, True), (5, False)]
    store.set(schema.state, 8, status=NORMAL)
    sweeper.run(now + CRON_EVERY - 1)
    assert store.statuses().count(UNKNOWN) == 4
    sweeper.run(now + CRON_EVERY)
    assert store.statuses().count(UNKNOWN) == 5


def test_a_value_that_comes_between_looking_and_locking_saves_its_module(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Monitored(mariadb_database)
    agent = store.agent()
    saved, lost = (seen(store, agent, name, NIGHTLY) for name in ("saved", "lost"))
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        store.set(schema.state, saved, processed=MISSED)
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    Sweeper(store).run(MISSED + 1)
    assert (store.state(saved)["status"], store.state(lost)["status"]) == (NORMAL, UNKNOWN)


def test_an_older_database_has_no_expressions(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    drop = "ALTER TABLE tagente_modulo DROP COLUMN cron_interval"
    server.execute(drop, database=pandora_database.name)
    store = Monitored(pandora_database)
    store.module(store.agent(), "load", processed=SEEN)
    Sweeper(store).run(SEEN + 601)
    assert store.statuses() == [UNKNOWN]
    content = packet("two", module("job", crontab=NIGHTLY), time=START)
    Ingest(pandora_database).record([arrival(content)])
    assert [row["current_interval"] for row in store.rows(schema.state)] == [300, 300]

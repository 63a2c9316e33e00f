"""The unknown sweep: which modules it condemns, what it writes, and whom it leaves alone."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from dataserver.rules.events import wants_event
from dataserver.store import ledger, schema
from dataserver.store.counts import recount
from dataserver.store.sweeps import unknown
from dataserver.store.sweeps.unknown import BLOCK, UnknownSweep
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
        self._engine = store.engine
        self._sweep = UnknownSweep(store.sql, store.layout, store.events, text)

    def step(self, now: int = NOW, horizon: int | None = None) -> bool:
        with self._engine.begin() as conn:
            return self._sweep.sweep(conn, now, now if horizon is None else horizon)


def events(store: Monitored) -> list[tuple[str, int, int, str]]:
    """Type, severity, whether validated, and text of each event, in their order."""
    return [
        (row["type"], row["severity"], row["status"], row["text"])
        for row in store.rows(schema.event)
    ]


UNKNOWN_TEXT = "Module&#x20;&#039;load&#039;&#x20;is&#x20;going&#x20;to&#x20;UNKNOWN"


def test_a_silent_module_becomes_unknown_and_keeps_what_was_known(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    module = store.module(agent, "load", status=WARNING, status_changes=1, last_status_change=7)
    before = store.state(module)
    assert not Sweeper(store).step()
    assert store.state(module) == before | {
        "status": UNKNOWN,
        "last_status": UNKNOWN,
        "last_unknown_update": NOW,
        "last_status_change": NOW,
    }
    assert store.counts(agent) == [0, 0, 0, 1, 0, 1]
    assert events(store) == [("going_unknown", 5, 0, UNKNOWN_TEXT)]
    (event,) = store.rows(schema.event)
    assert (event["agent_id"], event["module_id"], event["group_id"]) == (agent, module, 10)
    assert (event["time"], str(event["local_time"])) == (NOW, text(NOW))
    assert (event["module_status"], event["data"]) == (UNKNOWN, "5.00000")


def test_an_event_has_the_value_that_was_the_last(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(agent, "load", "generic_data_string", value="<" * 300)
    store.module(agent, "never", value=None)
    store.module(agent, "async", "async_data", status=CRITICAL, value="7.00000")
    Sweeper(store).step()
    # As it is stored, and what fits.
    assert [row["data"] for row in store.rows(schema.event)] == ["&lt;" * 63, "", "7.00000"]


def test_the_sweep_raises_the_versions_of_the_agents_that_it_changed_alone(
    database: Database,
) -> None:
    store = Monitored(database)
    silent, fresh, well = (store.agent(name) for name in ("silent", "fresh", "well"))
    for agent in (silent, well):
        store.insert(schema.agent_version, agent_id=agent, version=5, newest=LONG_AGO)
    store.module(silent, "load")
    store.module(fresh, "load")
    store.module(well, "load", processed=NOW)
    Sweeper(store).step()
    # One that no packet met yet starts with this.
    expected = {silent: (6, LONG_AGO), fresh: (1, 0), well: (5, LONG_AGO)}
    assert store.versions() == expected


def test_a_module_is_unknown_once_twice_its_interval_is_over(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(agent, "load", processed=LATELY)
    store.module(agent, "patient", current_interval=INTERVAL + 1)
    store.module(agent, "ahead", processed=NOW + 10 * INTERVAL)
    sweeper = Sweeper(store)
    sweeper.step()
    assert store.statuses() == [NORMAL, NORMAL, NORMAL]
    sweeper.step(NOW + 1)
    assert store.statuses() == [UNKNOWN, NORMAL, NORMAL]
    sweeper.step(NOW + 2)
    assert store.statuses() == [UNKNOWN, UNKNOWN, NORMAL]


def test_no_verdict_is_passed_on_what_may_still_wait_in_a_queue(database: Database) -> None:
    store = Monitored(database)
    store.module(store.agent(), "load", processed=LONG_AGO)
    sweeper = Sweeper(store)
    # A packet waits that arrived an interval ago.
    sweeper.step(NOW + 10 * INTERVAL, horizon=NOW - 1)
    assert store.statuses() == [NORMAL]
    sweeper.step(NOW + 10 * INTERVAL, horizon=NOW)
    assert store.statuses() == [UNKNOWN]
    assert store.rows(schema.state)[0]["last_unknown_update"] == NOW + 10 * INTERVAL


def test_whom_the_sweep_leaves_alone(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(store.agent("disabled", disabled=1), "load")
    store.module(store.agent("indifferent", ignore_unknown=1), "load")
    store.module(agent, "disabled", disabled=1)
    store.module(agent, "indifferent", ignore_unknown=1)
    store.module(agent, "deleted", delete_pending=1)
    store.module(agent, "alive", "keep_alive", value="1.00000")
    store.module(agent, "never", processed=0, status=NOT_INITIALISED)
    store.module(agent, "already", status=UNKNOWN)
    for kind in ("async_data", "async_string", "async_proc"):
        store.module(agent, kind, kind)
    # Its state is there, the module is not.
    store.insert(schema.state, module_id=999, agent_id=agent, processed=1, current_interval=1)
    before = [store.rows(table) for table in (schema.state, schema.agent)]
    assert not Sweeper(store).step()
    assert [store.rows(table) for table in (schema.state, schema.agent)] == before
    assert store.rows(schema.event) == store.rows(schema.agent_version, "agent_id") == []


def test_modules_of_other_servers_are_swept_as_well(database: Database) -> None:
    store = Monitored(database)
    store.module(store.agent(), "ping", "remote_icmp_proc", server_kind=2)
    store.module(store.agent("two"), "text", "generic_data_string", status=NOT_INITIALISED)
    Sweeper(store).step()
    assert store.statuses() == [UNKNOWN, UNKNOWN]


def test_a_silent_asynchronous_module_goes_back_to_normal(database: Database) -> None:
    store = Monitored(database)
    columns = ("status", "known_status", "last_status", "last_known_status")
    changed = dict.fromkeys(columns, NORMAL) | {"last_status_change": NOW}
    expected = {}
    for status in (CRITICAL, WARNING, UNKNOWN, NOT_INITIALISED):
        agent = store.agent(f"was {status}")
        module = store.module(agent, "load", "async_proc", status=status, last_unknown_update=3)
        expected[agent] = store.state(module) | changed
    Sweeper(store).step()
    assert {row["agent_id"]: row for row in store.rows(schema.state)} == expected
    assert [store.counts(agent) for agent in expected] == [[1, 0, 0, 0, 0, 1]] * 4
    assert [event[:2] for event in events(store)] == [("going_down_normal", 5)] * 4


def test_what_is_quiet_changes_without_a_word(database: Database) -> None:
    store = Monitored(database)
    quiet = store.agent("quiet", quiet=1)
    store.module(quiet, "load")
    store.module(quiet, "async", "async_proc", status=CRITICAL)
    store.module(store.agent(), "load", quiet=1)
    Sweeper(store).step()
    assert store.statuses() == [UNKNOWN, NORMAL, UNKNOWN]
    assert events(store) == []


def test_a_module_may_have_its_unknown_events_switched_off(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(agent, "off", disabled_types_event='{"going_unknown": 1}')
    store.module(agent, "load", disabled_types_event='{"going_unknown": 0}')
    store.module(agent, "async", "async_data", status=1, disabled_types_event='{"going_unknown":1}')
    Sweeper(store).step()
    assert store.statuses() == [UNKNOWN, UNKNOWN, NORMAL]
    assert [event[0] for event in events(store)] == ["going_unknown", "going_down_normal"]
    assert events(store)[0][3] == UNKNOWN_TEXT


def test_what_switches_an_event_off_and_what_leaves_it_on() -> None:
    off = [
        '{"going_unknown": 1}',
        '{"going_unknown": "1"}',
        '{"going_unknown": true}',
        '{"going_unknown": [[]]}',
        "{&quot;going_unknown&quot;:1}",
    ]
    on = [
        None,
        "",
        "{}",
        '{"going_unknown": 0}',
        '{"going_unknown": "0"}',
        '{"going_unknown": ""}',
        '{"going_unknown": null}',
        '{"going_unknown": false}',
        '{"going_up_critical": 1}',
        "[1]",
        "1",
        "null",
        "not JSON",
        '{"going_unknown": 1',
        "[" * 100_000,
        "9" * 10_000,
        "\ud800",
    ]
    assert [written for written in off if wants_event(written, "going_unknown")] == []
    assert [written for written in on if not wants_event(written, "going_unknown")] == []


def test_the_open_event_of_the_module_is_validated(database: Database) -> None:
    store = Monitored(database)
    module = store.module(store.agent(), "load", status=CRITICAL)
    store.insert(
        schema.event, module_id=module, type="going_up_critical", status=0, local_time=text(1)
    )
    Sweeper(store).step()
    assert [row[:3] for row in events(store)] == [
        ("going_up_critical", 0, 1),
        ("going_unknown", 5, 0),
    ]


def test_the_open_event_stays_where_unknown_is_not_told(database: Database) -> None:
    store = Monitored(database)
    off = '{"going_unknown": 1}'
    module = store.module(store.agent(), "load", status=CRITICAL, disabled_types_event=off)
    store.insert(
        schema.event, module_id=module, type="going_up_critical", status=0, local_time=text(1)
    )
    Sweeper(store).step()
    assert store.statuses() == [UNKNOWN]
    assert [row[:3] for row in events(store)] == [("going_up_critical", 0, 0)]


def test_a_second_sweep_changes_nothing(database: Database) -> None:
    store = Monitored(database)
    agent = store.agent()
    store.module(agent, "load")
    store.module(agent, "async", "async_proc", status=CRITICAL)
    sweeper = Sweeper(store)
    sweeper.step()
    tables = (schema.state, schema.agent, schema.event)
    before = [store.rows(table) for table in tables], store.versions()
    assert not sweeper.step(NOW + 5)
    assert not Sweeper(store).step(NOW + 10 * INTERVAL)
    assert ([store.rows(table) for table in tables], store.versions()) == before


@pytest.mark.parametrize("block", [100, pytest.param(BLOCK, marks=pytest.mark.long)])
def test_one_step_changes_a_block_and_the_next_one_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(unknown, "BLOCK", block)
    store = Monitored(database)
    agents = [store.agent(str(number)) for number in range(3)]
    type_id = store.types["generic_data"]
    count = block + 30
    with store.engine.begin() as conn:
        modules = [
            (place, agents[place % 3], type_id, f"m{place}", 1) for place in range(1, count + 1)
        ]
        keys = ("id", "agent_id", "type_id", "name", "server_kind")
        store.sql.insert(conn, schema.module, keys, modules)
        rows = [(module[0], module[1], LONG_AGO, INTERVAL) for module in modules]
        keys = ("module_id", "agent_id", "processed", "current_interval")
        store.sql.insert(conn, schema.state, keys, rows)
    sweeper = Sweeper(store)
    assert sweeper.step()
    assert store.statuses().count(UNKNOWN) == block == len(events(store))
    assert sum(store.counts(agent)[3] for agent in agents) == block
    assert not sweeper.step()
    assert store.statuses() == [UNKNOWN] * count
    assert len(events(store)) == count
    kept = [store.counts(agent) for agent in agents]
    with store.engine.begin() as conn:
        conn.execute(update(schema.agent).values(unknown_count=0, total_count=0))
        recount(conn, store.sql, agents)
    assert kept == [store.counts(agent) for agent in agents]


def test_many_modules_are_looked_through_a_span_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown, "SPAN", 2)
    store = Monitored(database)
    agent = store.agent()
    modules = [store.module(agent, f"m{number}", processed=NOW) for number in range(5)]
    sweeper = Sweeper(store)
    later = NOW + 3 * INTERVAL
    unknowns = []
    for _ in range(3):
        assert not sweeper.step(later)
        unknowns.append(store.statuses().count(UNKNOWN))
    assert unknowns == [2, 4, 5]
    # The pass begins again, where there is something to do now.
    store.set(schema.state, modules[0], status=NORMAL, processed=NOW)
    sweeper.step(later)
    assert store.statuses() == [UNKNOWN] * 5


def test_a_span_is_left_when_nothing_in_it_is_overdue_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown, "SPAN", 3)
    monkeypatch.setattr(unknown, "BLOCK", 2)
    store = Monitored(database)
    agent = store.agent()
    for number in range(6):
        store.module(agent, f"m{number}")
    sweeper = Sweeper(store)
    unknowns = []
    for _ in range(4):
        more = sweeper.step()
        unknowns.append((store.statuses().count(UNKNOWN), store.statuses()[2], more))
    assert unknowns == [
        (2, NORMAL, True),
        (3, UNKNOWN, False),
        (5, UNKNOWN, True),
        (6, UNKNOWN, False),
    ]


def test_a_store_without_modules_has_nothing_to_sweep(database: Database) -> None:
    store = Monitored(database)
    assert not Sweeper(store).step()
    store.agent()
    assert not Sweeper(store).step()


@pytest.mark.parametrize("place", ["mariadb_database", "pandora_database"])
def test_a_value_that_comes_between_looking_and_locking_saves_its_module(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store = Monitored(request.getfixturevalue(place))
    one, two = store.agent("one"), store.agent("two")
    saved, lost = store.module(one, "saved"), store.module(two, "lost")
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        store.set(schema.state, saved, processed=NOW)
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    assert not Sweeper(store).step()
    assert (store.state(saved)["status"], store.state(lost)["status"]) == (NORMAL, UNKNOWN)
    assert [row["module_id"] for row in store.rows(schema.event)] == [lost]
    assert store.versions()[two] == (1, 0)
    assert store.versions().get(one, (0, 0)) == (0, 0)


def test_a_block_that_vanished_whole_does_not_ask_to_come_again(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown, "BLOCK", 2)
    store = Monitored(mariadb_database)
    agent = store.agent()
    modules = [store.module(agent, f"m{number}") for number in range(2)]
    lock = ledger.lock_versions

    def late_lock(*args: object) -> object:
        for module in modules:
            store.set(schema.module, module, disabled=1)
        return lock(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger, "lock_versions", late_lock)
    assert not Sweeper(store).step()
    assert store.statuses() == [NORMAL, NORMAL]


def test_what_an_older_database_lacks_is_left_out(pandora_database: Database) -> None:
    server = pandora_database.server
    assert server is not None
    for table, names in (
        ("tagente", "quiet ignore_unknown"),
        ("tagente_modulo", "quiet ignore_unknown disabled_types_event delete_pending"),
        ("tagente_estado", "last_unknown_update last_status_change"),
    ):
        for name in names.split():
            server.execute(
                f"ALTER TABLE {table} DROP COLUMN {name}", database=pandora_database.name
            )
    server.execute("DROP TABLE tevento", database=pandora_database.name)
    store = Monitored(pandora_database)
    agent = store.agent()
    store.module(agent, "load")
    store.module(agent, "async", "async_proc", status=CRITICAL)
    Sweeper(store).step()
    assert store.statuses() == [UNKNOWN, NORMAL]
    assert store.counts(agent) == [1, 0, 0, 1, 0, 2]


def test_a_module_comes_back_with_its_next_value(database: Database) -> None:
    ingest, store = Ingest(database), Monitored(database)
    ingest.record([arrival_at(0, {"load": "1", "disk": "2"}, interval=str(INTERVAL))])
    (agent,) = [row["id"] for row in store.rows(schema.agent)]
    sweeper = Sweeper(store)
    sweeper.step(NOW + 2 * INTERVAL)
    assert store.counts(agent) == [2, 0, 0, 0, 0, 2]
    sweeper.step(NOW + 2 * INTERVAL + 1)
    assert store.counts(agent) == [0, 0, 0, 2, 0, 2]
    # The recorder's cache says normal; the sweep's version says otherwise.
    ingest.record([arrival_at(20, {"load": "1"})])
    assert store.statuses() == [NORMAL, UNKNOWN]
    assert store.counts(agent) == [1, 0, 0, 1, 0, 2]
    assert [event[0] for event in events(store)] == [
        "new_agent",
        "going_unknown",
        "going_unknown",
        "going_down_normal",
    ]

"""What is refused of stored packets: noted with its reason, counted, bounded, forgotten."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select, text, update
from sqlalchemy.exc import OperationalError

from dataserver.config.settings import Settings
from dataserver.errors import StoreConflict, StoreError, StoreRefused
from dataserver.ingest.periodic import sweeps
from dataserver.model import Arrival
from dataserver.rules import entities
from dataserver.rules.refusals import Refusal
from dataserver.store import refused, schema
from dataserver.store.agents import AutoCreatePolicy
from dataserver.store.layout import inspect
from dataserver.store.probe import prepare
from dataserver.store.recorder import Recorder
from dataserver.store.refused import RefusedRecord, list_refused
from tests.support import pandora
from tests.support.databases import PANDORA, Database, opened
from tests.support.failures import failures
from tests.support.ingest import NOW, ZONE, Ingest, arrival
from tests.support.mariadb import MariaDB
from tests.support.packets import START, arrival_at, module, packet
from tests.support.waiting import wait_until


@pytest.fixture
def ingest(database: Database) -> Ingest:
    return Ingest(database)


@pytest.fixture
def engine(database: Database) -> Engine:
    return database.engine()


def sent(agent: str, *content: str, minute: int = 0, **attributes: str) -> Arrival:
    """A packet of one minute, as the store is handed it."""
    time = None if "timestamp" in attributes else START + 60 * minute
    return arrival(packet(agent, *content, time=time, **attributes))


def listed(engine: Engine, agent: str | None = None) -> list[RefusedRecord]:
    """What was refused, of all agents or one."""
    with engine.connect() as conn:
        found = list_refused(conn, inspect(engine))
    return [each for each in found if agent in (None, each.agent)]


def told(engine: Engine, agent: str) -> set[tuple[str, str, str, int]]:
    """The same: (module, reason, value, count)."""
    return {(each.module, each.reason, each.value, each.count) for each in listed(engine, agent)}


#: Base64 of {"data": "x"}.
EVENT = "<event>eyJkYXRhIjogIngifQ==</event>"


#: An agent's packet, and what is told of it: (module, reason, last value, count).
CASES: dict[str, tuple[Arrival, set[tuple[str, str, str, int]]]] = {
    "text": (sent("text", module("a", "n/a")), {("a", "not-a-number", "n/a", 1)}),
    "nan": (sent("nan", module("a", "nan")), {("a", "not-a-number", "nan", 1)}),
    "counter": (
        sent("counter", module("c", "many", "generic_data_inc")),
        {("c", "not-a-number", "many", 1)},
    ),
    "bounds": (sent("bounds", module("a", "7", min=1, max=5)), {("a", "out-of-bounds", "7", 1)}),
    "empty": (sent("empty", module("a", "")), {("a", "no-value", "", 1)}),
    "of 1970": (
        sent("of 1970", module("a", ""), timestamp="1970/01/01 00:00:00"),
        {("a", "no-value", "", 1)},
    ),
    "missing": (sent("missing", module("a", None)), {("a", "no-value", "", 1)}),
    "type": (
        sent("type", module("a", "1", "generic_date")),
        {("a", "unknown-type", "generic_date", 1)},
    ),
    "nameless": (sent("nameless", module("", "1")), {("", "no-name", "1", 1)}),
    "long name": (
        sent("long name", module("n" * 70_000, "1")),
        {("n" * 600, "name-too-long", "1", 1)},
    ),
    "datalist": (
        sent("datalist", module("a", [("1", "soon"), ("2", "later"), ("3", START)])),
        {("a", "unreadable-time", "later", 2)},
    ),
    "own time": (
        sent("own time", module("a", "1", timestamp="26/01/01")),
        {("a", "unreadable-time", "26/01/01", 1)},
    ),
    "ahead": (
        sent("ahead", module("a", [("1", "2099/01/01 00:00:00")])),
        {("a", "time-ahead", "2099/01/01 00:00:00", 1)},
    ),
    "packet": (
        sent("packet", module("a", "1"), module("b", "1"), timestamp="yesterday"),
        {("", "unreadable-packet-time", "yesterday", 1)},
    ),
    "auto": (
        sent("auto", module("a", [("1", "AUTO")]), timestamp="yesterday"),
        {("", "unreadable-packet-time", "yesterday", 1)},
    ),
    "offset": (
        sent("offset", module("a", "1"), timezone_offset="CET"),
        {("", "unreadable-offset", "CET", 1)},
    ),
    "status": (
        sent("status", module("a", "1", status="OK"), module("b", "1", status=" warning ")),
        {("a", "unknown-status", "OK", 1)},
    ),
    "setting": (
        sent("setting", module("a", "5", min_critical="90%", min_ff_event="x", max=" ", min="1,5")),
        {("a", "unreadable-setting", "min_ff_event: x", 2)},
    ),
    "mode 0": (sent("mode 0", module("a", "1"), agent_mode="0"), set()),
    "event": (
        sent("event", "<events><event>x</event></events>"),
        {("", "unreadable-event", "", 1)},
    ),
    "events": (
        sent("events", "<events>", *([EVENT] * 103), "</events>"),
        {("", "too-many-events", "", 3)},
    ),
    "inventory": (
        sent(
            "inventory",
            "<inventory><inventory_module><name>Zoo</name></inventory_module></inventory>",
        ),
        {("", "unknown-inventory", "Zoo", 1)},
    ),
    "field": (
        sent("field", "<custom_fields><field><name>Zoo</name></field></custom_fields>"),
        {("", "unknown-field", "Zoo", 1)},
    ),
    "group": (sent("group", module("a"), group="Zoo"), {("", "unknown-group", "Zoo", 1)}),
    "module group": (
        sent("module group", module("a b", module_group="Zoo")),
        {("a b", "unknown-group", "Zoo", 1)},
    ),
    "tag": (
        sent("tag", module("a", tags="critical,no such")),
        {("a", "unknown-tag", "no such", 1)},
    ),
    "fine": (
        sent(
            "fine",
            module("a", "1", tags="critical", module_group="General"),
            module("b", "", "generic_data", disabled=1),
            group="Servers",
            timezone_offset=" ",
        ),
        set(),
    ),
}


def test_each_is_told_with_its_reason_and_the_last_value(ingest: Ingest, engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(insert(schema.tag).values(name="critical"))
    arrivals = [each for each, _ in CASES.values()]
    _, tally = ingest.recorder.record(arrivals, NOW)
    assert ingest.rejected == []

    def check(agent: str) -> None:
        assert told(engine, agent) == CASES[agent][1]

    assert failures(check, CASES) == {}
    expected = [row for _, rows in CASES.values() for row in rows]
    assert tally.refused_by_reason.total() == sum(row[3] for row in expected)
    assert len(tally.first_refused) == len(expected)


def test_it_is_told_of_a_late_packet_and_of_an_agent_that_does_not_learn(
    ingest: Ingest, engine: Engine
) -> None:
    ingest.record([sent("web", module("a", "1"), minute=5, agent_mode="0")])
    ingest.record([sent("web", module("a", "x")), sent("web", module("b", "7"), minute=6)])
    assert told(engine, "web") == {("a", "not-a-number", "x", 1), ("b", "not-learning", "7", 1)}


def test_more_modules_than_an_agent_may_have_are_told(database: Database, engine: Engine) -> None:
    learning = AutoCreatePolicy("ingest", max_modules=2)
    recorder = Recorder(
        engine, prepare(engine), zone=ZONE, learning=learning, longest_text=1000, ledger_days=3650
    )
    recorder.record([sent("web", *(module(name, "5") for name in "abc"))], NOW)
    assert told(engine, "web") == {("c", "too-many-modules", "5", 1)}


def test_counts_of_several_servers_add_up_and_only_the_first_is_new(
    database: Database, engine: Engine
) -> None:
    servers = [Ingest(database), Ingest(database)]
    new = []
    for minute in range(6):
        arrivals = [
            sent("web", module("a b", f"x{minute}"), minute=minute),
            sent("db", module("a b", "y"), minute=minute),
        ]
        _, tally = servers[minute % 2].recorder.record(arrivals, NOW + minute)
        new.append([(each.agent, each.module, each.reason) for each in tally.first_refused])
    assert [len(each) for each in new] == [2, 0, 0, 0, 0, 0]
    assert set(new[0]) == {(name, "a b", Refusal.NOT_A_NUMBER) for name in ("web", "db")}
    (web,) = listed(engine, "web")
    assert (web.count, web.value, web.first, web.last) == (6, "x5", NOW, NOW + 5)
    assert web.text == "not a number"


def test_what_failed_to_commit_is_not_counted(ingest: Ingest, engine: Engine) -> None:
    bad = arrival_at(0, {"s": "x" * 17_000_000}, types="_string")
    with pytest.raises(Exception, match="longer than the database accepts"):
        ingest.recorder.record([sent("web", module("a", "x")), bad], NOW)
    assert listed(engine) == []


def test_an_agent_has_a_bounded_number_of_rows_and_the_rest_is_counted(
    ingest: Ingest, engine: Engine
) -> None:
    many = [module(f"m{number}", "x") for number in range(refused.MOST_OF_AGENT + 30)]
    ingest.record([sent("web", *many)])
    ingest.record([sent("web", *many, minute=1)])
    # Now in another order: those that are known are found.
    ingest.record([sent("web", *reversed(many[:10]), minute=2)])
    ingest.record([sent("web", module("new", "z"), minute=3)])
    found = listed(engine, "web")
    assert len(found) == refused.MOST_OF_AGENT + 1
    assert sum(each.count for each in found) == 2 * len(many) + 10 + 1
    (more,) = [each for each in found if each.reason == Refusal.MORE]
    assert (more.module, more.value, more.count) == ("", "z", 2 * 30 + 1)
    counts = {each.module: each.count for each in found}
    assert (counts["m5"], counts["m40"]) == (3, 2)


def test_a_value_is_cut_and_a_long_name_too(ingest: Ingest, engine: Engine) -> None:
    name = "b" + "ä" * 1000  # as stored, six characters each
    ingest.record([sent("web", module(name, "x" * 1_000_000))])
    (found,) = listed(engine, "web")
    assert (found.module, found.value) == ("b" + "ä" * 99, "x" * 200)
    assert found.module in entities.decode(entities.encode(name))
    assert refused.of_module([found], name) == (found,)
    assert refused.of_module([found], "b" + "ä" * 98) == ()


def test_modules_whose_long_names_begin_alike_are_counted_together(
    ingest: Ingest, engine: Engine
) -> None:
    many = [module(f"{'n' * 600}{number}", "x") for number in range(refused.MOST_OF_AGENT + 10)]
    for minute in range(2):
        ingest.record([sent("web", *many, minute=minute)])
    assert told(engine, "web") == {("n" * 600, "not-a-number", "x", 2 * len(many))}


def test_what_is_rehearsed_is_told_and_not_written(ingest: Ingest, engine: Engine) -> None:
    rehearsal = ingest.recorder.rehearse(sent("web", module("a", "n/a"), module("b", "1")), NOW)
    assert rehearsal.refused == (("a", Refusal.NOT_A_NUMBER, "n/a", 1),)
    assert listed(engine) == []


# -- a table that is not there, or will not do ---------------------------------------------


@pytest.fixture
def earlier(database: Database) -> Database:
    """A database of an earlier version."""
    with database.engine().begin() as conn:
        conn.execute(text("DROP TABLE trefused"))
    return database


def test_a_database_of_an_earlier_version_gets_the_table(earlier: Database) -> None:
    engine = earlier.engine()
    assert listed(engine) == []
    Ingest(earlier).record([sent("web", module("a", "n/a"))])
    assert told(engine, "web") == {("a", "not-a-number", "n/a", 1)}


def test_a_user_who_may_not_create_it_gets_packets_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(PANDORA, tmp_path) as database:
        assert database.server is not None
        database.server.execute(
            "DROP TABLE trefused",
            "CREATE OR REPLACE USER plain@127.0.0.1",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database.name}.* TO plain@127.0.0.1",
            database=database.name,
        )
        plain = replace(database, url=database.url.replace("root@", "plain@"))
        _stores(Ingest(plain), plain.engine())
        assert "without trefused" in caplog.text
        plain.dispose()
        database.server.execute("DROP USER plain@127.0.0.1")


def test_a_table_that_goes_away_or_will_not_do_keeps_no_packet_from_being_stored(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    engine = database.engine()
    ingest = Ingest(database)
    with engine.begin() as conn:
        conn.execute(text("DROP TABLE trefused"))
    caplog.set_level(logging.WARNING)
    _stores(ingest, engine)
    assert caplog.text.count("cannot store refused values") == 1


@pytest.mark.parametrize(("code", "kind"), [(1213, StoreConflict), (4711, StoreRefused)])
def test_where_the_database_ends_the_transaction_nothing_is_acknowledged(
    code: int,
    kind: type[StoreError],
    ingest: Ingest,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(conn: Connection, *_: object) -> None:
        conn.exec_driver_sql("ROLLBACK")
        raise OperationalError("INSERT", None, Exception(code, "rolled back"))

    packets = [sent("web", module("a", "n/a"), module("b", "1"))]
    with monkeypatch.context() as patch:
        patch.setattr(refused, "write", fail)
        with pytest.raises(kind):
            ingest.recorder.record(packets, NOW)
    _, tally = ingest.recorder.record(packets, NOW)
    assert (tally.packets, tally.duplicates, tally.stored) == (1, 0, 1)
    assert told(engine, "web") == {("a", "not-a-number", "n/a", 1)}


def test_a_deadlock_while_it_is_written_is_a_conflict(mariadb_database: Database) -> None:
    engine = mariadb_database.engine()
    ingest = Ingest(mariadb_database)
    ingest.record([sent("web", module("a", "n/a"))])
    raised: list[StoreConflict] = []

    def record() -> None:
        try:
            ingest.recorder.record([sent("web", module("a", "n/a"), minute=1)], NOW)
        except StoreConflict as error:
            raised.append(error)

    waits = text("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
    thread = threading.Thread(target=record)
    with engine.connect() as other, engine.connect() as looking:
        # Of two who wait for each other, the one that has written less is ended.
        other.execute(insert(schema.own_times), [{"module_id": 1000 + i} for i in range(1000)])
        other.execute(update(schema.refused).values(value="locked"))
        thread.start()
        # What MariaDB tells of transactions is as of the last time when nobody asked for 0.1 s.
        wait_until(lambda: looking.scalar(waits), "a batch that waits for a lock", pause=0.2)
        other.execute(update(schema.agent_version).values(version=0))
        thread.join()
        other.rollback()
    assert len(raised) == 1
    ingest.record([sent("web", module("a", "n/a"), minute=1)])
    assert told(engine, "web") == {("a", "not-a-number", "n/a", 2)}


def _stores(ingest: Ingest, engine: Engine) -> None:
    """Refused values are stored in no table, but the others of their packets are."""
    for minute in range(3):
        values = module("a", "n/a"), module("b", str(minute))
        _, tally = ingest.recorder.record([sent("web", *values, minute=minute)], NOW)
        assert (tally.packets, tally.refused, tally.stored) == (1, 1, 1)
        assert tally.refused_by_reason == {"not-a-number": 1}
    h = schema.number_history.c
    with engine.connect() as conn:
        assert list(conn.scalars(select(h.value).order_by(h.time))) == [0, 1, 2]
    assert listed(engine) == []


def test_any_character_is_kept_on_a_database_of_a_narrow_character_set(
    mariadb: MariaDB, tmp_path: Path
) -> None:
    url = mariadb.create("narrow_refused", options="CHARACTER SET utf8mb3")
    try:
        mariadb.execute(*pandora.statements(), database="narrow_refused")
        database = Database(PANDORA, url, tmp_path, "narrow_refused", mariadb)
        Ingest(database).record([sent("web", module("a", "hot \U0001f525"))])
        assert told(database.engine(), "web") == {("a", "not-a-number", "hot \U0001f525", 1)}
        database.dispose()
    finally:
        mariadb.execute("DROP DATABASE narrow_refused")


# -- the sweep -----------------------------------------------------------------------------


def swept(engine: Engine, now: int) -> set[str]:
    """The modules of the rows that are left once all is forgotten that is to be."""
    more = True
    while more:
        with engine.begin() as conn:
            more = refused.sweep(conn, now)
    with engine.connect() as conn:
        return set(conn.scalars(select(schema.refused.c.module)))


def test_what_is_old_is_forgotten_and_what_is_of_agents_that_are_gone(
    ingest: Ingest, engine: Engine
) -> None:
    for age in (0, refused.KEPT, refused.KEPT + 1):
        arrivals = [sent(f"web{age}", module(f"m{age}", "x"))]
        ingest.recorder.record(arrivals, NOW - age)
    assert swept(engine, NOW) == {"m0", f"m{refused.KEPT}"}
    with engine.begin() as conn:
        conn.execute(delete(schema.agent).where(schema.agent.c.name == "web0"))
    assert swept(engine, NOW) == {f"m{refused.KEPT}"}


def test_one_server_of_all_does_it_where_there_is_such_a_table(database: Database) -> None:
    engine, name = database.engine(), "forget what was refused long ago"
    found = [each.name for each in sweeps(Settings(), engine, database.prepare(), ZONE)]
    assert name in found
    with engine.begin() as conn:
        conn.execute(text("DROP TABLE trefused"))
    found = [each.name for each in sweeps(Settings(), engine, inspect(engine), ZONE)]
    assert name not in found


def test_of_too_many_rows_the_oldest_are_forgotten(
    ingest: Ingest, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.record([sent("web", module("a", "1"))])
    monkeypatch.setattr(refused, "MOST", 10)
    monkeypatch.setattr(refused, "_BLOCK", 4)
    with engine.begin() as conn:
        agent_id = conn.scalar(select(schema.agent.c.id))
        rows = [
            {
                "agent_id": agent_id,
                "key": bytes([number]) * 16,
                "module": f"m{number:02}",
                "reason": "not-a-number",
                "value": "x",
                "count": 1,
                "first": NOW,
                "last": NOW + number,
            }
            for number in range(25)
        ]
        conn.execute(insert(schema.refused), rows)
    assert swept(engine, NOW) == {f"m{number:02}" for number in range(15, 25)}


def test_a_reason_of_a_later_version_is_shown_by_its_code(ingest: Ingest, engine: Engine) -> None:
    ingest.record([sent("web", module("a", "x"))])
    with engine.begin() as conn:
        conn.execute(update(schema.refused).values(reason="of-tomorrow"))
    (found,) = listed(engine)
    assert found.text == "of-tomorrow"

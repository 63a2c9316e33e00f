"""Events read back: which ones, in which order, at what price; and as they come, none missed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, insert, text

from dataserver.errors import SchemaError, StoreUnavailable
from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import inspect
from dataserver.store.read import events
from dataserver.store.read.events import PATIENCE, EventList, EventRecord, EventTail, Wanted
from tests.support.databases import KINDS, PANDORA, SQLITE, Database
from tests.support.kinds import database_of
from tests.support.monitored import NOW, Monitored

DAY = 86_400
ALL = Wanted()

database = database_of(SQLITE, PANDORA)
#: SQLite has one writer: there ids commit in order.
several_writers = pytest.mark.parametrize("database", [PANDORA], indirect=True)


class Told:
    """One database with events, and a reader of them."""

    def __init__(self, database: Database) -> None:
        self.store = Monitored(database)
        self.writer = self.store.engine
        self.reader = open_readonly(database.url, home=database.home)

    def add(self, conn: Connection | None = None, **values: Any) -> int:
        """An event that happened now; its id."""
        row = {"time": NOW, "type": "system", "severity": 2, "text": "something", **values}
        if conn is None:
            with self.writer.begin() as own:
                return self.add(own, **values)
        key = conn.execute(insert(schema.event).values(row)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def list(self, page: int = 500) -> EventList:
        return EventList(self.reader, self.store.layout, page)

    def newest(
        self, wanted: Wanted = ALL, limit: int = 50, since: int = NOW - DAY, page: int = 500
    ) -> list[EventRecord]:
        return list(self.list(page).newest(wanted, limit, since))

    def tail(self, wanted: Wanted = ALL) -> EventTail:
        return EventTail(self.list(), wanted, 0.0)


@pytest.fixture
def told(database: Database) -> Iterator[Told]:
    told = Told(database)
    yield told
    told.reader.dispose()


def ids(records: Iterator[EventRecord] | list[EventRecord]) -> list[int]:
    return [record.id for record in records]


class TestNewest:
    def test_an_event_is_told_as_people_read_it(self, told: Told) -> None:
        agent = told.store.agent(entities.encode("web <1>"))
        told.store.set(schema.agent, agent, alias=entities.encode("Wéb & Co"))
        module = told.store.module(agent, entities.encode("Load avg"))
        key = told.add(
            agent_id=agent,
            module_id=module,
            type="going_up_critical",
            severity=4,
            status=1,
            text=entities.encode("Module 'Load avg' is going to CRITICAL (5)\n\x1b[2J"),
            data=entities.encode("5 %"),
        )
        assert told.newest() == [
            EventRecord(
                id=key,
                time=NOW,
                severity=4,
                type="going_up_critical",
                state=1,
                agent_id=agent,
                agent="web <1>",
                alias="Wéb & Co",
                module_id=module,
                module="Load avg",
                text="Module 'Load avg' is going to CRITICAL (5)\n\x1b[2J",
                data="5 %",
            )
        ]

    def test_the_newest_come_last_and_no_more_than_asked_for(self, told: Told) -> None:
        keys = [told.add() for _ in range(7)]
        assert ids(told.newest(limit=3)) == keys[-3:]
        assert ids(told.newest(limit=7)) == ids(told.newest(limit=8)) == keys
        assert told.newest(limit=0) == []

    def test_pages_of_any_length_give_the_same(self, told: Told) -> None:
        keys = [told.add(severity=number % 2) for number in range(14)]
        odd = Wanted(severities=frozenset({1}))
        for page in (1, 3, 6, 7, 8):
            assert ids(told.newest(odd, page=page)) == keys[1::2], page
            assert ids(told.newest(odd, limit=4, page=page)) == keys[1::2][-4:], page

    def test_what_is_older_is_left_out(self, told: Told) -> None:
        told.add(time=NOW - 100)
        # A clock that went wrong for a moment: in the middle by id, at the end by time.
        first, old, last = told.add(), told.add(time=NOW - 100), told.add(time=NOW + 5)
        assert ids(told.newest(since=NOW)) == [first, last]
        assert old not in ids(told.newest(since=NOW - 99))
        assert told.newest(since=NOW + 6) == []

    def test_what_is_asked_for_is_what_comes(self, told: Told) -> None:
        agent, other = told.store.agent(), told.store.agent("other")
        module = told.store.module(agent, "load")
        new = told.add(agent_id=agent, type="new_agent")
        closed = told.add(agent_id=agent, module_id=module, type="going_up_warning", status=1)
        worked = told.add(agent_id=other, type="error", severity=4, status=2)
        for wanted, keys in [
            (ALL, [new, closed, worked]),
            (Wanted(agent_id=agent), [new, closed]),
            (Wanted(agent_id=agent, module_id=module), [closed]),
            (Wanted(types=frozenset({"error", "new_agent"})), [new, worked]),
            (Wanted(severities=frozenset({4})), [worked]),
            (Wanted(open_only=True), [new, worked]),
            (Wanted(agent_id=agent, open_only=True), [new]),
            (Wanted(agent_id=other, types=frozenset({"new_agent"})), []),
        ]:
            assert ids(told.newest(wanted)) == keys

    def test_who_is_not_there_any_more_is_not_named(self, told: Told) -> None:
        told.add(agent_id=77, module_id=78)
        (record,) = told.newest()
        assert (record.agent, record.alias, record.module) == (None, None, None)
        assert (record.agent_id, record.module_id) == (77, 78)

    # What decides is the table's indexes.
    @pytest.mark.parametrize("database", KINDS, indirect=True)
    def test_the_past_is_not_read(self, told: Told) -> None:
        """As many rows as a plan of MariaDB and SQLite takes seriously."""
        rows = [
            {
                "time": NOW - 5_000 + number,
                "type": "error" if number % 100 == 0 else "system",
                "agent_id": number % 50,
                "module_id": number % 500,
                "status": number % 2,
            }
            for number in range(5_000)
        ]
        with told.writer.begin() as conn:
            conn.execute(insert(schema.event), rows)
            if told.store.layout.dialect != "sqlite":
                conn.execute(text("ANALYZE TABLE tevento"))
        bad = re.compile(r"SCAN|SEARCH tevento$|'type': '(ALL|index)'")
        for wanted in (
            ALL,
            Wanted(agent_id=3),
            Wanted(agent_id=3, module_id=5),
            Wanted(types=frozenset({"error"})),
            Wanted(open_only=True),
        ):
            assert [plan for plan in _plans(told, wanted) if bad.search(plan)] == [], wanted


def _plans(told: Told, wanted: Wanted) -> Iterator[str]:
    """How the database reads its events for a list of the last minute."""
    sent: list[tuple[str, Any]] = []
    reader: Engine = told.reader

    @event.listens_for(reader, "before_cursor_execute")
    def note(_conn: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
        sent.append((statement, given))

    told.newest(wanted, since=NOW - 60)
    event.remove(reader, "before_cursor_execute", note)
    # The highest id alone is the end of the index, which plans call by other names.
    queries = [each for each in sent if "tevento" in each[0] and "WHERE" in each[0]]
    first, *others = [statement for statement, _ in queries]
    assert "utimestamp >=" in first
    assert len(others) >= 2
    # Whichever index is chosen: none leads beyond the span.
    assert all(re.search("id_evento >=? ", statement) for statement in others)
    prefix = "EXPLAIN QUERY PLAN " if told.store.layout.dialect == "sqlite" else "EXPLAIN "
    with told.writer.connect() as conn:
        for statement, given in queries:
            for step in conn.exec_driver_sql(prefix + statement, given).mappings():
                if "tevento" in str(step.get("detail", step.get("table"))):
                    yield str(step.get("detail") or dict(step))


def test_types_that_came_after_us_are_told(pandora_database: Database) -> None:
    told = Told(pandora_database)
    with told.writer.begin() as conn:
        conn.execute(text("ALTER TABLE tevento MODIFY event_type enum('system', 'telepathy')"))
        conn.execute(text("ALTER TABLE tevento DROP data"))
        conn.execute(text(f"INSERT INTO tevento SET event_type = 'telepathy', utimestamp = {NOW}"))
    told.store.layout = inspect(told.reader)
    (record,) = told.newest()
    assert (record.type, record.text, record.data) == ("telepathy", "", "")
    told.reader.dispose()


def test_a_database_without_events_says_so(pandora_database: Database) -> None:
    engine = pandora_database.engine()
    with engine.begin() as conn:
        conn.execute(text("DROP TABLE tevento"))
    with pytest.raises(SchemaError, match="no table tevento"):
        EventList(engine, inspect(engine))


class TestTail:
    def test_each_event_comes_once_and_in_order(self, told: Told) -> None:
        told.add()
        tail = told.tail()
        assert ids(tail.look(1)) == []
        keys = [told.add(), told.add()]
        assert ids(tail.look(2)) == keys
        assert ids(tail.look(3)) == []

    def test_it_begins_with_the_newest_and_goes_on_after_them(self, told: Told) -> None:
        keys = [told.add() for _ in range(3)]
        tail = told.tail()
        # One that comes between the two, and one that comes while they are printed.
        keys.append(told.add())
        shown = []
        for record in tail.newest(2, NOW - DAY, 0):
            shown.append(record.id)
            if len(shown) == 2:
                keys.append(told.add())
        assert shown == keys[2:4]
        assert ids(tail.look(1)) == keys[4:]

    def test_only_what_is_asked_for(self, told: Told) -> None:
        tail = told.tail(Wanted(types=frozenset({"error"})))
        told.add()
        key = told.add(type="error")
        assert ids(tail.look(1)) == [key]

    def test_many_at_once_are_many_pages(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dataserver.store.read.events.PAGE", 2)
        for page in (1, 3):
            monkeypatch.setattr("dataserver.store.read.events._IDS", page)
            with told.writer.begin() as conn:
                conn.execute(delete(schema.event))
            tail = told.tail()
            keys = [told.add() for _ in range(10)]
            assert ids(tail.look(1)) == keys, page

    def test_a_gap_below_several_pages_is_closed_without_telling_them_again(
        self, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dataserver.store.read.events._IDS", 3)
        told.add(id=1)
        tail = told.tail()
        keys = [told.add(id=key) for key in range(3, 15)]
        assert ids(tail.look(1)) == keys
        told.add(id=2)
        assert ids(tail.look(2)) == [2]

    @several_writers
    def test_what_commits_late_is_not_missed(self, told: Told) -> None:
        tail = told.tail()
        with told.writer.connect() as slow:
            late = told.add(slow)
            early = [told.add(), told.add()]
            assert ids(tail.look(1)) == early
            assert ids(tail.look(PATIENCE - 1)) == []
            slow.commit()
        assert early[0] > late
        assert ids(tail.look(PATIENCE)) == [late]
        assert ids(tail.look(PATIENCE + 1)) == []

    @several_writers
    def test_what_was_under_way_at_the_start_is_not_missed(self, told: Told) -> None:
        with told.writer.connect() as slow:
            late = told.add(slow)
            early = told.add()
            tail = told.tail()
            assert ids(tail.newest(10, NOW - DAY, 0)) == [early]
            slow.commit()
        assert ids(tail.look(1)) == [late]
        assert ids(tail.look(2)) == []

    def test_what_committed_while_the_database_was_away_is_not_missed(self, told: Told) -> None:
        told.add(id=10)
        tail = told.tail()
        told.add(id=12)
        assert ids(tail.look(1)) == [12]
        # No look for an hour, and with the first one it is there.
        told.add(id=11)
        assert ids(tail.look(3_600)) == [11]
        assert ids(tail.look(3_601)) == []

    def test_patience_ends_and_with_it_the_price_of_a_gap(self, told: Told) -> None:
        told.add(id=10)
        tail = told.tail()
        told.add(id=12)
        assert ids(tail.look(1)) == [12]
        assert tail.remembered > 0
        told.add(id=13)
        assert ids(tail.look(1 + PATIENCE)) == [13]
        assert tail.remembered == 0
        told.add(id=11)
        assert ids(tail.look(2 + PATIENCE)) == []

    def test_a_storm_with_gaps_is_remembered_only_so_far(
        self, told: Told, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "_MOST", 5)
        tail = told.tail()
        keys = [told.add(id=number) for number in range(10, 40, 3)]
        assert ids(tail.look(1)) == keys
        assert tail.remembered == 5
        assert ids(tail.look(2)) == []
        told.add(id=keys[-1] - 1)
        assert ids(tail.look(3)) == [keys[-1] - 1]

    def test_ids_that_are_used_again_are_new(self, told: Told) -> None:
        for number in range(5, 9):
            told.add(id=number)
        tail = told.tail()
        for gone in (schema.event.c.id > 6, schema.event.c.id > 0):
            with told.writer.begin() as conn:
                conn.execute(delete(schema.event).where(gone))
            assert ids(tail.look(1)) == []
            told.add(id=7)
            assert ids(tail.look(2)) == [7]
            assert ids(tail.look(3)) == []


def test_a_tail_goes_on_where_it_was_when_the_database_comes_back(
    mariadb_database: Database,
) -> None:
    told = Told(mariadb_database)
    tail = told.tail()
    told.add()
    mariadb_database.kill()
    with pytest.raises(StoreUnavailable):
        list(tail.look(1))
    mariadb_database.restart()
    told.writer.dispose()
    told.add()
    assert len(list(tail.look(2))) == 2
    assert list(tail.look(3)) == []
    told.reader.dispose()

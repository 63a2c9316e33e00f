"""Reading back: points page by page, lists of agents and modules, finding them by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text, update

from dataserver.errors import UsageError
from dataserver.rules import entities
from dataserver.rules.series import steps
from dataserver.rules.status import Status
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import Layout, inspect
from dataserver.store.read.agents import choose_module, find_agent
from dataserver.store.read.history import History
from dataserver.store.read.modules import AgentRecord, Counts, ModuleRecord, agents, modules
from tests.support.databases import Database
from tests.support.ingest import NOW, ZONE, Ingest
from tests.support.packets import START, Value, arrival_at


@pytest.fixture
def ingest(database: Database) -> Ingest:
    return Ingest(database)


@pytest.fixture
def engine(database: Database, ingest: Ingest) -> Iterator[Engine]:
    """The database as reading commands open it."""
    readonly = open_readonly(database.url, home=database.home)
    yield readonly
    readonly.dispose()


@pytest.fixture
def layout(ingest: Ingest) -> Layout:
    return ingest.recorder.layout


def module_id(engine: Engine, name: str) -> int:
    c = schema.module.c
    with engine.connect() as conn:
        return conn.execute(select(c.id).where(c.name == entities.encode(name))).scalar_one()


def read(
    engine: Engine, layout: Layout, name: str, start: int, end: int, page: int = 5_000
) -> list[tuple[int, float | str]]:
    """(Seconds after the start, value) of a module's points."""
    history = History(engine, layout, page)
    found = history.points(module_id(engine, name), START + start, START + end)
    return [(time - START, value) for time, value in found]


class TestPoints:
    @pytest.fixture(autouse=True)
    def _hour(self, ingest: Ingest) -> None:
        """Two modules change every minute of an hour, in the same and in different tables."""
        numbers = ({"load": str(minute), "other": str(-minute)} for minute in range(60))
        texts = ({"state": f"s{minute}"} for minute in range(60))
        ingest.record(
            [
                *(arrival_at(minute, values) for minute, values in enumerate(numbers)),
                *(
                    arrival_at(minute, values, types="_string", version="2")
                    for minute, values in enumerate(texts)
                ),
            ]
        )

    def test_a_span_has_the_last_point_before_it_and_those_inside(
        self, engine: Engine, layout: Layout
    ) -> None:
        assert read(engine, layout, "load", 150, 300) == [
            (120, 2.0),
            (180, 3.0),
            (240, 4.0),
            (300, 5.0),
        ]

    def test_text_is_read_from_its_own_table(self, engine: Engine, layout: Layout) -> None:
        assert read(engine, layout, "state", 60, 120) == [(60, "s1"), (120, "s2")]

    def test_before_the_first_point_there_is_none(self, engine: Engine, layout: Layout) -> None:
        assert read(engine, layout, "load", -600, -1) == []

    def test_after_the_last_point_there_is_the_one_that_holds(
        self, engine: Engine, layout: Layout
    ) -> None:
        assert read(engine, layout, "load", 86_400, 90_000) == [(3540, 59.0)]

    def test_pages_of_any_length_give_the_same(self, engine: Engine, layout: Layout) -> None:
        whole = read(engine, layout, "load", -1, 4000)
        assert len(whole) == 60
        for page in (1, 7, 59, 60):
            assert read(engine, layout, "load", -1, 4000, page) == whole, page

    def test_nothing_is_read_but_through_an_index(self, engine: Engine, layout: Layout) -> None:
        sent: list[tuple[str, Any]] = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(_conn: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
            sent.append((statement, given))

        key = module_id(engine, "load")
        list(History(engine, layout, 10).points(key, START + 60, START + 1800))
        queries = [(statement, given) for statement, given in sent if "datos" in statement]
        assert len(queries) >= 6
        prefix = "EXPLAIN QUERY PLAN " if layout.dialect == "sqlite" else "EXPLAIN "
        with engine.connect() as conn:
            for statement, given in queries:
                plan = conn.exec_driver_sql(prefix + statement, given).mappings().all()
                assert not re.search("SCAN|'type': 'ALL'|filesort", str(plan)), statement


class TestSeconds:
    def test_points_of_one_second_stay_in_order_and_whole_on_any_page(
        self, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        stamp = "2026/01/01 00:00:10"
        burst: Value = [(str(value), stamp) for value in range(5)]
        ingest.record([arrival_at(1, {"burst": burst})])
        expected = [(10, float(value)) for value in range(5)]
        for page in range(1, 8):
            assert read(engine, layout, "burst", 0, 60, page) == expected
        assert read(engine, layout, "burst", 10, 60) == [(10, 4.0)]

    def test_a_module_whose_packets_changed_their_type_has_points_of_both(
        self, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        for minute, (value, types) in enumerate(
            [("1", ""), ("up", "_string"), ("2", ""), ("down", "_string")]
        ):
            ingest.record([arrival_at(minute, {"mixed": value}, types=types)])
        whole = [(0, 1.0), (60, "up"), (120, 2.0), (180, "down")]
        assert read(engine, layout, "mixed", 0, 600) == whole
        path = steps(iter(whole), 130, 600)
        assert list(path) == [(130, 2.0), (180, "down")]


def test_late_packets_read_back_as_what_they_carried(
    engine: Engine, layout: Layout, ingest: Ingest
) -> None:
    carried = {0: "1", 1: "1", 2: "5", 3: "1", 4: "1", 5: "7", 6: "7", 7: "1"}
    for minute in (0, 7, 3, 5, 1, 6, 2, 4):
        ingest.record([arrival_at(minute, {"load": carried[minute]})])
    key = module_id(engine, "load")
    history = History(engine, layout)
    for minute, value in carried.items():
        time = START + 60 * minute
        assert list(steps(history.points(key, time, time), time, time)) == [(time, float(value))]


def all_agents(engine: Engine, layout: Layout) -> list[AgentRecord]:
    with engine.connect() as conn:
        return list(agents(conn, layout, ZONE))


def modules_of(engine: Engine, layout: Layout, name: str) -> dict[str, ModuleRecord]:
    with engine.connect() as conn:
        found = modules(conn, layout, ZONE, find_agent(conn, name).id)
        return {module.name: module for module in found}


def _set_state(
    database: Database, layout: Layout, engine: Engine, name: str, **values: int
) -> None:
    key = modules_of(engine, layout, "web1")[name].id
    with database.engine().begin() as conn:
        conn.execute(update(schema.state).where(schema.state.c.module_id == key).values(**values))


class TestListing:
    def test_agents_are_told_with_their_names_as_people_write_them(
        self, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        root = {"agent_alias": "Wéb & Co", "group": "Servers", "interval": "60", "agent_mode": "2"}
        ingest.record([arrival_at(5, {"a": "1", "b": "2"}, agent="we b<1>", **root)])
        ingest.record([arrival_at(1, {}, agent="alone")])
        alone, web = all_agents(engine, layout)
        assert web == AgentRecord(
            id=web.id,
            name="we b<1>",
            alias="Wéb & Co",
            group="Servers",
            os="Linux",
            contact=NOW,
            packet_time=START + 300,
            modules=2,
            interval=60,
            mode=2,
            disabled=False,
            quiet=False,
            counts=Counts(0, 0, 0, normal=2, not_initialised=0, total=2),
        )
        assert (alone.name, alone.alias, alone.modules, alone.interval) == (
            "alone",
            "alone",
            0,
            300,
        )

    def test_modules_are_told_with_their_newest_value(
        self, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        for minute in range(3):
            ingest.record([arrival_at(minute, {"load": "1,5"})])
        ingest.record([arrival_at(3, {"state": "1.50"}, types="_string")])
        ingest.record([arrival_at(4, {"counter": "7"}, types="_inc")])
        found = modules_of(engine, layout, "web1")
        load = found["load"]
        assert (load.value, load.time, load.saved) == (1.5, START + 120, START)
        assert (load.type, load.interval, load.disabled) == ("generic_data", 300, False)
        assert found["state"].value == "1.50"
        assert (found["counter"].value, found["counter"].time) == (None, None)

    def test_an_agent_has_the_status_of_its_worst_module(
        self, database: Database, layout: Layout, ingest: Ingest
    ) -> None:
        ingest.record([arrival_at(0, {"a": "1"})])
        names = ("critical_count", "warning_count", "unknown_count", "normal_count")
        counted: dict[str, int] = dict.fromkeys((*names, "notinit_count"), 1)
        worse = (Status.CRITICAL, Status.WARNING, Status.UNKNOWN, Status.NORMAL)
        engine = database.engine()
        for status, name in zip((*worse, Status.NOT_INITIALISED), (*names, ""), strict=True):
            with engine.begin() as conn:
                conn.execute(update(schema.agent).values(**counted, total_count=9, quiet=1))
            (agent,) = all_agents(engine, layout)
            assert agent.status is status
            counted[name or "notinit_count"] = 0
        assert (agent.quiet, agent.counts) == (True, Counts(0, 0, 0, 0, 1, 9))

    def test_a_module_tells_its_status_and_what_flip_flop_holds_back(
        self, database: Database, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        ingest.record([arrival_at(minute, {"load": "1", "new": "2"}) for minute in range(2)])
        load = modules_of(engine, layout, "web1")["load"]
        assert (load.status, load.pending, load.since) == (Status.NORMAL, None, START)
        changed = {"status": Status.WARNING, "last_status": Status.CRITICAL}
        _set_state(database, layout, engine, "load", last_status_change=7, **changed)
        # A row as Pandora's console makes it: no value yet, and nothing that could be pending.
        unknown = {"status": Status.NOT_INITIALISED, "last_status": Status.NORMAL}
        _set_state(database, layout, engine, "new", last_status_change=0, **unknown)
        found = modules_of(engine, layout, "web1")
        load, new = found["load"], found["new"]
        assert (load.status, load.pending, load.since) == (Status.WARNING, Status.CRITICAL, 7)
        assert (new.status, new.pending, new.since) == (Status.NOT_INITIALISED, None, None)

    def test_columns_that_an_existing_database_lacks_are_not_told(
        self, pandora_database: Database
    ) -> None:
        Ingest(pandora_database).record([arrival_at(0, {"load": "1"})])
        engine = pandora_database.engine()
        with engine.begin() as conn:
            conn.execute(text("ALTER TABLE tagente DROP total_count, DROP quiet"))
            conn.execute(text("ALTER TABLE tagente_modulo DROP quiet"))
            conn.execute(text("ALTER TABLE tagente_estado DROP last_status_change"))
        layout = inspect(engine)
        (agent,) = all_agents(engine, layout)
        assert (agent.status, agent.counts, agent.quiet) == (None, None, False)
        load = modules_of(engine, layout, "web1")["load"]
        assert (load.status, load.since, load.quiet) == (Status.NORMAL, None, False)

    def test_a_module_that_is_to_be_deleted_is_gone(
        self, database: Database, engine: Engine, layout: Layout, ingest: Ingest
    ) -> None:
        ingest.record([arrival_at(0, {"stays": "1", "goes": "1"})])
        c = schema.module.c
        with database.engine().begin() as conn:
            conn.execute(update(schema.module).where(c.name == "goes").values(delete_pending=1))
        assert list(modules_of(engine, layout, "web1")) == ["stays"]
        assert all_agents(engine, layout)[0].modules == 1

    def test_a_time_of_zeros_is_never(
        self, pandora_database: Database, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        Ingest(pandora_database).record([arrival_at(0, {"load": "1"})])
        engine = pandora_database.engine()
        with engine.begin() as conn:
            conn.execute(text("SET SESSION sql_mode = ''"))
            conn.execute(text("UPDATE tagente SET ultimo_contacto_remoto = '0000-00-00'"))
        (agent,) = all_agents(engine, inspect(engine))
        assert agent.packet_time is None


class TestFindAgent:
    @pytest.fixture(autouse=True)
    def _agents(self, ingest: Ingest) -> None:
        aliases = {
            "web 1": "Front",
            "web 2": "Twin",
            "web 3": "Twin",
            "Front": "Back",
            "db1": "Straße",
        }
        ingest.record(
            [arrival_at(0, {}, agent=name, agent_alias=alias) for name, alias in aliases.items()]
        )

    def test_by_name_or_alias(self, engine: Engine) -> None:
        named = {"web 1": "web 1", "WEB 1": "web 1", "Back": "Front", "straße": "db1"}
        with engine.connect() as conn:
            assert {typed: find_agent(conn, typed).name for typed in named} == named

    def test_a_name_goes_before_an_alias(self, engine: Engine) -> None:
        with engine.connect() as conn:
            assert [find_agent(conn, typed).name for typed in ("Front", "front")] == ["Front"] * 2

    def test_an_alias_of_several_names_them(self, engine: Engine) -> None:
        with engine.connect() as conn, pytest.raises(UsageError, match="'web 2', 'web 3'"):
            find_agent(conn, "Twin")

    def test_an_unknown_one_is_told_what_is_near(self, engine: Engine) -> None:
        with engine.connect() as conn, pytest.raises(UsageError, match="did you mean 'web 1'"):
            find_agent(conn, "web-1")

    def test_where_nothing_is_near_some_are_named(self, engine: Engine) -> None:
        with (
            engine.connect() as conn,
            pytest.raises(UsageError, match=r"there are .* and \d+ more"),
        ):
            find_agent(conn, "qqqqqqqqqqqq")

    def test_no_text_is_anything_but_a_name(self, engine: Engine) -> None:
        for typed in ("' OR 1=1 --", "%", "", "a\0b", "x" * 5000):
            with engine.connect() as conn, pytest.raises(UsageError):
                find_agent(conn, typed)


def record_of(number: int, name: str) -> ModuleRecord:
    return ModuleRecord(
        number, name, None, None, "", None, None, 0, "", False, False, None, None, None
    )


class TestChooseModule:
    MODULES = (record_of(1, "Load avg"), record_of(2, "disk"), record_of(3, "DISK"))

    def test_case_matters_only_where_it_must(self) -> None:
        chosen = {"load AVG": 1, "disk": 2, "DISK": 3}
        assert {typed: choose_module(typed, self.MODULES).id for typed in chosen} == chosen

    def test_two_that_differ_in_case_are_both_named(self) -> None:
        with pytest.raises(UsageError, match="there are 'DISK', 'disk'"):
            choose_module("Disk", self.MODULES)

    def test_of_two_with_one_name_the_older_counts(self) -> None:
        assert choose_module("a", [record_of(9, "a"), record_of(4, "a")]).id == 4

    def test_an_unknown_one_is_told_what_is_near(self) -> None:
        with pytest.raises(UsageError, match="did you mean 'Load avg'"):
            choose_module("load", self.MODULES)

    def test_an_agent_without_modules_says_just_that(self) -> None:
        with pytest.raises(UsageError) as caught:
            choose_module("load", [])
        assert caught.value.hint is None


class TestNewest:
    @pytest.fixture(autouse=True)
    def _values(self, ingest: Ingest) -> None:
        """A number of each minute, some in one second, and a text of the third."""
        ingest.record([arrival_at(minute, {"load": str(minute)}) for minute in range(7)])
        stamp = "2026/01/01 00:07:00"
        ingest.record([arrival_at(7, {"load": [(str(value), stamp) for value in (7, 8, 9)]})])

    def test_the_newest_points_come_in_order_on_any_page(
        self, engine: Engine, layout: Layout
    ) -> None:
        load = module_id(engine, "load")
        whole = [(time - START, value) for time, value in _all(engine, layout, load)]
        assert [value for _, value in whole] == [*map(float, range(10))]
        for page in (1, 2, 50):
            history = History(engine, layout, page)
            for most in (1, 2, 4, 9, 10, 50):
                newest = history.newest(load, most, START + 86_400)
                assert [(time - START, value) for time, value in newest] == whole[-most:]

    def test_what_is_after_the_end_is_not_read(self, engine: Engine, layout: Layout) -> None:
        newest = History(engine, layout).newest(module_id(engine, "load"), 2, START + 179)
        assert newest == [(START + 60, 1.0), (START + 120, 2.0)]

    def test_the_first_point_is_found(self, engine: Engine, layout: Layout) -> None:
        assert History(engine, layout).first(module_id(engine, "load")) == START

    def test_a_module_without_points_has_none(self, engine: Engine, layout: Layout) -> None:
        history = History(engine, layout)
        assert history.first(0) is None
        assert history.newest(0, 5, START) == []


def _all(engine: Engine, layout: Layout, key: int) -> list[tuple[int, float | str]]:
    return list(History(engine, layout).points(key, START - 1, START + 86_400))

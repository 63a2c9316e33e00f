"""Agents as a list: which are found, in which order, page after page, and counted by status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select

from dataserver.rules import entities
from dataserver.rules.status import Status
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.read.agents import AgentPage, Order, WantedAgents, agent_page, groups
from dataserver.store.read.modules import agent as agent_by_id
from dataserver.store.read.modules import agents_query, module_names, some_modules
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database
from tests.support.ingest import ZONE
from tests.support.monitored import NOW, UNKNOWN, Monitored, text

#: How an agent stands, as its row counts its modules; each has one module of the status at least.
STANDINGS: tuple[dict[str, int], ...] = (
    {"normal_count": 3},
    {"critical_count": 1, "warning_count": 2},
    {"warning_count": 1, "normal_count": 9},
    {"unknown_count": 1, "normal_count": 1},
    {"notinit_count": 1},
)
WORST = (
    Status.NORMAL,
    Status.CRITICAL,
    Status.WARNING,
    Status.UNKNOWN,
    Status.NOT_INITIALISED,
)
GRAVITY = (
    Status.CRITICAL,
    Status.WARNING,
    Status.UNKNOWN,
    Status.NORMAL,
    Status.NOT_INITIALISED,
)


class Listed:
    """One database with agents, and its list of them."""

    def __init__(self, database: Database) -> None:
        self.store = Monitored(database)
        with self.store.engine.begin() as conn:
            # A Pandora database may come with some.
            conn.execute(delete(schema.agent))

    @property
    def layout(self) -> Layout:
        return self.store.layout

    def add(self, name: str, alias: str | None = None, **values: Any) -> int:
        """An agent of this name, as people read it."""
        row = {"group_id": 10, "mode": 1, "contact": text(NOW), **values}
        row["alias"] = entities.encode(name if alias is None else alias)
        return self.store.insert(schema.agent, name=entities.encode(name), **row)

    def page(self, first: int = 0, size: int = 100, **wanted: Any) -> AgentPage:
        with self.store.engine.connect() as conn:
            return agent_page(conn, self.layout, ZONE, WantedAgents(**wanted), first, size)

    def found(self, search: str, **wanted: Any) -> list[str]:
        """The names of those that a search finds."""
        return names(self.page(text=search, **wanted))

    def fill(self, number: int) -> None:
        """So many agents, of all standings, in three groups, some of them heard of at once."""
        rows = [
            {
                "name": f"host-{place:03}",
                "alias": f"Host {place % 7}",
                "group_id": (2, 8, 10)[place % 3],
                "contact": text(NOW - place % 4 * 60),
                "mode": 1,
                **dict.fromkeys(
                    ("normal_count", "critical_count", "warning_count", "unknown_count"), 0
                ),
                "notinit_count": 0,
                **STANDINGS[place % 5],
            }
            for place in range(number)
        ]
        with self.store.engine.begin() as conn:
            conn.execute(insert(schema.agent), rows)


@pytest.fixture
def listed(database: Database) -> Listed:
    return Listed(database)


def names(page: AgentPage) -> list[str]:
    return [agent.name for agent, _ in page.agents]


class TestSearch:
    def test_name_and_alias_are_searched_whatever_the_case(self, listed: Listed) -> None:
        listed.add("web1.example.org", "Shop window")
        listed.add("db1.example.org", "Store room")
        assert listed.found("WEB1") == ["web1.example.org"]
        assert listed.found("store R") == ["db1.example.org"]
        assert listed.found("window") == ["web1.example.org"]
        assert len(listed.found("example.org")) == 2
        assert listed.found("nobody") == []

    def test_letters_beyond_ascii_have_case_too(self, listed: Listed) -> None:
        listed.add("one", "Im BÜRO")
        listed.add("two", "Im Büro")
        listed.add("three", "Im Burgo")
        for search in ("büro", "BÜRO", "Büro", "ürO"):
            assert sorted(listed.found(search)) == ["one", "two"]

    def test_the_entities_of_a_stored_name_are_not_found(self, listed: Listed) -> None:
        listed.add("a b 'c' & <d> \"e\" ü \\ (f)")
        for search in ("20", "x20", "039", "amp", "lt", ";", "quot", "uuml", "92", "40"):
            assert listed.found(search) == []

    def test_names_that_read_like_entities_are(self, listed: Listed) -> None:
        odd = "max20 &#x20; &amp;"
        listed.add(odd)
        listed.add("other one")
        for search in ("20", "x20", "&#x20;", "&amp;", "&"):
            assert listed.found(search) == [odd]

    def test_a_character_that_means_something_to_a_database_stands_for_itself(
        self, listed: Listed
    ) -> None:
        signs = "%_\\'\"</*?[`$"
        for sign in signs:
            listed.add(f"x{sign}y")
        listed.add("xzy")
        for sign in signs:
            assert listed.found(sign) == [f"x{sign}y"]
            assert listed.found(f"x{sign}Y") == [f"x{sign}y"]

    def test_plain_texts_with_an_underscore_do_not_match_any_letter(self, listed: Listed) -> None:
        listed.add("web_1")
        listed.add("webx1")
        assert listed.found("b_1") == ["web_1"]

    def test_an_agent_of_neither_name_nor_alias_is_found_by_no_text(self, listed: Listed) -> None:
        listed.add("", "")
        assert listed.found("a") == []
        assert names(listed.page()) == [""]

    # SQLite is the one that has a limit.
    @pytest.mark.parametrize(
        "database",
        [SQLITE, *(pytest.param(kind, marks=pytest.mark.long) for kind in (MARIADB, PANDORA))],
        indirect=True,
    )
    def test_more_names_are_found_than_a_statement_has_variables(self, listed: Listed) -> None:
        number = 40_000
        rows = [{"name": f"host {place}", "alias": "", "mode": 1} for place in range(number)]
        with listed.store.engine.begin() as conn:
            conn.execute(insert(schema.agent), rows)
        found = listed.page(first=number - 1, text="ost ")
        assert (found.total, len(found.agents)) == (number, 1)


class TestFilters:
    def test_group_status_and_text_are_all_asked_for(self, listed: Listed) -> None:
        listed.fill(60)
        by_name = {agent.name: agent for agent, _ in listed.page().agents}
        found = listed.page(text="Host 3", group_id=8, status=Status.NORMAL)
        places = [at for at in range(60) if at % 7 == 3 and at % 3 == 1 and at % 5 == 0]
        assert names(found) == [f"host-{place:03}" for place in places]
        assert found.total == len(places)
        assert len({by_name[name].group for name in names(found)}) == 1

    def test_an_agent_has_the_status_of_its_worst_module(self, listed: Listed) -> None:
        listed.fill(5)
        assert tuple(status for _, status in listed.page(order=Order.NAME).agents) == WORST
        for agent, status in listed.page().agents:
            assert agent.status is status

    def test_the_counts_are_those_of_the_rows_of_each_status(self, listed: Listed) -> None:
        listed.fill(64)
        whole = listed.page(text="Host", group_id=10)
        assert sum(whole.counts.values()) == whole.total == len(whole.agents)
        for status in Status:
            part = listed.page(text="Host", group_id=10, status=status)
            assert part.counts == whole.counts
            assert part.total == len(part.agents) == whole.counts[status]
            assert {each for _, each in part.agents} <= {status}
            assert names(part) == [agent.name for agent, each in whole.agents if each is status]

    def test_disabled_agents_and_those_without_modules_are_listed(self, listed: Listed) -> None:
        listed.add("off", disabled=1, critical_count=1)
        listed.add("bare")
        found = {agent.name: (agent, status) for agent, status in listed.page().agents}
        assert found["off"][0].disabled
        assert found["off"][1] is Status.CRITICAL
        assert found["bare"][0].modules == 0
        assert found["bare"][1] is Status.NOT_INITIALISED

    def test_a_group_that_nobody_is_in_has_no_agents(self, listed: Listed) -> None:
        listed.fill(3)
        assert listed.page(group_id=99).total == 0
        assert listed.page(group_id=2**63 - 1).agents == ()

    def test_a_database_without_agents_has_an_empty_page(self, listed: Listed) -> None:
        found = listed.page(text="x", status=Status.NORMAL)
        assert found == AgentPage((), dict.fromkeys(GRAVITY, 0), 0)
        with listed.store.engine.connect() as conn:
            assert groups(conn) == ()

    def test_only_groups_with_agents_are_offered_in_order_of_name(self, listed: Listed) -> None:
        g = schema.group
        with listed.store.engine.begin() as conn:
            conn.execute(insert(g).values(id=901, name=entities.encode("zoo <b>")))
            conn.execute(insert(g).values(id=902, name="Aardvarks"))
            conn.execute(insert(g).values(id=903, name="nobody's"))
        listed.add("one", group_id=901)
        listed.add("two", group_id=902)
        listed.add("lost", group_id=77_777)
        with listed.store.engine.connect() as conn:
            assert groups(conn) == ((902, "Aardvarks"), (901, "zoo <b>"))
        found = {agent.name: agent.group for agent, _ in listed.page().agents}
        assert found == {"one": "zoo <b>", "two": "Aardvarks", "lost": None}


class TestOrder:
    def test_pages_have_each_agent_once_in_one_order(self, listed: Listed) -> None:
        # Many share an alias, a status, a time.
        listed.fill(20)
        wrong = []
        for order in Order:
            whole = names(listed.page(order=order))
            assert len(set(whole)) == 20
            for size in (1, 3, 7, 19, 20, 21):
                pages = [listed.page(first, size, order=order) for first in range(0, 21, size)]
                if [name for page in pages for name in names(page)] != whole:
                    wrong.append((order, size))
        assert wrong == []

    def test_by_name_is_by_what_is_shown(self, listed: Listed) -> None:
        listed.add("z", "alpha")
        listed.add("beta", "")
        listed.add("a", "Gamma")
        assert names(listed.page()) == ["z", "beta", "a"]

    def test_the_worst_first_and_of_them_by_name(self, listed: Listed) -> None:
        listed.fill(20)
        found = listed.page(order=Order.STATUS).agents
        keys = [(GRAVITY.index(status), agent.alias, agent.id) for agent, status in found]
        assert keys == sorted(keys)

    def test_by_last_contact_and_of_them_by_name(self, listed: Listed) -> None:
        listed.fill(20)
        for order, sign in ((Order.CONTACT, -1), (Order.SILENT, 1)):
            found = listed.page(order=order).agents
            keys = [(sign * (agent.contact or 0), agent.alias, agent.id) for agent, _ in found]
            assert keys == sorted(keys), order

    def test_who_was_never_heard_of_is_the_longest_silent(self, listed: Listed) -> None:
        listed.add("heard")
        listed.add("never", contact="1970-01-01 00:00:00")
        assert names(listed.page(order=Order.SILENT)) == ["never", "heard"]
        assert listed.page(order=Order.SILENT).agents[0][0].contact is None

    def test_beyond_the_end_there_is_nothing(self, listed: Listed) -> None:
        listed.fill(3)
        found = listed.page(first=3)
        assert (found.agents, found.total) == ((), 3)


class TestModules:
    def test_modules_to_be_deleted_are_not_counted(self, listed: Listed) -> None:
        one, other = listed.add("one"), listed.add("other")
        for number in range(3):
            listed.store.module(one, f"m{number}", delete_pending=number == 0)
        listed.store.module(other, "off", disabled=1)
        assert [agent.modules for agent, _ in listed.page().agents] == [2, 1]
        with listed.store.engine.connect() as conn:
            record = agent_by_id(conn, listed.layout, ZONE, one)
            assert record is not None
            assert record.modules == 2
            found = module_names(conn, listed.layout, one)
            assert [each.name for each in found] == ["m1", "m2"]
            some = agents_query(listed.layout, schema.agent.c.name == "other")
            assert [row.modules for row in conn.execute(some)] == [1]
            assert {row.modules for row in conn.execute(agents_query(listed.layout))} == {1, 2}

    def test_a_module_without_a_state_has_no_status(self, listed: Listed) -> None:
        agent = listed.add("one")
        key = listed.store.module(agent, "silent", status=UNKNOWN)
        bare = listed.store.module(agent, "bare")
        with listed.store.engine.begin() as conn:
            conn.execute(delete(schema.state).where(schema.state.c.module_id == bare))
        with listed.store.engine.connect() as conn:
            found = module_names(conn, listed.layout, agent)
            assert {each.id: each.status for each in found} == {key: Status.UNKNOWN, bare: None}
            records = {each.id: each for each in some_modules(conn, listed.layout, ZONE, [bare])}
        assert (records[bare].status, records[bare].value) == (None, None)

    def test_long_values_are_not_read_as_a_whole(self, listed: Listed) -> None:
        agent = listed.add("one")
        long = "ä" * 1_000_000
        key = listed.store.module(agent, "long", "generic_data_string", value=long)
        with listed.store.engine.connect() as conn:
            [record] = some_modules(conn, listed.layout, ZONE, [key])
        assert isinstance(record.value, str)
        assert len(record.value) <= 4_000
        assert long.startswith(record.value)


@pytest.fixture
def statements(listed: Listed) -> Iterator[Callable[[], list[str]]]:
    """The statements that have gone to the database so far."""
    seen: list[str] = []

    def tell(_c: Any, _u: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(listed.store.engine, "before_cursor_execute", tell)
    yield lambda: [statement for statement in seen if statement.startswith("SELECT")]
    event.remove(listed.store.engine, "before_cursor_execute", tell)


def test_a_page_of_many_asks_as_often_as_a_page_of_few(
    listed: Listed, statements: Callable[[], list[str]]
) -> None:
    listed.fill(200)
    before = len(statements())
    listed.page(size=5, text="host")
    few = len(statements()) - before
    listed.page(size=100, text="host")
    assert len(statements()) - before == 2 * few


def test_columns_that_a_database_lacks_are_not_asked_for(listed: Listed) -> None:
    listed.fill(5)
    lacking = {schema.agent.c.quiet.name, schema.module.c.delete_pending.name}
    columns = {
        table: {name: length for name, length in found.items() if name not in lacking}
        for table, found in listed.layout.found.columns.items()
    }
    found = replace(listed.layout.found, columns=columns)
    old = replace(listed.layout, found=found, _missing={})
    agent = listed.add("modules")
    key = listed.store.module(agent, "m1", delete_pending=1)
    with listed.store.engine.connect() as conn:
        page = agent_page(conn, old, ZONE, WantedAgents(), 0, 100)
        assert [each.id for each in module_names(conn, old, agent)] == [key]
        assert conn.scalar(select(schema.agent.c.id).where(schema.agent.c.id == agent)) == agent
    assert not any(record.quiet for record, _ in page.agents)
    assert len(page.agents) == 6

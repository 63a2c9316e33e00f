"""Agents, an agent and events in the console: what was recorded, whatever it is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import insert, select, text, update

from dataserver.console.pages import agent as agent_view
from dataserver.console.pages import events as events_view
from dataserver.store import schema
from tests.support.consoles import Page, showing
from tests.support.databases import MARIADB, SQLITE, Database, opened
from tests.support.failures import failures
from tests.support.ingest import NOW, Ingest, arrival
from tests.support.packets import module, packet

#: Modules of the agent `many`, and characters of its long text.
MODULES, LONG = 250, 1_000_000
#: Events of the agent `many`: more than two pages.
EVENTS = 2 * events_view.PAGE + 17
HOSTILE = (
    "<script>window.hacked=1</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></textarea><svg onload=alert(1)>",
    "{{7*7}}{% raw %}",
    "\u202etxt.exe\u2066",
    "nul\x00bell\x07esc\x1b[2J",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "javascript:alert(1)",
    "W" * 600,
    "ﷺ" * 100,
    "",
    "   ",
    "\u00a0\u200b",
    "a\nb\r\nc\td",
    "&#xD800;&#0;&#1114112;",
)
#: What no page may contain, whoever sent it: it is not seen, or changes what is.
UNSEEN = {*map(chr, range(0x20)), "\x7f", "\u202e", "\u2066", "\u200b", "\u00a0"} - {"\n"}


class Shown(NamedTuple):
    """A database with agents, and a console of it whose clock stands at :data:`NOW`."""

    client: httpx.Client
    database: Database
    #: Ids by name; those of the hostile ones in their order.
    agents: dict[str, int]
    hostile: list[int]

    def page(self, path: str, code: int = 200) -> Page:
        answer = self.get(path, code)
        assert answer.headers["content-type"].startswith("text/html")
        return Page(answer.text)

    def data(self, path: str, code: int = 200) -> Any:
        return self.get(path, code).json()

    def get(self, path: str, code: int = 200) -> httpx.Response:
        answer = self.client.get(path)
        assert answer.status_code == code, answer.text[:2000]
        return answer


#: What makes pages or takes apart what is asked, whatever the database is.
on_sqlite = pytest.mark.parametrize("shown", [SQLITE], indirect=True)


@pytest.fixture(scope="module", params=[SQLITE, MARIADB])
def shown(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """One for all tests: they only read."""
    root = tmp_path_factory.mktemp("agents")
    with opened(request.param, root) as database:
        _record(database)
        hostile = _put_hostile(database)
        a = schema.agent.c
        with database.engine().connect() as conn:
            agents = {row.name: row.id for row in conn.execute(select(a.name, a.id))}
        with showing(database, root, NOW) as client:
            yield Shown(client, database, agents, hostile)


def _record(database: Database) -> None:
    """`many` sends 250 modules, a long text and one in warning; `quiet` was last heard long ago."""
    ingest = Ingest(database)
    rules = {"unit": "jobs", "min_warning": 100, "max_warning": 0}
    for before in (7200, 3600, 60):
        values = [number / 4 for number in range(MODULES - 1)]
        if before < 7200:
            values[-1] = 500
        modules = [
            module(f"m{number:03}", f"{value}", **rules) for number, value in enumerate(values)
        ]
        long = "é" * (LONG - 1) + f"{before % 7}"
        modules.append(module("long", long, "generic_data_string"))
        ingest.record([_arrival("many", NOW - before, *modules)])
    ingest.record([_arrival("quiet", NOW - 86_400, module("one", "1", "generic_proc"))])
    assert ingest.rejected == []


def _arrival(agent: str, time: int, *modules: str) -> Any:
    """A packet without a time, which is therefore its file's."""
    content = packet(agent, *modules, interval=300, os_name="Linux")
    return arrival(content, file_number=1, modified=time)


def _put_hostile(database: Database) -> list[int]:
    """An agent for each hostile text, which is there wherever a text may be; and many events."""
    engine = database.engine()
    a, m, s, g, e = schema.agent, schema.module, schema.state, schema.group, schema.event
    found = []
    with engine.begin() as conn:
        many = conn.execute(select(a.c.id).where(a.c.name == "many")).scalar_one()
        contact = {"contact": "2027-01-15 07:55:00"}
        conn.execute(update(a).where(a.c.name == "many").values(contact))
        conn.execute(
            insert(e),
            [
                {
                    "agent_id": many,
                    "module_id": 0,
                    "time": NOW - 1000 + number,
                    "type": "system",
                    "severity": 6,
                    "text": f"event {number}",
                }
                for number in range(EVENTS)
            ],
        )
        conn.execute(insert(e).values(agent_id=0, time=NOW, type="error", text="of no agent"))
        for place, evil in enumerate(HOSTILE):
            group = 700 + place
            conn.execute(insert(g).values(id=group, name=evil[:100]))
            conn.execute(insert(schema.os).values(id=group, name=evil[:100], description="-"))
            row = {"name": evil, "alias": evil, "group_id": group, "os_id": group, "mode": 1}
            agent = _id(conn.execute(insert(a).values(**row, **contact)))
            kind = select(schema.module_type.c.id).where(
                schema.module_type.c.name == "generic_data_string"
            )
            module = _id(
                conn.execute(
                    insert(m).values(
                        agent_id=agent,
                        name=evil,
                        unit=evil,
                        description=evil,
                        type_id=conn.execute(kind).scalar_one(),
                        server_kind=1,
                    )
                )
            )
            conn.execute(
                insert(s).values(
                    module_id=module,
                    agent_id=agent,
                    value=evil,
                    local_time="2027-01-15 07:55:00",
                    last_execution_try=NOW - 300,
                    status=0,
                )
            )
            conn.execute(
                insert(e).values(
                    agent_id=agent,
                    module_id=module,
                    time=NOW - 10,
                    type="system",
                    severity=4,
                    text=evil,
                    data=evil[:80],
                )
            )
            conn.execute(
                insert(schema.refused).values(
                    agent_id=agent,
                    key=bytes(16),
                    module=evil,
                    reason=evil[:30],
                    value=evil[:200],
                    count=1,
                    first=NOW,
                    last=NOW,
                )
            )
            found.append(agent)
    return found


def _id(result: Any) -> int:
    return int(result.inserted_primary_key[0])


@pytest.fixture(scope="module")
def hostile_pages(shown: Shown) -> dict[str, Page]:
    """The pages on which the hostile texts are, by their paths."""
    lists = ("/agents", "/agents?sort=status", "/events", "/events?since=-1min")
    paths = [*lists, *(f"/agents/{agent}" for agent in shown.hostile)]
    return {path: shown.page(path) for path in paths}


class TestHostile:
    @on_sqlite
    def test_no_text_becomes_a_tag_or_an_attribute(self, hostile_pages: dict[str, Page]) -> None:
        for path, found in hostile_pages.items():
            assert not {"img", "iframe"} & found.names, path
            assert all(source.startswith("/static/") for source in found.scripts), path
            for _, told in found.tags:
                assert not any(key.startswith("on") or key == "style" for key in told), path
                for key in ("href", "src", "action"):
                    assert (told.get(key) or "/").startswith(("/", "?", "#")), path

    @on_sqlite
    def test_what_is_not_seen_is_written_by_its_number(
        self, hostile_pages: dict[str, Page]
    ) -> None:
        for path, found in hostile_pages.items():
            assert not UNSEEN & set(found.source), path

    @on_sqlite
    def test_every_link_says_something(self, hostile_pages: dict[str, Page]) -> None:
        for path, found in hostile_pages.items():
            assert found.links
            for href, said in found.links:
                assert said.strip(), f"{path}: {href}"

    def test_the_texts_are_shown_as_they_are(
        self, shown: Shown, hostile_pages: dict[str, Page]
    ) -> None:
        for agent, evil in zip(shown.hostile, HOSTILE, strict=True):
            words = hostile_pages[f"/agents/{agent}"].words
            if evil.isprintable() and evil.strip() and "&" not in evil:
                assert words.count(evil[:100]) >= 5
        assert "49" not in hostile_pages[f"/agents/{shown.hostile[3]}"].words

    @on_sqlite
    def test_an_agent_without_a_name_is_said_to_have_none(
        self, shown: Shown, hostile_pages: dict[str, Page]
    ) -> None:
        for agent, evil in zip(shown.hostile, HOSTILE, strict=True):
            if not evil.strip(" "):
                assert "(no name)" in hostile_pages[f"/agents/{agent}"].words
                assert (f"/agents/{agent}", "(no name)") in hostile_pages["/agents"].links

    def test_programs_are_given_the_very_texts(self, shown: Shown) -> None:
        for agent, evil in zip(shown.hostile, HOSTILE, strict=True):
            answer = shown.get(f"/api/agents/{agent}")
            assert answer.headers["content-type"] == "application/json"
            found = answer.json()
            if "&" not in evil:
                assert found["agent"]["name"] == evil
                if "\x00" not in evil:
                    # No packet has that character, and to SQLite's substr() it is the end.
                    assert [row["module"]["value"] for row in found["modules"]] == [evil]
                assert [event["text"] for event in found["events"]] == [evil]
        assert len(shown.data("/api/agents")["rows"]) == len(HOSTILE) + 2
        found = shown.data("/api/events?since=-1min")["events"]
        assert {text for text in HOSTILE if "&" not in text} <= {event["text"] for event in found}

    def test_what_was_asked_is_given_back_as_text(self, shown: Shown) -> None:
        for path in ("/agents", f"/agents/{shown.agents['quiet']}"):
            for evil in HOSTILE:
                if len(evil) > 200:
                    continue
                answer = shown.client.get(path, params={"q": evil})
                assert answer.status_code == 200, evil
                found = Page(answer.text)
                [box] = [told for _, told in found.tags if told.get("name") == "q"]
                assert box["value"] == evil.strip()
                assert all(source.startswith("/static/") for source in found.scripts)
                assert "img" not in found.names


class TestAgent:
    def test_it_shows_what_was_recorded(self, shown: Shown) -> None:
        agent = shown.agents["many"]
        found = shown.data(f"/api/agents/{agent}?q=m003")
        [row] = found["modules"]
        assert row["module"]["value"] == 0.75
        assert row["module"]["time"] == NOW - 60
        assert row["module"]["status"] == "normal"
        words = shown.page(f"/agents/{agent}?q=m003").words
        assert "m003 0.75 jobs" in words
        assert "1 min ago" in words

    def test_a_status_is_there_since_it_changed(self, shown: Shown) -> None:
        agent = shown.agents["many"]
        with shown.database.engine().begin() as conn:
            m, s = schema.module.c, schema.state.c
            key = conn.execute(
                select(m.id).where(m.agent_id == agent, m.name == "m248")
            ).scalar_one()
            since = conn.execute(
                select(s.last_status_change).where(s.module_id == key)
            ).scalar_one()
        [row] = shown.data(f"/api/agents/{agent}?q=m248")["modules"]
        assert (row["module"]["status"], row["module"]["since"]) == ("warning", since)

    def test_its_modules_come_a_hundred_at_a_time(self, shown: Shown) -> None:
        path: str | None = f"/agents/{shown.agents['many']}"
        seen: list[str] = []
        sizes = []
        while path:
            found = shown.page(path)
            rows = found.rows("modules")
            sizes.append(len(rows))
            seen += rows
            path = _next(path, found)
        assert sizes == [100, 100, 50]
        assert len(set(seen)) == MODULES
        record = shown.data(f"/api/agents/{shown.agents['many']}?page=9")
        assert (record["page"], record["pages"], record["total"]) == (3, 3, MODULES)

    @on_sqlite
    def test_what_was_chosen_stays_from_page_to_page(self, shown: Shown) -> None:
        path = f"/agents/{shown.agents['many']}"
        found = shown.page(f"{path}?q=m&status=normal")
        after = found.link("Next")
        assert after is not None
        assert {"q=m", "status=normal", "page=2"} <= set(after.lstrip("?").split("&"))
        # Chips keep the text and begin at the first page.
        chip = next(href for href, said in found.links if said.startswith("critical"))
        assert "q=m" in chip
        assert "page" not in chip

    def test_chips_count_what_they_lead_to(self, shown: Shown) -> None:
        agent = shown.agents["many"]
        m = schema.module
        with shown.database.engine().begin() as conn:
            off = (m.c.agent_id == agent) & (m.c.name == "m001")
            conn.execute(update(m).where(off).values(disabled=1))
        try:
            for query in ("q=", "q=m00", "q=long", "q=nothing"):
                counts = shown.data(f"/api/agents/{agent}?{query}")["counts"]
                for status, count in counts.items():
                    found = shown.data(f"/api/agents/{agent}?{query}&status={status}")
                    assert found["total"] == count
                    assert found["counts"] == counts
            found = shown.data(f"/api/agents/{agent}?q=m001")
            assert (found["total"], sum(found["counts"].values())) == (1, 0)
            assert "disabled" in shown.page(f"/agents/{agent}?q=m001").words
        finally:
            with shown.database.engine().begin() as conn:
                conn.execute(update(m).where(off).values(disabled=0))

    def test_long_values_make_no_long_page(self, shown: Shown) -> None:
        agent = shown.agents["many"]
        found = shown.page(f"/agents/{agent}?q=long")
        assert "characters" in found.words
        assert len(found.source) < 20_000
        assert len(shown.get(f"/agents/{agent}").content) < 250_000
        assert len(shown.get(f"/api/agents/{agent}?page=1").content) < 600_000

    @on_sqlite
    def test_one_that_is_silent_is_said_to_be(self, shown: Shown) -> None:
        agent = shown.agents["quiet"]
        with shown.database.engine().begin() as conn:
            a = schema.agent
            was = conn.execute(select(a.c.contact).where(a.c.id == agent)).scalar_one()
            conn.execute(update(a).where(a.c.id == agent).values(contact="2027-01-15 06:00:00"))
        try:
            assert "Silent for 2 h" in shown.page(f"/agents/{agent}").words
            assert shown.data(f"/api/agents/{agent}")["silent"] == 7200
            [row] = shown.data("/api/agents?q=quiet")["rows"]
            assert row["silent"] == 7200
        finally:
            with shown.database.engine().begin() as conn:
                conn.execute(update(a).where(a.c.id == agent).values(contact=was))

    def test_its_events_are_the_newest_and_lead_to_the_others(self, shown: Shown) -> None:
        agent = shown.agents["many"]
        found = shown.data(f"/api/agents/{agent}")["events"]
        assert len(found) == agent_view.EVENTS
        assert found[0]["time"] > found[-1]["time"]
        link = shown.page(f"/agents/{agent}").link("All events of this agent")
        assert link is not None
        assert {href for href, _ in shown.page(link).links if href.startswith("/agents/")} == {
            f"/agents/{agent}"
        }

    @on_sqlite
    def test_one_that_is_not_there_is_not_found(self, shown: Shown) -> None:
        def check(key: str) -> None:
            path = f"/agents/{key}"
            shown.page(path, 404)
            assert shown.data(f"/api{path}", 404)["error"]
            shown.data(f"/api{path}/access", 404)

        assert failures(check, ["0", "999999999", f"{2**63}", "-1", "1.5"]) == {}


class TestAgents:
    def test_pages_are_gone_through_by_their_links(
        self, shown: Shown, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dataserver.console.pages.agents.PAGE", 4)
        for query in ("", "?sort=status", "?sort=contact", "?status=not_initialised&q=r"):
            path: str | None = f"/agents{query}"
            total = shown.data(f"/api{path}")["total"]
            seen: list[str] = []
            while path:
                found = shown.page(path)
                seen += found.rows("agents")
                path = _next(path, found)
            assert len(seen) == len(set(seen)) == total
        assert total > 4

    @on_sqlite
    def test_a_page_after_the_last_is_the_last(self, shown: Shown) -> None:
        assert shown.data("/api/agents?page=1000000") == shown.data("/api/agents")


class TestEvents:
    def test_pages_are_gone_through_by_their_links(self, shown: Shown) -> None:
        path: str | None = f"/events?agent={shown.agents['many']}&type=system&severity=major&open=1"
        seen: list[str] = []
        while path:
            found = shown.page(path)
            seen += [said for said in found.texts if said.startswith("event ")]
            path = _next(path, found, "Older")
        assert seen == [f"event {number}" for number in range(EVENTS)][::-1]

    def test_those_of_no_agent_can_be_asked_for(self, shown: Shown) -> None:
        found = shown.data("/api/events?agent=0")["events"]
        assert [event["text"] for event in found] == ["of no agent"]
        assert "of no agent" in shown.page("/events?agent=0").words

    @on_sqlite
    def test_what_is_asked_for_is_what_the_form_says(self, shown: Shown) -> None:
        found = shown.page("/events?open=0&type=&severity=&before=&since=")
        boxes = [told for tag, told in found.tags if told.get("name") == "open"]
        assert all("checked" not in told for told in boxes)
        assert found.link("Newest") is None
        assert ("since", "-7d") in [(told.get("name"), told.get("value")) for _, told in found.tags]

    def test_those_of_one_agent_are_shown_however_old(self, shown: Shown) -> None:
        agent = shown.agents["quiet"]
        e = schema.event
        with shown.database.engine().begin() as conn:
            conn.execute(
                insert(e).values(agent_id=agent, time=NOW - 90 * 86_400, type="system", text="old")
            )
        found = shown.data(f"/api/events?agent={agent}")["events"]
        assert "old" in [each["text"] for each in found]
        assert "old" not in [each["text"] for each in shown.data("/api/events")["events"]]

    @on_sqlite
    def test_long_texts_are_cut_on_the_page(self, shown: Shown) -> None:
        found = shown.page("/events?since=-1min")
        long = "W" * 600
        assert f"{long[:300]}… (600 characters)" in found.words.replace(" …", "…")


#: What cannot be asked, and what can be though it is odd.
MISTAKES = (
    "/agents?page=0",
    "/agents?page=-1",
    "/agents?page=1e3",
    "/agents?page=٣",
    "/agents?page=10000000",
    "/agents?status=fine",
    "/agents?status=CRITICAL",
    "/agents?sort=id",
    "/agents?group=x",
    f"/agents?group={2**64}",
    f"/agents?q={'a' * 201}",
    "/agents/{many}?page=x",
    "/agents/{many}?status=4",
    "/agents/{many}?from=10&to=5",
    "/agents/{many}?from=yesterday",
    f"/agents/{{many}}?q={'ä' * 201}",
    "/events?agent=x",
    f"/events?module={2**63}",
    "/events?before=-1",
    "/events?since=never",
    "/events?since=99999999999",
    "/events?type=nothing",
    "/events?severity=9",
)
ODD = (
    "/agents?q=%00",
    "/agents?q=%ff%fe",
    "/agents?q=%ED%A0%80",
    "/agents?q=%25&status=&group=&sort=&page=",
    "/agents?q=a&q=b&nonsense=1",
    f"/agents?group={2**63 - 1}",
    "/agents/{many}?q=%ED%A0%80%00",
    "/agents/{many}?q=%E2%80%AE",
    "/agents/{many}?page=1000000",
    f"/events?agent={2**63 - 1}&module={2**63 - 1}&before={2**63 - 1}",
    "/events?before=0",
    "/events?since=0",
    "/events?since=9999999999",
    "/events?since=2026-12-31 23:59:59",
    "/events?open=maybe",
)


@on_sqlite
def test_what_cannot_be_asked_is_the_askers_mistake(shown: Shown) -> None:
    def check(path: str) -> None:
        path = path.replace("{many}", str(shown.agents["many"]))
        data = path.replace("?", "/access?") if "from=" in path else path
        assert shown.data(f"/api{data}", 400)["error"]
        shown.page(path, 400)

    assert failures(check, MISTAKES) == {}


def test_odd_questions_are_answered(shown: Shown) -> None:
    def check(path: str) -> None:
        path = path.replace("{many}", str(shown.agents["many"]))
        shown.page(path)
        shown.data(f"/api{path}")
        assert shown.client.head(path).status_code == 200

    assert failures(check, ODD) == {}


@pytest.mark.parametrize("kind", [SQLITE, MARIADB])
def test_a_database_without_events_says_so(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as database:
        with database.engine().begin() as conn:
            conn.execute(text(f"DROP TABLE {schema.event.name}"))
            agent = _id(conn.execute(insert(schema.agent).values(name="one", alias="one")))
        with showing(database, tmp_path, NOW) as client:
            for path in ("/events", f"/events?agent={agent}", f"/agents/{agent}"):
                answer = client.get(path)
                assert answer.status_code == 200
                assert (
                    f"no table {schema.event.name}" in answer.text or "no table of" in answer.text
                )
                assert "No such events" not in answer.text
                assert "No events in" not in answer.text
            assert client.get("/api/events").json()["missing"]
            assert client.get(f"/api/agents/{agent}").json()["events"] is None


def _next(path: str, found: Page, words: str = "Next") -> str | None:
    """Where a link of the page leads from there."""
    link = found.link(words)
    return None if link is None else path.partition("?")[0] + link

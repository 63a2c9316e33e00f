"""The console's pages of agents, of an agent and of events, and their twins under /api/."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import insert

from dataserver.console.pages.agents import PAGE
from dataserver.rules import entities
from dataserver.store import schema
from tests.support import exhibits
from tests.support.consoles import showing
from tests.support.databases import KINDS, SQLITE, opened
from tests.support.exhibits import INTERVAL, SCRIPT, Exhibit
from tests.support.failures import failures

DAY = 86_400
#: Not when a packet was sent.
NOW = 1_800_000_123
#: Agents beside the one that sent packets: more than two pages.
MANY = 2 * PAGE + 30
ODD = 'Ünïcode "quoted" <b>&amp; 100%_sure\''


class Open(NamedTuple):
    client: httpx.Client
    shown: Exhibit


@pytest.fixture(scope="module", params=KINDS)
def console(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    """On each kind of store; the clock stands."""
    root = tmp_path_factory.mktemp("pages")
    with opened(request.param, root) as database:
        shown = exhibits.fill(database, NOW)
        with database.engine().begin() as conn:
            conn.execute(insert(schema.agent), list(_agents()))
            conn.execute(insert(schema.event), list(_events(shown)))
        with showing(database, root, shown.end) as client:
            yield Open(client, shown)


#: What makes pages or takes apart what is asked, whatever the database is.
on_sqlite = pytest.mark.parametrize("console", [SQLITE], indirect=True)


def _agents() -> Iterator[dict[str, Any]]:
    for number in range(MANY):
        yield {
            "name": f"host-{number:03}",
            "alias": entities.encode(ODD if number == 7 else f"Host {number:03}"),
            "interval": 300,
            "group_id": 10 if number % 10 else 2,
            "critical_count": int(number == 5),
            "warning_count": int(number in (5, 6)),
            "unknown_count": 0,
            "normal_count": int(number < 20),
            "total_count": 3,
            "disabled": int(number == 9),
        }


def _events(shown: Exhibit) -> Iterator[dict[str, Any]]:
    for number in range(250):
        yield {
            "agent_id": shown.agent,
            "module_id": shown.modules["load"],
            "time": shown.end - 250 + number,
            "type": "ncm" if number == 100 else "system",
            "severity": 6 if number == 100 else 1,
            "text": entities.encode(f"made up {number} {SCRIPT}"),
        }


def page(console: Open, path: str, code: int = 200) -> str:
    answer = console.client.get(path)
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert SCRIPT not in answer.text
    return answer.text


def data(console: Open, path: str, code: int = 200) -> Any:
    answer = console.client.get(path)
    assert answer.status_code == code, answer.text
    return answer.json()


def names(found: Any) -> list[str]:
    return [row["agent"]["name"] for row in found["rows"]]


class TestAgents:
    def test_pages_hold_each_agent_once_in_order_of_what_is_shown(self, console: Open) -> None:
        seen: list[str] = []
        for number in (1, 2, 3):
            found = data(console, f"/api/agents?page={number}")
            assert (found["page"], found["pages"], found["total"]) == (number, 3, MANY + 1)
            seen += [row["agent"]["alias"] or row["agent"]["name"] for row in found["rows"]]
        assert len(seen) == len(set(seen)) == MANY + 1
        assert [name for name in seen if name.startswith("Host ")] == sorted(
            name for name in seen if name.startswith("Host ")
        )
        assert data(console, "/api/agents?page=99")["page"] == 3

    def test_a_search_finds_what_people_read(self, console: Open) -> None:
        expected = {
            "host-123": ["host-123"],
            "HOST 123": ["host-123"],
            "ünï": ["host-007"],
            "ÜNÏCODE": ["host-007"],
            "100%_": ["host-007"],
            "<b>&amp;": ["host-007"],
            "sure'": ["host-007"],
            "nobody": [],
            "x20": [],
            "%": ["host-007"],
        }

        def check(text: str) -> None:
            answer = console.client.get("/api/agents", params={"q": text})
            assert names(answer.json()) == expected[text]
            assert html.escape(text, quote=False).replace("'", "&#39;") in page(
                console, f"/agents?{httpx.QueryParams({'q': text})}"
            )

        assert failures(check, expected) == {}

    def test_counts_are_those_of_the_rows_and_lead_to_them(self, console: Open) -> None:
        counts = data(console, "/api/agents?q=host")["counts"]
        assert counts == {
            "critical": 1,
            "warning": 1,
            "unknown": 0,
            "normal": 18,
            "not_initialised": MANY - 20,
        }
        for status, count in counts.items():
            found = data(console, f"/api/agents?q=host&status={status}")
            assert found["total"] == count
            assert {row["status"] for row in found["rows"]} <= {status}
            assert found["counts"] == counts

    def test_filters_by_group_and_offers_the_groups(self, console: Open) -> None:
        found = data(console, "/api/agents?group=2")
        assert found["total"] == MANY // 10
        assert {group["id"] for group in found["groups"]} >= {2, 10}

    def test_the_worst_come_first_when_asked(self, console: Open) -> None:
        found = data(console, "/api/agents?sort=status&q=host")
        assert names(found)[:2] == ["host-005", "host-006"]

    def test_who_was_heard_of_last_comes_first_or_last(self, console: Open) -> None:
        assert names(data(console, "/api/agents?sort=contact"))[0] == "web1"
        last = data(console, "/api/agents?sort=silent&page=3")
        assert names(last)[-1] == "web1"

    @on_sqlite
    def test_a_page_keeps_what_was_chosen(self, console: Open) -> None:
        text = page(console, "/agents?q=host&sort=status&page=2")
        assert "q=host" in text
        assert "page=3" in text
        assert "sort=status" in text

    @on_sqlite
    def test_what_cannot_be_asked_is_said(self, console: Open) -> None:
        def check(query: str) -> None:
            page(console, f"/agents?{query}", 400)
            assert data(console, f"/api/agents?{query}", 400)["error"]

        odd = ["page=0", "page=x", "status=bad", "sort=bad", "group=x", "q=" + "a" * 300]
        assert failures(check, odd) == {}


class TestAgent:
    def test_it_shows_its_modules_as_they_are(self, console: Open) -> None:
        found = data(console, f"/api/agents/{console.shown.agent}")
        assert found["agent"]["name"] == "web1"
        assert found["silent"] is None
        by_name = {row["module"]["name"]: row for row in found["modules"]}
        assert {row["module"]["id"] for row in found["modules"]} == set(
            console.shown.modules.values()
        )
        assert by_name["load"]["module"]["unit"] == "jobs"
        assert len(by_name["load"]["sparkline"]) == 48
        assert by_name["state"]["sparkline"] is None
        assert found["total"] == sum(found["counts"].values())
        text = page(console, f"/agents/{console.shown.agent}")
        for row in found["modules"]:
            assert f'href="/modules/{row["module"]["id"]}"' in text
        assert 'data-graph="access"' in text
        assert "<polyline" in text
        assert f"/events?agent={console.shown.agent}" in text

    def test_its_modules_are_searched_and_filtered(self, console: Open) -> None:
        path = f"/api/agents/{console.shown.agent}"
        assert [row["module"]["name"] for row in data(console, f"{path}?q=LOA")["modules"]] == [
            "load"
        ]
        for status, count in data(console, path)["counts"].items():
            assert data(console, f"{path}?status={status}")["total"] == count

    def test_its_packets_are_counted_and_its_silence_is_seen(self, console: Open) -> None:
        shown = console.shown
        found = data(
            console,
            f"/api/agents/{shown.agent}/access?from={shown.start}&to={shown.end}&width=100",
        )
        assert found["interval"] == INTERVAL
        assert found["packets"] == exhibits.PACKETS - len(exhibits.LOST)
        assert found["expected"] == exhibits.PACKETS
        [silence] = found["silences"]["spans"]
        assert silence["start"] == shown.start + exhibits.LOST[0] * INTERVAL
        assert silence["end"] == shown.start + (exhibits.LOST[-1] + 1) * INTERVAL

    def test_one_that_was_never_heard_of_is_shown_too(self, console: Open) -> None:
        [row] = data(console, "/api/agents?q=host-003")["rows"]
        assert "No such module" in page(console, f"/agents/{row['agent']['id']}")
        found = data(console, f"/api/agents/{row['agent']['id']}/access")
        assert (found["packets"], found["share"]) == (0, None)

    @on_sqlite
    def test_one_that_is_not_there_is_404(self, console: Open) -> None:
        for path in ("/agents/999999", f"/agents/{10**30}", "/agents/x"):
            page(console, path, 404)
            data(console, f"/api{path}", 404)


class TestEvents:
    def test_pages_go_back_without_gap_or_repeat(self, console: Open) -> None:
        seen: list[int] = []
        older: int | None = None
        while True:
            before = f"&before={older}" if older else ""
            found = data(console, f"/api/events?since=-1h&type=system{before}")
            seen += [event["id"] for event in found["events"]]
            older = found["older"]
            if older is None:
                break
        assert len(seen) == 249
        assert seen == sorted(seen, reverse=True)

    def test_filters_by_type_severity_module_and_time(self, console: Open) -> None:
        for query in ("type=ncm", "severity=major", "type=ncm&severity=major"):
            [event] = data(console, f"/api/events?{query}")["events"]
            assert event["text"] == f"made up 100 {SCRIPT}"
        module = console.shown.modules["load"]
        found = data(console, f"/api/events?module={module}&since=-60s")["events"]
        assert 55 <= len(found) <= 61
        assert {event["module_id"] for event in found} == {module}
        assert data(console, "/api/events?agent=999999")["events"] == []

    @on_sqlite
    def test_texts_are_shown_as_texts(self, console: Open) -> None:
        text = page(console, "/events?type=ncm")
        assert "made up 100 &lt;script&gt;" in text
        assert 'rel="next"' not in text
        assert 'rel="next"' in page(console, "/events")

    @on_sqlite
    def test_what_cannot_be_asked_is_said(self, console: Open) -> None:
        for query in ("type=x", "severity=9", "since=yesterday", "before=x"):
            page(console, f"/events?{query}", 400)

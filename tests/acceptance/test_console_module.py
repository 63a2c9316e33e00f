"""The console's page of a module and what lies under /api/modules, on each kind of database."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from dataserver.logs import printable
from dataserver.store.layout import inspect
from dataserver.store.read.history import History
from tests.support import exhibits
from tests.support.consoles import Page, showing
from tests.support.databases import KINDS, SQLITE, Database, opened
from tests.support.exhibits import HOSTILE, INTERVAL, PACKETS, SCRIPT, Exhibit

DAY = 86_400
#: Not when a packet was sent.
NOW = 1_800_000_123


class Open(NamedTuple):
    """A database with something in it, and a console of it whose clock stands."""

    client: httpx.Client
    database: Database
    shown: Exhibit


@pytest.fixture(scope="module", params=KINDS)
def opened_one(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Open]:
    """On each kind of store in turn, one for all tests: they only read."""
    root = tmp_path_factory.mktemp("shown")
    with opened(request.param, root) as database:
        shown = exhibits.fill(database, NOW)
        with showing(database, root, shown.end) as client:
            yield Open(client, database, shown)


#: What makes pages or takes apart what is asked, whatever the database is.
on_sqlite = pytest.mark.parametrize("opened_one", [SQLITE], indirect=True)


@pytest.fixture
def shown(opened_one: Open) -> Exhibit:
    return opened_one.shown


@pytest.fixture
def database(opened_one: Open) -> Database:
    return opened_one.database


@pytest.fixture
def client(opened_one: Open) -> httpx.Client:
    return opened_one.client


def page(client: httpx.Client, url: str) -> Page:
    answer = client.get(url)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_page_says_what_a_module_is_without_any_script(
    client: httpx.Client, shown: Exhibit
) -> None:
    words = page(client, f"/modules/{shown.modules['load']}").words
    last = exhibits.load(PACKETS - 1)
    assert f"load {last:g} jobs" in words
    assert "Of five minutes" in words
    assert "Type generic_data Interval 5 min" in words
    assert "Critical from 8" in words
    assert "Warning from 4 to below 8" in words
    assert "Module 'load' is going to CRITICAL" in words


def test_the_newest_changes_tell_how_long_each_held(client: httpx.Client, shown: Exhibit) -> None:
    words = page(client, f"/modules/{shown.modules['up']}").words
    changes = words.partition("Newest changes")[2].partition("Values of this span")[0]
    # Up since the packet 503, down for three before it, and up for 97 before those.
    assert changes.count(" up ") == 6
    assert "up 6 h" in changes
    assert "so far" in changes
    assert "down 15 min" in changes


@on_sqlite
def test_the_page_tells_its_graph_what_to_show(client: httpx.Client, shown: Exhibit) -> None:
    key = shown.modules["load"]
    graph = _graph(page(client, f"/modules/{key}"))
    assert graph["data-url"] == f"/api/modules/{key}/graph"
    assert (graph["data-start"], graph["data-end"]) == (str(shown.end - DAY), str(shown.end))
    assert (graph["data-live"], graph["data-zone"]) == ("true", "UTC")
    graph = _graph(page(client, f"/modules/{key}?from={shown.start}&to={shown.end - DAY}"))
    assert (graph["data-start"], graph["data-live"]) == (str(shown.start), "false")


def _graph(found: Page) -> dict[str, str | None]:
    return next(told for _, told in found.tags if told.get("class") == "graph")


def test_names_and_values_from_packets_are_text(client: httpx.Client, shown: Exhibit) -> None:
    for name in ("cold", "state"):
        found = page(client, f"/modules/{shown.modules[name]}")
        assert any(printable(HOSTILE) in text for text in found.texts)
        assert any(SCRIPT in text for text in found.texts)
        assert found.scripts == ["/static/theme.js", "/static/graph.js"]
        assert "img" not in found.names
        assert not [told for _, told in found.tags if any(key.startswith("on") for key in told)]


def test_the_record_has_thresholds(client: httpx.Client, shown: Exhibit) -> None:
    record = client.get(f"/api/modules/{shown.modules['load']}").json()
    assert (record["agent_id"], record["module"]["name"]) == (shown.agent, "load")
    assert record["first"] == shown.start
    assert [each["status"] for each in record["thresholds"]] == ["critical", "warning"]
    assert (record["thresholds"][0]["low"], record["thresholds"][0]["high"]) == (8, None)
    up = client.get(f"/api/modules/{shown.modules['up']}").json()
    assert [each["is_down"] for each in up["thresholds"]] == [True]
    texts = client.get(f"/api/modules/{shown.modules['state']}").json()
    assert [each["pattern"] for each in texts["thresholds"]] == ["^broken$"]


def test_the_graph_is_exact_where_it_fits_and_in_columns_where_not(
    client: httpx.Client, shown: Exhibit
) -> None:
    url = f"/api/modules/{shown.modules['ticks']}/graph"
    near = client.get(url, params={"from": shown.end - 3600, "width": 500}).json()
    assert near["is_exact"]
    assert len(near["points"]) > 100
    far = client.get(url, params={"from": shown.start, "width": 200}).json()
    assert not far["is_exact"]
    assert 100 <= len(far["columns"]) <= 200
    assert sum(column["changes"] for column in far["columns"]) == far["changes"]
    assert sum(far["shares"].values()) == pytest.approx(1)


def test_the_graph_tells_silences_events_and_zones(client: httpx.Client, shown: Exhibit) -> None:
    url = f"/api/modules/{shown.modules['load']}/graph"
    graph = client.get(url, params={"from": "-2d", "to": "now"}).json()
    lost = exhibits.LOST
    ends = [(span["start"], span["end"]) for span in graph["silences"]["spans"]]
    assert (shown.start + lost.start * INTERVAL, shown.start + lost.stop * INTERVAL) in ends
    assert {zone["status"] for zone in graph["zones"]} == {"warning", "critical"}
    assert graph["marks"]


class TestFile:
    def rows(self, client: httpx.Client, url: str, **params: object) -> list[list[str]]:
        answer = client.get(url, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/csv")
        assert answer.content.endswith(b"\r\n")
        return list(csv.reader(io.StringIO(answer.text, newline="")))

    def test_it_has_all_values_of_the_span(
        self, client: httpx.Client, database: Database, shown: Exhibit
    ) -> None:
        key = shown.modules["ticks"]
        rows = self.rows(client, f"/api/modules/{key}/data.csv", **{"from": shown.start})
        engine = database.engine()
        points = list(History(engine, inspect(engine)).points(key, shown.start, shown.end))
        assert rows[0] == ["time", "local_time", "value"]
        assert [(int(row[0]), float(row[2])) for row in rows[1:]] == points
        assert len(points) > exhibits.TICKS // 2

    def test_it_begins_with_the_value_that_holds_at_the_beginning(
        self, client: httpx.Client, shown: Exhibit
    ) -> None:
        span = {"from": shown.start + INTERVAL * 20 + 7, "to": shown.start + INTERVAL * 20 + 8}
        url = f"/api/modules/{shown.modules['load']}/data.csv"
        rows = self.rows(client, url, **span)
        assert rows[1][0] == str(span["from"])
        assert float(rows[1][2]) == exhibits.load(20)

    def test_no_cell_of_text_is_a_formula_and_no_number_is_text(
        self, client: httpx.Client, shown: Exhibit
    ) -> None:
        span = {"from": shown.start}
        texts = self.rows(client, f"/api/modules/{shown.modules['state']}/data.csv", **span)
        values = {row[2] for row in texts[1:]}
        assert values == {"running", HOSTILE, "'=1+1", "broken", 'two "lines"\nof it, said'}
        numbers = self.rows(client, f"/api/modules/{shown.modules['cold']}/data.csv", **span)
        assert {row[2] for row in numbers[1:]} == {"-3.5"}

    @on_sqlite
    def test_its_name_is_ours(self, client: httpx.Client, shown: Exhibit) -> None:
        key = shown.modules["cold"]
        answer = client.head(f"/api/modules/{key}/data.csv", params={"from": 1, "to": 2})
        assert answer.headers["content-disposition"] == (
            f'attachment; filename="module-{key}-1-2.csv"'
        )
        assert answer.content == b""


@on_sqlite
def test_a_module_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    for rest in ("", "/graph", "/data.csv"):
        answer = client.get(f"/api/modules/4711{rest}")
        assert answer.status_code == 404, rest
        assert "no module 4711" in answer.json()["error"], rest
    assert client.get("/modules/4711").status_code == 404


@on_sqlite
def test_what_cannot_be_is_refused(client: httpx.Client, shown: Exhibit) -> None:
    for asked in ("width=49", "width=4001", "width=x", "from=never", "from=5&to=4", "to=%00"):
        answer = client.get(f"/api/modules/{shown.modules['load']}/graph?{asked}")
        assert answer.status_code == 400, asked
        assert answer.json()["error"], asked


@on_sqlite
def test_nothing_can_be_written(client: httpx.Client, shown: Exhibit) -> None:
    for rest in ("", "/graph", "/data.csv"):
        assert client.post(f"/api/modules/{shown.modules['load']}{rest}").status_code == 405

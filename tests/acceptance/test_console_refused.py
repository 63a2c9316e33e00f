"""The console shows what was refused: at the agent, at the module, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, text

from dataserver.store import schema
from tests.support.consoles import Page, showing
from tests.support.databases import Database
from tests.support.ingest import NOW, Ingest, arrival
from tests.support.packets import module, packet

EVIL = "<script>window.hacked=1</script>\u202e"


@pytest.fixture
def client(sqlite_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """Two agents: of one something was refused, of the other nothing."""
    bad = (module("disk a", EVIL), module("zoo", "1", "generic_zoo"), module("load", "1"))
    Ingest(sqlite_database).record(
        [arrival(packet("web 1", *bad)), arrival(packet("db", module("load", "1")))]
    )
    with showing(sqlite_database, tmp_path, NOW) as client:
        yield client


@pytest.fixture
def ids(sqlite_database: Database) -> dict[str, int]:
    """The ids of agents and modules by their names as stored."""
    found: dict[str, int] = {}
    with sqlite_database.engine().connect() as conn:
        for c in (schema.module.c, schema.agent.c):
            found |= dict(map(tuple, conn.execute(select(c.name, c.id))))
    return found


def page(client: httpx.Client, path: str) -> Page:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_page_of_an_agent_lists_them_with_a_link_to_each_module(
    client: httpx.Client, ids: dict[str, int]
) -> None:
    found = page(client, f"/agents/{ids['web&#x20;1']}")
    words = found.words.partition("Refused values")[2].partition("Packets")[0]
    assert "disk a not a number <script>window.hacked=1</script>\\u202e 1 2027-01-15" in words
    assert "zoo the module's type is unknown generic_zoo 1 2027-01-15" in words
    links = [told["href"] for name, told in found.tags if name == "a" and "href" in told]
    disk = f"/modules/{ids['disk&#x20;a']}"
    # In the list of modules, and here.
    assert links.count(disk) == 2
    assert found.scripts == ["/static/theme.js", "/static/graph.js"]
    assert "Refused values" not in page(client, f"/agents/{ids['db']}").words


def test_the_page_of_a_module_has_its_own(client: httpx.Client, ids: dict[str, int]) -> None:
    words = page(client, f"/modules/{ids['disk&#x20;a']}").words
    told = words.partition("Refused values")[2].partition("History")[0]
    assert "not a number <script>window.hacked=1</script>\\u202e 1 2027-01-15" in told
    assert "generic_zoo" not in told


def test_json_has_them(client: httpx.Client, ids: dict[str, int]) -> None:
    agent = client.get(f"/api/agents/{ids['web&#x20;1']}").json()
    found = {each["record"]["module"]: each for each in agent["refused"]}
    assert found["disk a"]["module_id"] == ids["disk&#x20;a"]
    assert found["zoo"]["module_id"] is None
    record = {
        "agent_id": ids["web&#x20;1"],
        "agent": "web 1",
        "alias": "web 1",
        "module": "disk a",
        "reason": "not-a-number",
        "text": "not a number",
        "value": EVIL,
        "count": 1,
        "first": NOW,
        "last": NOW,
    }
    assert found["disk a"]["record"] == record
    module_of_it = client.get(f"/api/modules/{ids['disk&#x20;a']}").json()
    assert module_of_it["refused"] == [record]
    assert client.get(f"/api/agents/{ids['db']}").json()["refused"] == []


def test_a_database_of_an_earlier_version_shows_none(
    sqlite_database: Database, tmp_path: Path
) -> None:
    Ingest(sqlite_database).record([arrival(packet("web1", module("disk", "n/a")))])
    engine = sqlite_database.engine()
    with engine.begin() as conn:
        conn.execute(text("DROP TABLE trefused"))
        keys = [conn.scalar(select(c.id)) for c in (schema.agent.c, schema.module.c)]
    with showing(sqlite_database, tmp_path, NOW) as client:
        for place, key in zip(("agents", "modules"), keys, strict=True):
            assert client.get(f"/api/{place}/{key}").json()["refused"] == []
            assert "Refused values" not in page(client, f"/{place}/{key}").words

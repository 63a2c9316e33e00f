"""The console's page of servers: who is alive, which host takes the packets, and a home alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dataserver.config.paths import Home
from dataserver.console.pages.servers import Process, takes_packets
from dataserver.console.source import Source
from dataserver.store import processes
from dataserver.vrrp import status
from dataserver.vrrp.reading import parse
from tests.support.clock import Clock
from tests.support.consoles import Page, serving
from tests.support.databases import SQLITE, Database, opened
from tests.support.exhibits import SCRIPT
from tests.support.pairs import SIMPLE
from tests.support.server import Place

NOW, LIVE = 1_800_000_000.0, 90.0


@pytest.fixture(autouse=True)
def _standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the database's clock it is always now, however long a test takes."""
    monkeypatch.setattr(processes, "database_time", Clock(NOW))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One in which no server has ever been."""
    with opened(SQLITE, tmp_path / "home") as found:
        yield found


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    place = Place(database.home, "sqlite:///var/dataserver.db")
    with serving(Source(Home(place.home.root), {})) as client:
        yield client


def beat(
    database: Database,
    host: str,
    *,
    ago: float = 0.0,
    instance: str = "main",
    server: str = "ingest",
    **figures: Any,
) -> processes.Processes:
    """A server process of a host says how it does, some seconds ago."""
    who = processes.Process(f"{host} {instance}", server, 0, host, instance, 42, "1.0")
    told = processes.Processes(who, LIVE, clock=Clock(NOW - ago))
    with database.engine().begin() as conn:
        told.beat(conn, processes.ProcessStats(**figures))
    return told


def hosts(client: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = client.get("/api/servers")
    assert answer.status_code == 200
    return {host["host"]: host for host in answer.json()["hosts"]}


class TestProcesses:
    def test_a_process_is_shown_with_what_it_said_last(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, "left", queue=7, oldest_age=40.0, packets_per_second=2.5, rejected=3)
        (process,) = hosts(client)["left"]["processes"]
        assert process["state"] == "alive"
        assert (process["queue"], process["rejected"], process["pid"]) == (7, 3, 42)
        assert process["packets_per_second"] == 2.5
        assert process["oldest_age"] == 40
        shown = Page(client.get("/").text).words
        assert "2.5/s" in shown

    def test_one_that_says_nothing_any_more_is_silent_and_one_that_ended_is_stopped(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, "left", ago=3600)
        ended = beat(database, "right", ago=30)
        with database.engine().begin() as conn:
            ended.leave(conn, processes.ProcessStats())
        found = hosts(client)
        assert found["left"]["processes"][0]["state"] == "silent"
        assert found["right"]["processes"][0]["state"] == "stopped"
        assert "for 1 h" in Page(client.get("/").text).words

    def test_names_that_hosts_and_servers_have_run_nothing(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, SCRIPT[:64], instance="\u202eniam", server='"><img src=x>')
        page = client.get("/")
        assert page.status_code == 200
        found = Page(page.text)
        assert SCRIPT[:64] in found.words
        # The only script is the one that knows light from dark.
        assert found.scripts == ["/static/theme.js"]
        assert "img" not in found.names
        assert hosts(client)[SCRIPT[:64]]["processes"][0]["instance"] == "\u202eniam"


class TestWhoTakesThePackets:
    def test_the_host_to_which_packets_came_in_the_last_minute(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, "left", packets_per_second=0.5)
        beat(database, "right")
        found = hosts(client)
        assert found["left"]["takes_packets"] is True
        assert found["right"]["takes_packets"] is False

    def test_what_a_dead_host_did_last_is_no_news(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, "left", ago=3600, packets_per_second=50.0)
        beat(database, "right", packets_per_second=1.0)
        found = hosts(client)
        assert found["left"]["takes_packets"] is False
        assert found["left"]["why"] == "no server runs there"
        assert found["right"]["takes_packets"] is True

    def test_it_is_unknown_while_no_packet_comes(
        self, database: Database, client: httpx.Client
    ) -> None:
        beat(database, "left", ago=3600, packets_per_second=50.0)
        beat(database, "right")
        found = hosts(client)
        assert found["right"]["takes_packets"] is None
        assert "unknown whether it takes packets" in Page(client.get("/").text).words

    def test_of_a_pair_the_one_with_the_address_takes_them_whatever_the_rates_say(self) -> None:
        pair = parse(SIMPLE, "pair.toml")
        first, second = (host.name for host in pair.hosts)
        seen = {
            f"{first}.example.org": (_process(0.0),),
            second: (_process(9.0),),
            "third": (_process(1.0),),
        }
        standing = _standing(has_address=True)
        found = {host: takes_packets(host, seen, standing)[0] for host in seen}
        assert found == {f"{first}.example.org": True, second: False, "third": True}

    def test_of_a_twin_without_the_address_the_rates_tell_not_a_guess(self) -> None:
        # The address may be nowhere.
        pair = parse(SIMPLE, "pair.toml")
        first, second = (host.name for host in pair.hosts)
        seen = {first: (_process(0.0),), second: (_process(0.0),)}
        standing = _standing(has_address=False)
        assert takes_packets(first, seen, standing) == (
            False,
            "it does not have the pair's address",
        )
        assert takes_packets(second, seen, standing)[0] is None


def _process(rate: float) -> Process:
    return Process("ingest", "main", 1, "1.0", "alive", 1.0, 0, None, rate, 0)


def _standing(*, has_address: bool) -> status.HostStatus:
    pair = parse(SIMPLE, "pair.toml")
    here = tuple((str(each.ip), "eth0") for each in pair.virtual_addresses)
    host = pair.hosts[0]
    return status.HostStatus(pair, host, here if has_address else (), None, None, False, None, None)


class TestAHome:
    def test_without_a_database_its_instances_are_shown_with_the_reason(
        self, tmp_path: Path
    ) -> None:
        place = Place(tmp_path / "home", "sqlite:///var/nothing.db")
        with serving(Source(place.home, {})) as client:
            page = client.get("/")
            found = client.get("/api/servers").json()
        assert page.status_code == 200
        assert "there is no database" in found["database_error"]
        assert found["database_error"] in Page(page.text).words
        assert [each["row"]["name"] for each in found["instances"]] == ["main"]

    def test_without_instances_shows_what_is_in_its_database(
        self, database: Database, client: httpx.Client, tmp_path: Path
    ) -> None:
        beat(database, "left")
        place = Place(tmp_path / "other", f"sqlite:///{database.home}/var/dataserver.db")
        (place.paths().config).unlink()
        place.data_in().rmdir()
        place.paths().folder.rmdir()
        place.home.instances.rmdir()
        with serving(Source(place.home, {})) as other:
            found = other.get("/api/servers").json()
            page = other.get("/")
        assert found["database_error"] is None
        assert [host["host"] for host in found["hosts"]] == ["left"]
        assert (found["instances"], found["home_error"]) == ([], None)
        assert "This home has no instances" in Page(page.text).words

    def test_tells_no_password(self, tmp_path: Path) -> None:
        secret = "hidden-word"
        place = Place(tmp_path / "home", f"mysql://u:{secret}@127.0.0.1:1/none")
        with serving(Source(place.home, {})) as client:
            for path in ("/", "/api/servers", "/agents", "/api/agents", "/healthz", "/metrics"):
                answer = client.get(path)
                assert secret not in answer.text, path

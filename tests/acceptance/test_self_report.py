"""What a running server tells the console's operator of itself and of packets that are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dataserver.ingest.rejection_events import FIRST
from dataserver.rules import entities
from dataserver.store import schema
from tests.support.commands import Run
from tests.support.databases import KINDS, PANDORA, SQLITE, Database, opened
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server

BURST = 300
BAD = b'<agent_data agent_name="x"><module></agent_data>'
CUT = packet("cut", module("load"))[:-5]
GOOD = packet("good", module("load"))


class Console:
    """What an operator sees in the database."""

    def __init__(self, database: Database) -> None:
        self._engine = database.engine()

    def errors(self) -> list[str]:
        """The texts of the events of type error."""
        c = schema.event.c
        with self._engine.connect() as conn:
            found = conn.scalars(select(c.text).where(c.type == "error").order_by(c.id))
            return [entities.decode(text) for text in found]

    def modules(self, agent: str) -> dict[str, str]:
        """The value of each module of an agent."""
        a, m, s = schema.agent.c, schema.module.c, schema.state.c
        joined = schema.agent.join(schema.module, m.agent_id == a.id)
        joined = joined.join(schema.state, s.module_id == m.id)
        query = select(m.name, s.value).select_from(joined).where(a.name == agent)
        with self._engine.connect() as conn:
            return {entities.decode(name): value for name, value in conn.execute(query)}

    def agents(self) -> int:
        with self._engine.connect() as conn:
            return conn.scalar(select(func.count()).select_from(schema.agent)) or 0


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """SQLite, unless a test asks for others."""
    with opened(getattr(request, "param", SQLITE), tmp_path) as new:
        yield new


@pytest.fixture
def place(database: Database) -> Place:
    database.prepare()
    return Place(database.home, database.url, incomplete_after=1)


@pytest.fixture
def console(database: Database) -> Console:
    return Console(database)


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    with Server(place) as server:
        server.wait_ready()
        yield server


def test_a_burst_of_bad_packets_leaves_a_few_events_and_none_is_forgotten(
    server: Server, place: Place, console: Console
) -> None:
    for number in range(BURST):
        place.drop(f"bad{number % 7}.{number}.data", BAD)
        # Some are cut before their first byte.
        place.drop(f"cut{number % 7}.{number}.data", CUT if number % 3 else b"")
    server.wait(lambda: len(place.rejected()) == 2 * BURST, "all set aside")
    server.wait(lambda: len(console.errors()) >= FIRST, "the first ones told")
    assert len(console.errors()) == FIRST
    assert all("(malformed)" in text for text in console.errors())
    assert server.stop() == 0
    sums = console.errors()[FIRST:]
    assert sorted(text.split(" in the last")[0] for text in sums) == [
        f"{BURST - FIRST} more packets rejected as malformed",
        f"{BURST} packets rejected as incomplete",
    ]


def test_a_server_that_crashes_again_and_again_tells_of_the_first_ones_once(
    server: Server, place: Place, console: Console
) -> None:
    for life in range(3):
        for number in range(FIRST):
            place.drop(f"bad.{life}{number}.data", BAD)
        server.wait(lambda told=FIRST * (life + 1): len(place.rejected()) == told, "set aside")
        # What comes after them is taken when they have been told.
        place.drop(f"good.{life}.data", GOOD)
        server.wait_taken()
        server.kill()
        server.start()
        server.wait_ready()
    assert server.stop() == 0
    assert len(console.errors()) == FIRST


def test_an_odd_name_is_told_so_that_it_can_be_read(
    server: Server, place: Place, console: Console
) -> None:
    place.drop(b"\xff\x1b[31m<b>'\n.1.data", BAD)
    server.wait(console.errors, "its event")
    [text] = console.errors()
    assert text.isascii()
    assert text.isprintable()
    assert "(malformed)" in text


@pytest.mark.parametrize("database", KINDS, indirect=True)
def test_a_single_run_tells_what_it_rejected_and_does_not_report_on_itself(
    dataserver: Run, place: Place, console: Console
) -> None:
    place.configure(self_monitoring=True)
    place.drop("bad.1.data", BAD)
    assert dataserver("run", "--once", "--home", place.home.root).returncode == 0
    assert len(console.errors()) == 1
    assert console.agents() == 0


def test_self_monitoring_is_off_until_it_is_asked_for(
    server: Server, place: Place, console: Console
) -> None:
    # A report would have come before it was ready.
    place.drop("good.1.data", GOOD)
    server.wait(console.agents, "the agent")
    assert console.agents() == 1


@pytest.mark.parametrize("database", [SQLITE, PANDORA], indirect=True)
def test_two_instances_report_as_one_agent(place: Place, console: Console) -> None:
    place.configure(self_monitoring=True)
    place.add("second")

    def own() -> list[str]:
        """Modules of the instances: those of the whole database are beside them."""
        return [name for name in console.modules("pandora.internals") if "/" in name]

    with Server(place) as one, Server(place, "second") as two:
        one.wait(lambda: len(own()) == 14, "both reports")
        assert {name.split(" ")[0].rpartition("/")[2] for name in own()} == {"main", "second"}
        assert one.stop() == two.stop() == 0
    assert console.agents() == 1


def test_packets_are_taken_although_the_report_is_refused(place: Place, console: Console) -> None:
    with Server(place) as server:
        place.drop("good.1.data", GOOD)
        server.wait(console.agents, "the agent")
        assert server.stop() == 0
    place.configure(self_monitoring=True, autocreate=False)
    with Server(place) as server:
        server.wait(lambda: "autocreate is off" in server.log, "the refusal told")
        place.drop("good.2.data", packet("good", module("x", "2")))
        server.wait(lambda: "x" in console.modules("good"), "its packet")
        assert server.stop() == 0
    assert console.agents() == 1


def test_a_pattern_that_takes_for_ever_is_named_and_packets_go_on(
    server: Server, place: Place, console: Console
) -> None:
    for minute in range(10):
        value = f"{'a' * 40}!{minute}"
        log = module("log", value, "async_string", str_critical="^(a+)+$")
        content = packet("evil", log, time=START + 60 * minute, interval=60)
        place.drop(f"evil.{minute}.data", content)
    server.wait_taken()
    server.wait(lambda: "takes too long" in server.log, "the pattern's name in the log")
    assert "^(a+)+$" in server.log
    server.wait(lambda: server.status["counters"]["undecided_patterns"], "a count of searches")
    assert console.modules("evil") == {"log": f"{'a' * 40}!9"}

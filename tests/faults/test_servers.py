"""Packets that come twice, and two servers at once on one database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random

import pytest

from tests.faults import corpus
from tests.faults.conftest import Undisturbed, shares
from tests.faults.corpus import File
from tests.faults.readback import faults
from tests.support.databases import KINDS, MARIADB, PANDORA, SQLITE, Database
from tests.support.dump import differences, dump
from tests.support.randomness import seeded
from tests.support.server import Place, Server

#: The one on Pandora's tables, and with few packets, in `make test`; `make test-all` has all.
on_each_store = pytest.mark.parametrize(
    ("any_store", "size"),
    [
        (PANDORA, "small"),
        *(pytest.param(kind, "large", marks=pytest.mark.long) for kind in KINDS),
    ],
    indirect=["any_store"],
)


def test_every_packet_delivered_again_changes_nothing(
    store: Database, place: Place, few: list[File], undisturbed: Undisturbed
) -> None:
    with Server(place) as server:
        corpus.write(few, place.data_in())
        server.wait_taken()
        corpus.write(few, place.data_in())
        server.wait_taken()
        server.wait_counted("duplicates", len(few))
        assert server.status["counters"]["packets"] == len(few)
        assert server.stop() == 0
    assert differences(undisturbed(store, few), dump(store.engine())) == []


def test_two_copies_of_every_packet_in_one_backlog_are_stored_once(
    store: Database, place: Place, few: list[File], undisturbed: Undisturbed
) -> None:
    for file in few:
        place.drop(file.name, file.content)
        # Also under the name of the same agent, so that both are in one batch.
        place.drop(file.name.replace(".data", "0.data"), file.content)
        place.drop(f"again-{file.name}", file.content)
    with Server(place) as server:
        server.wait_taken()
        server.wait_counted("duplicates", 2 * len(few))
        assert server.stop() == 0
    assert differences(undisturbed(store, few), dump(store.engine())) == []


@on_each_store
def test_two_servers_share_the_packets_of_every_agent_and_store_each_exactly(
    request: pytest.FixtureRequest, any_store: Database, size: str
) -> None:
    files = request.getfixturevalue(size)
    with two_servers(any_store) as servers:
        common = share_out(files, servers, seeded("shared by two servers"))
        for server in servers:
            server.wait_taken()
        counted(servers, "packets", len(files))
        counted(servers, "duplicates", common)
        for server in servers:
            assert server.stop() == 0
            assert server.place.rejected() == []
    assert faults(any_store.engine(), files)[:10] == []


@pytest.mark.parametrize(
    "any_bare_store",
    [SQLITE, MARIADB, pytest.param(PANDORA, marks=pytest.mark.long)],
    indirect=True,
)
def test_two_servers_that_start_on_an_empty_database_make_it_together(
    any_bare_store: Database, few: list[File]
) -> None:
    places = [first_place(any_bare_store), second_place(any_bare_store)]
    for place in places:
        corpus.write(few, place.data_in())
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(place)) for place in places]
        for server in servers:
            server.wait_taken()
        counted(servers, "packets", len(few))
        counted(servers, "duplicates", len(few))
        for server in servers:
            assert server.stop() == 0
    assert faults(any_bare_store.engine(), few)[:10] == []


@on_each_store
def test_of_two_servers_one_is_killed_again_and_again(
    request: pytest.FixtureRequest, any_store: Database, size: str
) -> None:
    files = request.getfixturevalue(size)
    random = seeded("one of two servers killed")
    with two_servers(any_store) as servers:
        for share in shares(files, 4):
            servers[0].kill()
            share_out(share, servers, random)
            servers[0].start()
            left = len(servers[0].place.packets_left())
            wait_less(servers[0], left - random.randrange(1 + left // 10))
            time.sleep(random.uniform(0.0, 0.02))
        for server in servers:
            server.wait_taken()
            assert server.stop() == 0
    assert faults(any_store.engine(), files)[:10] == []


def first_place(store: Database) -> Place:
    return Place(store.home, url(store), batch_packets=10)


def second_place(store: Database) -> Place:
    return Place(store.home.with_name("twin"), url(store), batch_packets=10)


def url(store: Database) -> str:
    """The store's URL, good in any home."""
    if store.kind == SQLITE:
        return f"sqlite:///{store.home}/var/dataserver.db"
    return store.url


@contextmanager
def two_servers(store: Database) -> Iterator[list[Server]]:
    """Two running servers, each with a home of its own, on one database."""
    with Server(first_place(store)) as one, Server(second_place(store)) as two:
        for server in (one, two):
            server.wait_ready()
        yield [one, two]


def share_out(files: Sequence[File], servers: Sequence[Server], random: Random) -> int:
    """Give each packet to one of the servers, some to both, in no order; how many to both."""
    shuffled = random.sample(files, len(files))
    common = 0
    for file in shuffled:
        both = random.random() < 0.1
        common += both
        for server in servers if both else [random.choice(servers)]:
            server.place.drop(file.name, file.content)
    return common


def counted(servers: Sequence[Server], counter: str, count: int) -> None:
    """Wait until the servers together say so many."""
    servers[0].wait(
        lambda: sum(server.status["counters"][counter] for server in servers) == count,
        f"{count} {counter}",
    )


def wait_less(server: Server, number: int) -> None:
    """Wait until at most so many packets are left, or none."""
    server.wait(lambda: len(server.place.packets_left()) <= max(number, 0), "progress")

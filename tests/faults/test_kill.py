"""The server killed at any moment: what it leaves is taken up, nothing lost, nothing twice."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from dataserver.runtime.heartbeat import process_start
from tests.faults import corpus
from tests.faults.conftest import BATCH, Undisturbed, backlog, on_sqlite, shares
from tests.faults.corpus import File
from tests.support.databases import MARIADB, SQLITE, Database
from tests.support.dump import differences, dump
from tests.support.randomness import seeded
from tests.support.server import Place, Server
from tests.support.waiting import wait_until

#: How often it is killed at random moments while it takes in so many packets.
KILLS = {"few": 3, "large": 24}

#: What it says when its reading process was killed.
DIED = "the reader process died"

FAIL_POINTS = ("before-commit", "after-commit", "before-unlink", "inside-done", "after-unlink")
#: Of each fail point one case in `make test`: the store, and the how many-th time it is reached.
USUAL = {
    "before-commit": (MARIADB, 7),
    "after-commit": (SQLITE, 7),
    "before-unlink": (SQLITE, 1),
    "inside-done": (MARIADB, 7),
    "after-unlink": (SQLITE, 1),
    "inside-reject": (MARIADB, 2),
}


def at_fail_points(*points: str, times: tuple[int, int]) -> pytest.MarkDecorator:
    """Each of these places on each kind of store, reached the first time and a later one."""
    cases = []
    for point, kind, nth in itertools.product(points, (SQLITE, MARIADB), times):
        marks = () if USUAL[point] == (kind, nth) else pytest.mark.long
        cases.append(pytest.param(kind, point, nth, marks=marks))
    return pytest.mark.parametrize(("store", "point", "nth"), cases, indirect=["store"])


@pytest.mark.parametrize("size", ["few", pytest.param("large", marks=pytest.mark.long)])
def test_killed_at_random_moments_of_a_backlog_it_stores_what_an_undisturbed_run_does(
    request: pytest.FixtureRequest, bare_store: Database, undisturbed: Undisturbed, size: str
) -> None:
    place = Place(bare_store.home, bare_store.url, batch_packets=BATCH)
    files = request.getfixturevalue(size)
    kill_at_random(place, files, seeded(f"kills of {size}"), KILLS[size])
    finish(place)
    assert differences(undisturbed(bare_store, files), dump(bare_store.engine())) == []


@at_fail_points(*FAIL_POINTS, times=(1, 7))
def test_killed_at_a_fail_point_it_stores_what_an_undisturbed_run_does(
    store: Database,
    place: Place,
    few: list[File],
    undisturbed: Undisturbed,
    point: str,
    nth: int,
) -> None:
    corpus.write(few, place.data_in())
    die_at(Server(place), f"{point}:{nth}")
    finish(place)
    assert differences(undisturbed(store, few), dump(store.engine())) == []


@at_fail_points("inside-reject", times=(1, 2))
def test_killed_inside_a_rejection_it_keeps_each_bad_packet_once(
    store: Database,
    place: Place,
    few: list[File],
    undisturbed: Undisturbed,
    point: str,
    nth: int,
) -> None:
    bad = {f"bad.{number}.data": b"<agent_data>no name, no end" for number in range(3)}
    corpus.write(few, place.data_in())
    for name, content in bad.items():
        place.drop(name, content + b"</agent_data>")
    die_at(Server(place), f"{point}:{nth}")
    assert len(place.rejected()) == nth - 1
    finish(place)
    assert sorted(packet.name for packet in place.rejected()) == sorted(bad)
    assert differences(undisturbed(store, few), dump(store.engine())) == []


@on_sqlite
def test_killed_after_its_first_commit_every_time_it_gets_on_all_the_same(
    store: Database, place: Place, few: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(few, place.data_in())
    for _ in range(3):
        die_at(Server(place), "after-commit")
    finish(place)
    assert differences(undisturbed(store, few), dump(store.engine())) == []


@on_sqlite
def test_its_reading_process_killed_again_and_again_it_stores_what_an_undisturbed_run_does(
    store: Database, place: Place, files: list[File], undisturbed: Undisturbed
) -> None:
    with Server(place) as server:
        server.wait_ready()
        for share in shares(files, 3):
            backlog(server, share)
            kill_reading_process(server)
            server.wait_taken()
        assert DIED in server.log
        assert server.stop() == 0
    assert place.rejected() == []
    assert differences(undisturbed(store, files), dump(store.engine())) == []


@on_sqlite
def test_killed_it_leaves_no_process_behind(place: Place, small: list[File]) -> None:
    corpus.write(small, place.data_in())
    with Server(place) as server:
        left = wait_until(lambda: children(server.pid), "a reading process")
        server.kill()
    wait_until(
        lambda: all(process_start(pid) is None for pid in left), "the end of its reading process"
    )


def die_at(server: Server, failpoint: str) -> None:
    """Start the server and see it die at that place."""
    server.start(failpoint=failpoint)
    assert server.wait_exit() == -9


def kill_reading_process(server: Server) -> None:
    """Kill it once, at work, or after it: then the next backlog finds it dead.

    Now and then the server ends one by itself, and begins another: that one is killed as well.
    """
    before = server.log.count(DIED)
    killed: set[int] = set()

    def is_noticed() -> bool:
        others = set(children(server.pid)) - killed
        if server.log.count(DIED) > before:
            return True  # these have taken its place
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        killed.update(others)
        return not server.place.packets_left()

    server.wait(is_noticed, DIED)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def finish(place: Place) -> None:
    """Let a server that is left alone take in what is there."""
    with Server(place) as server:
        server.wait_taken()
        assert server.stop() == 0


def kill_at_random(place: Place, files: list[File], random: Random, times: int) -> None:
    """Kill and start a server so often, while it has packets to take in, if it is not too fast."""
    server = Server(place)
    for share in shares(files, times):
        corpus.write(share, place.data_in())
        left = len(place.packets_left())
        server.start()
        if random.random() < 0.3:
            # Any moment from its first instruction on: the database is being made, say.
            time.sleep(random.uniform(0.0, 0.8))
        else:
            until = left - random.randrange(min(120, left))
            server.wait(lambda until=until: len(place.packets_left()) <= until, "progress")
            time.sleep(random.uniform(0.0, 0.01))
        server.kill()

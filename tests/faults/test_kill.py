"""The server killed at any moment: what it leaves is taken up, nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

import pytest

from dataserver.health import process_start
from tests.faults import corpus
from tests.faults.conftest import Undisturbed
from tests.faults.corpus import File
from tests.support.databases import Database
from tests.support.dump import differences, dump
from tests.support.server import PATIENCE, Place, Server

#: How often it is killed at random moments.
KILLS = 24

FAIL_POINTS = (
    "before-commit",
    "after-commit",
    "before-unlink",
    "inside-done",
    "after-unlink",
)


def test_killed_at_random_moments_of_a_backlog_it_stores_what_an_undisturbed_run_does(
    store: Database, place: Place, large: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(large, place.data_in())
    kill_at_random(place, Random(20), KILLS)
    finish(place)
    assert differences(undisturbed(large), dump(store.engine())) == []


@pytest.mark.parametrize("time", [1, 7])
@pytest.mark.parametrize("point", FAIL_POINTS)
def test_killed_at_a_fail_point_it_stores_what_an_undisturbed_run_does(
    store: Database,
    place: Place,
    small: list[File],
    undisturbed: Undisturbed,
    point: str,
    time: int,
) -> None:
    corpus.write(small, place.data_in())
    die_at(Server(place), f"{point}:{time}")
    finish(place)
    assert differences(undisturbed(small), dump(store.engine())) == []


@pytest.mark.parametrize("time", [1, 2])
def test_killed_inside_a_rejection_it_keeps_each_bad_packet_once(
    store: Database, place: Place, small: list[File], undisturbed: Undisturbed, time: int
) -> None:
    bad = {f"bad.{number}.data": b"<agent_data>no name, no end" for number in range(3)}
    corpus.write(small, place.data_in())
    for name, content in bad.items():
        place.drop(name, content + b"</agent_data>")
    die_at(Server(place), f"inside-reject:{time}")
    assert len(place.rejected()) == time - 1
    finish(place)
    assert sorted(packet.name for packet in place.rejected()) == sorted(bad)
    assert differences(undisturbed(small), dump(store.engine())) == []


def test_killed_after_its_first_commit_every_time_it_gets_on_all_the_same(
    store: Database, place: Place, small: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(small, place.data_in())
    for _ in range(5):
        die_at(Server(place), "after-commit")
    finish(place)
    assert differences(undisturbed(small), dump(store.engine())) == []


def test_its_reading_process_killed_again_and_again_it_stores_what_an_undisturbed_run_does(
    store: Database, place: Place, large: list[File], undisturbed: Undisturbed
) -> None:
    corpus.write(large, place.data_in())
    with Server(place) as server:
        for left in (4500, 3000, 1500):
            server.wait(lambda left=left: len(place.packets_left()) < left, "progress")
            for pid in children(server.pid):
                os.kill(pid, signal.SIGKILL)
        server.wait_taken()
        assert "the reading process died" in server.log
        assert server.stop() == 0
    assert place.rejected() == []
    assert differences(undisturbed(large), dump(store.engine())) == []


def test_killed_it_leaves_no_process_behind(place: Place, large: list[File]) -> None:
    corpus.write(large, place.data_in())
    with Server(place) as server:
        server.wait(lambda: children(server.pid), "a reading process")
        left = children(server.pid)
        server.kill()
    deadline = time.monotonic() + PATIENCE
    while any(process_start(pid) is not None for pid in left):
        assert time.monotonic() < deadline, "its reading process goes on without it"
        time.sleep(0.005)


def die_at(server: Server, failpoint: str) -> None:
    """Start the server and see it die at that place."""
    server.start(failpoint=failpoint)
    assert server.wait_exit() == -9


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def finish(place: Place) -> None:
    """Let a server that is left alone take in what is there."""
    with Server(place) as server:
        server.wait_taken()
        assert server.stop() == 0


def kill_at_random(place: Place, random: Random, times: int) -> None:
    """Kill and start a server so often, each time before it is done."""
    server = Server(place)
    for _ in range(times):
        left = len(place.packets_left())
        server.start()
        if random.random() < 0.3:
            # Any moment from its first instruction on: the database is being made, say.
            wait_progress(server, left, random.uniform(0.0, 0.8))
        else:
            wait_progress(server, left - random.randrange(120), PATIENCE)
            time.sleep(random.uniform(0.0, 0.01))
        server.kill()
        assert place.packets_left(), "it was faster than its killer"


def wait_progress(server: Server, until: int, seconds: float) -> None:
    """Wait until less than ``until`` packets are left, at most for so long."""
    deadline = time.monotonic() + seconds
    while len(server.place.packets_left()) >= until and time.monotonic() < deadline:
        time.sleep(0.001)

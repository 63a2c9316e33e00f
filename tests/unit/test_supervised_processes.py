"""Real processes, and what of what they do becomes a message."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.fleet.model import Instance
from dataserver.fleet.supervision.processes import Child, Processes
from dataserver.fleet.supervision.supervisor import Ended, Message
from tests.support.waiting import wait_until

#: Says to whom it would report, and stays.
STAYS = "import os, time; print(os.environ['NOTIFY_SOCKET'], flush=True); time.sleep(600)"


@dataclass
class World:
    """A selector and all that came of it; ``script`` is what each process runs."""

    home: Home
    script: str = STAYS
    told: list[Message] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def start(self) -> Child:
        world = self

        class Scripted(Processes):
            def _command(self, _: Instance) -> list[str]:
                return [sys.executable, "-c", world.script]

        hear = lambda _, line: self.heard.append(line)  # noqa: E731 - one line says it
        processes = Scripted(self.home, os.environ, self.selector, self.told.append, hear)
        self.children.append(processes(Instance(self.home.instance(), True, "1")))
        return self.children[-1]

    def turn_until(self, condition: Callable[[], object]) -> None:
        def turn() -> object:
            if not condition():
                for key, _ in self.selector.select(0.1):
                    react, child = key.data
                    react(child)
            return condition()

        wait_until(turn, "what a process does", pause=0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(Home(tmp_path))
    yield world
    for child in world.children:
        if not any(isinstance(each, Ended) for each in world.told):
            child.send(signal.SIGKILL)
            world.turn_until(lambda: world.told and isinstance(world.told[-1], Ended))
    world.selector.close()


def test_a_word_from_another_process_counts_for_nothing(world: World) -> None:
    child = world.start()
    world.turn_until(lambda: world.heard)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"READY=1\nWATCHDOG=1", "\0" + world.heard[0].removeprefix("@"))
    child.send(signal.SIGKILL)
    world.turn_until(lambda: world.told)
    assert world.told == [Ended("main", child.pid, -signal.SIGKILL)]


def test_ctrl_c_on_the_terminal_is_not_for_them(world: World) -> None:
    child = world.start()
    assert os.getsid(child.pid) == child.pid


def test_a_flood_without_an_end_of_line_comes_in_parts_and_odd_bytes_escaped(world: World) -> None:
    world.script = "import sys; sys.stderr.buffer.write(b'x' * 1_000_000 + b'\\xff\\x1b\\nbye\\n')"
    world.start()
    world.turn_until(lambda: world.told)
    assert "".join(world.heard) == "x" * 1_000_000 + "\\xff\x1b" + "bye"
    assert max(map(len, world.heard)) <= 200_000
    assert world.heard[-1] == "bye"


def opened() -> Counter[str]:
    """What this process has open, and how often."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return Counter(os.readlink(link) for link in links if os.path.lexists(link))


def test_what_it_leaves_open_is_nothing(world: World) -> None:
    before = opened()
    world.script = ""
    for number in range(5):
        world.start()
        world.turn_until(lambda number=number: len(world.told) > number)
    assert opened() - before == {}

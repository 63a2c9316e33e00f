"""Agents of the lab: they make packets, keep them, and send them by the real scp until it says 0.

:class:`Fleet`   agents on one side of the network; every attempt is written down with its times
:class:`Agent`   one of them, a thread

As docs/agent/agent.sh does: oldest first, nothing is thrown away, the next try a moment later.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.failover.network import VIRTUAL, enter
from tests.faults.corpus import File
from tests.support.sshd import SCP, UPLOAD
from tests.support.uploads import Gate
from tests.support.waiting import PATIENCE, wait_until

#: Seconds from one packet of an agent to its next, and from a failed try to the next one.
INTERVAL, PAUSE = 0.5, 0.2
#: Seconds after which scp is given up, and until a connection must stand.
_LIMIT, _CONNECT = 60, 5
#: Bytes of a packet that takes its time, and with how many Kbit/s it is sent.
BULK, _RATE = 120_000, 2_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of scp; times are epoch seconds."""

    agent: str
    name: str
    #: When the packet was made, and the run began and ended.
    made: float
    begun: float
    ended: float
    #: 0: the packet has arrived.
    code: int
    error: str


@dataclass(frozen=True, slots=True)
class Way:
    """How an agent uploads."""

    key: Path
    known_hosts: Path
    account: str = UPLOAD
    #: With packets that take half a second, through this in the place of ssh.
    slow: Gate | None = None

    def command(self, path: Path) -> list[str]:
        """scp's command line for a packet."""
        settings = (
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
            f"ConnectTimeout={_CONNECT}",
            "ServerAliveInterval=2",
            "ServerAliveCountMax=2",
            # A sixth of the default's work; twenty agents and both hosts are on this machine.
            "KexAlgorithms=curve25519-sha256",
        )
        options = [part for each in settings for part in ("-o", each)]
        old = ["-O"] if self.account == SCP else []
        slowly = ["-l", str(_RATE), "-S", str(self.slow.program)] if self.slow else []
        target = f"{self.account}@{VIRTUAL}:/data_in/"
        # It dies with the thread that waits for it, and so with the test.
        first = ["setpriv", "--pdeathsig", "KILL", "scp", "-q", "-F", "/dev/null"]
        return [*first, *old, *slowly, "-i", str(self.key), *options, str(path), target]


class Agent(threading.Thread):
    """One agent; it makes packets from ``files`` until it is stopped, and sends all it made."""

    def __init__(self, network: int, way: Way, files: Iterator[File], outgoing: Path) -> None:
        super().__init__(daemon=True)
        self.made: list[File] = []
        self.attempts: list[Attempt] = []
        self._network = network
        self._way = way
        self._files = files
        self._outgoing = outgoing
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make no more packets; what was made is still sent."""
        self._stopped.set()

    def has_sent_since(self, at: float) -> bool:
        """Whether an upload that began after ``at`` was a success."""
        return any(each.begun > at and each.code == 0 for each in self.attempts)

    def run(self) -> None:
        enter(self._network)
        due = time.monotonic()
        waiting: list[tuple[File, Path, float]] = []
        while waiting or not self._stopped.is_set():
            if time.monotonic() >= due and not self._stopped.is_set():
                waiting.append(self._make())
                due += INTERVAL
            if not waiting:
                self._stopped.wait(max(0.0, due - time.monotonic()))
            elif self._send(*waiting[0]):
                waiting.pop(0)
            else:
                time.sleep(PAUSE)

    def _make(self) -> tuple[File, Path, float]:
        file = next(self._files)
        if self._way.slow:
            file = _bulky(file)
        path = self._outgoing / file.name
        path.write_bytes(file.content)
        path.chmod(0o644)
        self.made.append(file)
        return file, path, time.time()

    def _send(self, file: File, path: Path, made: float) -> bool:
        begun = time.time()
        code, error = send(self._way, path)
        ended = time.time()
        self.attempts.append(Attempt(file.agent, file.name, made, begun, ended, code, error))
        if code == 0:
            path.unlink()
        return code == 0


class Fleet:
    """Agents, and what became of their packets."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        self.agents = agents

    def start(self) -> None:
        for agent in self.agents:
            agent.start()

    def finish(self) -> None:
        """No more packets; returns when all that were made are sent."""
        for agent in self.agents:
            agent.stop()
        for agent in self.agents:
            agent.join(PATIENCE)
            assert not agent.is_alive(), agent.attempts[-3:]

    def wait_sent(self) -> None:
        """Wait until everybody has sent a packet from now on."""
        now = time.time()
        wait_until(
            lambda: all(agent.has_sent_since(now) for agent in self.agents),
            lambda: f"an upload of every agent; {self._last()}",
            pause=0.02,
        )

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, in the order in which they ended."""
        found = itertools.chain.from_iterable(agent.attempts for agent in self.agents)
        return sorted(found, key=lambda each: each.ended)

    @property
    def made(self) -> list[File]:
        return [file for agent in self.agents for file in agent.made]

    def _last(self) -> list[tuple[str, int, str]]:
        return [(each.agent, each.code, each.error) for each in self.attempts[-8:]]


def send(way: Way, path: Path) -> tuple[int, str]:
    """Run scp once from the calling thread's network; its exit code, and what it said."""
    process = subprocess.Popen(
        way.command(path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said, _ = process.communicate(timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -1, f"nothing happened for {_LIMIT} s"
    return process.returncode, said.decode("utf-8", "replace").strip()


def _bulky(file: File) -> File:
    """The same packet with a long remark in it."""
    end = b"</agent_data>"
    remark = b"<!-- " + b"x" * BULK + b" -->\n"
    return dataclasses.replace(file, content=file.content.replace(end, remark + end))

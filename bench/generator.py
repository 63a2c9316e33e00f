"""Agents' packets made from a seed: the same bytes for the same workload, every time.

Each agent is made by itself, with a random generator seeded by its name, so that a corpus
needs no memory and the order of making does not matter.  Only ``Random.random`` is used,
whose sequence Python keeps the same between versions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.workloads import CHANGED, INTERVAL, Kind, Workload

#: The first round's time: 2026-01-01 00:00:00 UTC, past for every clock that is right.
START = 1_767_225_600

SEED = 1

_NAMES = {
    Kind.DATA: (
        ("CPU Load", "User CPU usage (%)"),
        ("Free Memory", "Free memory in MB"),
        ("Disk_/", "Free space of the root partition (%)"),
        ("Load Average", ""),
    ),
    Kind.COUNTER: (("Network in eth0", "Bytes received"), ("Network out eth0", ""), ("Forks", "")),
    Kind.PROC: (("SSH Daemon", ""), ("Cron task", "Status of the cron daemon")),
    Kind.STRING: (("Last login", ""),),
}

_HEAD = (
    "<?xml version='1.0' encoding='UTF-8'?>\n"
    "<agent_data description='' group='Servers' os_name='linux'"
    " os_version='Debian GNU/Linux 12 (bookworm)' interval='{interval}' version='1.0.0'"
    " timestamp='{timestamp}' agent_name='{agent}' agent_alias='{agent}' timezone_offset='0'"
    " custom_id='' url_address='' address='{address}'>\n"
)

_MODULE = (
    "<module>\n<name><![CDATA[{name}]]></name>\n{description}<type>{kind}</type>\n"
    "<data><![CDATA[{value}]]></data>\n</module>\n"
)

_DESCRIPTION = "<description><![CDATA[{}]]></description>\n"


@dataclass(frozen=True, slots=True)
class File:
    """One packet: its round, its file's name and bytes, and how many values it adds to history."""

    round: int
    name: str
    content: bytes
    stored: int


class _Source:
    """One module of one agent: what it reads in each round."""

    def __init__(self, kind: Kind, name: str, description: str, random: Random) -> None:
        self._kind = kind
        self._random = random
        self._span = 2 if kind is Kind.PROC else 10_000
        self._level = self._upto(self._span)
        self._reading = self._upto(1_000_000_000)
        self._rounds = 0
        described = _DESCRIPTION.format(description) if description else ""
        self._template = _MODULE.format(name=name, description=described, kind=kind, value="{}")

    def _upto(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def next(self) -> tuple[str, bool]:
        """The next round's element, and whether its value enters history.

        A counter's level is its rate: the rate stays or changes, the reading grows by it.
        The first reading gives no rate yet, so the second is always new.
        """
        changed = self._random.random() < CHANGED
        if changed:
            self._level = (self._level + 1 + self._upto(self._span - 1)) % self._span
        unknown_before = 1 if self._kind is Kind.COUNTER else 0
        stored = self._rounds == unknown_before or (changed and self._rounds > unknown_before)
        self._rounds += 1
        return self._template.format(self._text()), stored

    def _text(self) -> str:
        match self._kind:
            case Kind.DATA:
                return f"{self._level / 100:.2f}"
            case Kind.COUNTER:
                self._reading += self._level * INTERVAL
                return str(self._reading)
            case Kind.PROC:
                return str(self._level)
            case Kind.STRING:
                return f"operator{self._level:04d} pts/0 192.0.2.17"


def _sources(kinds: tuple[Kind, ...], random: Random) -> list[_Source]:
    made: dict[Kind, int] = {}
    sources = []
    for kind in kinds:
        number = made.get(kind, 0)
        made[kind] = number + 1
        lap, place = divmod(number, len(_NAMES[kind]))
        name, description = _NAMES[kind][place]
        sources.append(_Source(kind, f"{name} {lap + 1}" if lap else name, description, random))
    return sources


def agent_files(workload: Workload, number: int, seed: int = SEED) -> Iterator[File]:
    """The packets of one agent, one for each round."""
    agent = f"{workload.name.lower()}-{number:05d}"
    random = Random(f"{seed}/{agent}")  # the agent's packets must not depend on the others'
    sources = _sources(workload.kinds, random)
    phase = int(random.random() * INTERVAL)
    stem = hashlib.md5(agent.encode(), usedforsecurity=False).hexdigest()
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    for turn in range(workload.rounds):
        at = START + turn * INTERVAL + phase
        timestamp = time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(at))
        head = _HEAD.format(interval=INTERVAL, timestamp=timestamp, agent=agent, address=address)
        modules = [source.next() for source in sources]
        content = "".join((head, *(text for text, _ in modules), "</agent_data>\n"))
        yield File(turn, f"{stem}.{at}.data", content.encode(), sum(new for _, new in modules))


def files(workload: Workload, seed: int = SEED) -> Iterator[File]:
    """Every packet of a workload, agent by agent."""
    for number in range(workload.agents):
        yield from agent_files(workload, number, seed)


def round_folder(folder: Path, turn: int) -> Path:
    """Where one round's files lie in a corpus."""
    return folder / f"{turn:03d}"


def write(workload: Workload, folder: Path, seed: int = SEED) -> list[int]:
    """Write a corpus, one folder for each round.

    Returns: how many values each round adds to history.
    """
    stored = [0] * workload.rounds
    for turn in range(workload.rounds):
        round_folder(folder, turn).mkdir(parents=True)
    for file in files(workload, seed):
        stored[file.round] += file.stored
        (round_folder(folder, file.round) / file.name).write_bytes(file.content)
    return stored

"""Packets made from a seed, with what a store must answer when it has taken them in.

Each agent has a number, a string, a counter, an async number and a list of values with times
of their own; every module but the counter is missing from some packets, so that what a late
packet must restore is not always the module's next value.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

#: The first packet's time, 2026-01-01 00:00:00 UTC, and the agents' interval, in seconds.
START = 1_767_225_600
INTERVAL = 300

NUMBER, TEXT, ASYNC, LIST, COUNTER = "load", "who is on", "queue", "probe", "bytes in"
#: What makes their statuses change, with and without patience, so that events must come once too.
_TAGS = {
    NUMBER: "<min_warning>5</min_warning><max_warning>9</max_warning>"
    "<min_critical>9</min_critical><min_ff_event>1</min_ff_event>",
    TEXT: "<str_critical>user[0-3]</str_critical>",
    ASYNC: "<min_critical>2</min_critical><ff_type>1</ff_type><min_ff_event>1</min_ff_event>",
    LIST: "<min_warning>3</min_warning>",
    COUNTER: "",
}

Value = float | str
#: A module, by the names of its agent and its own.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class File:
    """One packet as it is uploaded, with what it says."""

    name: str
    content: bytes
    agent: str
    time: int
    #: Values by module and time; the counter's are its readings.
    values: dict[tuple[str, int], Value] = field(repr=False)


@dataclass(slots=True)
class Told:
    """What a set of packets says, by module: its values (or readings) by time."""

    values: defaultdict[Key, dict[int, Value]] = field(default_factory=lambda: defaultdict(dict))
    counters: defaultdict[Key, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))


def corpus(agents: int, rounds: int, seed: int = 1) -> list[File]:
    """The packets of all agents, in the order of their times."""
    files = [file for number in range(agents) for file in _agent(number, rounds, seed)]
    return sorted(files, key=lambda file: (file.time, file.name))


def told(files: Sequence[File]) -> Told:
    """What ``files`` say, whatever order they come in and however often."""
    told = Told()
    for file in files:
        for (module, at), value in file.values.items():
            if module == COUNTER:
                told.counters[file.agent, module][at] = float(value)
            else:
                told.values[file.agent, module][at] = value
    return told


def write(files: Sequence[File], folder: Path) -> None:
    """Put packets into a drop directory, oldest first, each at once."""
    for file in files:
        part = folder / f".{file.name}"
        part.write_bytes(file.content)
        part.rename(folder / file.name)


def _agent(number: int, rounds: int, seed: int) -> Iterator[File]:
    agent = f"host-{number:03d}"
    random = Random(f"{seed}/{agent}")
    phase = random.randrange(INTERVAL - 60)
    load, user, reading = random.randrange(50), "nobody", random.randrange(1_000_000)
    for turn in range(rounds):
        at = START + turn * INTERVAL + phase
        load = random.randrange(50) if random.random() < 0.4 else load
        user = f"user{random.randrange(9)} <&> pts" if random.random() < 0.3 else user
        # Now and then the machine restarts, and its counter with it.  Not in the last round:
        # the time of a try that gave no value is the clock's.
        restarted = random.random() < 0.03 and turn < rounds - 1
        reading = 0 if restarted else reading + random.randrange(60_000)
        values: dict[tuple[str, int], Value] = {(COUNTER, at): float(reading)}
        if random.random() < 0.9:
            values[NUMBER, at] = load / 4
        if random.random() < 0.8:
            values[TEXT, at] = user
        if random.random() < 0.5:
            values[ASYNC, at] = float(random.randrange(3))
        if random.random() < 0.3:
            # Seconds at which no packet of this agent is.
            values |= {(LIST, at + 7 * i): float(random.randrange(4)) for i in range(1, 4)}
        content = _packet(agent, number, at, values)
        yield File(f"{agent}.{at}.data", content, agent, at, values)


def _packet(agent: str, number: int, at: int, values: dict[tuple[str, int], Value]) -> bytes:
    modules = [
        _module(name, kind, value)
        for name, kind in (
            (COUNTER, "generic_data_inc"),
            (NUMBER, "generic_data"),
            (TEXT, "generic_data_string"),
            (ASYNC, "async_data"),
        )
        if (value := values.get((name, at))) is not None
    ]
    listed = [(when, value) for (name, when), value in values.items() if name == LIST]
    if listed:
        modules.append(_list_module(listed))
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>\n<agent_data agent_name='{agent}'"
        f" timestamp='{local(at)}' interval='{INTERVAL}' os_name='linux'"
        f" address='10.0.{number // 256}.{number % 256}'>\n{''.join(modules)}</agent_data>\n"
    ).encode()


def _module(name: str, kind: str, value: Value) -> str:
    return (
        f"<module><name>{name}</name><type>{kind}</type><data><![CDATA[{value}]]></data>"
        f"{_TAGS[name]}</module>\n"
    )


def _list_module(listed: list[tuple[int, Value]]) -> str:
    data = "".join(
        f"<data><value>{value}</value><timestamp>{local(at)}</timestamp></data>"
        for at, value in listed
    )
    head = f"<module><name>{LIST}</name><type>generic_data</type>{_TAGS[LIST]}"
    return f"{head}<datalist>{data}</datalist></module>\n"


def local(at: int) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S", time.gmtime(at))

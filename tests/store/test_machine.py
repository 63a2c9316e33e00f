"""Any order of packets, servers, restarts and deletions, against a slow and simple reference.

Two recorders with caches of their own take turns on one database, while somebody deletes agents
and modules behind their backs.  The reference keeps what every packet carried and knows nothing
of caches, points or ledgers: after each step the database must give all of that back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from calendar import timegm
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from time import strptime
from typing import Any, ClassVar
from xml.etree import ElementTree

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from sqlalchemy import Connection, Engine, delete, func, select, update

from dataserver.ingest.delivery import Delivery
from dataserver.model import Arrival
from dataserver.store import schema
from dataserver.store.read.history import History
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database, opened
from tests.support.ingest import NOW, Ingest, arrival
from tests.support.machines import play
from tests.support.mariadb import in_memory
from tests.support.packets import START, module, stamp
from tests.support.packets import packet as packet_bytes

#: Histories that once went wrong.
HISTORIES = Path(__file__).parent / "histories"

STEP = 100
#: Longer than the time after which an unchanged value is stored again.
FAR = 90_000

#: Module -> its type; a name in two spellings is one module.
TYPES = {
    "number": "generic_data",
    "text": "generic_data_string",
    "event": "async_data",
    "counter": "generic_data_inc",
}
SPELLINGS = {"number": ("number", "Number"), "one": ("one", "One")}
AGENTS = ("one", "two")
#: Most packets are of one agent, so that they meet.
_MOSTLY_ONE = ("one", "one", "one", "two")


def reading(time: int) -> float:
    """What the counter shows at ``time``: between any two times it grows at another rate."""
    return float((time - START) ** 2)


@dataclass(frozen=True)
class Sent:
    """One packet: its agent, its time and what it carries, by module, as (time, value)."""

    agent: str
    time: int
    content: bytes
    values: tuple[tuple[str, tuple[tuple[int, str], ...]], ...]

    @classmethod
    def read(cls, content: str) -> Sent:
        """From what is sent, by another parser than the server's."""
        root = ElementTree.fromstring(content)
        time = _epoch(root.attrib["timestamp"])
        values = []
        for element in root.iter("module"):
            own = [
                (_epoch(each.findtext("timestamp", "")), each.findtext("value", ""))
                for each in element.iterfind("datalist/data")
            ]
            carried = own or [(time, element.findtext("data", ""))]
            values.append((element.findtext("name", "").lower(), tuple(carried)))
        agent = root.attrib["agent_name"].lower()
        return cls(agent, time, content.encode(), tuple(values))

    @property
    def arrival(self) -> Arrival:
        return arrival(self.content)


def _epoch(local: str) -> int:
    return timegm(strptime(local, "%Y/%m/%d %H:%M:%S"))


# -- what is sent ----------------------------------------------------------------

_times = st.builds(
    lambda step, far: START + step * STEP + far,
    st.integers(0, 8),
    st.sampled_from([0, 0, 0, FAR]),
)


@st.composite
def packets(draw: st.DrawFn) -> Sent:
    """A packet of one of few agents, at one of few times, with some of few modules."""
    agent, time = draw(st.sampled_from(_MOSTLY_ONE)), draw(_times)
    chosen = draw(st.sets(st.sampled_from(sorted(TYPES)), min_size=0, max_size=4))
    elements = []
    for name in sorted(chosen):
        spelled = draw(st.sampled_from(SPELLINGS.get(name, (name,))))
        carried = draw(_carried(name, time))
        has_times = len(carried) > 1 or carried[0][0] != time
        value = [(each, when) for when, each in carried] if has_times else carried[0][1]
        elements.append(module(spelled, value, TYPES[name]))
    spelled = draw(st.sampled_from(SPELLINGS.get(agent, (agent,))))
    # The serial number makes each packet one of its own, that only a resent one equals.
    serial = draw(st.integers(0, 2**32))
    return Sent.read(packet_bytes(spelled, *elements, time=time, version=serial).decode())


def _carried(name: str, time: int) -> st.SearchStrategy[tuple[tuple[int, str], ...]]:
    """One value at the packet's time, or for some modules several at their own."""
    if name == "counter":
        return st.just(((time, str(reading(time))),))
    words = st.sampled_from(["up", "down"]) if name == "text" else st.sampled_from(["0", "1", "2"])
    plain = words.map(lambda value: ((time, value),))
    if name == "text":
        return plain
    own = st.tuples(st.sampled_from([time, time - 1, time - 30, time - STEP - 30]), words)
    return plain | st.lists(own, min_size=1, max_size=3, unique_by=lambda each: each[0]).map(tuple)


# -- the machine -------------------------------------------------------------------


class Servers(RuleBasedStateMachine):
    """Two servers on one database; subclasses say of which kind."""

    kind: ClassVar[str] = SQLITE

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="machine-", dir=in_memory()))
        self._opened = opened(self.kind, self.home)
        self.database: Database = self._opened.__enter__()
        self.engine: Engine = self.database.engine()
        self.recorders = [Ingest(self.database), Ingest(self.database)]
        self.history = History(self.engine, self.database.prepare())
        #: (agent, module) -> time -> what packets carried there.
        self.carried: defaultdict[tuple[str, str], defaultdict[int, set[str]]] = defaultdict(
            lambda: defaultdict(set)
        )
        #: Every counter reading since the module is there.
        self.readings: defaultdict[str, set[int]] = defaultdict(set)
        self.taken: defaultdict[str, set[bytes]] = defaultdict(set)

    def teardown(self) -> None:
        self._opened.__exit__(None, None, None)
        shutil.rmtree(self.home)

    # -- what happens ------------------------------------------------------------

    @rule(target=sent, batch=st.lists(packets(), min_size=1, max_size=4), which=st.integers(0, 1))
    def send(self, batch: list[Sent], which: int) -> object:
        self._deliver(batch, which)
        return multiple(*batch)

    @rule(again=st.lists(sent, min_size=1, max_size=3), which=st.integers(0, 1))
    def send_again(self, again: list[Sent], which: int) -> None:
        self._deliver(
            [packet for packet in again if packet.content in self.taken[packet.agent]], which
        )

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.recorders[which] = Ingest(self.database)

    @rule(agent=st.sampled_from(AGENTS))
    def console_deletes_agent(self, agent: str) -> None:
        with self.engine.begin() as conn:
            for agent_id in self._agents(conn, agent):
                conn.execute(delete(schema.state).where(schema.state.c.agent_id == agent_id))
                conn.execute(delete(schema.module).where(schema.module.c.agent_id == agent_id))
                conn.execute(delete(schema.agent).where(schema.agent.c.id == agent_id))
        self._forget(agent, *TYPES)
        self.taken[agent].clear()

    @rule(agent=st.sampled_from(AGENTS), name=st.sampled_from(sorted(TYPES)), marks=st.booleans())
    def console_deletes_module(self, agent: str, name: str, marks: bool) -> None:
        c = schema.module.c
        with self.engine.begin() as conn:
            for module_id in self._modules(conn, agent, name):
                conn.execute(delete(schema.state).where(schema.state.c.module_id == module_id))
                if marks:
                    changed = {"delete_pending": 1, "disabled": 1, "name": "delete_pending"}
                    conn.execute(update(schema.module).where(c.id == module_id).values(changed))
                else:
                    conn.execute(delete(schema.module).where(c.id == module_id))
        self._forget(agent, name)

    def _forget(self, agent: str, *names: str) -> None:
        for name in names:
            self.carried.pop((agent, name), None)
            if name == "counter":
                self.readings.pop(agent, None)

    def _deliver(self, batch: list[Sent], which: int) -> None:
        delivery = Delivery(
            self.recorders[which].recorder,
            clock=lambda: NOW,
            pause=lambda _seconds: False,
            on_failure=lambda error, seconds: None,
            on_success=lambda _tally: None,
            patient=False,
        )
        delivered = delivery.deliver([packet.arrival for packet in batch])
        assert [str(outcome.error) for _, outcome in delivered if outcome.error] == []
        for packet in batch:
            if packet.content not in self.taken[packet.agent]:
                self._take(packet)

    def _take(self, packet: Sent) -> None:
        self.taken[packet.agent].add(packet.content)
        for name, carried in packet.values:
            if name == "counter":
                self.readings[packet.agent].add(packet.time)
                continue
            for time, value in carried:
                self.carried[packet.agent, name][time].add(value)

    # -- what must hold ------------------------------------------------------------

    @invariant()
    def every_value_reads_back(self) -> None:
        with self.engine.connect() as conn:
            for (agent, name), times in self.carried.items():
                points = self._points(conn, agent, name)
                for time, values in times.items():
                    found = [value for when, value in points if when <= time][-1:]
                    assert set(found) & values, (agent, name, time - START, points, dict(times))

    @invariant()
    def every_state_is_the_newest(self) -> None:
        with self.engine.connect() as conn:
            for (agent, name), times in self.carried.items():
                newest = max(times)
                (value, local) = self._state(conn, agent, name)
                assert _plain(value) in times[newest], (agent, name, value, dict(times))
                assert str(local).replace("-", "/") == stamp(newest)

    @invariant()
    def every_rate_is_the_difference_of_two_readings(self) -> None:
        with self.engine.connect() as conn:
            for agent in AGENTS:
                times = sorted(self.readings[agent])
                for time, value in self._points(conn, agent, "counter"):
                    rates = {
                        (reading(time) - reading(before)) / (time - before)
                        for before in times
                        if before < time
                    }
                    assert time in times
                    assert any(abs(float(value) - rate) < 1e-4 for rate in rates)

    @invariant()
    def nothing_is_there_twice(self) -> None:
        with self.engine.connect() as conn:
            for agent in AGENTS:
                ids = self._agents(conn, agent)
                assert len(ids) == (1 if self.taken[agent] else 0)
                for name in TYPES:
                    modules = self._modules(conn, agent, name)
                    assert len(modules) <= 1
                    c = schema.state.c
                    states = select(func.count()).where(c.module_id.in_(modules))
                    assert conn.scalar(states) == len(modules)
                if ids:
                    ledger = select(func.count()).where(schema.packet.c.agent_id == ids[0])
                    assert conn.scalar(ledger) == len(self.taken[agent])

    # -- looking ---------------------------------------------------------------------

    def _agents(self, conn: Connection, name: str) -> list[int]:
        c = schema.agent.c
        return list(conn.scalars(select(c.id).where(func.lower(c.name) == name)))

    def _modules(self, conn: Connection, agent: str, name: str) -> list[int]:
        c = schema.module.c
        query = select(c.id).where(
            c.agent_id.in_(self._agents(conn, agent)),
            func.lower(c.name) == name,
            c.delete_pending == 0,
        )
        return list(conn.scalars(query))

    def _points(self, conn: Connection, agent: str, name: str) -> list[tuple[int, str]]:
        """As a user reads them back."""
        return [
            (time, _plain(value))
            for module_id in self._modules(conn, agent, name)
            for time, value in self.history.points(module_id, 0, NOW)
        ]

    def _state(self, conn: Connection, agent: str, name: str) -> tuple[str, object]:
        c = schema.state.c
        (module_id,) = self._modules(conn, agent, name)
        row = conn.execute(select(c.value, c.local_time).where(c.module_id == module_id)).one()
        return row[0], row[1]


def _plain(value: object) -> str:
    """A stored value as packets here write it."""
    try:
        number = float(str(value))
    except ValueError:
        return str(value)
    return str(int(number)) if number.is_integer() else repr(number)


class MariaDbServers(Servers):
    kind = MARIADB


class PandoraServers(Servers):
    kind = PANDORA


MACHINES = {machine.kind: machine for machine in (Servers, MariaDbServers, PandoraServers)}


@pytest.mark.parametrize("kind", MACHINES)
@pytest.mark.parametrize("history", sorted(HISTORIES.glob("*.json")), ids=lambda it: it.stem)
def test_a_history_that_once_went_wrong(history: Path, kind: str) -> None:
    """Each file: a list of steps, a rule of the machine and its arguments."""
    machine = MACHINES[kind]()
    try:
        for name, arguments in json.loads(history.read_text()):
            getattr(machine, name)(**_arguments(arguments))
            machine.every_value_reads_back()
            machine.every_state_is_the_newest()
            machine.every_rate_is_the_difference_of_two_readings()
            machine.nothing_is_there_twice()
    finally:
        machine.teardown()


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    packets = {"batch", "again"} & given.keys()
    return given | {key: [Sent.read(content) for content in given[key]] for key in packets}


def test_any_history_of_two_servers_on_sqlite() -> None:
    play(Servers, few=12, many=300, steps=20)


@pytest.mark.parametrize("machine", [MariaDbServers, PandoraServers])
def test_any_history_of_two_servers_on_mariadb(machine: type[Servers]) -> None:
    play(machine, few=3, many=60, steps=20)

"""Any order of packets, servers, restarts and deletions, against a slow and simple reference.

Two recorders with caches of their own take turns on one database, while somebody deletes agents
and modules behind their backs.  The reference keeps what every packet carried and knows nothing
of caches, points or ledgers: after each step the database must give all of that back.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, delete, func, select, update

from dataserver.model import Arrival
from dataserver.store import schema
from dataserver.worker.delivery import Delivery
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database, opened
from tests.support.ingest import NOW, Ingest, arrival

START = 1_767_225_600
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

    @property
    def arrival(self) -> Arrival:
        return arrival(self.content)


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
    elements, values = [], []
    for name in sorted(chosen):
        spelled = draw(st.sampled_from(SPELLINGS.get(name, (name,))))
        carried = draw(_carried(name, time))
        has_times = len(carried) > 1 or carried[0][0] != time
        body = _list(carried) if has_times else f"<data>{carried[0][1]}</data>"
        elements.append(f"<module><name>{spelled}</name><type>{TYPES[name]}</type>{body}</module>")
        values.append((name, carried))
    spelled = draw(st.sampled_from(SPELLINGS.get(agent, (agent,))))
    # The serial number makes each packet one of its own, that only a resent one equals.
    serial = draw(st.integers(0, 2**32))
    head = f'<agent_data agent_name="{spelled}" timestamp="{_local(time)}" version="{serial}">'
    return Sent(agent, time, f"{head}{''.join(elements)}</agent_data>".encode(), tuple(values))


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


def _list(carried: Sequence[tuple[int, str]]) -> str:
    samples = (
        f"<data><value>{value}</value><timestamp>{_local(time)}</timestamp></data>"
        for time, value in carried
    )
    return f"<datalist>{''.join(samples)}</datalist>"


def _local(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y/%m/%d %H:%M:%S")


# -- the machine -------------------------------------------------------------------


class Servers(RuleBasedStateMachine):
    """Two servers on one database; subclasses say of which kind."""

    kind: ClassVar[str] = SQLITE
    #: An SQLite database with all its tables, made once: making one takes longer than a run.
    template: ClassVar[Path | None] = None

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="machine-"))
        self._opened = opened(self.kind, self.home)
        self.database: Database = self._opened.__enter__()
        if self.template is not None:
            target = self.home / "var" / "dataserver.db"
            target.parent.mkdir()
            shutil.copyfile(self.template, target)
        self.engine: Engine = self.database.engine()
        self.recorders = [Ingest(self.database), Ingest(self.database)]
        self.has_ordinal = self.database.prepare().has_ordinal
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
            trouble=lambda error: None,
            well=lambda _tally: None,
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
                assert str(local).replace("-", "/") == _local(newest)

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
        table = schema.text_history if name == "text" else schema.number_history
        order = [table.c.time, table.c.ordinal] if self.has_ordinal else [table.c.time]
        query = (
            select(table.c.time, table.c.value)
            .where(table.c.module_id.in_(self._modules(conn, agent, name)))
            .order_by(*order)
        )
        return [(time, _plain(value)) for time, value in conn.execute(query)]

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


def play(machine: type[Servers], examples: int, steps: int) -> None:
    """Let ``machine`` run; what fails is shown as found: shrinking would take minutes."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    with opened(SQLITE, home) as database:
        database.prepare()
    # The last connection that closes puts everything into the one file.
    return home / "var" / "dataserver.db"


def test_any_history_of_two_servers_on_sqlite(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Servers, "template", template)
    play(Servers, examples=80, steps=20)


@pytest.mark.parametrize("machine", [MariaDbServers, PandoraServers])
def test_any_history_of_two_servers_on_mariadb(machine: type[Servers], mariadb: object) -> None:
    play(machine, examples=8, steps=15)

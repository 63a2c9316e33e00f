"""Any order of packets, consoles and sweeps: statuses, events and counts in the database.

Two recorders with caches of their own take turns, packets come late and again, the console
changes what modules are judged by, and a sweep looks for silent ones.  After each step the state
of every module and its events must be those of a replay of all that happened to it, and every
agent's counts those of its modules.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from xml.sax.saxutils import escape

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)
from sqlalchemy import Connection, delete, func, select, update

from dataserver.ingest.delivery import Delivery
from dataserver.model import Arrival
from dataserver.rules import entities
from dataserver.rules.times import local_text
from dataserver.store import admission, recorder, schema
from dataserver.store.counts import recount_flagged
from dataserver.store.events import EventLog
from dataserver.store.sql import Sql
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.clock import Clock
from tests.support.databases import MARIADB, PANDORA, SQLITE, Database, opened
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.machines import play
from tests.support.mariadb import in_memory
from tests.support.packets import stamp
from tests.support.replay import Happened, Level, Module, State, Sweep, Told, Value, replay

START = 1_767_225_600
STEP = 300
#: When packets are taken in: a day after the newest of them.
NOW = START + 10 * 86_400

TYPES = {
    "load": "generic_data",
    "log": "generic_data_string",
    "door": "async_data",
    "up": "generic_proc",
}
AGENTS = ("one", "two")
_MOSTLY_ONE = ("one", "one", "one", "two")
STATE = schema.state.c
MODULE = schema.module.c
AGENT = schema.agent.c
EVENT = schema.event.c

# -- what is sent -----------------------------------------------------------------------

NUMBERS = ["0", "1", "10", "50", "60", "-5", "12.345"]
TEXTS = ["ok", "error 5", "warn: <disk>"]
#: Beside the value: mostly nothing.
GIVEN = [None, None, None, None, None, "CRITICAL", "warning"]

_levels = st.builds(
    Level,
    min=st.sampled_from([0.0, 1.0, 10.0, 50.0]),
    max=st.sampled_from([0.0, 0.0, 10.0, 50.0]),
    text=st.sampled_from(["", "err", "^warn", "[", "ok"]),
    inverse=st.sampled_from([False, False, True]),
)
_limits = st.sampled_from([0, 0, 1, 2])
#: What a packet may say when it creates a module.
_told = st.builds(
    Module,
    critical=_levels,
    warning=_levels,
    ff_type=st.sampled_from([0, 0, 1]),
    min_ff_event=_limits,
    each_ff=st.booleans(),
    min_ff_event_normal=_limits,
    min_ff_event_warning=_limits,
    min_ff_event_critical=_limits,
    ff_timeout=st.sampled_from([0, 0, 400]),
    module_interval=st.just(STEP),
)
#: What only the console sets.
_set = st.builds(
    lambda module, quiet, interval, warnings, percentage: replace(
        module,
        quiet=quiet,
        module_ff_interval=interval,
        warning_time=warnings,
        critical=replace(module.critical, percentage=percentage),
    ),
    _told,
    st.sampled_from([False, False, True]),
    st.sampled_from([0, 0, 30]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([False, False, True]),
)


@dataclass(frozen=True)
class Sent:
    """One packet: its agent, its time and its modules: name, value, status given."""

    agent: str
    time: int
    content: bytes
    values: tuple[tuple[str, str, str | None], ...]
    told: Module

    @property
    def arrival(self) -> Arrival:
        return arrival(self.content)


@st.composite
def packets(draw: st.DrawFn) -> Sent:
    """A packet of one of few agents at one of few times: often late, often of the same second."""
    agent, time = draw(st.sampled_from(_MOSTLY_ONE)), START + STEP * draw(st.integers(0, 20))
    chosen = draw(st.sets(st.sampled_from(sorted(TYPES)), max_size=4))
    told = draw(_told)
    values = tuple(
        (name, draw(st.sampled_from(TEXTS if name == "log" else NUMBERS)), given)
        for name in sorted(chosen)
        for given in [draw(st.sampled_from(GIVEN))]
    )
    serial = draw(st.integers(0, 2**32))
    head = f'<agent_data agent_name="{agent}" timestamp="{stamp(time)}" version="{serial}">'
    body = "".join(_element(name, value, given, told) for name, value, given in values)
    return Sent(agent, time, f"{head}{body}</agent_data>".encode(), values, told)


def _element(name: str, value: str, given: str | None, told: Module) -> str:
    tags = {key: cell for key, cell in columns(told).items() if key in _PACKET_TAGS}
    tags |= {} if given is None else {"status": given}
    # An inverse or empty tag is told as any other: as the text of its column.
    inner = "".join(f"<{key}>{escape(str(cell))}</{key}>" for key, cell in tags.items())
    data = f"<name>{name}</name><type>{TYPES[name]}</type><data>{escape(value)}</data>"
    return f"<module>{data}{inner}</module>"


def columns(module: Module) -> dict[str, Any]:
    """What a module's row holds of its status."""
    return {
        "min_critical": module.critical.min,
        "max_critical": module.critical.max,
        "str_critical": module.critical.text,
        "critical_inverse": int(module.critical.inverse),
        "percentage_critical": int(module.critical.percentage),
        "min_warning": module.warning.min,
        "max_warning": module.warning.max,
        "str_warning": module.warning.text,
        "warning_inverse": int(module.warning.inverse),
        "warning_time": module.warning_time,
        "ff_type": module.ff_type,
        "min_ff_event": module.min_ff_event,
        "each_ff": int(module.each_ff),
        "min_ff_event_normal": module.min_ff_event_normal,
        "min_ff_event_warning": module.min_ff_event_warning,
        "min_ff_event_critical": module.min_ff_event_critical,
        "ff_timeout": module.ff_timeout,
        "module_ff_interval": module.module_ff_interval,
        "quiet": int(module.quiet),
    }


_PACKET_TAGS = frozenset(columns(Module())) - {
    *("percentage_critical", "warning_time", "module_ff_interval", "quiet")
}


# -- what is known of it -------------------------------------------------------------------


@dataclass
class Tracked:
    """One module: what it is, and all that happened to it."""

    created: Module
    now: Module
    disabled: bool = False
    happened: list[Happened] = field(default_factory=list)
    #: Time of the newest value, and when it was processed.
    newest: int = 0
    processed: int = 0

    def add(self, what: Value | Sweep, *, hushed: bool) -> None:
        self.happened += [replace(self.now, quiet=self.now.quiet or hushed), what]

    def replayed(self) -> tuple[State, list[Told]]:
        return replay(self.created, self.happened)


# -- the machine ----------------------------------------------------------------------------


#: The clock by which caches age.
CLOCK = Clock()


class Console(RuleBasedStateMachine):
    """Servers, a console and a sweep on one database; subclasses say of which kind."""

    kind: ClassVar[str] = SQLITE

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="statuses-", dir=in_memory()))
        self._opened = opened(self.kind, self.home)
        self.database: Database = self._opened.__enter__()
        self.engine = self.database.engine()
        self.servers = [Ingest(self.database), Ingest(self.database)]
        self.layout = self.database.prepare()
        self.sql = Sql(self.engine.dialect)
        self.sweeper = UnknownSweep(
            self.sql, self.layout, EventLog(self.sql, self.layout), lambda t: local_text(t, ZONE)
        )
        self.now = NOW
        self.modules: dict[tuple[str, str], Tracked] = {}
        self.newest: defaultdict[str, int] = defaultdict(int)
        self.quiet: set[str] = set()
        self.taken: set[bytes] = set()

    def teardown(self) -> None:
        self._opened.__exit__(None, None, None)
        shutil.rmtree(self.home)

    # -- packets ---------------------------------------------------------------------

    @rule(target=sent, batch=st.lists(packets(), min_size=1, max_size=4), which=st.integers(0, 1))
    def send(self, batch: list[Sent], which: int) -> object:
        self._deliver(batch, which)
        return multiple(*batch)

    @rule(agent=st.sampled_from(_MOSTLY_ONE), batch=st.lists(packets(), min_size=2, max_size=5))
    def send_in_order(self, agent: str, batch: list[Sent]) -> None:
        """Each packet newer than all before it, by itself: what goes on most of the time."""
        for place, packet in enumerate(batch):
            self._deliver([self._moved(packet, agent)], place % 2)

    def _moved(self, packet: Sent, agent: str) -> Sent:
        time = max(self.newest[agent], START) + STEP
        stamps = [stamp(each).encode() for each in (packet.time, time)]
        content = packet.content.replace(*stamps)
        content = content.replace(f'name="{packet.agent}"'.encode(), f'name="{agent}"'.encode())
        return replace(packet, agent=agent, time=time, content=content)

    @rule(again=st.lists(sent, min_size=1, max_size=3), which=st.integers(0, 1))
    def send_again(self, again: list[Sent], which: int) -> None:
        self._deliver([packet for packet in again if packet.content in self.taken], which)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.servers[which] = Ingest(self.database)

    def _deliver(self, batch: list[Sent], which: int) -> None:
        self.now += 10
        delivery = Delivery(
            self.servers[which].recorder,
            clock=lambda: self.now,
            pause=lambda _seconds: False,
            on_failure=lambda error, seconds: None,
            on_success=lambda _tally: None,
            patient=False,
        )
        delivered = delivery.deliver([packet.arrival for packet in batch])
        assert [str(outcome.error) for _, outcome in delivered if outcome.error] == []
        new = {packet.content: packet for packet in batch if packet.content not in self.taken}
        before = dict(self.newest)
        # The order in which the packets of one transaction are taken in.
        for packet in sorted(new.values(), key=lambda it: (it.time, it.arrival.packet.digest)):
            self._take(packet, late=packet.time < before.get(packet.agent, 0))
        self.taken |= new.keys()

    def _take(self, packet: Sent, *, late: bool) -> None:
        for name, text, given in packet.values:
            tracked = self.modules.get((packet.agent, name))
            if tracked is None:
                created = replace(packet.told, type=TYPES[name])
                tracked = self.modules[packet.agent, name] = Tracked(created, created)
            if tracked.disabled or packet.time < tracked.newest:
                continue
            kept = text if name == "log" else f"{float(text):.5f}"
            hushed = late or packet.agent in self.quiet
            tracked.add(Value(packet.time, kept, given), hushed=hushed)
            tracked.newest, tracked.processed = packet.time, self.now
        self.newest[packet.agent] = max(self.newest[packet.agent], packet.time)

    # -- the console --------------------------------------------------------------------

    def _known(self) -> bool:
        return bool(self.modules)

    def _pick(self, data: st.DataObject) -> tuple[str, str]:
        return data.draw(st.sampled_from(sorted(self.modules)))

    @precondition(_known)
    @rule(data=st.data(), module=_set)
    def console_sets_thresholds(self, data: st.DataObject, module: Module) -> None:
        key = self._pick(data)
        tracked = self.modules[key]
        tracked.now = replace(module, type=tracked.created.type)
        self._set_module(key, columns(tracked.now))
        self._notice()

    @precondition(_known)
    @rule(data=st.data())
    def console_disables_or_enables(self, data: st.DataObject) -> None:
        key = self._pick(data)
        tracked = self.modules[key]
        tracked.disabled = not tracked.disabled
        self._set_module(key, {"disabled": int(tracked.disabled)})
        self._ask_for_recount(key[0])
        self._notice()

    @precondition(_known)
    @rule(data=st.data())
    def console_silences_agent(self, data: st.DataObject) -> None:
        agent, _ = self._pick(data)
        self.quiet ^= {agent}
        with self.engine.begin() as conn:
            quiet = {"quiet": int(agent in self.quiet)}
            conn.execute(update(schema.agent).where(AGENT.name == agent).values(quiet))
        self._notice()

    @precondition(_known)
    @rule(data=st.data(), marks=st.booleans(), notice=st.booleans())
    def console_deletes_module(self, data: st.DataObject, marks: bool, notice: bool) -> None:
        key = self._pick(data)
        with self.engine.begin() as conn:
            module_id = self._id(conn, key)
            for table in (schema.state, schema.event, schema.number_history, schema.text_history):
                conn.execute(delete(table).where(table.c.module_id == module_id))
            if marks:
                gone = {"delete_pending": 1, "disabled": 1, "name": "delete_pending"}
                conn.execute(update(schema.module).where(MODULE.id == module_id).values(gone))
            else:
                conn.execute(delete(schema.module).where(MODULE.id == module_id))
        del self.modules[key]
        self._ask_for_recount(key[0])
        if notice:
            self._notice()

    def _set_module(self, key: tuple[str, str], values: dict[str, Any]) -> None:
        with self.engine.begin() as conn:
            module_id = self._id(conn, key)
            conn.execute(update(schema.module).where(MODULE.id == module_id).values(values))

    def _ask_for_recount(self, agent: str) -> None:
        with self.engine.begin() as conn:
            flag = {"update_module_count": 1}
            conn.execute(update(schema.agent).where(AGENT.name == agent).values(flag))
        with self.engine.begin() as conn:
            recount_flagged(conn, self.sql, self.layout)

    def _notice(self) -> None:
        """What the servers remember grows old."""
        CLOCK.advance(1000)

    # -- the sweep -----------------------------------------------------------------------

    @rule(later=st.sampled_from([0, 400, 700, 2000]))
    def sweep(self, later: int) -> None:
        self.now += later
        for (agent, _), tracked in self.modules.items():
            if tracked.disabled or not tracked.newest:
                continue
            interval = tracked.replayed()[0].current_interval
            if 2 * interval < self.now - tracked.processed:
                tracked.add(Sweep(self.now), hushed=agent in self.quiet)
        # Once more than needed: a second sweep finds nothing.
        for _ in range(2):
            with self.engine.begin() as conn:
                assert not self.sweeper.sweep(conn, self.now, self.now)

    # -- what must hold --------------------------------------------------------------------

    @invariant()
    def every_state_is_that_of_a_replay(self) -> None:
        with self.engine.connect() as conn:
            for key, tracked in self.modules.items():
                expected = tracked.replayed()[0]
                assert self._state(conn, key, expected) == expected, (key, tracked)

    @invariant()
    def every_event_is_that_of_a_replay(self) -> None:
        with self.engine.connect() as conn:
            for key, tracked in self.modules.items():
                expected = [
                    (it.type, it.severity, it.status, int(it.closed), entities.encode(it.data))
                    for it in tracked.replayed()[1]
                ]
                assert self._events(conn, key) == expected, (key, tracked)

    @invariant()
    def a_module_has_one_open_event_at_most(self) -> None:
        with self.engine.connect() as conn:
            query = select(EVENT.module_id).where(EVENT.module_id != 0, EVENT.status == 0)
            open_events = Counter(conn.scalars(query))
        assert all(count == 1 for count in open_events.values())

    @invariant()
    def every_count_is_that_of_the_modules(self) -> None:
        with self.engine.connect() as conn:
            for agent in AGENTS:
                for row in conn.execute(select(schema.agent).where(AGENT.name == agent)):
                    statuses = self._statuses(conn, row.id)
                    found = [
                        *(row.normal_count, row.critical_count, row.warning_count),
                        *(row.unknown_count, row.notinit_count, row.total_count),
                    ]
                    assert found == [*(statuses[n] for n in range(5)), statuses.total()]

    @invariant()
    def an_agent_is_told_of_once(self) -> None:
        with self.engine.connect() as conn:
            query = select(func.count()).where(EVENT.type == "new_agent")
            assert conn.scalar(query) == conn.scalar(select(func.count(AGENT.id)))

    # -- looking -----------------------------------------------------------------------------

    def _id(self, conn: Connection, key: tuple[str, str]) -> int:
        agent, name = key
        query = select(MODULE.id).join_from(
            schema.module, schema.agent, AGENT.id == MODULE.agent_id
        )
        return conn.execute(query.where(AGENT.name == agent, MODULE.name == name)).scalar_one()

    def _state(self, conn: Connection, key: tuple[str, str], expected: State) -> State:
        row = conn.execute(
            select(
                *(STATE.status, STATE.known_status, STATE.last_status, STATE.last_known_status),
                *(STATE.status_changes, STATE.ff_normal, STATE.ff_warning, STATE.ff_critical),
                *(STATE.ff_start_utimestamp, STATE.last_status_change, STATE.warning_count),
                STATE.current_interval,
            ).where(STATE.module_id == self._id(conn, key))
        ).one()
        found = State(*row)
        if not expected.current_interval:
            found.current_interval = 0  # no value has set it yet
        return found

    def _events(self, conn: Connection, key: tuple[str, str]) -> list[tuple[object, ...]]:
        wanted = (EVENT.type, EVENT.severity, EVENT.module_status, EVENT.status, EVENT.data)
        query = select(*wanted).where(EVENT.module_id == self._id(conn, key)).order_by(EVENT.id)
        return [tuple(row) for row in conn.execute(query)]

    def _statuses(self, conn: Connection, agent_id: int) -> Counter[int]:
        query = select(STATE.status).join_from(
            schema.state, schema.module, MODULE.id == STATE.module_id
        )
        counted = query.where(MODULE.agent_id == agent_id, MODULE.disabled == 0)
        return Counter(conn.scalars(counted))


class MariaDbConsole(Console):
    kind = MARIADB


class PandoraConsole(Console):
    kind = PANDORA


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches age by the clock of the machine."""
    monkeypatch.setattr(admission, "monotonic", CLOCK)
    monkeypatch.setattr(recorder, "monotonic", CLOCK)


def test_any_history_of_statuses_on_sqlite() -> None:
    play(Console, few=12, many=200, steps=20)


@pytest.mark.parametrize("machine", [MariaDbConsole, PandoraConsole])
def test_any_history_of_statuses_on_mariadb(machine: type[Console]) -> None:
    play(machine, few=3, many=50, steps=20)

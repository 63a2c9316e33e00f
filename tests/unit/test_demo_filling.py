"""A filled demo home: its database is what its packets say, at the times that they have."""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from dataserver.config.load import load
from dataserver.demo.filling import Filled, fill, senders
from dataserver.demo.home import STATE, DemoHome, open_demo
from dataserver.demo.model import Agent, Module
from dataserver.demo.noise import DAY, HOUR
from dataserver.errors import LockedError, UsageError
from dataserver.rules.status import Status
from dataserver.spool.lock import InstanceLock
from dataserver.spool.rejected import Rejected
from dataserver.store import schema
from dataserver.store.layout import inspect
from dataserver.store.opening import open_store
from dataserver.store.read.history import History
from dataserver.store.read.modules import ModuleRecord, agents, modules

#: 2026-11-20 15:00:00 UTC, a Friday.
END = 1_795_186_800
ENVIRONMENT = {"TZ": "UTC"}
#: Days, how many of them the ledger has, agents, and the reasons of what is set aside.
SOME_DAYS = (2, 1, 7, {"malformed", "incomplete", "clock", "too-old"})
MANY_DAYS = (9, 7, 12, {"malformed", "incomplete", "no-agent", "clock", "too-old"})


def make(root: Path, days: int = 1, count: int = 2) -> DemoHome:
    return open_demo(root, END, days=days, agents=count, seed=3)


def taken(demo: DemoHome, until: int = END) -> Filled:
    return fill(demo, until, environment=ENVIRONMENT)


def opened(demo: DemoHome) -> Engine:
    return open_store(load(demo.home.instance(), ENVIRONMENT), demo.home.root)


def sent(demo: DemoHome) -> list[Agent]:
    zone = load(demo.home.instance(), ENVIRONMENT).zone(ENVIRONMENT)
    return [sender.agent for sender in senders(demo.state, zone)]


class Filling:
    """One home for the tests that only read it."""

    def __init__(self, root: Path, days: int, ledger: int, count: int, odd: set[str]) -> None:
        self.begin, self.odd = END - days * DAY, odd
        self.demo = make(root, days, count)
        environment = {**ENVIRONMENT, "DATASERVER_LEDGER_DAYS": str(ledger)}
        self.filled = fill(self.demo, END, environment=environment)
        self.engine = opened(self.demo)
        self.layout = inspect(self.engine)
        self.zone = load(self.demo.home.instance(), ENVIRONMENT).zone(ENVIRONMENT)
        with self.engine.connect() as conn:
            self.agents = {each.name: each for each in agents(conn, self.layout, self.zone)}
            self.modules = {
                (each.name, module.name): module
                for each in self.agents.values()
                for module in modules(conn, self.layout, self.zone, each.id)
            }


@pytest.fixture(
    scope="module",
    params=[SOME_DAYS, pytest.param(MANY_DAYS, marks=pytest.mark.long)],
    ids=lambda param: f"{param[0]}-days",
)
def filling(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filling]:
    found = Filling(tmp_path_factory.mktemp("demo") / "home", *request.param)
    yield found
    found.engine.dispose()


def test_every_packet_is_taken_in_once(filling: Filling) -> None:
    count = sum(len(list(agent.times(filling.begin, END))) for agent in sent(filling.demo))
    assert filling.filled.packets == count
    assert filling.filled.whole
    assert os.listdir(filling.demo.data_in) == []


def test_each_module_reads_back_as_its_packets_said(filling: Filling) -> None:
    history = History(filling.engine, filling.layout)
    for agent in sent(filling.demo):
        times = list(agent.times(filling.begin, END))
        for module in agent.modules:
            record = filling.modules[agent.name, module.name]
            points = list(history.points(record.id, filling.begin - 1, END))
            for time, value in _told(module, times):
                place = bisect_right(points, time, key=lambda point: point[0])
                assert place, (agent.name, module.name, time)
                assert points[place - 1][1] == value, (agent.name, module.name, time)


def _told(module: Module, times: list[int]) -> list[tuple[int, object]]:
    """What the module's history is to be at some of the times."""
    if not module.kind.endswith("_inc"):
        found = [(time, module.value(time)) for time in times]
        is_text = module.kind.endswith("_string")
        return [
            (time, value if is_text else pytest.approx(float(value), abs=1e-5))
            for time, value in found
            if value is not None
        ]
    told = []
    for before, time in itertools.pairwise(times):
        grown = int(module.value(time) or 0) - int(module.value(before) or 0)
        if grown >= 0:
            told.append((time, pytest.approx(grown / (time - before), abs=1e-5)))
    return told


def test_the_ledger_has_the_packets_of_each_hour_folded_or_not(filling: Filling) -> None:
    p, h = schema.packet.c, schema.packet_hour.c
    with filling.engine.connect() as conn:
        single = conn.execute(select(p.agent_id, p.time)).all()
        folded = conn.execute(select(h.agent_id, h.hour, h.packets)).all()
    assert folded, "more days than the ledger has"
    found: Counter[tuple[int, int]] = Counter((row[0], row[1] // HOUR) for row in single)
    for agent_id, hour, packets in folded:
        found[agent_id, hour // HOUR] += packets
    wanted: Counter[tuple[int, int]] = Counter()
    for agent in sent(filling.demo):
        agent_id = filling.agents[agent.name].id
        wanted.update((agent_id, time // HOUR) for time in agent.times(filling.begin, END))
    assert found == wanted


def test_all_statuses_are_there_to_be_seen(filling: Filling) -> None:
    found = {module.status for module in filling.modules.values()}
    assert {Status.NORMAL, Status.WARNING, Status.CRITICAL, Status.UNKNOWN} <= found


def test_statuses_are_those_of_the_limits_and_of_silence(filling: Filling) -> None:
    names = (Status.NORMAL, Status.WARNING, Status.CRITICAL)
    for agent in sent(filling.demo):
        last = max(agent.times(filling.begin, END))
        for module in agent.modules:
            record = filling.modules[agent.name, module.name]
            if record.type is not None and record.type.startswith("async_"):
                continue
            value = module.value(last)
            assert value is not None
            is_silent = END - last > 2 * agent.interval
            level = module.limits.level(module.kind, value)
            wanted = Status.UNKNOWN if is_silent else names[level]
            assert record.status is wanted, (agent.name, module.name)


def test_events_have_the_times_of_what_they_tell(filling: Filling) -> None:
    e = schema.event.c
    for name, module_name in (("web2", "nginx"), ("backup1", "Disk /backup")):
        agent = next(each for each in sent(filling.demo) if each.name == name)
        module = next(each for each in agent.modules if each.name == module_name)
        levels = [
            (time, module.limits.level(module.kind, module.value(time) or "0"))
            for time in agent.times(filling.begin, END)
        ]
        changed = [b[0] for a, b in itertools.pairwise(levels) if a[1] != b[1]]
        record: ModuleRecord = filling.modules[name, module_name]
        query = select(e.time).where(e.module_id == record.id, e.type.startswith("going_"))
        with filling.engine.connect() as conn:
            told = set(conn.scalars(query.where(e.type != "going_unknown")))
        assert changed
        assert set(changed) <= told


def test_unknown_is_told_when_the_silence_had_lasted(filling: Filling) -> None:
    agent = next(each for each in sent(filling.demo) if each.name == "erp-old")
    last = max(agent.times(END - DAY, END))
    e = schema.event.c
    query = select(e.time).where(e.agent_id == filling.agents["erp-old"].id)
    with filling.engine.connect() as conn:
        times = set(conn.scalars(query.where(e.type == "going_unknown")))
    assert max(times) == last + 601


def test_something_is_set_aside_for_most_reasons(filling: Filling) -> None:
    found = list(Rejected(filling.demo.home.instance().rejected).list())
    assert filling.filled.rejected == len(found)
    reasons = {packet.reason for packet in found}
    assert filling.odd <= reasons
    # What one is kept for is what it holds, whatever else was uploaded after it.
    folder = filling.demo.home.instance().rejected
    for packet in found:
        content = (folder / f"{packet.id}.data").read_bytes()
        assert b"<name>Status</name>" in content or packet.reason == "incomplete"


def test_a_filling_that_is_stopped_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole, broken = make(tmp_path / "whole", 1, 4), make(tmp_path / "broken", 1, 4)
    taken(whole)
    looks = iter([False] * 12)
    part = fill(broken, END, environment=ENVIRONMENT, stopping=lambda: next(looks, True))
    assert not part.whole
    again = open_demo(tmp_path / "broken", END + HOUR, days=None, agents=None, seed=None)
    assert taken(again).whole
    assert _history(whole) == _history(broken)


def _history(demo: DemoHome) -> list[tuple[object, ...]]:
    engine = opened(demo)
    h = schema.number_history.c
    with engine.connect() as conn:
        rows = conn.execute(select(h.module_id, h.time, h.value).order_by(h.module_id, h.time))
        found = [tuple(row) for row in rows]
    engine.dispose()
    assert found
    return found


def test_a_demo_home_continues_with_what_was_sent_meanwhile(tmp_path: Path) -> None:
    demo = make(tmp_path / "home", 1, 2)
    taken(demo)
    later = open_demo(tmp_path / "home", END + 2 * HOUR, days=None, agents=None, seed=None)
    filled = fill(later, END + 2 * HOUR, environment=ENVIRONMENT)
    assert filled.packets == sum(
        len(list(agent.times(END, END + 2 * HOUR))) for agent in sent(later)
    )


def test_a_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UsageError, match="not a demo home"):
        make(tmp_path)
    assert os.listdir(tmp_path) == ["mine"]


def test_a_state_that_is_no_demos_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"seed": "x"}', "[" * 100_000):
        (tmp_path / STATE).write_text(text)
        with pytest.raises(UsageError, match="was not written by a demo"):
            make(tmp_path)


def test_a_demo_home_is_not_continued_as_another_one(tmp_path: Path) -> None:
    make(tmp_path / "home", 1, 2)
    with pytest.raises(UsageError, match="--agents 2, not 5"):
        make(tmp_path / "home", 1, 5)


def test_a_home_that_somebody_runs_is_not_filled(tmp_path: Path) -> None:
    demo = make(tmp_path / "home", 1, 2)
    paths = demo.home.instance()
    lock = InstanceLock(paths.name, paths.var, demo.data_in)
    lock.acquire()
    try:
        with pytest.raises(LockedError):
            taken(demo)
    finally:
        lock.release()

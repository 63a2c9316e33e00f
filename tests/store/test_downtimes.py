"""Planned downtimes carried out: what is switched off comes back, all of it and only it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    Table,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)

from dataserver.rules.times import local_text
from dataserver.store import ledger, schema
from dataserver.store.events import EventLog
from dataserver.store.layout import reading
from dataserver.store.sql import Row, Sql
from dataserver.store.sweeps import downtimes
from dataserver.store.sweeps.downtimes import Downtimes
from dataserver.store.sweeps.unknown import UnknownSweep
from tests.support.clock import Clock
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import NOW, ZONE, Ingest
from tests.support.kinds import database_of
from tests.support.packets import Value, arrival_at

database = database_of(SQLITE, PANDORA)

BEGIN, DURING, END, AFTER = NOW, NOW + 60, NOW + 3_600, NOW + 3_700
a, m, e = schema.agent.c, schema.module.c, schema.event.c


class Site:
    """A database with agents, the console that plans downtimes, the sweep that does them."""

    def __init__(self, database: Database) -> None:
        self.server = Ingest(database)
        self.engine: Engine = database.engine()
        self.layout = self.server.recorder.layout
        self.minute = 0
        self.downtimes = self.restarted()

    def restarted(self, monotonic: Callable[[], float] = lambda: 0.0) -> Downtimes:
        """``monotonic`` stands still, unless told otherwise, so that no look takes any time."""
        sql = Sql(self.engine.dialect)
        return Downtimes(sql, self.layout, ZONE, "alpha", monotonic=monotonic)

    def send(self, values: dict[str, str], agent: str = "web1") -> None:
        """One more packet, a minute later."""
        self.minute += 1
        self.server.record([arrival_at(self.minute, dict(values), agent=agent)])

    def sweep(self, now: int, most: int = 50) -> int:
        """Sweep until there is no more; how many transactions did something."""
        for done in range(most):
            if not self.sweep_once(now):
                return done
        raise AssertionError("the sweep finds no end")

    def sweep_once(self, now: int) -> bool:
        with self.engine.begin() as conn:
            return self.downtimes.sweep(conn, now)

    def plan(self, type_: str, agents: Iterable[str] = (), **values: Any) -> int:
        """A downtime from BEGIN to END of all modules of those agents, as the console writes it."""
        row = {"name": "Work&#x20;&amp;&#x20;rest", "type": type_, "begins": BEGIN, "ends": END}
        row |= {"user_id": "admin", **values}
        ids = [self.agent(name)["id"] for name in agents]
        with self.engine.begin() as conn:
            done = conn.execute(insert(schema.downtime).values(row))
            key = int(done.inserted_primary_key[0])
            for agent_id in ids:
                link = insert(schema.downtime_agent).values(downtime_id=key, agent_id=agent_id)
                conn.execute(link)
        return key

    def add_module(self, downtime: int, name: str, agent: str = "web1") -> None:
        """One module of an agent instead of all."""
        agent_id = self.agent(agent)["id"]
        c = schema.downtime_agent.c
        agents = update(schema.downtime_agent)
        module = {"module_id": self.module(name, agent)["id"], "agent_id": agent_id}
        with self.engine.begin() as conn:
            where = (c.downtime_id == downtime, c.agent_id == agent_id)
            if not conn.execute(agents.where(*where).values(all_modules=0)).rowcount:
                row = {"downtime_id": downtime, "agent_id": agent_id, "all_modules": 0}
                conn.execute(insert(schema.downtime_agent).values(row))
            conn.execute(insert(schema.downtime_module).values(downtime_id=downtime, **module))

    def set(self, table: Table, key: int, **values: Any) -> None:
        with self.engine.begin() as conn:
            conn.execute(update(table).where(table.c.id == key).values(values))

    def agent(self, name: str = "web1") -> dict[str, Any]:
        return self._row(schema.agent, a.name == name)

    def module(self, name: str, agent: str = "web1") -> dict[str, Any]:
        return self._row(schema.module, m.name == name, m.agent_id == self.agent(agent)["id"])

    def _row(self, table: Table, *where: Any) -> dict[str, Any]:
        with reading(self.engine) as conn:
            row = conn.execute(select(table).where(*where)).one()
        return {column.key: value for column, value in zip(table.columns, row, strict=True)}

    def is_off(self, *agents: str) -> list[int]:
        return [self.agent(name)["disabled"] for name in agents]

    def executed(self, key: int) -> int | None:
        query = select(schema.downtime.c.executed).where(schema.downtime.c.id == key)
        with reading(self.engine) as conn:
            return conn.scalar(query)

    def events(self, type_: str = "system") -> list[str]:
        query = select(e.text).where(e.type.startswith(type_)).order_by(e.id)
        with reading(self.engine) as conn:
            return list(conn.scalars(query))

    def value(self, name: str = "load", agent: str = "web1") -> str:
        query = select(schema.state.c.value).where(
            schema.state.c.module_id == self.module(name, agent)["id"]
        )
        with reading(self.engine) as conn:
            return str(conn.scalar(query))

    def left(self) -> int:
        """What is still noted as switched off."""
        with reading(self.engine) as conn:
            return conn.scalar(select(func.count()).select_from(schema.downtime_switch)) or 0


@pytest.fixture
def site(database: Database) -> Site:
    return with_agents(database)


def with_agents(database: Database) -> Site:
    site = Site(database)
    values: dict[str, Value] = {"load": "1", "disk": "1"}
    site.server.record([arrival_at(0, values, agent=agent) for agent in ("web1", "web2")])
    return site


# -- agents ----------------------------------------------------------------------------


def test_agents_are_disabled_and_enabled_again(site: Site) -> None:
    key = site.plan("disable_agents", ["web1"])
    site.sweep(BEGIN - 1)
    assert site.is_off("web1", "web2") == [0, 0]
    site.sweep(DURING)
    assert site.is_off("web1", "web2") == [1, 0]
    assert site.agent()["disabled_by_downtime"] == 1
    assert site.executed(key) == 1
    site.sweep(END)
    assert site.is_off("web1", "web2") == [0, 0]
    assert site.agent()["disabled_by_downtime"] == 0
    assert site.executed(key) == 0
    assert site.left() == 0


def test_start_and_end_are_told(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.sweep(AFTER)
    prefix = "&#40;Created&#x20;by&#x20;admin&#41;&#x20;Server&#x20;alpha&#x20;"
    name = "&#x20;planned&#x20;downtime:&#x20;Work&#x20;&amp;&#x20;rest"
    assert site.events() == [f"{prefix}started{name}", f"{prefix}stopped{name}"]
    with reading(site.engine) as conn:
        rows = conn.execute(select(e.severity, e.agent_id, e.time).where(e.type == "system"))
        assert [tuple(row) for row in rows] == [(1, 0, DURING), (1, 0, AFTER)]


def test_a_disabled_agent_is_ignored_until_the_end(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.send({"load": "2"})
    assert site.value() == "1.00000"
    site.sweep(AFTER)
    site.send({"load": "3"})
    assert site.value() == "3.00000"


def test_a_server_that_knows_the_agent_notices_at_once(site: Site) -> None:
    # The recorder's entry of the agent is young: only its version tells.
    site.send({"load": "2"})
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.send({"load": "3"})
    assert site.value() == "2.00000"


def test_a_second_sweep_does_nothing(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    assert site.sweep(DURING) == 2  # marked, switched
    assert site.sweep(DURING + 1) == 0
    assert site.sweep(AFTER) == 2
    assert site.sweep(AFTER + 1) == 0


def test_a_window_that_is_over_at_the_first_look_is_left_as_it_is(site: Site) -> None:
    key = site.plan("disable_agents", ["web1"])
    assert site.sweep(AFTER) == 0
    assert site.executed(key) == 0
    assert site.events() == []


def test_an_end_that_no_server_saw_is_made_up_for(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.downtimes = site.restarted()
    site.sweep(END + 30 * 86_400)
    assert site.is_off("web1") == [0]


def test_what_was_disabled_before_stays_so(site: Site) -> None:
    site.set(schema.agent, site.agent("web1")["id"], disabled=1)
    site.plan("disable_agents", ["web1", "web2"])
    site.sweep(DURING)
    assert site.is_off("web1", "web2") == [1, 1]
    assert [site.agent(name)["disabled_by_downtime"] for name in ("web1", "web2")] == [0, 1]
    with reading(site.engine) as conn:
        noted = conn.scalars(select(schema.downtime_agent.c.manually_disabled))
        assert sorted(noted) == [0, 1]
    site.sweep(AFTER)
    assert site.is_off("web1", "web2") == [1, 0]


def test_one_that_is_enabled_by_hand_meanwhile_stays_so(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.set(schema.agent, site.agent()["id"], disabled=0)
    assert site.sweep(DURING + 5) == 0
    assert site.is_off("web1") == [0]
    site.sweep(AFTER)
    assert site.left() == 0


def test_one_that_was_disabled_by_hand_and_is_enabled_meanwhile_stays_so(site: Site) -> None:
    key = site.agent()["id"]
    site.set(schema.agent, key, disabled=1)
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.set(schema.agent, key, disabled=0)
    site.sweep(DURING + 5)
    assert site.is_off("web1") == [0]


def test_of_two_downtimes_the_last_to_end_enables(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.plan("disable_agents", ["web1", "web2"], begins=BEGIN + 30, ends=END + 60)
    site.sweep(BEGIN)
    site.sweep(DURING)
    site.sweep(END + 1)
    assert site.is_off("web1", "web2") == [1, 1]
    site.sweep(END + 60)
    assert site.is_off("web1", "web2") == [0, 0]


@pytest.mark.parametrize("whole", [True, False], ids=["with_its_agents", "its_row_only"])
def test_a_downtime_that_is_deleted_while_it_is_on_leaves_nothing_off(
    site: Site, whole: bool
) -> None:
    key = site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    with site.engine.begin() as conn:
        conn.execute(delete(schema.downtime).where(schema.downtime.c.id == key))
        if whole:
            conn.execute(delete(schema.downtime_agent))
    site.sweep(DURING + 5)
    assert site.is_off("web1") == [0]
    assert site.left() == 0
    assert "deleted" in site.events()[-1]


def test_an_agent_that_is_taken_out_comes_back_and_one_put_in_goes_off(site: Site) -> None:
    key = site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    c, other = schema.downtime_agent.c, site.agent("web2")["id"]
    with site.engine.begin() as conn:
        agents = update(schema.downtime_agent).where(c.downtime_id == key)
        conn.execute(agents.values(agent_id=other))
    site.sweep(DURING + 5)
    assert site.is_off("web1", "web2") == [0, 1]


def test_the_console_stops_one_by_its_end(site: Site) -> None:
    key = site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.set(schema.downtime, key, executed=0, ends=DURING + 5)
    site.set(schema.agent, site.agent()["id"], disabled=0)
    site.sweep(DURING + 5)
    assert site.is_off("web1") == [0]
    assert site.agent()["disabled_by_downtime"] == 0
    assert site.left() == 0
    assert len(site.events()) == 1  # its end was told by the console


def test_an_agent_that_is_deleted_meanwhile_is_no_trouble(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    with site.engine.begin() as conn:
        conn.execute(delete(schema.agent).where(a.name == "web1"))
    site.sweep(AFTER)
    assert site.left() == 0


def test_many_are_switched_in_blocks_and_a_cut_is_gone_on_from(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downtimes, "BLOCK", 2)
    names = [f"many{i}" for i in range(5)]
    for name in names:
        site.send({"load": "1"}, name)
    site.plan("disable_agents", names)
    assert site.sweep_once(DURING)
    assert site.sweep_once(DURING)
    assert sum(site.is_off(*names)) == 2
    site.downtimes = site.restarted()
    assert site.sweep(DURING) == 2
    assert sum(site.is_off(*names)) == 5
    assert site.sweep(AFTER) == 4
    assert sum(site.is_off(*names)) == 0


def test_a_rolled_back_sweep_is_done_again(site: Site) -> None:
    site.plan("disable_agents", ["web1"])
    for _ in range(2):
        with site.engine.connect() as conn, conn.begin() as transaction:
            assert site.downtimes.sweep(conn, DURING)
            transaction.rollback()
    assert site.is_off("web1") == [0]
    site.sweep(DURING)
    assert site.is_off("web1") == [1]
    assert len(site.events()) == 1


def test_one_that_is_disabled_by_hand_at_the_same_moment_is_not_ours(
    mariadb_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = with_agents(mariadb_database)
    site.plan("disable_agents", ["web1", "web2"])
    assert site.sweep_once(DURING)
    lock, key = ledger.lock_versions, site.agent()["id"]

    def lock_late(conn: Connection, sql: Sql, agent_ids: Sequence[int]) -> dict[int, Row]:
        site.set(schema.agent, key, disabled=1)
        return lock(conn, sql, agent_ids)

    monkeypatch.setattr(ledger, "lock_versions", lock_late)
    assert site.sweep_once(DURING)
    monkeypatch.undo()
    site.sweep(AFTER)
    assert site.is_off("web1", "web2") == [1, 0]


# -- taking over from another server -----------------------------------------------------


def started_elsewhere(site: Site) -> int:
    """A downtime as the Perl server leaves it between its start and its end."""
    site.set(schema.agent, site.agent("web1")["id"], disabled=1, disabled_by_downtime=1)
    site.set(schema.agent, site.agent("web2")["id"], disabled=1, disabled_by_downtime=1)
    key = site.plan("disable_agents", ["web1", "web2"], executed=1)
    by_hand = schema.downtime_agent.c.agent_id == site.agent("web2")["id"]
    with site.engine.begin() as conn:
        conn.execute(update(schema.downtime_agent).where(by_hand).values(manually_disabled=1))
    return key


@pytest.mark.parametrize("looks", [(DURING, AFTER), (AFTER,)], ids=["running", "over"])
def test_a_downtime_that_another_server_started_is_ended(
    site: Site, looks: tuple[int, ...]
) -> None:
    key = started_elsewhere(site)
    for now in looks[:-1]:
        site.sweep(now)
        assert site.is_off("web1", "web2") == [1, 1]
    site.sweep(looks[-1])
    assert site.is_off("web1", "web2") == [0, 1]
    assert site.executed(key) == 0
    assert len(site.events()) == 1  # its start was told there


def test_old_marks_of_another_server_mean_nothing(site: Site) -> None:
    # It never takes the mark back; the agent was disabled by hand since.
    site.set(schema.agent, site.agent()["id"], disabled=1, disabled_by_downtime=1)
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.sweep(AFTER)
    assert site.is_off("web1") == [1]


def test_an_old_mark_does_not_keep_an_agent_on(site: Site) -> None:
    site.set(schema.agent, site.agent()["id"], disabled_by_downtime=1)
    site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    assert site.is_off("web1") == [1]


# -- modules -----------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["disable_agents", "disable_agent_modules"])
def test_whoever_was_off_was_not_silent(type_: str, site: Site) -> None:
    site.send({"load": "1"})
    site.plan(type_, ["web1"])
    site.sweep(DURING)
    site.sweep(AFTER)
    events = EventLog(Sql(site.engine.dialect), site.layout)
    unknown = UnknownSweep(
        Sql(site.engine.dialect), site.layout, events, lambda time: local_text(time, ZONE)
    )
    for now, silent in ((AFTER + 600, []), (AFTER + 601, ["web1"])):
        with site.engine.begin() as conn:
            unknown.sweep(conn, now, now)
        assert [name for name in ("web1",) if site.agent(name)["unknown_count"]] == silent


def test_named_modules_are_disabled_counted_out_and_enabled_again(site: Site) -> None:
    key = site.plan("disable_agent_modules")
    site.add_module(key, "load")
    site.sweep(DURING)
    assert [site.module(name)["disabled"] for name in ("load", "disk")] == [1, 0]
    assert site.module("load")["disabled_by_downtime"] == 1
    assert site.agent()["total_count"] == 1
    site.send({"load": "2", "disk": "2"})
    assert [site.value(name) for name in ("load", "disk")] == ["1.00000", "2.00000"]
    site.sweep(AFTER)
    assert site.module("load")["disabled"] == 0
    assert site.module("load")["disabled_by_downtime"] == 0
    assert site.agent()["total_count"] == 2
    site.send({"load": "3"})
    assert site.value() == "3.00000"


def test_a_module_that_was_disabled_before_stays_so(site: Site) -> None:
    site.set(schema.module, site.module("load")["id"], disabled=1)
    key = site.plan("disable_agent_modules")
    site.add_module(key, "load")
    site.sweep(DURING)
    site.sweep(AFTER)
    assert site.module("load")["disabled"] == 1


def test_all_modules_of_an_agent_where_none_is_named(site: Site) -> None:
    site.plan("disable_agent_modules", ["web1"])
    site.sweep(DURING)
    off = [site.module(name)["disabled"] for name in ("load", "disk")]
    assert (off, site.module("load", "web2")["disabled"]) == ([1, 1], 0)
    site.sweep(AFTER)
    assert [site.module(name)["disabled"] for name in ("load", "disk")] == [0, 0]


def test_named_modules_are_meant_though_the_row_says_all_by_default(site: Site) -> None:
    key = site.plan("disable_agent_modules")
    site.add_module(key, "load")
    with site.engine.begin() as conn:
        conn.execute(update(schema.downtime_agent).values(all_modules=1))
    site.sweep(DURING)
    assert [site.module(name)["disabled"] for name in ("load", "disk")] == [1, 0]


# -- quiet -------------------------------------------------------------------------------


def quiet(site: Site, *names: str, agent: str = "web1") -> list[tuple[int, int]]:
    modules = [site.module(name, agent) for name in names]
    return [(module["quiet"], module["quiet_by_downtime"]) for module in modules]


def test_the_modules_of_an_agent_are_quiet_and_values_go_on(site: Site) -> None:
    """The agent itself is not: that is an operator's business, as with the Perl server."""
    site.plan("quiet", ["web1"])
    site.sweep(DURING)
    assert quiet(site, "load", "disk") == [(1, 1), (1, 1)]
    assert quiet(site, "load", agent="web2") == [(0, 0)]
    assert site.agent()["quiet"] == 0
    site.send({"load": "2"})
    assert site.value() == "2.00000"
    site.sweep(AFTER)
    assert quiet(site, "load", "disk") == [(0, 0), (0, 0)]


def test_the_modules_that_the_console_lists_for_a_whole_agent_are_quiet_no_longer(
    site: Site,
) -> None:
    """The Perl server leaves them quiet for ever: it looks at the agent's mark only."""
    key = site.plan("quiet", ["web1"])
    for name in ("load", "disk"):
        site.add_module(key, name)
    with site.engine.begin() as conn:
        conn.execute(update(schema.downtime_agent).values(all_modules=1))
    site.sweep(DURING)
    assert quiet(site, "load", "disk") == [(1, 1), (1, 1)]
    site.sweep(AFTER)
    assert quiet(site, "load", "disk") == [(0, 0), (0, 0)]


def test_what_an_operator_made_quiet_before_stays_so(site: Site) -> None:
    site.set(schema.agent, site.agent()["id"], quiet=1)
    site.set(schema.module, site.module("load")["id"], quiet=1)
    site.plan("quiet", ["web1"])
    site.sweep(DURING)
    assert quiet(site, "load", "disk") == [(1, 0), (1, 1)]
    site.sweep(AFTER)
    assert (site.agent()["quiet"], quiet(site, "load", "disk")) == (1, [(1, 0), (0, 0)])


def test_agents_that_an_earlier_version_made_quiet_are_so_no_longer(site: Site) -> None:
    """It marked agents, where this one marks modules."""
    site.set(schema.agent, site.agent()["id"], quiet=1)
    with site.engine.begin() as conn:
        row = {"kind": 3, "target": site.agent()["id"], "agent_id": site.agent()["id"]}
        conn.execute(insert(schema.downtime_switch).values(row))
    site.sweep(DURING)
    assert (site.agent()["quiet"], site.left()) == (0, 0)


def test_one_module_is_quiet(site: Site) -> None:
    key = site.plan("quiet")
    site.add_module(key, "load")
    site.sweep(DURING)
    load, disk = site.module("load"), site.module("disk")
    assert (load["quiet"], load["quiet_by_downtime"], disk["quiet"]) == (1, 1, 0)
    assert site.agent()["quiet"] == 0
    site.sweep(AFTER)
    load = site.module("load")
    assert (load["quiet"], load["quiet_by_downtime"]) == (0, 0)


@pytest.mark.parametrize("whole", [True, False], ids=["agent", "module"])
def test_a_quiet_one_changes_its_status_without_an_event(site: Site, whole: bool) -> None:
    site.set(schema.module, site.module("load")["id"], min_critical=10, max_critical=0)
    key = site.plan("quiet", ["web1"] if whole else [])
    if not whole:
        site.add_module(key, "load")
    site.sweep(DURING)
    site.send({"load": "20"})
    of_load = schema.state.c.module_id == site.module("load")["id"]
    status = select(schema.state.c.status).where(of_load)
    with reading(site.engine) as conn:
        assert conn.scalar(status) == 1
    assert site.events("going_") == []
    site.sweep(AFTER)
    site.send({"load": "1"})
    assert len(site.events("going_")) == 1


# -- which ones --------------------------------------------------------------------------


def test_one_of_an_unknown_type_is_told_once_and_left_alone(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = ("", "no_such_type")
    keys = [site.plan(kind, ["web1"]) for kind in kinds]
    # Begun by another server, which may know what it means.
    keys.append(site.plan("another", ["web1"], executed=1))
    for now in (DURING, DURING + 5, AFTER):
        assert site.sweep(now) == 0
    assert [site.executed(key) for key in keys] == [0, 0, 1]
    assert (site.is_off("web1"), site.events()) == ([0], [])
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "never starts: its type 'no_such_type' is unknown; correct it" in told[1]


def test_one_whose_type_becomes_unknown_while_it_is_on_is_undone(site: Site) -> None:
    key = site.plan("disable_agents", ["web1"])
    site.sweep(DURING)
    site.set(schema.downtime, key, type="no_such_type")
    site.sweep(DURING)
    assert (site.is_off("web1"), site.executed(key), site.left()) == ([0], 0, 0)


def test_one_of_a_schedule_that_is_stopped_by_hand_stays_stopped_until_its_next_window(
    site: Site,
) -> None:
    times = {"time_from": "08:00:00", "time_to": "08:59:59", "friday": 1}
    key = site.plan("quiet", ["web1"], execution="periodically", **times)
    site.sweep(NOW)
    assert quiet(site, "load") == [(1, 1)]
    site.set(schema.downtime, key, executed=0)
    for now in (NOW + 5, NOW + 600):
        site.sweep(now)
        assert (site.executed(key), quiet(site, "load", "disk")) == (0, [(0, 0), (0, 0)])
    site.sweep(NOW + 3_600)
    # The console told of the stop.
    assert len(site.events()) == 1
    site.sweep(NOW + 7 * 86_400)
    assert (site.executed(key), quiet(site, "load")) == (1, [(1, 1)])


def test_a_weekly_one_comes_and_goes(site: Site) -> None:
    # NOW is a Friday, 08:00:00 UTC.
    times = {"time_from": "08:00:00", "time_to": "08:59:59", "friday": 1}
    site.plan("disable_agents", ["web1"], execution="periodically", begins=0, ends=0, **times)
    site.sweep(NOW - 1)
    assert site.is_off("web1") == [0]
    for week in range(2):
        site.sweep(NOW + week * 7 * 86_400)
        assert site.is_off("web1") == [1]
        site.sweep(NOW + week * 7 * 86_400 + 3_600)
        assert site.is_off("web1") == [0]
    assert len(site.events()) == 4
    assert site.events()[0].startswith("Server&#x20;alpha&#x20;started")


def test_one_by_cron_comes_and_goes(site: Site) -> None:
    site.plan(
        "disable_agents", ["web1"], execution="cron", cron_from="0 8 * * *", cron_to="0 9 * * *"
    )
    site.sweep(NOW)
    assert site.is_off("web1") == [1]
    site.sweep(NOW + 3_600)
    assert site.is_off("web1") == [0]


def test_one_that_cannot_be_read_is_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.plan("disable_agents", ["web1"], execution="cron", cron_from="nonsense", cron_to="")
    site.sweep(DURING)
    site.sweep(DURING + 5)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "'Work & rest' never starts: no cron expression of five fields: 'nonsense'" in told[0]


def test_a_time_beyond_a_day_in_the_database_does_no_harm(mariadb_database: Database) -> None:
    site = with_agents(mariadb_database)
    key = site.plan("disable_agents", ["web1"], execution="periodically")
    with site.engine.begin() as conn:
        conn.execute(
            text(
                "UPDATE tplanned_downtime SET periodically_time_from = '-838:59:59',"
                " periodically_time_to = '800:00:00', friday = 1"
            )
        )
    assert site.sweep(NOW) == 0
    assert site.executed(key) == 0


# -- how often is looked -----------------------------------------------------------------


def test_a_look_that_takes_long_is_not_taken_all_the_time(site: Site) -> None:
    clock = Clock(step=1.0)
    site.downtimes = site.restarted(clock)
    key = site.plan("quiet", ["web1"])
    assert site.sweep(DURING) == 2
    # A look takes a second; the next one is due twenty later.
    site.add_module(key, "load", "web2")
    for _ in range(10):
        assert not site.sweep_once(DURING)
    assert quiet(site, "load", agent="web2") == [(0, 0)]
    clock.advance(20)
    assert site.sweep_once(DURING)
    assert quiet(site, "load", agent="web2") == [(1, 1)]
    # What begins or ends is not waited for.
    site.sweep(DURING)
    site.plan("quiet", ["web2"])
    assert site.sweep_once(DURING)
    assert site.sweep_once(DURING)
    assert quiet(site, "disk", agent="web2") == [(1, 1)]
    site.sweep(DURING)
    assert site.sweep(AFTER) > 0
    assert quiet(site, "load", "disk") == [(0, 0), (0, 0)]


def test_many_modules_are_found_in_one_pass_and_what_was_left_in_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downtimes, "BLOCK", 3)
    site.send({f"m{number}": "1" for number in range(10)})
    names = ["load", "disk", *(f"m{number}" for number in range(10))]
    site.plan("quiet", ["web1"])
    assert site.sweep_once(DURING)
    assert site.sweep_once(DURING)
    assert quiet(site, *names) == [(1, 1)] * 3 + [(0, 0)] * 9
    # By hand, behind the place that the pass has come to: an operator's.
    site.set(schema.module, site.module("load")["id"], quiet=0)
    site.sweep(DURING)
    assert quiet(site, *names)[1:] == [(1, 1)] * 11
    site.sweep(AFTER)
    assert [quiet_ for quiet_, _ in quiet(site, *names)] == [0] * 12


# -- alerts ------------------------------------------------------------------------------


class Alerts:
    """Alerts on modules, as the console has them; marks of each by its name."""

    def __init__(self, site: Site, **modules: str) -> None:
        """Alerts by their names on modules of web1, or of web2 where the name begins with it."""
        self.site = site
        self.ids: dict[str, int] = {}
        with site.engine.begin() as conn:
            for number, (name, module) in enumerate(modules.items(), 1):
                agent = "web2" if name.startswith("web2") else "web1"
                conn.execute(
                    text(
                        "INSERT INTO talert_template_modules"
                        " (id, id_agent_module, id_alert_template) VALUES (:id, :module, :id)"
                    ),
                    {"id": number, "module": site.module(module, agent)["id"]},
                )
                self.ids[name] = number

    def disable(self, name: str, *, disabled: int = 1) -> None:
        self.site.set(schema.alert, self.ids[name], disabled=disabled)

    def marks(self) -> dict[str, tuple[int, int]]:
        c = schema.alert.c
        names = {key: name for name, key in self.ids.items()}
        with reading(self.site.engine) as conn:
            rows = conn.execute(select(c.id, c.disabled, c.disabled_by_downtime)).all()
        return {names[row[0]]: (row[1], row[2]) for row in rows}


@pytest.fixture
def pandora_site(pandora_database: Database) -> Site:
    return with_agents(pandora_database)


def test_alerts_are_disabled_and_those_of_an_operator_stay_so(pandora_site: Site) -> None:
    """At the end the Perl server enables all of them."""
    site = pandora_site
    alerts = Alerts(site, low="load", high="load", by_hand="disk", web2="load")
    alerts.disable("by_hand")
    before = alerts.marks()
    key = site.plan("disable_agents_alerts", ["web1"])
    site.sweep(DURING)
    on = (0, 0)
    off = (1, 1)
    assert alerts.marks() == {"low": off, "high": off, "by_hand": (1, 0), "web2": on}
    assert (site.executed(key), site.is_off("web1")) == (1, [0])
    assert site.events()[0].startswith("&#40;Created&#x20;by&#x20;admin&#41;")
    # Enabled by hand meanwhile: left alone.
    alerts.disable("low", disabled=0)
    site.sweep(DURING + 5)
    assert alerts.marks()["low"][0] == 0
    site.sweep(AFTER)
    assert (alerts.marks(), site.left(), site.executed(key)) == (before, 0, 0)


@pytest.mark.parametrize(
    ("type_", "only"),
    [("disabled_agents_alerts", 0), ("disable_agents", 1)],
    ids=["default", "flag"],
)
def test_other_ways_to_say_that_alerts_are_meant(pandora_site: Site, type_: str, only: int) -> None:
    """The column's own default, and the flag of older databases."""
    alerts = Alerts(pandora_site, low="load")
    pandora_site.plan(type_, ["web1"], only_alerts=only)
    pandora_site.sweep(DURING)
    assert (alerts.marks(), pandora_site.is_off("web1")) == ({"low": (1, 1)}, [0])


def test_alerts_that_another_server_disabled_are_enabled_at_the_end(pandora_site: Site) -> None:
    site = pandora_site
    alerts = Alerts(site, low="load", by_hand="load")
    site.set(schema.alert, alerts.ids["low"], disabled=1, disabled_by_downtime=1)
    alerts.disable("by_hand")
    site.plan("disable_agents_alerts", ["web1"], executed=1)
    site.sweep(DURING)
    assert alerts.marks() == {"low": (1, 1), "by_hand": (1, 0)}
    site.sweep(AFTER)
    assert alerts.marks() == {"low": (0, 0), "by_hand": (1, 0)}


def test_a_downtime_of_alerts_where_there_are_none_is_told(site: Site) -> None:
    """Also where the database has no table of alerts."""
    key = site.plan("disable_agents_alerts", ["web1"])
    site.sweep(DURING)
    assert (site.executed(key), len(site.events())) == (1, 1)
    site.sweep(AFTER)
    assert (site.executed(key), len(site.events())) == (0, 2)


# -- other databases -----------------------------------------------------------------------


def test_nulls_of_an_existing_database_do_no_harm(site: Site) -> None:
    columns = ("time_from", "time_to", "day_from", "day_to", "cron_from", "cron_to", "monday")
    nothing = dict.fromkeys(columns)
    for execution in ("once", "periodically", "cron"):
        site.plan("quiet", ["web1"], execution=execution, ends=BEGIN, **nothing)
    assert site.sweep(DURING) == 0


def test_a_database_without_downtimes_has_none(pandora_database: Database) -> None:
    drop(pandora_database, "DROP TABLE tplanned_downtime_agents")
    assert Site(pandora_database).sweep(DURING) == 0


def test_an_older_database_without_the_marks_serves_too(pandora_database: Database) -> None:
    drop(
        pandora_database,
        "ALTER TABLE tagente DROP COLUMN disabled_by_downtime",
        "ALTER TABLE tagente_modulo DROP COLUMN disabled_by_downtime",
        "ALTER TABLE tagente_modulo DROP COLUMN quiet_by_downtime",
        "ALTER TABLE tplanned_downtime_agents DROP COLUMN manually_disabled",
        "ALTER TABLE tplanned_downtime DROP COLUMN cron_interval_from",
        "ALTER TABLE tplanned_downtime DROP COLUMN cron_interval_to",
    )
    site = Site(pandora_database)
    site.send({"load": "1"})
    site.send({"load": "1"}, "web2")
    engine = site.engine
    with engine.begin() as conn:
        conn.execute(text("UPDATE tagente SET disabled = 1 WHERE nombre = 'web2'"))
        conn.execute(
            text(
                "INSERT INTO tplanned_downtime (name, date_from, date_to, type_downtime)"
                f" VALUES ('x', {BEGIN}, {END}, 'disable_agents')"
            )
        )
        conn.execute(
            text(
                "INSERT INTO tplanned_downtime_agents (id_agent, id_downtime)"
                " SELECT id_agente, 1 FROM tagente"
            )
        )
    query = text("SELECT disabled FROM tagente ORDER BY nombre")
    for now, expected in ((DURING, [1, 1]), (AFTER, [0, 1])):
        site.sweep(now)
        with reading(engine) as conn:
            assert list(conn.scalars(query)) == expected


def drop(database: Database, *statements: str) -> None:
    assert database.kind == PANDORA
    with database.engine().begin() as conn:
        for statement in statements:
            conn.execute(text(statement))


def test_a_block_of_many_modules_is_found_without_sorting_all_of_them(
    pandora_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downtimes, "BLOCK", 100)
    site = Site(pandora_database)
    site.server.record([arrival_at(0, {"load": "1"}, agent=f"web{i}") for i in range(40)])
    site.plan("quiet", [f"web{i}" for i in range(40)])
    with site.engine.begin() as conn:
        rows = [(1 + i % 40, f"m{i}", 1, 1) for i in range(4_000)]
        keys = ("agent_id", "name", "type_id", "server_kind")
        Sql(site.engine.dialect).insert(conn, schema.module, keys, rows)
        conn.exec_driver_sql("ANALYZE TABLE tagente_modulo, tplanned_downtime_agents")
    sent: list[tuple[str, Any]] = []

    @event.listens_for(site.engine, "before_cursor_execute")
    def note(_conn: object, _cursor: object, statement: str, given: Any, *_: object) -> None:
        if "FROM tagente_modulo" in statement and "LIMIT" in statement:
            sent.append((statement, given))

    for _ in range(4):
        assert site.sweep_once(DURING)
    found = list(sent)
    assert found
    with site.engine.connect() as conn:
        for statement, given in found:
            plan = conn.exec_driver_sql("EXPLAIN " + statement, given).mappings().all()
            assert "filesort" not in str(plan), plan

"""Agents whose clocks are wrong, and put right: nothing is lost, and their present counts.

``now`` is given with each batch, so a test of hours takes milliseconds.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import tzinfo
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, func, select

from dataserver.ingest.delivery import Delivery
from dataserver.model import Arrival
from dataserver.packet.parse import parse
from dataserver.store import ledger, schema
from dataserver.store.read.history import History
from dataserver.store.sql import Sql
from tests.support.databases import Database
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.packets import START, module, packet, stamp
from tests.support.randomness import seeded

HOUR, DAY = 3_600, 86_400
#: Where the server's clock begins: long after the packets that are sent late.
BEGIN = START + 10 * DAY


class Servers:
    """Some servers with caches of their own on one database, and a clock that the test moves."""

    def __init__(self, database: Database, count: int = 1, zone: tzinfo = ZONE) -> None:
        self.database = database
        self.zone = zone
        self.now = BEGIN
        self.tries = 0
        self.engine = database.engine()
        self.ingests = [Ingest(database, zone) for _ in range(count)]
        self.history = History(self.engine, database.prepare())

    def _pause(self, _seconds: float) -> bool:
        """Between two tries; a conflict that persists ends the test."""
        self.tries += 1
        return self.tries > 5

    def deliver(self, *arrivals: Arrival, which: int = 0) -> list[str]:
        """Record a batch, as the worker does; what became of each packet, in their order."""
        delivery = Delivery(
            self.ingests[which].recorder,
            clock=lambda: self.now,
            pause=self._pause,
            on_failure=lambda error, seconds: None,
            on_success=lambda _tally: None,
            patient=False,
        )
        self.tries = 0
        found = {}
        for each, outcome in delivery.deliver(arrivals):
            assert outcome is not None
            assert outcome.error is None, outcome.error
            found[id(each)] = (
                "again" if outcome.duplicate else "late" if outcome.late else "present"
            )
        return [found[id(each)] for each in arrivals]

    def restart(self, which: int = 0) -> None:
        self.ingests[which] = Ingest(self.database, self.zone)

    def points(self) -> dict[tuple[str, str], list[tuple[int, str]]]:
        """Every module's points, as a user reads them."""
        a, m = schema.agent.c, schema.module.c
        with self.engine.connect() as conn:
            modules = conn.execute(
                select(m.id, a.name, m.name).join_from(
                    schema.module, schema.agent, a.id == m.agent_id
                )
            ).all()
        return {
            (agent, name): [(t, _plain(v)) for t, v in self.history.points(key, 0, BEGIN * 2)]
            for key, agent, name in modules
        }

    def packets(self) -> int:
        with self.engine.connect() as conn:
            return conn.scalar(select(func.count()).select_from(schema.packet)) or 0

    def state(self, name: str, agent: str = "jumper") -> tuple[str, str, int]:
        """A module's value, its local time, its status."""
        a, m, s = schema.agent.c, schema.module.c, schema.state.c
        query = (
            select(s.value, s.local_time, s.status)
            .join_from(schema.state, schema.module, m.id == s.module_id)
            .join(schema.agent, a.id == m.agent_id)
            .where(a.name == agent, m.name == name)
        )
        with self.engine.connect() as conn:
            value, time, status = conn.execute(query).one()
        return _plain(value), str(time)[:19], status


def _plain(value: object) -> str:
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


# -- the property -----------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One packet, and the values that it carries, by module, in their order: (time, value)."""

    agent: str
    time: int
    content: bytes
    values: tuple[tuple[str, tuple[tuple[int, str], ...]], ...]

    @property
    def arrival(self) -> Arrival:
        return arrival(self.content)


TYPES = {
    "number": "generic_data",
    "text": "generic_data_string",
    "event": "async_data",
    "words": "async_string",
    "list": "generic_data",
    "mixed": "generic_data",
    "events": "async_data",
    "counter": "generic_data_inc",
}
_LISTS = ("list", "mixed", "events")
_JUMPS = (0, 0, 0, 600, 2 * HOUR, 12 * HOUR, -HOUR)


class Agents:
    """Agents that send what they see, by their own clocks; one of them jumps."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._serial = 0
        self.offset = 0

    def packet(self, agent: str, now: int) -> Sent:
        draw = self._draw
        time = now + (self.offset if agent == "jumper" else 0) + draw.choice((-2, 0, 0, 0, 1))
        values = {name: self._carried(name, time, now) for name in TYPES if draw.random() < 0.7}
        elements = [
            module(
                name,
                [(value, when) for when, value in carried] if own else carried[0][1],
                TYPES[name],
                **({} if "s" in name[-1:] or name == "text" else {"min_critical": "2"}),
            )
            for name, (own, carried) in values.items()
        ]
        self._serial += 1
        return Sent(
            agent,
            time,
            packet(agent, *elements, time=time, version=self._serial),
            tuple((name, carried) for name, (_, carried) in values.items()),
        )

    def _carried(self, name: str, time: int, now: int) -> tuple[bool, tuple[tuple[int, str], ...]]:
        """Whether with times of their own, and the values."""
        draw = self._draw
        if name == "counter":
            return False, ((time, str((now - START) ** 2 % 10**6)),)
        if name in {"text", "words"}:
            return False, ((time, draw.choice(("up", "down"))),)
        if name in _LISTS and not (name == "mixed" and draw.random() < 0.5):
            places = (0, -1, -30, -60, -250, -400, 900)
            times = draw.sample(places, draw.randrange(1, 4))
            return True, tuple((time + each, draw.choice("012")) for each in times)
        return False, ((time, draw.choice("012")),)


def _misread(servers: Servers, carried: dict[tuple[str, str], dict[int, str]]) -> list[str]:
    """Every value that does not read back at its own time as it was sent."""
    points = servers.points()
    wrong = []
    for key, values in carried.items():
        path, place, value = points.get(key, []), 0, None
        for time, sent in sorted(values.items()):
            while place < len(path) and path[place][0] <= time:
                value = path[place][1]
                place += 1
            if value != sent:
                wrong.append(f"{key} at {time - BEGIN}: sent {sent}, read {value}")
    return wrong


def _order(sent: Sent) -> tuple[str, int, bytes]:
    return sent.agent, sent.time, sent.arrival.packet.digest


@pytest.mark.parametrize("seed", range(4))
def test_every_value_reads_back_whatever_the_agents_clock_does(
    seed: int, database: Database
) -> None:
    draw = seeded(f"clocks {seed}")
    servers, agents = Servers(database, 2), Agents(draw)
    carried: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    waiting: list[Sent] = []
    taken: list[Sent] = []
    for _ in range(40):
        servers.now += draw.choice((1, 10, 60, 300, 300, 300, HOUR, 7 * HOUR))
        if draw.random() < 0.25:
            agents.offset = draw.choice(_JUMPS)
        waiting += [
            agents.packet(agent, servers.now)
            for agent in ("jumper", "jumper", "steady")
            if draw.random() < 0.8
        ]
        draw.shuffle(waiting)
        # Some packets stay behind, as they do in an agent's buffer.
        count = draw.randrange(len(waiting) + 1) if draw.random() < 0.5 else len(waiting)
        batch, waiting = waiting[:count], waiting[count:]
        new = {sent.content: sent for sent in batch}
        if taken and draw.random() < 0.3:
            batch = batch + draw.sample(taken, min(2, len(taken)))
        draw.shuffle(batch)
        which = draw.randrange(2)
        servers.deliver(*(sent.arrival for sent in batch), which=which)
        for sent in sorted(new.values(), key=_order):
            for name, values in sent.values:
                if name != "counter":
                    carried[sent.agent, name].update(
                        (time, value) for time, value in values if time <= servers.now + DAY
                    )
        taken += new.values()
        assert _misread(servers, carried) == []
        if draw.random() < 0.1:
            servers.restart(draw.randrange(2))
    assert servers.packets() == len(taken)


# -- what a present packet does ---------------------------------------------------------


def sent(
    time: int, value: str, agent: str = "jumper", kind: str = "generic_data", **root: object
) -> Arrival:
    return arrival(packet(agent, module("CPU", value, kind, min_critical=90), time=time, **root))


def _text(time: int) -> str:
    return stamp(time).replace("/", "-")


def events(servers: Servers) -> list[str]:
    e = schema.event.c
    with servers.engine.connect() as conn:
        return list(conn.scalars(select(e.type).where(e.type != "new_agent").order_by(e.id)))


def contact(servers: Servers) -> tuple[str, str]:
    """When the agent was heard last, by the server's clock and by its own."""
    a = schema.agent.c
    with servers.engine.connect() as conn:
        row = conn.execute(select(a.contact, a.packet_contact).where(a.name == "jumper")).one()
    return str(row[0])[:19], str(row[1])[:19]


def jumped(database: Database, count: int = 1, by: int = 12 * HOUR) -> Servers:
    """An agent that sent three packets with its clock ahead; ten minutes later."""
    servers = Servers(database, count)
    for minute in (0, 5, 10):
        servers.now = BEGIN + 60 * minute
        assert servers.deliver(sent(servers.now + by, "10")) == ["present"]
    servers.now += 600
    return servers


def test_an_agent_whose_clock_is_put_right_is_seen_at_once(database: Database) -> None:
    servers = jumped(database)
    assert servers.deliver(sent(servers.now, "99")) == ["present"]
    assert servers.state("CPU") == ("99", _text(servers.now), 1)
    assert contact(servers) == (_text(servers.now), _text(servers.now))
    assert events(servers)[-1] == "going_up_critical"
    [note] = [note for note in servers.ingests[0].recorder.clocks.take() if note.put_right]
    assert note == ("jumper", 12 * HOUR - 600, True)


def test_it_is_seen_by_a_server_that_was_started_since(database: Database) -> None:
    servers = jumped(database)
    servers.restart()
    servers.deliver(sent(servers.now, "99"))
    servers.restart()
    servers.now += 300
    servers.deliver(sent(servers.now, "10"))
    assert servers.state("CPU") == ("10", _text(servers.now), 0)


def test_an_equal_value_after_the_rows_that_lie_ahead_is_stored(database: Database) -> None:
    servers = jumped(database)
    ahead = servers.now - 600 + 12 * HOUR
    servers.deliver(sent(servers.now, "99"))
    servers.restart()
    servers.now = ahead + 60
    servers.deliver(sent(servers.now, "99"))
    assert servers.points()["jumper", "CPU"][-2:] == [(ahead - 600, "10"), (servers.now, "99")]
    servers.now += 300
    servers.deliver(sent(servers.now, "99"))
    assert servers.points()["jumper", "CPU"][-1] == (servers.now - 300, "99")


def test_time_zones_that_are_set_right(database: Database) -> None:
    """All agents were ahead by nine hours; the server's zone is set, and it starts anew."""
    servers = Servers(database)
    names = [f"agent{number}" for number in range(5)]
    servers.deliver(*(sent(servers.now + 9 * HOUR, "10", name) for name in names))
    servers.restart()
    servers.now += 300
    found = servers.deliver(*(sent(servers.now, "99", name) for name in names))
    assert found == ["present"] * 5
    assert [servers.state("CPU", name)[2] for name in names] == [1] * 5


def test_where_most_agents_are_ahead_nothing_changes(database: Database) -> None:
    """It is the server's clock that is behind: what is late by the agents' clocks stays late."""
    servers = Servers(database)
    clocks = servers.ingests[0].recorder.clocks
    names = [f"agent{number}" for number in range(5)]
    servers.deliver(*(sent(servers.now + HOUR, "10", name) for name in names))
    assert (clocks.ahead, clocks.agents, clocks.own_is_behind) == (5, 5, True)
    assert servers.deliver(sent(servers.now, "99", "agent0")) == ["late"]
    assert servers.state("CPU", "agent0") == ("10", _text(servers.now + HOUR), 0)
    assert clocks.take() == []


def test_files_without_a_timestamp_do_not_say_whose_clock_is_wrong(database: Database) -> None:
    servers = Servers(database)
    clocks = servers.ingests[0].recorder.clocks
    content = [packet(f"plain{number}", module("CPU")) for number in range(3)]
    servers.deliver(*(arrival(each, modified=servers.now) for each in content))
    assert (clocks.ahead, clocks.agents) == (0, 0)
    content = [packet(f"agent{number}", module("CPU"), time=servers.now) for number in range(3)]
    servers.deliver(*(arrival(each, modified=servers.now) for each in content))
    servers.deliver(sent(servers.now + HOUR, "10"))
    assert (clocks.ahead, clocks.agents, clocks.own_is_behind) == (1, 4, False)


def test_a_module_whose_own_times_were_ahead(database: Database) -> None:
    """The packets' times were right all the while, a plugin's were not."""
    servers = Servers(database)

    def own(value: str, ahead: int) -> str:
        listed = module("CPU", [(value, servers.now + ahead)], min_critical=90)
        servers.deliver(arrival(packet("jumper", listed, time=servers.now)))
        servers.now += 300
        return servers.state("CPU")[0]

    assert own("10", 9 * HOUR) == "10"
    assert own("99", -10) == "99"
    assert events(servers)[-1] == "going_up_critical"
    servers.restart()
    assert own("99", -10) == "99"
    assert own("5", -10) == "5"
    assert [value for _, value in servers.points()["jumper", "CPU"]] == ["99", "99", "5", "10"]


def test_a_keep_alive_module_follows_a_clock_of_the_server_that_was_put_right(
    database: Database,
) -> None:
    servers = Servers(database)

    def heard(*alive: str) -> tuple[str, str, int]:
        content = packet("jumper", *alive, module("other", "1"), time=servers.now)
        servers.deliver(arrival(content))
        return servers.state("CPU")

    servers.now += 12 * HOUR
    assert heard(module("CPU", "1", "keep_alive")) == ("1", _text(servers.now), 0)
    servers.restart()
    servers.now -= 12 * HOUR - 300
    assert heard() == ("1", _text(servers.now), 0)


def test_a_late_packet_of_an_agent_that_was_put_right_stays_late(database: Database) -> None:
    servers = Servers(database)
    servers.deliver(sent(servers.now, "10"))
    servers.now += 300
    servers.deliver(sent(servers.now + 12 * HOUR, "20"))
    servers.now += 300
    assert servers.deliver(sent(BEGIN - 60, "99")) == ["late"]
    assert servers.deliver(sent(servers.now, "30")) == ["present"]
    assert servers.deliver(sent(BEGIN + 60, "99")) == ["late"]
    assert servers.state("CPU") == ("30", _text(servers.now), 0)


def test_a_few_minutes_ahead_are_no_jump(database: Database) -> None:
    servers = jumped(database, by=850)
    servers.now -= 300
    assert servers.deliver(sent(servers.now + 549, "99")) == ["late"]
    assert servers.deliver(sent(servers.now + 550, "99")) == ["present"]


def test_a_packet_of_before_counts_once_also_when_its_time_has_come(database: Database) -> None:
    servers = jumped(database, count=2)
    ahead = sent(BEGIN + 12 * HOUR, "10")
    assert servers.deliver(sent(servers.now, "99"), which=1) == ["present"]
    assert servers.deliver(ahead, which=1) == ["again"]
    assert servers.deliver(ahead, sent(servers.now + 1, "98")) == ["again", "present"]
    before = servers.points()
    servers.now = BEGIN + 12 * HOUR + 60
    assert servers.deliver(ahead) == ["again"]
    assert servers.deliver(sent(servers.now, "97"), ahead, which=1) == ["present", "again"]
    assert servers.packets() == 6
    assert set(servers.points()["jumper", "CPU"]) > set(before["jumper", "CPU"])


def test_what_was_folded_stays_too_old(database: Database) -> None:
    """An agent that was silent for long jumps ahead: its packets of before come again."""
    servers = Servers(database)
    first = sent(servers.now, "10")
    for ingest in servers.ingests:
        ingest.recorder._admission._ledger_days = 7
    servers.deliver(first)
    servers.now += 10 * DAY
    servers.deliver(sent(servers.now + 12 * HOUR, "20"))
    sql = Sql(servers.engine.dialect)
    with servers.engine.begin() as conn:
        ledger.fold(conn, sql, 7, servers.now)
    assert servers.packets() == 1
    [outcome], _ = servers.ingests[0].recorder.record([first], servers.now)
    assert outcome.error is not None
    assert servers.deliver(sent(servers.now, "30")) == ["present"]
    [outcome], _ = servers.ingests[0].recorder.record([first], servers.now)
    assert outcome.error is not None


def test_a_server_whose_own_clock_was_ahead_sees_agents_without_a_clock(
    database: Database,
) -> None:
    """Packets without a timestamp have the time of their file, which is the server's clock's."""
    servers = Servers(database)

    def plain(value: str) -> Arrival:
        return arrival(packet("jumper", module("CPU", value)), modified=servers.now)

    servers.now += 12 * HOUR
    servers.deliver(plain("10"))
    servers.now += 300
    servers.deliver(plain("11"))
    servers.now -= 12 * HOUR
    assert servers.deliver(plain("12")) == ["present"]
    assert servers.state("CPU") == ("12", _text(servers.now), 0)


def test_an_agent_ahead_is_not_folded_further_than_the_present(database: Database) -> None:
    servers = Servers(database)
    servers.deliver(sent(servers.now, "10"))
    servers.now += 7 * DAY
    servers.deliver(sent(servers.now + 12 * HOUR, "20"))
    with servers.engine.begin() as conn:
        ledger.fold(conn, Sql(servers.engine.dialect), 7, servers.now)
    assert servers.packets() == 2


def test_a_counter_begins_anew(database: Database) -> None:
    servers = Servers(database)
    kind = "generic_data_inc"
    for value, offset in (("100", 12 * HOUR), ("700", 12 * HOUR), ("900", 0), ("1500", 0)):
        servers.deliver(sent(servers.now + offset, value, kind=kind))
        servers.now += 300
    assert servers.state("CPU") == ("2", _text(servers.now - 300), 0)
    points = servers.points()["jumper", "CPU"]
    assert points[0] == (servers.now - 300, "2")


def test_an_old_value_in_a_present_packet_does_not_rewind_a_state(database: Database) -> None:
    servers = jumped(database)
    servers.deliver(sent(servers.now, "50"))
    servers.now += 300
    listed = module("CPU", [("99", servers.now + HOUR), ("98", BEGIN - DAY)], min_critical=90)
    servers.deliver(arrival(packet("jumper", listed, time=servers.now)))
    assert servers.state("CPU") == ("99", _text(servers.now + HOUR), 1)


def test_an_agent_known_to_the_perl_server_only(pandora_database: Database) -> None:
    servers = jumped(pandora_database)
    with servers.engine.begin() as conn:
        conn.execute(delete(schema.packet))
        conn.execute(delete(schema.agent_version))
    servers.restart()
    assert servers.deliver(sent(servers.now, "99")) == ["present"]
    assert servers.state("CPU") == ("99", _text(servers.now), 1)


def test_the_time_of_a_row_ahead_survives_the_doubled_hour(database: Database) -> None:
    """The mark is a local time: in the hour that is doubled it would be read an hour too early."""
    zone = ZoneInfo("Europe/Berlin")
    # 02:30 for the second time, on 2026-10-25.
    ahead = 1_792_891_800
    servers = Servers(database, zone=zone)
    servers.now = ahead - 6 * HOUR
    head = "<agent_data agent_name='jumper' version='{}'>{}</agent_data>"

    def at(time: int, value: str) -> Arrival:
        content = head.format(time, module("CPU", value)).encode()
        return Arrival(parse(content), time, 0, time - 1)

    servers.deliver(at(ahead - 1_800, "10"))
    servers.deliver(at(ahead, "10"))
    servers.deliver(at(servers.now, "20"))
    servers.restart()
    servers.now = ahead - 1_200
    servers.deliver(at(servers.now, "30"))
    points = servers.points()["jumper", "CPU"]
    before = [(ahead - 6 * HOUR, "20"), (ahead - 1_800, "10")]
    assert points == [*before, (ahead - 1_200, "30"), (ahead, "10")]

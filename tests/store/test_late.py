"""Late packets are exact: read back at its own time, every value is the one that was sent.

The reference is crude on purpose and takes nothing from the server: what each packet carried
is read with another parser, and the step function is a walk over the stored rows.
"""

from __future__ import annotations

import random
from calendar import timegm
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import strptime
from xml.etree import ElementTree

import pytest
from sqlalchemy import func, select

from dataserver.store import schema
from tests.support.databases import Database
from tests.support.golden import Case
from tests.support.ingest import Ingest, arrival
from tests.support.rows import stored

START = 1_767_225_600
INTERVAL = 300
#: What every counter here grows by in a second: any rate that is no real difference shows.
RATE = 2.0

Place = tuple[str, str]


@dataclass(frozen=True)
class Sent:
    """What one packet carried: for each module, its values with their times."""

    content: bytes
    agent: str
    time: int
    values: dict[str, list[tuple[int, str]]]

    @classmethod
    def read(cls, content: bytes) -> Sent:
        root = ElementTree.fromstring(content)
        time = epoch(root.get("timestamp") or "")
        values = defaultdict(list)
        for module in root.iter("module"):
            if (module.findtext("type") or "").endswith("_inc"):
                continue
            name = module.findtext("name") or ""
            if (data := module.findtext("data")) is not None:
                values[name].append((time, data))
            for sample in module.iterfind("datalist/data"):
                own = epoch(sample.findtext("timestamp") or "")
                values[name].append((own, sample.findtext("value") or ""))
        return cls(content, root.get("agent_name") or "", time, dict(values))


def epoch(local: str) -> int:
    return timegm(strptime(local, "%Y/%m/%d %H:%M:%S"))


# -- reading back ---------------------------------------------------------------


class Store:
    """What the database holds, looked at from outside."""

    def __init__(self, database: Database) -> None:
        self.ingest = Ingest(database)
        self._engine = database.engine()
        self._has_ordinal = database.prepare().has_ordinal

    def take_in(self, batch: Iterable[Sent]) -> int:
        """Record a batch; how many of it were known already."""
        outcomes = self.ingest.record(arrival(sent.content) for sent in batch)
        assert self.ingest.rejected == []
        return sum(outcome.duplicate for outcome in outcomes)

    def history(self) -> dict[Place, list[tuple[int, str]]]:
        """The rows of each module, in the order of their times."""
        found = defaultdict(list)
        with self._engine.connect() as conn:
            for row in stored(conn, "values", has_ordinal=self._has_ordinal):
                place = (row["agent"] or "", row["module"] or "")
                found[place].append((int(row["utimestamp"] or 0), row["value"] or ""))
        return found

    def states(self) -> dict[Place, tuple[str | None, ...]]:
        with self._engine.connect() as conn:
            return {
                (row["agent"] or "", row["module"] or ""): (row["value"], row["timestamp"])
                for row in stored(conn, "state", has_ordinal=self._has_ordinal)
            }

    def packets(self) -> int:
        with self._engine.connect() as conn:
            return conn.scalar(select(func.count()).select_from(schema.packet)) or 0


def at(rows: list[tuple[int, str]], time: int) -> str | None:
    """The value at ``time``: the last row that is not after it."""
    value = None
    for when, what in rows:
        if when <= time:
            value = what
    return value


def same(found: str | None, sent: str) -> bool:
    if found is None:
        return False
    try:
        return float(found) == float(sent)
    except ValueError:
        return found == sent


def misread(store: Store, delivered: Iterable[Sent]) -> list[str]:
    """Every value that does not read back as it was sent."""
    history = store.history()
    wrong = []
    for sent in delivered:
        for module, values in sent.values.items():
            for time, value in dict(values).items():
                found = at(history.get((sent.agent, module), []), time)
                if not same(found, value):
                    wrong.append(f"{sent.agent}/{module} at {time}: sent {value}, read {found}")
    return wrong


def counter_rates(store: Store) -> set[float]:
    return {
        float(value)
        for (_, module), rows in store.history().items()
        for _, value in rows
        if module == "counter"
    }


def wrong_states(store: Store, delivered: list[Sent]) -> list[str]:
    """States that are not those of their agent's newest packet, where that has the module."""
    newest: dict[str, Sent] = {}
    for sent in delivered:
        if sent.agent not in newest or sent.time > newest[sent.agent].time:
            newest[sent.agent] = sent
    states = store.states()
    return [
        f"{sent.agent}/{module}: sent {values[-1]}, state {states[sent.agent, module]}"
        for sent in newest.values()
        for module, values in sent.values.items()
        if not same(states[sent.agent, module][0], max(values)[1])
    ]


# -- packets ---------------------------------------------------------------------


def packet(agent: str, time: int, draw: random.Random, share: float = 0.7) -> Sent:
    """A packet with about this share of the modules, and few different values."""
    modules = [
        element("number", "generic_data", data(draw.choice("012"))),
        element("flag", "generic_proc", data(draw.choice("01"))),
        element("text", "generic_data_string", data(draw.choice(["up", "down"]))),
        element("event", "async_data", data(draw.choice("01"))),
        element("list", "generic_data", data_list(time, draw)),
        element("words", "async_string", data_list(time, draw)),
        element("counter", "generic_data_inc", data(str((time - START) * int(RATE)))),
    ]
    chosen = [module for module in modules if draw.random() < share]
    head = f'<agent_data agent_name="{agent}" timestamp="{local(time)}" interval="{INTERVAL}">'
    return Sent.read(f"{head}{''.join(chosen)}</agent_data>".encode())


def element(name: str, kind: str, body: str) -> str:
    return f"<module><name>{name}</name><type>{kind}</type>{body}</module>"


def data(value: str) -> str:
    return f"<data>{value}</data>"


def data_list(time: int, draw: random.Random) -> str:
    """Up to three values since the last packet, some of them in neighbouring seconds."""
    first = time - draw.randrange(10, INTERVAL - 10)
    times = sorted({first, first + 1, time - draw.randrange(5)})[: draw.randrange(1, 4)]
    samples = (
        f"<data><value>{draw.choice('012')}</value><timestamp>{local(when)}</timestamp></data>"
        for when in times
    )
    return f"<datalist>{''.join(samples)}</datalist>"


def local(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y/%m/%d %H:%M:%S")


def story(seed: int) -> list[list[Sent]]:
    """Batches as they might come: several agents, out of order, some packets again."""
    draw = random.Random(seed)
    packets = [
        packet(agent, START + number * INTERVAL, draw)
        for agent in ("one", "two", "three")
        for number in range(10)
        if draw.random() < 0.9
    ]
    # Out of order by a little or by much.
    distance = draw.choice([2, 5, 20]) * INTERVAL
    packets.sort(key=lambda sent: sent.time + draw.random() * distance)
    packets += draw.sample(packets, 3)
    batches = []
    while packets:
        size = draw.randrange(1, 6)
        batches.append(packets[:size])
        packets = packets[size:]
    return batches


# -- the tests ---------------------------------------------------------------------


# 108: a late value on the second of a restored one, where history has no ordinal.
@pytest.mark.parametrize("seed", [*range(8), 108])
def test_every_value_reads_back_as_it_was_sent_in_whatever_order(
    seed: int, database: Database
) -> None:
    store = Store(database)
    delivered: list[Sent] = []
    for batch in story(seed):
        store.take_in(batch)
        delivered += batch
        assert misread(store, delivered) == []
    assert wrong_states(store, delivered) == []
    assert counter_rates(store) <= {RATE}
    assert store.packets() == len({sent.content for sent in delivered})


def test_the_recorded_case_reads_back_after_each_of_its_steps(database: Database) -> None:
    store = Store(database)
    delivered: list[Sent] = []
    for files in Case("order").steps():
        batch = [Sent.read(file.read_bytes()) for file in files]
        store.take_in(batch)
        delivered += batch
        assert misread(store, delivered) == []
        assert wrong_states(store, delivered) == []


def test_packets_that_come_again_change_nothing(database: Database) -> None:
    store = Store(database)
    delivered = [sent for batch in story(1) for sent in batch]
    store.take_in(delivered)
    history, states, packets = store.history(), store.states(), store.packets()
    assert store.take_in(reversed(delivered)) == len(delivered)
    assert (store.history(), store.states(), store.packets()) == (history, states, packets)


def test_no_row_is_stored_twice(database: Database) -> None:
    store = Store(database)
    for batch in story(2):
        store.take_in(batch)
    for place, rows in store.history().items():
        assert max(Counter(rows).values()) == 1, place


def test_a_late_packet_leaves_the_state_of_a_newer_one_as_it_is(database: Database) -> None:
    store, draw = Store(database), random.Random(3)
    store.take_in([packet("one", START, draw), packet("one", START + 9 * INTERVAL, draw, 1.0)])
    before = store.states()
    for number in (5, 3, 8, 4):
        store.take_in([packet("one", START + number * INTERVAL, draw)])
    assert store.states() == before


def test_one_batch_and_many_batches_read_back_alike(database: Database) -> None:
    store = Store(database)
    delivered = [sent for batch in story(4) for sent in batch]
    store.take_in(delivered)
    assert misread(store, delivered) == []
    assert wrong_states(store, delivered) == []


def test_the_reference_itself_sees_a_value_that_is_not_there(database: Database) -> None:
    store, draw = Store(database), random.Random(5)
    sent = packet("one", START, draw)
    store.take_in([sent])
    never = Sent(b"", "one", START, {"number": [(START, "99")], "absent": [(START, "1")]})
    assert misread(store, [sent]) == []
    assert len(misread(store, [sent, never])) == 2

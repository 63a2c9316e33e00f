"""What a fault did: the outage for agents, uploads that failed, packets lost or stored twice."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Engine, select

from dataserver.errors import Reason
from dataserver.spool.rejected import Rejected, RejectedPacket
from dataserver.store import schema
from tests.failover.clients import Attempt
from tests.failover.faults import FAULTS, Scene
from tests.failover.host import Host
from tests.failover.lab import Lab
from tests.faults import readback
from tests.faults.corpus import File

#: Who had the address: a host, from when, until when (epoch seconds; None: until now).
Reign = tuple[str, float, float | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault, measured.  Durations are seconds."""

    fault: str
    advert_int: float
    #: From the fault until the other host had the address; None: it did not move.
    moved: float | None
    #: The longest time in which no agent succeeded with an upload.
    outage: float
    #: The longest that a packet waited on its agent until it was uploaded.
    slowest: float
    uploads: int
    failed: int
    lost: int
    twice: int
    #: Everything else that is not as the packets said; empty.
    wrong: tuple[str, ...]
    #: Packets that had been uploaded to one host and were taken in late, and files set aside.
    late: int
    stubs: int
    #: What scp said when it failed, each once, with how often.
    errors: tuple[tuple[str, int], ...]
    #: Who had the address, in seconds from the fault on.
    reigns: tuple[Reign, ...]


def outage(attempts: Sequence[Attempt]) -> float:
    """The longest time between two uploads that succeeded, whoever's."""
    ends = sorted(each.ended for each in attempts if each.code == 0)
    return max((after - before for before, after in pairwise(ends)), default=float("inf"))


def slowest(attempts: Sequence[Attempt]) -> float:
    """The longest time from the making of a packet to its being uploaded."""
    return max((each.ended - each.made for each in attempts if each.code == 0), default=0.0)


def errors(attempts: Sequence[Attempt]) -> tuple[tuple[str, int], ...]:
    """What was said of uploads that failed, the most frequent first."""
    counts = Counter(
        (each.error.splitlines() or [f"exit code {each.code}"])[0]
        for each in attempts
        if each.code != 0
    )
    return tuple(counts.most_common())


def reigns(lab: Lab, since: float) -> tuple[Reign, ...]:
    """Who had the address from ``since`` on, in order."""
    found = [
        (host.name, begin, end)
        for host in lab.hosts
        for begin, end in host.reigns
        if end is None or end > since
    ]
    return tuple(sorted(found, key=lambda reign: reign[1]))


def lost(engine: Engine, files: Sequence[File]) -> list[str]:
    """The packets that are not in the ledger."""
    there = _ledger(engine)
    return [file.name for file in files if not there[file.agent, file.time]]


def twice(engine: Engine, files: Sequence[File]) -> int:
    """How many rows are there once more than they should: in the ledger and in the history."""
    rows = sum(count - 1 for count in _ledger(engine).values())
    rows += max(0, _ledger(engine).total() - rows - len({(f.agent, f.time) for f in files}))
    with engine.connect() as conn:
        for table in (schema.number_history, schema.text_history):
            c = table.c
            values = Counter(map(tuple, conn.execute(select(c.module_id, c.time, c.value))))
            rows += sum(count - 1 for count in values.values())
    return rows


def wrong(engine: Engine, files: Sequence[File]) -> tuple[str, ...]:
    """What the database has otherwise than the packets said it, as after any fault."""
    return tuple(readback.faults(engine, files))


def _ledger(engine: Engine) -> Counter[tuple[str, int]]:
    agent, packet = schema.agent.c, schema.packet.c
    query = select(agent.name, packet.time).where(packet.agent_id == agent.id)
    with engine.connect() as conn:
        return Counter((row[0], row[1]) for row in conn.execute(query))


def measure(lab: Lab, name: str) -> Outcome:
    """Have agents upload, do a fault to the host that has the address, and see what came of it."""
    lab.wait_settled()
    fleet = lab.fleet()
    known = _set_aside(lab)
    before = {host.name: _taken_late(host) for host in lab.hosts}
    fleet.start()
    try:
        fleet.wait_sent()
        scene = Scene(lab, fleet)
        FAULTS[name](scene)
        lab.wait_settled()
        fleet.wait_sent()
    finally:
        fleet.finish()
    lab.sent += fleet.made
    lab.wait_taken()
    _wait_told(lab)
    attempts = [each for each in fleet.attempts if each.ended > scene.at - 1]
    held = [begin - scene.at for begin, _ in scene.twin.reigns if begin > scene.at]
    set_aside = [each for each in _set_aside(lab) if each not in known]
    with lab.engine() as engine:
        return Outcome(
            fault=name,
            advert_int=lab.advert_int,
            moved=min(held, default=None),
            outage=outage(attempts),
            slowest=slowest(attempts),
            uploads=sum(each.code == 0 for each in attempts),
            failed=sum(each.code != 0 for each in attempts),
            lost=len(lost(engine, lab.sent)),
            twice=twice(engine, lab.sent),
            wrong=(*wrong(engine, lab.sent), *_left_behind(lab), *_badly_set_aside(set_aside)),
            late=sum(_late_since(host, *before[host.name]) for host in lab.hosts),
            stubs=len(set_aside),
            errors=errors(attempts),
            reigns=reigns(lab, scene.at),
        )


def _set_aside(lab: Lab) -> list[RejectedPacket]:
    return [each for host in lab.hosts for each in Rejected(host.paths.rejected).list()]


def _taken_late(host: Host) -> tuple[str, int]:
    """Its server's run, and how many packets that took in late."""
    try:
        found = json.loads(host.paths.status.read_text())
    except FileNotFoundError:
        return "", 0
    return found["run"], found["counters"]["late"]


def _late_since(host: Host, run: str, late: int) -> int:
    now_run, now_late = _taken_late(host)
    return now_late - late if now_run == run else now_late


def _wait_told(lab: Lab) -> None:
    """Wait until the status of both servers is newer than all that they did."""
    now = time.time()
    lab.wait(
        lambda: all(host.paths.status.stat().st_mtime > now for host in lab.hosts), "a new status"
    )


def _left_behind(lab: Lab) -> Iterator[str]:
    """What lies in a drop directory, where nothing should."""
    for host in lab.hosts:
        for name in sorted(os.listdir(host.data_in)):
            # The health check tries out whether a file can be made.
            if name != "README.md" and not name.startswith(".check-drop."):
                yield f"{host.name} has {name} in data_in"


def _badly_set_aside(packets: Sequence[RejectedPacket]) -> Iterator[str]:
    """What was set aside for anything but a cut upload."""
    for packet in packets:
        # Cut before its first byte.
        is_empty = packet.reason is Reason.MALFORMED and packet.size == 0
        if packet.reason is not Reason.INCOMPLETE and not is_empty:
            yield f"{packet.name} was set aside: {packet.reason}"

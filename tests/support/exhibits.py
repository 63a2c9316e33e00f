"""What a console has to show: an agent with two days of history until now, hostile names in it.

The agent `web1` sent every five minutes, but for a silence of two hours, half a day ago.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Engine, insert, select, update

from dataserver.store import schema
from dataserver.store.agents import AutoCreatePolicy
from dataserver.store.probe import prepare
from dataserver.store.recorder import Recorder
from tests.support.databases import Database
from tests.support.ingest import ZONE, arrival
from tests.support.packets import module, packet

INTERVAL = 300
PACKETS = 576
#: The packets that never came.
LOST = range(420, 444)
#: Values of the module `ticks`, one every twenty seconds: more than any graph is wide.
TICKS = 6_000
TICK = 20

#: Runs, where somebody lets it: sets window.hacked.
SCRIPT = "<script>window.hacked=1</script>"
HOSTILE = f'"\'><img src=x onerror="window.hacked=1">{SCRIPT}\u202eevil'


@dataclass(frozen=True)
class Exhibit:
    """What was filled in; ``modules`` are ids by name, times epoch seconds."""

    agent: int
    modules: dict[str, int]
    start: int
    end: int


def fill(database: Database, now: int) -> Exhibit:
    """Take in two days of packets until ``now``, and put hostile texts where packets cannot."""
    engine = database.engine()
    recorder = Recorder(
        engine,
        prepare(engine),
        zone=ZONE,
        learning=AutoCreatePolicy("exhibits", update_parent=False),
        longest_text=16_000_000,
        ledger_days=3650,
    )
    start = now - now % INTERVAL - (PACKETS - 1) * INTERVAL
    packets = [
        arrival(_packet(start + place * INTERVAL, place))
        for place in range(PACKETS)
        if place not in LOST
    ]
    for place in range(0, len(packets), 20):
        batch = packets[place : place + 20]
        # As if they had come when they were sent: so old are their events.
        recorder.record(batch, batch[-1].time or now)
    return _spoiled(engine, start, now)


def load(place: int) -> float:
    """The module `load` of one packet: steps, now and then in warning or critical."""
    return 9.5 if place % 90 == 89 else 5.0 if place % 40 == 39 else place // 6 % 8 / 2


def state(place: int) -> str:
    """The module `state`: a text that a page must not run, a formula, a critical one."""
    return ("running", HOSTILE, "=1+1", "broken", 'two "lines"\nof it, said')[place // 72 % 5]


def _packet(time: int, place: int) -> bytes:
    modules = [
        module(
            "load",
            f"{load(place)}",
            description="Of five minutes",
            unit="jobs",
            min_warning=4,
            max_warning=8,
            min_critical=8,
        ),
        module("up", "0" if place % 100 < 3 else "1", "generic_proc"),
        module("state", state(place), "generic_data_string", str_critical="^broken$"),
        module("cold", "-3.5"),
    ]
    if place == PACKETS - 1:
        listed = [(f"{number % 50}", time - (TICKS - number) * TICK) for number in range(TICKS)]
        modules.append(module("ticks", listed))
    return packet("web1", *modules, time=time, interval=INTERVAL, os_name="Linux")


def _spoiled(engine: Engine, start: int, now: int) -> Exhibit:
    a, m, e = schema.agent, schema.module, schema.event
    with engine.begin() as conn:
        agent = conn.execute(select(a.c.id).where(a.c.name == "web1")).scalar_one()
        found = conn.execute(select(m.c.name, m.c.id).where(m.c.agent_id == agent))
        modules = {re.sub("&.*", "", name): key for name, key in found}
        conn.execute(update(a).where(a.c.id == agent).values(alias=f"Web {HOSTILE}"))
        hostile = {"name": f"cold {HOSTILE}", "unit": SCRIPT, "description": f"Cold {HOSTILE}"}
        conn.execute(update(m).where(m.c.id == modules["cold"]).values(**hostile))
        event = {
            "agent_id": agent,
            "module_id": modules["cold"],
            "group_id": 0,
            "time": now - 3600,
            "local_time": "2026-01-01 00:00:00",
            "type": "going_up_critical",
            "severity": 4,
            "status": 0,
            "text": f"Cold {HOSTILE}",
        }
        conn.execute(insert(e).values(**event))
    return Exhibit(agent, modules, start, now)

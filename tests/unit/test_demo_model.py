"""The made-up agents: the same packets from the same seed, and something to see in each."""

from __future__ import annotations

import itertools
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from dataserver.demo.filling import cast, odd_files
from dataserver.demo.kit import World
from dataserver.demo.model import Agent, Due, File, Sender, portions
from dataserver.demo.noise import DAY, HOUR, incident, incidents
from dataserver.errors import IncompletePacket, PacketError
from dataserver.packet.parse import parse
from dataserver.rules.times import packet_time

#: 2026-11-20 15:00:00 UTC, a Friday.
END = 1_795_186_800
DOZEN = 12


def agents(seed: int = 1, end: int = END, count: int = DOZEN) -> dict[str, Agent]:
    return {agent.name: agent for agent in cast(World(seed, end, UTC), count)}


def dues(start: int, end: int, seed: int = 1) -> dict[str, list[Due]]:
    found = agents(seed)
    return {name: list(Sender(agent, UTC).dues(start, end)) for name, agent in found.items()}


def files(some: dict[str, list[Due]]) -> list[File]:
    return [due.file for each in some.values() for due in each if due.file is not None]


def test_the_same_seed_and_end_give_the_same_bytes() -> None:
    assert dues(END - DAY, END) == dues(END - DAY, END)


def test_another_seed_gives_other_values() -> None:
    assert files(dues(END - HOUR, END)) != files(dues(END - HOUR, END, seed=2))


def test_what_is_asked_for_in_pieces_is_the_same_as_in_one_piece() -> None:
    edges = (END - DAY, END - 7 * HOUR - 13, END - 7 * HOUR, END)
    pieces = [dues(*edges[place : place + 2]) for place in range(3)]
    whole = dues(edges[0], END)
    for name, each in whole.items():
        parts = [due for piece in pieces for due in piece[name]]
        # When silences become news is told by the piece that knows of them.
        assert [due.file for due in parts if due.file] == [due.file for due in each if due.file]


def test_every_packet_is_one_of_its_agent_and_time() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for agent in agents().values():
        for due in Sender(agent, zone).dues(END - 2 * HOUR, END):
            if due.file is None:
                continue
            packet = parse(due.file.content)
            number = int(due.file.name.split(".")[-2])
            assert packet.agent_name == agent.name
            assert packet.repairs == ()
            assert number == due.time == due.file.modified
            assert packet_time(packet, zone=zone, number=0, modified=0) == due.time


def test_agents_send_each_interval_and_continue_after_the_history() -> None:
    web1 = agents()["web1"]
    times = list(web1.times(END - DAY, END + DAY))
    assert len(times) == 2 * DAY // 300
    assert {b - a for a, b in itertools.pairwise(times)} == {300}


def test_a_workstation_is_off_at_night_and_at_the_weekend() -> None:
    desk = agents()["desk-12"]
    friday_noon, night, sunday = END - 3 * HOUR, END - 13 * HOUR, END - 5 * DAY
    assert desk.sends(friday_noon)
    assert not desk.sends(night)
    assert not desk.sends(sunday)


def test_a_shaky_line_loses_some_packets_and_keeps_most() -> None:
    branch = agents()["branch-north"]
    share = len(list(branch.times(END - 21 * DAY, END))) / (21 * DAY / 300)
    assert 0.7 < share < 0.95


def test_one_agent_has_been_silent_for_hours() -> None:
    assert max(agents()["erp-old"].times(END - DAY, END + DAY)) < END - 5 * HOUR


def test_one_agent_sends_each_half_minute_since_yesterday() -> None:
    times = list(agents()["press-7"].times(END - 21 * DAY, END))
    assert len(times) == DAY // 30
    assert min(times) >= END - DAY


def test_counters_grow_but_for_a_reboot() -> None:
    for agent in agents().values():
        times = list(agent.times(END - 7 * DAY, END))
        for module in agent.modules:
            if not module.kind.endswith("_inc"):
                continue
            values = [int(module.value(time) or 0) for time in times]
            falls = sum(b < a for a, b in itertools.pairwise(values))
            assert falls == (agent.name == "web2"), (agent.name, module.name)


def test_most_values_are_as_they_were() -> None:
    seen = new = 0
    for agent in agents().values():
        before: dict[str, str] = {}
        for time in agent.times(END - DAY, END):
            for module, value in agent.values(time):
                seen += 1
                new += before.get(module.name) != value
                before[module.name] = value
    assert new / seen < 0.4


def test_more_agents_than_a_dozen_have_names_of_their_own() -> None:
    assert len(agents(count=40)) == 40
    assert list(agents(count=3)) == list(agents())[:3]


def test_a_portion_ends_with_what_tells_an_event_and_is_never_too_large() -> None:
    found = dues(END - 3 * DAY, END)
    told = {due.time for each in found.values() for due in each if due.has_events}
    some = list(portions([iter(each) for each in found.values()], 100, HOUR))
    ends = {portion.time for portion in some}
    assert told <= ends
    # Of several agents in one second none is torn off.
    assert max(len(portion.files) for portion in some) <= 100 + DOZEN
    assert [portion.time for portion in some] == sorted(ends)
    times = [file.modified for portion in some for file in portion.files]
    assert times == sorted(times)
    assert sorted(file.name for portion in some for file in portion.files) == sorted(
        file.name for file in files(found)
    )


def test_a_silence_is_looked_for_when_it_has_lasted_twice_the_interval() -> None:
    erp = dues(END - DAY, END)["erp-old"]
    assert erp[-1].file is None
    assert erp[-1].time == erp[-2].time + 601
    assert erp[-2].has_events


def test_odd_files_are_odd() -> None:
    for due in odd_files(END, UTC):
        assert due.file is not None
        try:
            packet = parse(due.file.content)
        except IncompletePacket:
            assert due.file.modified < due.time - 60
        except PacketError:
            pass
        else:
            told = packet_time(packet, zone=UTC, number=0, modified=0)
            assert told is not None
            assert abs(told - due.time) > DAY


@pytest.mark.parametrize("key", [1, 77])
def test_each_incident_is_counted_once_when_it_begins(key: int) -> None:
    every, longest = 20_000, 3_000
    count = incidents(key, 10**9, every, longest)
    is_over = True
    for time in range(10**9, 10**9 + 10 * every, 50):
        begins = incident(key, time, every, longest) >= 0
        if begins and is_over and time > 10**9:
            count += 1
        is_over = not begins
        assert incidents(key, time, every, longest) == count

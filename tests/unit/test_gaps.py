"""Holding an agent's packets back until its backlog has settled, and seeing that there is one."""

from __future__ import annotations

from dataserver.ingest.gaps import PacketHold, has_gap
from dataserver.model import Arrival, Packet


def arrivals(*times: int | None, interval: str | None = "300") -> list[Arrival]:
    packet = Packet(agent_name="one", digest=b"", interval=interval)
    return [Arrival(packet, time, 0, 0) for time in times]


def held(stem: str = "one", files: int = 1, now: float = 0.0) -> PacketHold:
    holds = PacketHold(5.0, 60.0)
    holds.hold(stem, "agent", files, now)
    return holds


# -- gaps --------------------------------------------------------------------------


def test_a_gap_is_more_than_one_and_a_half_intervals() -> None:
    expected: list[tuple[list[int | None], int | None, bool]] = [
        ([1300], 1000, False),
        ([1451], 1000, False),
        ([1452], 1000, True),
        ([1300, 1600], 1000, False),
        ([1300, 1900], 1000, True),
        ([1600, 1300], 1000, False),
        ([700], 1000, False),
        ([1900], None, False),
        ([1300, 1900], None, True),
        ([None], 1000, False),
        ([None, 1900], 1000, True),
        ([], 1000, False),
    ]
    found = [
        (times, newest, has_gap(arrivals(*times), newest, 300)) for times, newest, _ in expected
    ]
    assert found == expected


def test_the_interval_that_the_packet_tells_counts_before_the_one_known() -> None:
    assert not has_gap(arrivals(1600, interval="600"), 1000, 60)
    assert has_gap(arrivals(1600, interval=None), 1000, 60)
    assert has_gap(arrivals(1600, interval="nonsense"), 1000, 60)


def test_an_agent_that_sends_every_second_has_no_gap_for_a_rounded_time() -> None:
    assert not has_gap(arrivals(1002, interval="1"), 1000, 1)


# -- holding -------------------------------------------------------------------------


def test_a_stem_that_is_not_held_is_not_kept() -> None:
    assert not held().is_held("other", 1, 1.0)


def test_a_held_stem_is_kept_until_nothing_came_for_a_while() -> None:
    holds = held()
    assert holds.is_held("one", 1, 4.9)
    assert not holds.is_held("one", 1, 5.0)


def test_each_further_file_prolongs_the_hold() -> None:
    holds = held()
    assert holds.is_held("one", 2, 4.0)
    assert holds.is_held("one", 2, 8.9)
    assert not holds.is_held("one", 2, 9.0)


def test_a_hold_ends_in_the_end_whatever_still_comes() -> None:
    holds = held()
    kept = [second for second in range(1, 100) if holds.is_held("one", second, float(second))]
    assert kept == list(range(1, 60))


def test_a_stem_that_has_settled_is_ready_and_one_that_is_held_is_not() -> None:
    """A backlog of several batches: the second batch must not take the held ones for settled."""
    holds = held()
    assert not holds.ready("one", 0.0)
    holds.is_held("one", 1, 5.0)
    assert holds.ready("one", 5.0)


def test_being_ready_does_not_last_for_ever() -> None:
    holds = held()
    holds.is_held("one", 1, 5.0)
    assert not holds.ready("one", 60.0)


def test_files_of_several_batches_are_counted_together() -> None:
    holds = held(files=3)
    holds.hold("one", "agent", 2, 0.5)
    assert len(holds) == 5
    assert holds.is_held("one", 5, 4.0)
    assert not holds.is_held("one", 5, 5.0)


def test_the_agents_of_all_stems_are_known() -> None:
    holds = held()
    holds.hold("two", "other", 1, 0.0)
    assert holds.agents() == {"agent", "other"}


def test_stems_whose_files_are_gone_are_forgotten() -> None:
    holds = held()
    holds.hold("two", "agent", 1, 0.0)
    holds.forget_missing({"two"})
    assert len(holds) == 1
    assert not holds.is_held("one", 1, 1.0)


def test_the_next_one_due_is_told() -> None:
    holds = held(now=10.0)
    assert holds.next_due() == 15.0
    holds.forget_missing(set())
    assert holds.next_due() is None

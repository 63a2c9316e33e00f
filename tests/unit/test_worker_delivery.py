"""Delivery: what is tried again, what is waited for, and which packet is rejected alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import pytest

from dataserver.errors import (
    Reason,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from dataserver.ingest.delivery import (
    CONFLICT_PAUSES,
    CONFLICTS_BEFORE_OUTAGE,
    FAILED_PACKET_PAUSES,
    INTERNAL_PER_HOUR,
    OUTAGE_PAUSES,
    Delivered,
    Delivery,
    FailingPackets,
    Stopped,
)
from dataserver.model import Arrival, Packet
from dataserver.store.admission import Outcome
from dataserver.store.changes import Tally
from tests.support.clock import Clocks
from tests.support.failures import failures


class Store:
    """A stand-in that takes everything but what it is told to fail at."""

    def __init__(self, errors: Iterable[Exception] = ()) -> None:
        #: Raised one after the other, whatever comes.
        self.errors = list(errors)
        #: What a batch that holds an agent's packet raises.
        self.poison: dict[str, Exception] = {}
        self.batches: list[list[str]] = []
        self.taken: list[str] = []
        #: Everything is known already.
        self.duplicates = False

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        names = [arrival.packet.agent_name for arrival in arrivals]
        self.batches.append(names)
        if self.errors:
            raise self.errors.pop(0)
        for name in names:
            if name in self.poison:
                raise self.poison[name]
        self.taken += names
        outcome = Outcome(duplicate=self.duplicates)
        return [outcome] * len(names), Tally(packets=len(names))


class Desk:
    """A delivery, with what it waited for and what it told."""

    def __init__(self, store: Store, *, patient: bool = True, stops_after: int = 1000) -> None:
        self.waits: list[float] = []
        self.told: list[StoreError] = []
        #: How long after its first try began each of them came.
        self.after: list[float] = []
        self.well = 0
        self.clocks = Clocks()
        self.failing = FailingPackets(self.clocks.wall, self.clocks.monotonic)
        self._stops_after = stops_after
        self.delivery = Delivery(
            store,
            clock=lambda: 1000.5,
            pause=self._pause,
            on_failure=self._note,
            monotonic=self.clocks.monotonic,
            on_success=self._count,
            failing=self.failing,
            key=lambda arrival: arrival.token,
            patient=patient,
        )

    def _note(self, error: StoreError, seconds: float) -> None:
        self.told.append(error)
        self.after.append(seconds)

    def _pause(self, seconds: float) -> bool:
        self.clocks.advance(seconds)
        self.waits.append(seconds)
        return len(self.waits) >= self._stops_after

    def _count(self, tally: Tally) -> None:
        self.well += tally.packets

    def deliver(self, arrivals: Sequence[Arrival]) -> Delivered:
        delivered = self.delivery.deliver(arrivals)
        assert {id(arrival) for arrival, _ in delivered} == {id(each) for each in arrivals}
        return delivered

    def refused(self, arrivals: Sequence[Arrival]) -> dict[str, str]:
        """Deliver; the names of those that were rejected, and why."""
        errors = {
            arrival.packet.agent_name: outcome.error
            for arrival, outcome in self.deliver(arrivals)
            if outcome is not None and outcome.error is not None
        }
        assert {error.reason for error in errors.values()} <= {Reason.REFUSED}
        return {name: error.message for name, error in errors.items()}

    def waiting(self, arrivals: Sequence[Arrival]) -> list[str]:
        """Deliver; the names of those that could not be stored and wait."""
        return [
            arrival.packet.agent_name
            for arrival, outcome in self.deliver(arrivals)
            if outcome is None
        ]


def packets(*names: str) -> list[Arrival]:
    return [
        Arrival(Packet(agent_name=name, digest=b"%d" % number), 100, number, 100, (name, number))
        for number, name in enumerate(names)
    ]


def test_what_goes_through_is_told_once_with_its_outcomes() -> None:
    store = Store()
    desk = Desk(store)
    assert desk.refused(packets("a", "b")) == {}
    assert (store.batches, desk.well, desk.waits) == ([["a", "b"]], 2, [])


def test_a_conflict_is_tried_again_after_a_moment() -> None:
    store = Store([StoreConflict("deadlock"), StoreConflict("deadlock")])
    desk = Desk(store)
    assert desk.refused(packets("a")) == {}
    assert desk.waits == [CONFLICT_PAUSES[0], 2 * CONFLICT_PAUSES[0]]
    assert len(desk.told) == 2


def test_a_conflict_that_persists_is_waited_out_ever_longer() -> None:
    desk = Desk(Store([StoreConflict("deadlock")] * (CONFLICTS_BEFORE_OUTAGE + 5)))
    desk.refused(packets("a"))
    assert desk.waits == sorted(desk.waits)
    assert desk.waits[-1] == OUTAGE_PAUSES[1]
    assert desk.after == [
        pytest.approx(sum(desk.waits[:tries])) for tries in range(CONFLICTS_BEFORE_OUTAGE + 5)
    ]


def test_an_absent_database_is_waited_for_as_long_as_it_takes() -> None:
    desk = Desk(Store([StoreUnavailable("away")] * 50))
    assert desk.refused(packets("a")) == {}
    assert desk.waits[0] == OUTAGE_PAUSES[0]
    assert max(desk.waits) == OUTAGE_PAUSES[1]


def test_one_pass_does_not_wait_for_an_absent_database() -> None:
    desk = Desk(Store([StoreUnavailable("away")]), patient=False)
    with pytest.raises(StoreUnavailable):
        desk.delivery.deliver(packets("a"))
    assert desk.waits == []


def test_being_told_to_stop_ends_the_wait() -> None:
    store = Store([StoreUnavailable("away")] * 50)
    desk = Desk(store, stops_after=3)
    with pytest.raises(Stopped):
        desk.delivery.deliver(packets("a"))
    assert (len(desk.waits), store.taken) == (3, [])


def test_one_poisonous_packet_is_rejected_alone() -> None:
    names = [f"agent{number:02}" for number in range(13)]
    errors = [
        StoreRefused("too long"),
        OverflowError("inf"),
        KeyError("x"),
        RecursionError(),
        MemoryError(),
    ]

    def check(case: tuple[Exception, int]) -> None:
        error, place = case
        store = Store()
        store.poison[names[place]] = error
        desk = Desk(store)
        assert list(desk.refused(packets(*names))) == [names[place]]
        assert sorted(store.taken) == sorted(set(names) - {names[place]})
        assert len(desk.failing) == 0

    assert failures(check, product(errors, [0, 6, 11])) == {}


def test_several_failing_packets_of_one_agent_are_all_rejected() -> None:
    store = Store()
    store.poison["bad"] = StoreRefused("too long")
    desk = Desk(store)
    assert desk.refused(packets("bad", "z", "bad", "y", "bad")) == {"bad": "too long"}
    assert store.taken == ["y", "z"]


def test_the_last_packet_of_all_waits_until_one_of_another_agent_is_stored() -> None:
    store = Store()
    store.poison["z"] = StoreRefused("too long")
    desk = Desk(store)
    (_, bad) = arrivals = packets("a", "z")
    assert desk.waiting(arrivals) == ["z"]
    assert desk.failing.failure is not None
    assert desk.failing.failure.reason == "too long"
    assert desk.failing.since == desk.clocks.wall()
    assert desk.refused(packets("b")) == {}
    assert desk.failing.is_due(bad.token)
    assert desk.refused([bad]) == {"z": "too long"}


def test_a_packet_of_the_same_agent_proves_nothing() -> None:
    store = Store([StoreRefused("once")] * 2)
    desk = Desk(store)
    first, second = packets("a", "a")
    assert desk.waiting([first]) == ["a"]
    store.errors.clear()
    assert desk.waiting([second]) == []
    assert not desk.failing.is_due(first.token)
    store.poison["a"] = StoreRefused("again")
    desk.clocks.advance(FAILED_PACKET_PAUSES[1])
    assert desk.waiting([first]) == ["a"]


def test_what_is_only_acknowledged_proves_nothing() -> None:
    store = Store()
    store.poison["z"] = StoreRefused("too long")
    desk = Desk(store)
    (bad,) = packets("z")
    desk.deliver([bad])
    store.duplicates = True
    desk.deliver(packets("a"))
    assert not desk.failing.is_proven(bad.token)


def test_the_reason_says_what_broke_and_is_not_as_long_as_a_value() -> None:
    store = Store()
    store.poison["a"] = ValueError("x" * 10_000_000)
    (why,) = Desk(store).refused(packets("a", "b")).values()
    assert why.startswith("internal error while storing it: ValueError: xxx")
    assert len(why) < 1000


def test_a_packet_without_a_file_is_rejected_at_once() -> None:
    store = Store([StoreRefused("no")])
    (own,) = packets("pandora.internals")
    own = replace(own, token=None)
    assert Desk(store).refused([own]) == {"pandora.internals": "no"}


def test_halves_keep_each_agents_packets_in_order_of_time() -> None:
    store = Store([StoreRefused("split")])
    times: list[int | None] = [None, 30, 20, 10]
    arrivals = [
        Arrival(Packet(agent_name="a", digest=b""), time, place, 0)
        for place, time in enumerate(times)
    ]
    delivered = Desk(store).delivery.deliver(arrivals)
    assert [arrival.time for arrival, _ in delivered] == [10, 20, 30, None]


def test_where_everything_fails_all_wait_and_nothing_is_rejected() -> None:
    names = [f"agent{number:03}" for number in range(100)]
    store = Store()
    store.poison |= dict.fromkeys(names, TypeError("our own fault"))
    desk = Desk(store)
    arrivals = packets(*names)
    assert desk.waiting(arrivals) == names
    assert desk.waits == []
    assert desk.failing.any_internal
    assert not any(desk.failing.is_due(each.token) for each in arrivals)
    for _ in range(20):
        desk.clocks.advance(FAILED_PACKET_PAUSES[1])
        assert sorted(desk.waiting(arrivals)) == names
    store.poison.clear()
    desk.clocks.advance(FAILED_PACKET_PAUSES[1])
    assert desk.waiting(arrivals) == []
    assert len(desk.failing) == 0
    assert desk.failing.since is None


def test_half_of_neighbouring_packets_fail_and_all_others_are_stored_in_one_delivery() -> None:
    names = [f"agent{number:03}" for number in range(500)]
    bad = names[100:350]
    store = Store()
    store.poison |= dict.fromkeys(bad, StoreRefused("no"))
    desk = Desk(store)
    assert sorted(desk.refused(packets(*names))) == bad
    assert sorted(store.taken) == sorted(set(names) - set(bad))


def test_of_internal_errors_only_a_few_an_hour_are_rejected() -> None:
    names = [f"agent{number:03}" for number in range(100)]
    good = names[9::10]
    store = Store()
    store.poison |= dict.fromkeys(set(names) - set(good), TypeError("our own fault"))
    desk = Desk(store)
    arrivals = packets(*names)
    assert len(desk.refused(arrivals)) == INTERNAL_PER_HOUR
    assert store.taken == good
    left = [each for each in arrivals if each.token in desk.failing]
    assert len(left) == 90 - INTERNAL_PER_HOUR
    # They are tried again after pauses, and are not rejected before the hour is over.
    for _ in range(11):
        desk.clocks.advance(FAILED_PACKET_PAUSES[1])
        assert desk.refused(left) == {}
    desk.clocks.advance(FAILED_PACKET_PAUSES[1])
    assert len(desk.refused(left)) == INTERNAL_PER_HOUR


def test_pauses_between_two_tries_grow() -> None:
    store = Store()
    store.poison["a"] = StoreRefused("no")
    desk = Desk(store)
    (bad,) = packets("a")
    waited = []
    for _ in range(10):
        desk.deliver([bad])
        pause = desk.failing.next_due()
        assert pause is not None
        waited.append(pause)
        desk.clocks.advance(pause)
        assert desk.failing.is_due(bad.token)
    assert waited == sorted(waited)
    assert (waited[0], waited[-1]) == FAILED_PACKET_PAUSES


def test_what_was_replaced_or_is_gone_is_forgotten() -> None:
    store = Store()
    store.poison["a"] = StoreRefused("no")
    desk = Desk(store)
    (bad,) = packets("a")
    desk.deliver([bad])
    desk.failing.forget_missing(set())
    assert (len(desk.failing), desk.failing.since) == (0, None)


def test_what_is_not_an_error_of_a_packet_is_not_swallowed() -> None:
    for error in (KeyboardInterrupt(), SystemExit()):
        store = Store()
        store.errors.append(error)  # type: ignore[arg-type]
        with pytest.raises(type(error)):
            Desk(store).delivery.deliver(packets("a", "b"))


def test_insisting_works_for_any_transaction() -> None:
    errors: list[Exception] = [StoreConflict("deadlock"), StoreUnavailable("away")]

    def action() -> int:
        if errors:
            raise errors.pop()
        return 7

    assert Desk(Store()).delivery.retry(action) == 7

"""Delivery: what is tried again, what is waited for, and which packet is rejected alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import pytest

from dataserver.errors import (
    Reason,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from dataserver.model import Arrival, Packet
from dataserver.store.admission import Outcome
from dataserver.store.batch import Tally
from dataserver.worker.delivery import (
    AWAY_WAIT,
    CONFLICT_WAIT,
    CONFLICTS,
    STUMBLES,
    Delivery,
    Stopped,
)
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

    def record(self, arrivals: Sequence[Arrival], now: int) -> tuple[list[Outcome], Tally]:
        names = [arrival.packet.agent_name for arrival in arrivals]
        self.batches.append(names)
        if self.errors:
            raise self.errors.pop(0)
        for name in names:
            if name in self.poison:
                raise self.poison[name]
        self.taken += names
        return [Outcome()] * len(names), Tally(packets=len(names))


class Desk:
    """A delivery, with what it waited for and what it told."""

    def __init__(self, store: Store, *, patient: bool = True, stops_after: int = 1000) -> None:
        self.waits: list[float] = []
        self.told: list[StoreError] = []
        self.well = 0
        self._stops_after = stops_after
        self.delivery = Delivery(
            store,
            clock=lambda: 1000.5,
            pause=self._pause,
            trouble=self.told.append,
            well=self._count,
            patient=patient,
        )

    def _pause(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) >= self._stops_after

    def _count(self, tally: Tally) -> None:
        self.well += tally.packets

    def refused(self, arrivals: Sequence[Arrival]) -> dict[str, str]:
        """Deliver; the names of those that were rejected, and why."""
        delivered = self.delivery.deliver(arrivals)
        assert {id(arrival) for arrival, _ in delivered} == {id(each) for each in arrivals}
        errors = {a.packet.agent_name: outcome.error for a, outcome in delivered if outcome.error}
        assert {error.reason for error in errors.values()} <= {Reason.REFUSED}
        return {name: error.message for name, error in errors.items()}


def packets(*names: str) -> list[Arrival]:
    return [
        Arrival(Packet(agent_name=name, digest=b"%d" % number), 100, number, 100)
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
    assert desk.waits == [CONFLICT_WAIT[0], 2 * CONFLICT_WAIT[0]]
    assert len(desk.told) == 2


def test_a_conflict_that_persists_is_waited_out_ever_longer() -> None:
    desk = Desk(Store([StoreConflict("deadlock")] * (CONFLICTS + 5)))
    desk.refused(packets("a"))
    assert desk.waits == sorted(desk.waits)
    assert desk.waits[-1] == AWAY_WAIT[1]


def test_an_absent_database_is_waited_for_as_long_as_it_takes() -> None:
    desk = Desk(Store([StoreUnavailable("away")] * 50))
    assert desk.refused(packets("a")) == {}
    assert desk.waits[0] == AWAY_WAIT[0]
    assert max(desk.waits) == AWAY_WAIT[1]


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

    assert failures(check, product(errors, [0, 6, 12])) == {}


def test_several_poisonous_packets_of_one_agent_are_all_rejected() -> None:
    store = Store()
    store.poison["bad"] = StoreRefused("too long")
    desk = Desk(store)
    assert desk.refused(packets("bad", "a", "bad", "b", "bad")) == {"bad": "too long"}
    assert store.taken == ["a", "b"]


def test_the_reason_says_what_broke_and_is_not_as_long_as_a_value() -> None:
    store = Store()
    store.poison["a"] = ValueError("x" * 10_000_000)
    (why,) = Desk(store).refused(packets("a")).values()
    assert why.startswith("storing it fails: ValueError: xxx")
    assert len(why) < 1000


def test_halves_keep_each_agents_packets_in_order_of_time() -> None:
    store = Store([StoreRefused("split")])
    times: list[int | None] = [None, 30, 20, 10]
    arrivals = [
        Arrival(Packet(agent_name="a", digest=b""), time, place, 0)
        for place, time in enumerate(times)
    ]
    delivered = Desk(store).delivery.deliver(arrivals)
    assert [arrival.time for arrival, _ in delivered] == [10, 20, 30, None]


def test_a_fault_that_hits_every_packet_does_not_reject_them_all_at_once() -> None:
    names = [f"agent{number:03}" for number in range(STUMBLES + 5)]
    store = Store()
    store.poison |= dict.fromkeys(names, KeyError("our own fault"))
    desk = Desk(store, stops_after=2)
    with pytest.raises(Stopped):
        desk.delivery.deliver(packets(*names))
    assert desk.waits == [AWAY_WAIT[1]] * 2


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

    assert Desk(Store()).delivery.insist(action) == 7

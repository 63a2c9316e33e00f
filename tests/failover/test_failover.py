"""A pair under load loses nothing and stores nothing twice, whatever happens to one of its hosts.

Real keepalived, sshd, scp, data server and MariaDB in namespaces; README.md says how.  Each fault
waits for what must follow it, such as uploads of every agent to the other host; how long that
takes, `make failover` measures.
"""

from __future__ import annotations

import pytest

from tests.failover.conftest import Try
from tests.failover.measure import Outcome


def assert_nothing_is_lost(outcome: Outcome) -> None:
    """Exactly what was sent is in the database, once."""
    assert (outcome.lost, outcome.twice, outcome.wrong) == (0, 0, ()), outcome
    assert outcome.uploads > 0, outcome


@pytest.mark.long
@pytest.mark.parametrize(
    "fault",
    [
        "orderly stop",
        "link down",
        "keepalived and sshd killed",
        "`data_in` unwritable",
        "worker stopped (SIGSTOP)",
    ],
)
def test_the_twin_takes_over(attempt: Try, fault: str) -> None:
    outcome = attempt(fault)
    assert_nothing_is_lost(outcome)
    assert outcome.moved is not None


@pytest.mark.parametrize("advert_int", [1.0, pytest.param(0.2, marks=pytest.mark.long)])
def test_what_a_dead_host_had_is_taken_in_late_when_it_comes_back(
    attempt: Try, advert_int: float
) -> None:
    outcome = attempt("power cut", advert_int=advert_int)
    assert_nothing_is_lost(outcome)
    assert outcome.moved is not None
    assert outcome.late > 0
    # Uploads that the cut ended, which their agents sent to the twin.
    assert outcome.stubs > 0


@pytest.mark.long
def test_a_host_that_dies_inside_a_transaction_does_not_hold_up_the_twin(attempt: Try) -> None:
    outcome = attempt("power cut inside a transaction")
    assert_nothing_is_lost(outcome)
    assert outcome.moved is not None


@pytest.mark.long
def test_two_hosts_with_the_address_store_everything_once(attempt: Try) -> None:
    outcome = attempt("link between the switches down, and healed")
    assert_nothing_is_lost(outcome)
    first, second = outcome.reigns[-2:]
    assert first[0] != second[0]


@pytest.mark.long
def test_a_worker_that_dies_keeps_nobody_from_uploading(attempt: Try) -> None:
    assert_nothing_is_lost(attempt("worker killed"))


@pytest.mark.long
def test_a_database_that_hangs_moves_nothing_and_keeps_nobody_from_uploading(attempt: Try) -> None:
    outcome = attempt("database stopped (SIGSTOP), and continued")
    assert_nothing_is_lost(outcome)
    assert outcome.moved is None
    assert outcome.failed == 0

"""What is told of rejected packets: the first ones at once, a storm in a few sums."""

from __future__ import annotations

import pytest

from dataserver.errors import Reason
from dataserver.ingest.rejection_events import FIRST, PERIOD, RejectionMessage, RejectionThrottle
from tests.support.clock import Clock

HOUR = 3600


class Desk:
    """Complaints with a clock that is set by hand, looked at every second."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.throttle = RejectionThrottle(self.clock)
        self.told: list[RejectionMessage] = []

    def reject(
        self,
        reason: Reason = Reason.MALFORMED,
        name: str = "a.1.data",
        message: str = "no end",
        agent: str | None = None,
    ) -> None:
        self.throttle.note(reason, name, message, agent)
        self.look()

    def look(self) -> None:
        if self.throttle.due():
            self.told += self.throttle.take()

    def pass_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            self.look()

    def storm(self, seconds: int, *reasons: Reason) -> None:
        """One rejected packet of each reason a second."""
        for number in range(seconds):
            for reason in reasons:
                self.reject(reason, f"a.{number}.data")
            self.pass_by(1)

    @property
    def texts(self) -> list[str]:
        return [complaint.text for complaint in self.told]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_rejected_packet_is_told_at_once_with_its_name_and_why(desk: Desk) -> None:
    desk.reject(Reason.CLOCK, "web1.7.data", "its clock is wrong", "web1")
    text = "Unable to process XML data file 'web1.7.data': its clock is wrong (clock)"
    assert desk.told == [RejectionMessage(text, "web1")]


def test_what_follows_the_first_ones_is_told_in_one_sum(desk: Desk) -> None:
    desk.storm(10, Reason.MALFORMED)
    assert len(desk.told) == FIRST
    desk.pass_by(int(PERIOD))
    assert len(desk.told) == FIRST + 1
    assert desk.texts[-1] == (
        "7 more packets rejected as malformed in the last 5 minutes, "
        "the last one 'a.9.data': no end"
    )
    desk.pass_by(HOUR)
    assert len(desk.told) == FIRST + 1


def test_a_storm_of_an_hour_leaves_a_few_rows_and_hides_none(desk: Desk) -> None:
    desk.storm(HOUR, Reason.MALFORMED)
    desk.told += desk.throttle.take(everything=True)
    assert len(desk.told) <= FIRST + HOUR / PERIOD + 1
    assert sum(int(text.split()[0]) for text in desk.texts[FIRST:]) == HOUR - FIRST


def test_each_reason_is_told_for_itself(desk: Desk) -> None:
    desk.storm(HOUR, *Reason)
    told = "\n".join(desk.texts)
    assert all(f"({reason})" in told for reason in set(Reason) - {Reason.INCOMPLETE})
    assert all(f"rejected as {reason}" in told for reason in Reason)
    assert len(desk.told) <= len(Reason) * (FIRST + HOUR / PERIOD)


def test_after_a_quiet_period_the_first_ones_are_told_at_once_again(desk: Desk) -> None:
    desk.storm(FIRST, Reason.MALFORMED)
    desk.pass_by(int(PERIOD))
    desk.reject(name="again.1.data")
    assert len(desk.told) == FIRST + 1
    assert "'again.1.data'" in desk.texts[-1]


def test_right_after_a_sum_they_are_summed_on(desk: Desk) -> None:
    desk.storm(FIRST + 1, Reason.MALFORMED)
    desk.pass_by(int(PERIOD))
    assert len(desk.told) == FIRST + 1
    desk.reject()
    assert len(desk.told) == FIRST + 1
    desk.pass_by(int(PERIOD))
    assert desk.texts[-1].startswith("1 more packet rejected as malformed in the last 5 minutes")


def test_cut_uploads_are_told_in_sums_only(desk: Desk) -> None:
    desk.storm(2, Reason.INCOMPLETE)
    assert desk.told == []
    desk.pass_by(int(PERIOD))
    assert [text.split(",")[0] for text in desk.texts] == [
        "2 packets rejected as incomplete in the last 5 minutes"
    ]


def test_a_sum_is_of_an_agent_where_all_are(desk: Desk) -> None:
    for agent in ("web1", "web1", "web1", "web1", "web1"):
        desk.reject(Reason.CLOCK, agent=agent)
    for agent in ("web1", "web1", "web1", "web1", "web2"):
        desk.reject(Reason.TOO_OLD, agent=agent)
    sums = desk.throttle.take(everything=True)
    assert [complaint.agent for complaint in sums] == ["web1", None]


def test_at_an_orderly_stop_the_sums_are_told_early(desk: Desk) -> None:
    desk.storm(FIRST + 5, Reason.MALFORMED)
    desk.pass_by(60)
    assert [complaint.text.split(",")[0] for complaint in desk.throttle.take(everything=True)] == [
        "5 more packets rejected as malformed in the last minute"
    ]
    assert desk.throttle.take(everything=True) == []


def test_what_a_crash_follows_is_not_told_one_by_one_after_each_start(desk: Desk) -> None:
    for already in range(100):
        desk.throttle = RejectionThrottle(desk.clock)
        desk.throttle.remember({Reason.MALFORMED: already} if already else {})
        desk.reject()
        desk.pass_by(3)
    assert len(desk.told) == FIRST


def test_what_was_set_aside_before_a_start_counts_for_one_period_only(desk: Desk) -> None:
    desk.throttle.remember({Reason.MALFORMED: 1000})
    desk.pass_by(int(PERIOD))
    desk.reject()
    assert len(desk.told) == 1


def test_what_could_not_be_told_is_told_later_in_its_order_and_without_haste(desk: Desk) -> None:
    for number in range(2):
        desk.throttle.note(Reason.MALFORMED, f"a.{number}.data", "no end", None)
    taken = desk.throttle.take()
    desk.throttle.note(Reason.CLOCK, "c.1.data", "ahead", None)
    desk.throttle.put_back(taken)
    assert not desk.throttle.due()
    desk.pass_by(60)
    assert [text.split("'")[1] for text in desk.texts] == ["a.0.data", "a.1.data", "c.1.data"]


def test_memory_is_bounded_while_nothing_can_be_told(desk: Desk) -> None:
    for _ in range(200):
        for reason in Reason:
            desk.throttle.note(reason, "n" * 5000, "m" * 5000, "agent")
        desk.throttle.put_back(desk.throttle.take())
        desk.clock.advance(PERIOD + 1)
    told = desk.throttle.take(everything=True)
    assert len(told) <= 100 + len(Reason)
    assert max(len(complaint.text) for complaint in told) < 600


def test_any_name_and_any_text_become_printable_and_short() -> None:
    for odd in (
        "a\n\x1b[31mred.1.data",
        "\udcff\udcfe.1.data",
        "\u202egnp.1.data",
        "'\"<script>.1.data",
        "😀" * 999,
    ):
        desk = Desk()
        for _ in range(1 + FIRST):
            desk.reject(name=odd, message=odd)
        found = [*desk.texts, *(each.text for each in desk.throttle.take(everything=True))]
        assert len(found) == FIRST + 1
        for text in found:
            assert text.isascii(), odd
            assert text.isprintable(), odd
            assert len(text) < 600, odd

"""Whose clock is wrong, and how it is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.ingest.clock_warnings import LINES, PERIOD, ClockWarnings
from dataserver.ingest.report import Report
from dataserver.runtime.heartbeat import Trouble
from dataserver.store.clocks import Clocks, Note
from tests.support import clock

HOUR = 3_600


@pytest.fixture
def time() -> clock.Clocks:
    return clock.Clocks()


class TestClocks:
    def test_more_than_half_of_the_agents_must_be_ahead(self, time: clock.Clocks) -> None:
        clocks = Clocks(time.monotonic)
        assert not clocks.own_is_behind
        clocks.hear({1: True, 2: False})
        assert not clocks.own_is_behind
        clocks.hear({3: True})
        assert clocks.own_is_behind
        clocks.hear({3: False})
        assert (clocks.ahead, clocks.agents, clocks.own_is_behind) == (1, 3, False)

    def test_one_or_two_agents_prove_nothing(self, time: clock.Clocks) -> None:
        clocks = Clocks(time.monotonic)
        clocks.hear({1: True, 2: True})
        assert not clocks.own_is_behind

    def test_a_packet_counts_for_an_hour(self, time: clock.Clocks) -> None:
        clocks = Clocks(time.monotonic)
        clocks.hear({1: True, 2: True})
        time.advance(HOUR - 1)
        clocks.hear({2: False})
        assert clocks.own_is_behind is False
        assert (clocks.ahead, clocks.agents) == (1, 2)
        time.advance(2)
        clocks.hear({})
        assert (clocks.ahead, clocks.agents) == (0, 1)

    def test_the_agents_heard_last_are_remembered(self, time: clock.Clocks) -> None:
        clocks = Clocks(time.monotonic, most=10)
        for number in range(100):
            clocks.hear({number: number < 95})
        assert (clocks.ahead, clocks.agents) == (5, 10)

    def test_notes_wait_until_they_are_taken_and_are_bounded(self) -> None:
        clocks = Clocks()
        for _ in range(3):
            clocks.add([Note("a", 400, put_right=False)] * 400)
        assert len(clocks.take()) == 1_000
        assert clocks.take() == []


class Desk:
    """A teller, what it is told of, and what it wrote."""

    def __init__(
        self, time: clock.Clocks, report: Report, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.time = time
        self.report = report
        self.clocks = Clocks(time.monotonic)
        self.teller = ClockWarnings(self.clocks, report)
        self._caplog = caplog

    def tell(self, *notes: Note) -> list[str]:
        self._caplog.clear()
        self.clocks.add(list(notes))
        self.teller.run_due()
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def desk(time: clock.Clocks, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Desk:
    caplog.set_level(logging.INFO)
    return Desk(time, Report(Home(tmp_path).instance(), time.wall, time.monotonic, 42), caplog)


class TestTeller:
    def test_each_agent_is_told_once_an_hour(self, desk: Desk) -> None:
        ahead = Note("web&#x20;1\n", 12 * HOUR + 180, put_right=False)
        [text] = desk.tell(ahead, ahead)
        assert text.startswith("agent 'web 1\\n': its packet's time is 12 h 3 min ahead")
        assert desk.tell(ahead) == []
        [text] = desk.tell(ahead._replace(put_right=True))
        assert "was put right" in text
        desk.time.advance(PERIOD)
        assert len(desk.tell(ahead)) == 1

    def test_very_many_agents_are_told_as_a_sum(self, desk: Desk) -> None:
        notes = [Note(f"agent{number}", 400, put_right=True) for number in range(500)]
        assert len(desk.tell(*notes)) == LINES
        assert desk.tell(*notes) == []
        desk.time.advance(PERIOD)
        assert desk.tell() == [f"the clocks of {500 - LINES} more agents were ahead or put right"]
        assert desk.tell() == []

    def test_an_own_clock_that_is_behind_is_said_until_it_is_steadily_right(
        self, desk: Desk
    ) -> None:
        desk.clocks.hear({1: True, 2: True, 3: False})
        [text] = desk.tell()
        assert text.startswith("this server's clock seems to be behind: most agents are ahead")
        gauges = desk.report.gauges
        assert (gauges.clock_behind, gauges.agents_ahead) == (1, 2)
        said, _ = desk.report.troubles[Trouble.CLOCK]
        assert said.startswith("the packets of 2 of 3 agents are more than 300 s ahead")
        desk.clocks.hear({4: True})
        assert desk.tell() == []
        desk.clocks.hear(dict.fromkeys(range(1, 5), False))
        assert desk.tell() == []
        desk.time.advance(300)
        assert desk.tell() == ["resolved: this server's clock seems to be behind"]
        assert (gauges.clock_behind, gauges.agents_ahead) == (0, 0)
        assert not desk.report.troubles

"""What is logged of refusals, and when: a storm of them in sums; their words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dataserver.ingest.refusal_log import FIRST, PERIOD, SELDOM, RefusalLog
from dataserver.rules.refusals import Refusal, words
from dataserver.store.changes import FirstRefused, Tally
from dataserver.store.schema import refused
from tests.support.clock import Clock


def refusing(new: int, again: int = 0) -> Tally:
    """A transaction that refused so much for the first time, and again."""
    first = [
        FirstRefused(f"agent{number}", "load", Refusal.NOT_A_NUMBER, "x") for number in range(new)
    ]
    return Tally(refused_by_reason=Counter({"not-a-number": new + again}), first_refused=first)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> RefusalLog:
    return RefusalLog(clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last look."""
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_a_storm_is_told_by_its_first_few_and_one_sum_a_period(
    clock: Clock, kept: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        kept.note(refusing(1000))
        kept.run_due()
    assert len(lines(caplog)) == FIRST
    clock.advance(PERIOD)
    kept.run_due()
    kept.run_due()
    (line,) = lines(caplog)
    untold = 100_000 - FIRST
    assert line.startswith(f"{untold} more values or other parts of packets refused in the last 5 ")
    assert f", {untold} of them for the first time; `dataserver refused`" in line
    kept.note(refusing(3))
    assert len(lines(caplog)) == 3


def test_what_is_refused_again_and_again_is_told_once_an_hour(
    clock: Clock, kept: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(60):
        kept.note(refusing(0, again=2))
        kept.run_due()
        assert lines(caplog) == []
        clock.advance(SELDOM / 60)
    kept.run_due()
    (line,) = lines(caplog)
    assert line.startswith("120 more values or other parts of packets refused in the last 60 min")
    clock.advance(SELDOM)
    kept.run_due()
    assert lines(caplog) == []


def test_at_the_end_what_was_not_told_yet_is_told(
    kept: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    kept.note(refusing(1, again=1))
    kept.run_due(everything=True)
    kept.run_due(everything=True)
    assert [line.split()[0] for line in lines(caplog)] == ["refused:", "1"]


def test_a_transaction_that_refused_nothing_is_no_news(
    kept: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    kept.note(Tally(packets=5))
    kept.run_due(everything=True)
    assert lines(caplog) == []


def test_every_reason_has_words_and_a_code_that_its_column_takes() -> None:
    length = refused.c.reason.type.length
    for reason in Refusal:
        assert words(reason.value) == reason.text
        assert reason.text
        assert reason.remedy
        assert len(reason.value) <= length


def test_the_documentation_has_every_reason() -> None:
    text = (Path(__file__).parents[2] / "docs/operation.md").read_text("utf-8")
    rows = [f"| `{each.value}` | {each.text} | {each.remedy} |" for each in Refusal]
    assert [row for row in rows if row not in text] == []

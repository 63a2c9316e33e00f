"""Spans of time as operators write them."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from dataserver.errors import UsageError
from dataserver.rules.moments import Span, age_text, duration, moment, span
from tests.support.failures import failures

MADRID = ZoneInfo("Europe/Madrid")
NOW = 1_767_312_000  # 2026-01-02 00:00:00 UTC
HOUR, DAY = 3600, 86_400


class TestDuration:
    def test_a_number_with_a_unit(self) -> None:
        spans = {"90": 90, "90s": 90, "5m": 300, "5 min": 300, "2h": 2 * HOUR, "7d": 7 * DAY}
        assert {text: duration(text) for text in spans} == spans

    def test_anything_else_is_an_error_that_says_how(self) -> None:
        def check(text: str) -> None:
            with pytest.raises(UsageError, match="90s, 5m"):
                duration(text)

        texts = ["", "0", "0h", "-5m", "h", "5x", "1.5h", "1h30m", "9" * 30]
        assert failures(check, texts) == {}


class TestMoment:
    def test_local_times_epochs_and_what_is_before_now(self) -> None:
        epochs = {
            "2026-01-01": 1_767_225_600 - HOUR,
            "2026/1/1": 1_767_225_600 - HOUR,
            "2026-01-01 12:30": 1_767_225_600 + 11 * HOUR + 1800,
            "2026-01-01T12:30:15": 1_767_225_600 + 11 * HOUR + 1815,
            "1767225600": 1_767_225_600,
            "0": 0,
            "now": NOW,
            "-2h": NOW - 2 * HOUR,
            "-999999999d": 0,
        }
        assert {text: moment(text, now=NOW, zone=MADRID) for text in epochs} == epochs

    def test_a_doubled_hour_is_the_earlier_one_unless_the_later_is_wanted(self) -> None:
        text = "2026-10-25 02:30"
        earlier = moment(text, now=NOW, zone=MADRID)
        assert moment(text, now=NOW, zone=MADRID, later=True) == earlier + HOUR

    def test_what_is_no_time_is_an_error(self) -> None:
        def check(text: str) -> None:
            with pytest.raises(UsageError):
                moment(text, now=NOW, zone=MADRID)

        texts = ["", "yesterday", "2026-13-01", "2026-02-30", "2026-01-01 25:00", "12:00"]
        assert failures(check, [*texts, "12345678901"]) == {}


class TestSpan:
    def test_left_to_itself_it_is_the_day_before_the_newest_value(self) -> None:
        newest = NOW - 5 * DAY
        assert span(None, None, None, newest=newest, now=NOW, zone=UTC) == Span(
            newest - DAY, newest, None
        )

    def test_from_a_start_on_it_goes_to_the_newest_value(self) -> None:
        assert span("-3h", None, None, newest=NOW - HOUR, now=NOW, zone=UTC) == Span(
            NOW - 3 * HOUR, NOW - HOUR, None
        )

    def test_a_start_after_the_newest_value_is_a_span_of_its_own(self) -> None:
        assert span("-1h", None, None, newest=NOW - DAY, now=NOW, zone=UTC) == Span(
            NOW - HOUR, NOW - HOUR, None
        )

    def test_an_end_without_a_start_has_the_day_before_it(self) -> None:
        assert span(None, "2026-01-01", None, newest=NOW, now=NOW, zone=UTC) == Span(
            NOW - 2 * DAY, NOW - DAY, None
        )

    def test_with_a_step_the_newest_value_is_inside(self) -> None:
        found = span("-2h", None, "1h", newest=NOW, now=NOW, zone=UTC)
        assert found == Span(NOW - 2 * HOUR, NOW + 1, HOUR)

    def test_with_a_step_it_begins_on_the_hour_of_the_wall_clock(self) -> None:
        zone = ZoneInfo("Asia/Kolkata")
        found = span(None, "2026-01-02 10:47", "1h", newest=NOW, now=NOW, zone=zone)
        assert found.start == moment("2026-01-01 10:00", now=NOW, zone=zone)

    def test_an_end_before_the_start_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="-2h is before -1h"):
            span("-1h", "-2h", None, newest=NOW, now=NOW, zone=UTC)


def test_an_age_of_less_than_nothing_is_a_time_that_lies_ahead() -> None:
    ages = {
        185: "3 min 5 s",
        0: "0 s",
        -2: "0 s",
        -300: "0 s",
        -301: "5 min 1 s ahead",
        -43_200: "12 h ahead",
    }
    assert {age: age_text(age) for age in ages} == ages

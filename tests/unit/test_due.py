"""How long a module may be silent: by interval, by number, by expression."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from dataserver.rules.due import TOLERANCE, _next_day, expected_interval, silent_until

DAY, HOUR = 86_400, 3_600
NIGHTLY = "0 3 * * *"


def at(text: str, zone: object = UTC) -> int:
    """Epoch seconds of a local time of 2026, ``MM-DD HH:MM[:SS]``."""
    return int(datetime.fromisoformat(f"2026-{text}").replace(tzinfo=zone).timestamp())  # type: ignore[arg-type]


def shown(cron: str, seen: str, interval: int = 300) -> str:
    """Until when, without the tolerance."""
    until = silent_until(cron, at(seen), interval, UTC) - TOLERANCE
    return f"{datetime.fromtimestamp(until, UTC):%m-%d %H:%M:%S}"


@pytest.mark.parametrize("cron", ["", "900", "5", "* * * * *"])
def test_by_intervals_it_is_twice_the_interval(cron: str) -> None:
    assert silent_until(cron, 1_000_007, 300, UTC) == 1_000_607
    assert expected_interval(cron, 1_000_007, 300, UTC) == 300


@pytest.mark.parametrize(
    "cron", ["*/5 * * * *", "1,2 3 * * *", "61 3 * * *", "0 0 31 2 *", "hourly"]
)
def test_what_is_no_expression_or_never_fits_is_by_intervals_too(cron: str) -> None:
    assert silent_until(cron, 1_000_007, 300, UTC) == 1_000_607


def test_a_number_of_five_digits_and_more_is_seconds() -> None:
    assert silent_until("86400", 1_000, 300, UTC) == 1_000 + 2 * DAY
    # The interval follows the packets, the column does not.
    assert silent_until("10000", 1_000, DAY, UTC) == 1_000 + 2 * DAY
    assert expected_interval("604800", 1_000, 300, UTC) == 7 * DAY
    assert expected_interval("9" * 90, 1_000, 300, UTC) == 2**31 - 1


@pytest.mark.parametrize(
    ("seen", "until"),
    [
        ("06-01 03:00:05", "06-03 03:00:00"),
        # The clock of the agent is ahead: this is the value of that night.
        ("06-01 02:59:50", "06-03 03:00:00"),
        ("06-01 02:54:00", "06-02 03:00:00"),
        ("06-01 12:00:00", "06-03 03:00:00"),
        ("06-30 23:00:00", "07-02 03:00:00"),
    ],
)
def test_a_nightly_module_is_silent_for_too_long_after_its_second_missed_night(
    seen: str, until: str
) -> None:
    assert shown(NIGHTLY, seen) == until
    # Whatever the packets say of its interval: that is the time until its next run.
    assert shown(NIGHTLY, seen, 86_395) == until


@pytest.mark.parametrize(
    ("cron", "seen", "until"),
    [
        # Once a night, at any time of half an hour.
        ("0-30 3 * * *", "06-01 03:00:05", "06-03 03:30:00"),
        ("0-30 3 * * *", "06-01 03:30:30", "06-03 03:30:00"),
        # Every hour.
        ("15 * * * *", "06-01 03:16:00", "06-01 05:15:00"),
        # Mondays; the first of each month; the thirty-first of those that have one.
        ("0 3 * * 1", "06-01 03:00:05", "06-15 03:00:00"),
        ("0 3 * * 7", "06-01 03:00:05", "06-14 03:00:00"),
        ("0 3 1 * *", "06-01 03:00:05", "08-01 03:00:00"),
        ("0 3 31 * *", "06-01 03:00:05", "08-31 03:00:00"),
        # Over the end of its range.
        ("0 22-2 * * *", "06-01 02:00:05", "06-01 23:00:00"),
    ],
)
def test_other_expressions(cron: str, seen: str, until: str) -> None:
    assert shown(cron, seen) == until


def test_with_any_minute_the_interval_counts_during_the_hours() -> None:
    by_day = "* 8-17 * * *"
    seen = at("06-01 09:00:05")
    assert silent_until(by_day, seen, 300, UTC) == seen + 600
    assert shown(by_day, "06-01 17:58:00") == "06-02 08:05:00"
    seen = at("06-01 17:49:00")
    assert silent_until(by_day, seen, 300, UTC) == seen + 600
    assert shown(by_day, "06-01 22:00:00") == "06-02 08:05:00"
    # A whole day is no window that ends at midnight.
    seen = at("06-01 23:58:00")
    assert silent_until("* * * * 1-5", seen, 300, UTC) == seen + 600


def test_leap_days_are_waited_for() -> None:
    until = silent_until("0 3 29 2 *", at("06-01 00:00"), 300, UTC) - TOLERANCE
    assert datetime.fromtimestamp(until, UTC) == datetime(2032, 2, 29, 3, tzinfo=UTC)
    # Tuesdays that are leap days: 2028 or, after that, 2056 and 2084.
    seen = int(datetime(2028, 2, 29, 3, tzinfo=UTC).timestamp())
    until = silent_until("0 3 29 2 2", seen, 300, UTC) - TOLERANCE
    assert datetime.fromtimestamp(until, UTC) == datetime(2084, 2, 29, 3, tzinfo=UTC)


@pytest.mark.parametrize("days", ["30 2 *", "31 2-4 1", "29 2 0"])
def test_days_that_come_seldom_or_never_are_looked_for_once(days: str) -> None:
    _next_day.cache_clear()
    for minute in range(60):
        silent_until(f"{minute} 3 {days}", at("06-01 03:00:05") + minute, 300, UTC)
    assert _next_day.cache_info().misses <= 2


def test_times_are_local_also_where_clocks_change() -> None:
    zone = ZoneInfo("Europe/Madrid")
    # On 29 March the hour from 2:00 to 3:00 is skipped.
    for seen, until in (("03-28 03:00:05", "03-30 03:00"), ("10-24 03:00:05", "10-26 03:00")):
        found = silent_until(NIGHTLY, at(seen, zone), 300, zone) - TOLERANCE
        assert found == at(until, zone)
    skipped = silent_until("30 2 * * *", at("03-27 02:30:05", zone), 300, zone) - TOLERANCE
    assert skipped == at("03-29 03:30", zone)


def test_twice_the_expected_interval_is_that_silence() -> None:
    seen = at("06-01 03:00:05")
    until = silent_until(NIGHTLY, seen, 300, UTC)
    assert 0 <= seen + 2 * expected_interval(NIGHTLY, seen, 300, UTC) - until <= 1

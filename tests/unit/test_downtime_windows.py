"""When a planned downtime is on: once, weekly, monthly, by cron, and what clocks do to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from dataserver.rules.downtimes import (
    CRON,
    MONTHLY,
    ONCE,
    WEEKLY,
    Schedule,
    parse_cron,
    time_of_day,
)
from tests.support.failures import failures

MADRID = ZoneInfo("Europe/Madrid")
HOUR, DAY = 3_600, 86_400
MONDAY, FRIDAY, SUNDAY = 0, 4, 6


def at(text: str, zone: ZoneInfo = MADRID, fold: int = 0) -> int:
    """Epoch seconds of a local time."""
    local = datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)
    return int(local.timestamp())


def weekly(first: str, last: str, *days: int) -> Schedule:
    return Schedule(
        "periodically",
        WEEKLY,
        weekdays=frozenset(days),
        time_from=time_of_day(first),
        time_to=time_of_day(last),
    )


def monthly(day_from: int, first: str, day_to: int, last: str) -> Schedule:
    return Schedule(
        "periodically",
        MONTHLY,
        time_from=time_of_day(first),
        time_to=time_of_day(last),
        day_from=day_from,
        day_to=day_to,
    )


def cron(first: str, last: str) -> Schedule:
    return Schedule(CRON, cron_from=first, cron_to=last)


def on(schedule: Schedule, text: str) -> bool:
    return schedule.active(at(text), MADRID)


def test_once_is_on_from_its_begin_up_to_its_end() -> None:
    schedule = Schedule(ONCE, begins=100, ends=200)
    times = (99, 100, 199, 200)
    assert [schedule.active(t, UTC) for t in times] == [False, True, True, False]


def test_once_that_ends_before_it_begins_never_is() -> None:
    assert not any(Schedule(ONCE, begins=200, ends=100).active(t, UTC) for t in (99, 150, 201))


# 2026-03-02 is a Monday.


def test_weekly_is_on_between_its_times_both_included() -> None:
    expected = {
        "2026-03-02 09:59:59": False,
        "2026-03-02 10:00:00": True,
        "2026-03-02 12:00:00": True,
        "2026-03-02 12:00:01": False,
        "2026-03-03 11:00:00": False,
    }
    schedule = weekly("10:00:00", "12:00:00", MONDAY)
    assert {time: on(schedule, time) for time in expected} == expected


def test_weekly_over_midnight_belongs_to_the_day_it_began() -> None:
    expected = {
        "2026-03-01 23:30:00": True,  # Sunday evening
        "2026-03-02 01:59:00": True,  # belongs to Sunday
        "2026-03-02 02:00:01": False,
        "2026-03-02 23:30:00": False,  # Monday is not marked
        "2026-03-01 01:00:00": False,  # would belong to Saturday
    }
    schedule = weekly("23:00:00", "02:00:00", SUNDAY)
    assert {time: on(schedule, time) for time in expected} == expected


def test_whole_days_leave_no_gap_at_midnight() -> None:
    schedule = weekly("00:00:00", "23:59:59", MONDAY, 1)
    midnight = at("2026-03-03 00:00:00")
    assert all(schedule.active(midnight + s, MADRID) for s in range(-3, 3))


def test_weekly_without_a_day_never_is() -> None:
    schedule = weekly("00:00:00", "23:59:59")
    assert not any(schedule.active(at("2026-03-02 12:00") + i * DAY, MADRID) for i in range(7))


def test_monthly_is_on_from_day_and_time_to_day_and_time() -> None:
    expected = {
        "2026-03-05 09:59:59": False,
        "2026-03-05 10:00:00": True,
        "2026-03-06 00:00:00": True,
        "2026-03-07 08:00:00": True,
        "2026-03-07 08:00:01": False,
        "2026-04-06 12:00:00": True,
    }
    schedule = monthly(5, "10:00:00", 7, "08:00:00")
    assert {time: on(schedule, time) for time in expected} == expected


def test_a_last_day_that_the_month_lacks_is_its_last_one() -> None:
    expected = {
        "2026-02-28 07:59:00": True,
        "2026-02-28 08:00:01": False,
        "2028-02-28 12:00:00": True,  # a leap year: the 29th is the last day
        "2028-02-29 08:00:01": False,
        "2026-04-30 08:00:01": False,
        "2026-05-30 08:00:01": True,
        "2026-05-31 08:00:01": False,
    }
    schedule = monthly(20, "00:00:00", 31, "08:00:00")
    assert {time: on(schedule, time) for time in expected} == expected


def test_a_first_day_that_the_month_lacks_does_not_come() -> None:
    schedule = monthly(31, "00:00:00", 31, "23:59:59")
    assert not any(on(schedule, f"2026-04-{day:02} 12:00:00") for day in range(1, 31))
    assert on(schedule, "2026-05-31 12:00:00")


def test_monthly_over_the_end_of_the_month() -> None:
    schedule = monthly(30, "22:00:00", 2, "06:00:00")
    times = ("2026-03-30 21:59", "2026-03-31 12:00", "2026-04-02 05:59", "2026-04-02 06:01")
    assert [on(schedule, time) for time in times] == [False, True, True, False]


def test_cron_is_on_from_the_first_expression_to_the_second() -> None:
    expected = {
        "2026-03-02 07:59:59": False,
        "2026-03-02 08:00:00": True,
        "2026-03-02 17:59:59": True,
        "2026-03-02 18:00:00": False,
        "2026-03-06 12:00:00": True,
        "2026-03-07 12:00:00": False,
    }
    schedule = cron("0 8 * * 1-5", "0 18 * * *")
    assert {time: on(schedule, time) for time in expected} == expected


def test_cron_over_midnight_and_over_days() -> None:
    schedule = cron("0 22 * * 5", "0 6 * * 1")
    times = ("2026-03-06 21:59", "2026-03-06 22:00", "2026-03-08 12:00", "2026-03-09 06:00")
    assert [on(schedule, time) for time in times] == [False, True, True, False]


def test_cron_once_a_year_and_every_leap_day() -> None:
    yearly = cron("0 0 24 12 *", "0 0 2 1 *")
    assert on(yearly, "2027-01-01 12:00")
    assert not on(yearly, "2027-12-01 12:00")
    leap = cron("0 0 29 2 *", "0 0 1 3 *")
    assert on(leap, "2028-02-29 12:00")
    assert not on(leap, "2027-02-28 12:00")


def test_where_both_expressions_fit_the_end_counts() -> None:
    # The console fills in stars.
    assert not on(cron("* * * * *", "* * * * *"), "2026-03-02 12:00")


def test_all_fields_of_an_expression_must_fit() -> None:
    # The 13th, if a Friday; crontab would take every Friday and every 13th.
    schedule = cron("0 0 13 * 5", "0 0 14 * *")
    assert on(schedule, "2026-02-13 12:00")
    assert not on(schedule, "2026-03-06 12:00")
    assert not on(schedule, "2026-04-13 12:00")


def test_cron_of_a_day_that_never_comes_never_is() -> None:
    assert not on(cron("0 0 31 2 *", "0 0 1 3 *"), "2026-03-02 12:00")
    assert on(cron("0 0 1 1 *", "0 0 31 2 *"), "2026-06-02 12:00")


def test_what_is_no_expression_is_told_and_never_on() -> None:
    texts = [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/5 * * * *",
        "1,2 * * * *",
        "-1 * * * *",
        "1-2-3 * * * *",
        "٣ * * * *",
        "a b c d e",
    ]

    def check(text: str) -> None:
        schedule = cron(text, "0 0 * * *")
        assert parse_cron(text) is None
        assert schedule.fault() is not None
        assert not on(schedule, "2026-03-02 12:00")
        assert not on(cron("0 0 * * *", text), "2026-03-02 12:00")

    assert failures(check, texts) == {}


def test_ranges_may_go_over_the_end_and_seven_is_sunday() -> None:
    parsed = parse_cron("58-1 22-2 * * 7")
    assert parsed is not None
    assert parsed.minutes == {58, 59, 0, 1}
    assert parsed.hours == {22, 23, 0, 1, 2}
    assert parsed.weekdays == {0}


# Madrid, 2026-03-29: 02:00 becomes 03:00.  2026-10-25: 03:00 becomes 02:00.


def test_the_skipped_hour_has_no_downtime_and_ends_none_late() -> None:
    inside = weekly("02:15:00", "02:45:00", SUNDAY)
    night = at("2026-03-29 00:00")
    assert not any(inside.active(night + s, MADRID) for s in range(0, 5 * HOUR, 300))
    across = weekly("01:00:00", "03:30:00", SUNDAY)
    assert sum(across.active(night + s, MADRID) for s in range(0, 5 * HOUR, 60)) == 91


def test_a_start_in_the_skipped_hour_is_made_up_for_by_cron() -> None:
    schedule = cron("30 2 * * *", "0 5 * * *")
    assert not on(schedule, "2026-03-29 01:59")
    assert on(schedule, "2026-03-29 03:00")


def test_the_doubled_hour_counts_twice() -> None:
    schedule = weekly("02:15:00", "02:45:00", SUNDAY)
    first, second = at("2026-10-25 02:30"), at("2026-10-25 02:30", fold=1)
    assert second - first == HOUR
    assert schedule.active(first, MADRID)
    assert schedule.active(second, MADRID)
    assert not schedule.active(at("2026-10-25 02:50"), MADRID)


def test_what_is_no_time_of_day_is_none() -> None:
    texts = [None, "", "abc", "1", "10:60:00", "10:00:60", "25:00:00", "-1:00"]
    assert [text for text in texts if time_of_day(text) is not None] == []


def test_times_of_day() -> None:
    texts = ("00:00:00", "9:05", "23:59:59.000000", "24:00:00")
    assert [time_of_day(text) for text in texts] == [0, 32_700, 86_399, 86_400]


def test_a_schedule_that_says_too_little_is_told_and_never_on() -> None:
    for schedule in (
        Schedule("periodically", WEEKLY, weekdays=frozenset(range(7))),
        Schedule("periodically", MONTHLY, time_from=0, time_to=86_399),
        Schedule("periodically", "yearly", time_from=0, time_to=86_399),
    ):
        assert schedule.fault() is not None, schedule
        assert not on(schedule, "2026-03-02 12:00"), schedule


_seconds = st.none() | st.integers(0, 86_400)
_days = st.none() | st.integers(0, 40)
_fields = st.sampled_from(["*", "0", "1", "5", "1-5", "22-2", "5-1", "29", "31", "7", "x"])
_crons = st.lists(_fields, min_size=4, max_size=6).map(" ".join)
_schedules = st.builds(
    Schedule,
    execution=st.sampled_from([ONCE, CRON, "periodically", "?"]),
    periodicity=st.sampled_from([WEEKLY, MONTHLY, "?"]),
    begins=st.integers(-(2**63), 2**63 - 1),
    ends=st.integers(-(2**63), 2**63 - 1),
    weekdays=st.frozensets(st.integers(0, 6)),
    time_from=_seconds,
    time_to=_seconds,
    day_from=_days,
    day_to=_days,
    cron_from=_crons,
    cron_to=_crons,
)
_times = st.integers(0, 4_102_444_800)


@given(_schedules, _times)
def test_whatever_the_console_wrote_a_faulty_one_is_never_on(schedule: Schedule, now: int) -> None:
    active = schedule.active(now, MADRID)
    assert not (active and schedule.fault())


@given(_crons, _crons, st.integers(at("2025-12-01 00:00"), at("2026-12-31 00:00")))
def test_cron_agrees_with_going_through_the_minutes(first: str, last: str, now: int) -> None:
    start, stop = parse_cron(first), parse_cron(last)
    if start is None or stop is None:
        return
    minute = datetime.fromtimestamp(now, UTC).replace(second=0, tzinfo=None)
    state = None
    for _ in range(3 * 1_440):
        fields = (minute.minute, minute.hour, minute.day, minute.month, minute.isoweekday() % 7)
        if all(value in numbers for value, numbers in zip(fields, stop, strict=True)):
            state = False
            break
        if all(value in numbers for value, numbers in zip(fields, start, strict=True)):
            state = True
            break
        minute -= timedelta(minutes=1)
    if state is not None:
        assert cron(first, last).active(now, UTC) is state


@given(st.integers(0, 86_400), st.integers(0, 86_400), _times)
def test_a_daily_window_and_what_is_left_of_the_day_meet(first: int, last: int, now: int) -> None:
    every = frozenset(range(7))
    window = Schedule("periodically", WEEKLY, weekdays=every, time_from=first, time_to=last)
    rest = Schedule("periodically", WEEKLY, weekdays=every, time_from=last, time_to=first)
    assert window.active(now, UTC) or rest.active(now, UTC) or first == last

"""Columns of local days: where clocks change, at midnight, and where a day is skipped."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from dataserver.rules.days import DAY, beginning, columns, columns_at_most
from tests.support.failures import failures

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3_600
#: Zones and spans in which something odd happens to a day.
ODD = (
    ("Europe/Berlin", "2026-03-26", "2026-04-02"),
    ("Europe/Berlin", "2026-10-22", "2026-10-29"),
    # Clocks go from 24:00 to 01:00, and from 24:00 back to 23:00.
    ("America/Sao_Paulo", "2018-11-01", "2018-11-08"),
    ("America/Sao_Paulo", "2018-02-14", "2018-02-21"),
    # 2011-12-30 is skipped.
    ("Pacific/Apia", "2011-12-27", "2012-01-03"),
    ("Pacific/Kwajalein", "1993-08-18", "1993-08-25"),
    # One minute after midnight, back to the day before.
    ("America/St_Johns", "2010-11-04", "2010-11-11"),
    ("Asia/Kolkata", "2026-03-26", "2026-04-02"),
    ("Australia/Lord_Howe", "2026-04-01", "2026-04-08"),
    ("America/Santiago", "2026-09-02", "2026-09-09"),
    ("Africa/Cairo", "2026-04-20", "2026-04-27"),
)


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def local(time: int, zone: ZoneInfo = BERLIN) -> str:
    return datetime.fromtimestamp(time, zone).strftime("%Y-%m-%d %H:%M")


def days_slowly(start: int, end: int, zone: ZoneInfo) -> list[int]:
    """The first second of each date that is later than all before it, looked for by the minute."""
    found, newest = [start], datetime.fromtimestamp(start, zone).date()
    for time in range(start, end, 60):
        if (day := datetime.fromtimestamp(time, zone).date()) > newest:
            found.append(time)
            newest = day
    return found


def test_days_begin_at_midnight_on_both_sides_of_a_change_of_clocks() -> None:
    found = columns(at("2026-03-28"), at("2026-03-31"), DAY, BERLIN).lefts
    assert [local(left) for left in found] == [
        "2026-03-28 00:00",
        "2026-03-29 00:00",
        "2026-03-30 00:00",
    ]
    assert [right - left for left, right in pairwise(found)] == [24 * HOUR, 23 * HOUR]
    found = columns(at("2026-10-24"), at("2026-10-27"), DAY, BERLIN).lefts
    assert [right - left for left, right in pairwise(found)] == [24 * HOUR, 25 * HOUR]


def test_days_are_those_of_the_calendar_in_every_zone() -> None:
    def check(case: tuple[str, str, str]) -> None:
        name, first, last = case
        zone = ZoneInfo(name)
        start, end = at(first, zone), at(last, zone)
        for begin in (start, start + 5 * HOUR):
            assert list(columns(begin, end, DAY, zone).lefts) == days_slowly(begin, end, zone)

    assert failures(check, ODD) == {}


def test_days_increase_strictly_in_any_year_of_any_zone() -> None:
    for name in ("Pacific/Apia", "America/Sao_Paulo", "Asia/Gaza", "Antarctica/Casey", "UTC"):
        zone = ZoneInfo(name)
        lefts = columns(at("1970-01-02", zone), at("2030-01-01", zone), DAY, zone).lefts
        assert all(left < right for left, right in pairwise(lefts)), name
        days = (date(2030, 1, 1) - date(1970, 1, 2)) // timedelta(days=1)
        assert len(lefts) == days - (name == "Pacific/Apia"), name


def test_the_first_and_the_last_day_may_be_shorter() -> None:
    found = columns(at("2026-03-28 12:00"), at("2026-03-30 06:00"), DAY, BERLIN).lefts
    assert [local(left)[8:] for left in found] == ["28 12:00", "29 00:00", "30 00:00"]


def test_weeks_begin_on_mondays_and_several_days_are_counted_from_the_first() -> None:
    # 2026-03-28 is a Saturday.
    found = columns(at("2026-03-28"), at("2026-04-14"), 7 * DAY, BERLIN).lefts
    assert [local(left) for left in found] == [
        "2026-03-28 00:00",
        "2026-03-30 00:00",
        "2026-04-06 00:00",
        "2026-04-13 00:00",
    ]
    found = columns(at("2026-03-28"), at("2026-04-02"), 2 * DAY, BERLIN).lefts
    assert [local(left)[:10] for left in found] == ["2026-03-28", "2026-03-30", "2026-04-01"]


def test_other_steps_are_of_equal_length() -> None:
    start = at("2026-03-28")
    for step in (1, 300, 6 * HOUR, 36 * HOUR):
        assert columns(start, start + 5 * DAY, step, BERLIN).lefts == range(
            start, start + 5 * DAY, step
        )


def test_a_day_and_a_week_begin_where_they_do() -> None:
    time = at("2026-03-29 12:00")
    assert local(beginning(time, DAY, BERLIN)) == "2026-03-29 00:00"
    assert local(beginning(time, 7 * DAY, BERLIN)) == "2026-03-23 00:00"


def test_nothing_has_no_columns_and_a_step_beyond_all_time_has_one() -> None:
    assert list(columns(5, 5, DAY, BERLIN).lefts) == []
    assert list(columns(5, 9, 999_999_999 * DAY, BERLIN).lefts) == [5]
    assert list(columns_at_most(5, 5, 10, BERLIN).lefts) == []


def test_a_graph_has_no_more_columns_than_asked_for_and_days_where_they_are_as_long() -> None:
    start, end = at("2026-03-01"), at("2026-04-01")
    found = columns_at_most(start, end, 31, BERLIN)
    assert found.step == DAY
    assert [local(left)[11:] for left in found.lefts] == ["00:00"] * 31

    def check(most: int) -> None:
        for begin in (start, start + 12 * HOUR):
            lefts = columns_at_most(begin, end, most, BERLIN).lefts
            assert (lefts[0], len(lefts) <= most) == (begin, True)

    assert failures(check, (1, 2, 15, 30, 31, 32, 33, 40, 800)) == {}


def test_columns_of_a_graph_are_no_shorter_than_their_unit() -> None:
    start, end = at("2026-03-01"), at("2026-04-01")
    assert columns_at_most(start, end, 1_000, BERLIN, unit=HOUR).step == HOUR
    assert columns_at_most(start, end, 1_000, BERLIN, unit=30 * HOUR).step == 2 * DAY

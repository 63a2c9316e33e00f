"""What a module type does with a value."""

from __future__ import annotations

import math

import pytest

from dataserver.rules import values
from dataserver.rules.values import (
    NO_BOUNDS,
    Bounds,
    Kind,
    Reading,
    bounds,
    limited,
    number,
    parse_number,
    reading,
    type_rule,
)

INFINITE = math.inf


def test_a_types_name_says_how_its_values_are_read() -> None:
    expected = [
        ("generic_data", Kind.NUMBER, False, False),
        ("generic_proc", Kind.NUMBER, False, True),
        ("generic_data_string", Kind.TEXT, False, False),
        ("generic_data_inc", Kind.RATE, False, False),
        ("generic_data_inc_abs", Kind.DIFFERENCE, False, False),
        ("async_data", Kind.NUMBER, True, False),
        ("async_proc", Kind.NUMBER, True, True),
        ("async_string", Kind.TEXT, True, False),
        ("remote_snmp_inc", Kind.RATE, False, False),
        ("remote_icmp_proc", Kind.NUMBER, False, True),
        ("remote_tcp_string", Kind.TEXT, False, False),
        ("keep_alive", Kind.NUMBER, False, True),
        ("", Kind.NUMBER, False, False),
    ]
    assert [(name, *type_rule(name)) for name, *_ in expected] == expected


class TestParseNumber:
    def test_what_is_a_number(self) -> None:
        numbers = {
            "0": 0.0,
            "-7": -7.0,
            "+7": 7.0,
            "1.5": 1.5,
            "1,5": 1.5,
            ".5": 0.5,
            "5.": 5.0,
            "1e3": 1000.0,
            "1E-3": 0.001,
            "  42\t\n": 42.0,
            "007": 7.0,
            "9" * 300: float("9" * 300),
            "1e-400": 0.0,
        }
        assert {text: parse_number(text) for text in numbers} == numbers

    def test_what_is_not_written_as_one(self) -> None:
        texts = ["", " ", ".", "-", "e5", "1e", "0x10", "1.2.3", "1,234.5"]
        assert [text for text in texts if parse_number(text) is not None] == []

    def test_what_is_none(self) -> None:
        texts = ["1 2", "--1", "5%", "ten", "nan", "inf", "1e400", "1_000"]
        assert [text for text in texts if parse_number(text) is not None] == []

    def test_a_digit_of_another_script_counts_as_a_number_and_as_zero(self) -> None:
        assert parse_number("٣") == 0.0
        assert parse_number("1٣") == 1.0

    def test_many_digits_are_judged_at_once(self) -> None:
        # Each takes a millisecond; trying each way to split them would take hours, and end at
        # the limit of time that every test has.
        for tail in ("", "x", ".", "e", " 1"):
            assert parse_number("1" * 2_000_000 + tail) is None


class TestBounds:
    def test_they_count_when_they_differ(self) -> None:
        expected = [
            (None, None, (-INFINITE, INFINITE)),
            (0, 0, (-INFINITE, INFINITE)),
            (5, 5, (-INFINITE, INFINITE)),
            (0, 100, (0, 100)),
            (-5, 0, (-5, 0)),
            (10, 0, (10, INFINITE)),
            (0, -10, (-INFINITE, -10)),
            (10, 5, (-INFINITE, INFINITE)),
        ]
        found = [(low, high, tuple(bounds(None, low, high))) for low, high, _ in expected]
        assert found == [(low, high, (0.0, *both)) for low, high, both in expected]

    def test_a_value_on_a_bound_is_inside(self) -> None:
        limits = bounds(0, 1, 2)
        assert limited(1.0, limits) is not None
        assert limited(2.0, limits) is not None
        assert limited(2.00001, limits) is None
        assert limited(0.99999, limits) is None

    def test_the_factor_comes_before_the_bounds(self) -> None:
        limits = bounds(0.1, 0, 10)
        assert limited(100.0, limits) == ("10.00000", 10.0)
        assert limited(101.0, limits) is None

    def test_a_factor_of_zero_is_none(self) -> None:
        assert limited(5.0, bounds(0.0, 0, 0)) == ("5.00000", 5.0)

    def test_a_factor_that_leaves_the_number_line_refuses(self) -> None:
        assert limited(1e300, Bounds(1e300, -INFINITE, INFINITE)) is None


class TestNumber:
    def test_it_is_kept_with_five_decimals_as_text_and_as_number(self) -> None:
        assert number("1.234567") == ("1.23457", 1.23457)

    def test_what_differs_beyond_five_decimals_is_equal(self) -> None:
        assert number("0.000001") == number("0") == ("0.00000", 0.0)

    def test_what_is_no_number_is_refused(self) -> None:
        assert number("up") is None

    def test_long_texts_are_not_kept_in_memory(self) -> None:
        before = values._number.cache_info().currsize
        assert number("no number at all " * 100) is None
        assert number("1" * 100) == limited(float("1" * 100), NO_BOUNDS)
        assert values._number.cache_info().currsize == before


class TestReading:
    @pytest.mark.parametrize("kind", [Kind.RATE, Kind.DIFFERENCE])
    def test_the_first_one_is_only_remembered(self, kind: Kind) -> None:
        assert reading(kind, 100, 1000, None) == Reading(True, None)

    def test_a_rate_is_per_second(self) -> None:
        assert reading(Kind.RATE, 160, 1030, (100.0, 1000)) == Reading(True, 2.0)

    def test_a_difference_is_plain(self) -> None:
        assert reading(Kind.DIFFERENCE, 160, 1030, (100.0, 1000)) == Reading(True, 60.0)

    @pytest.mark.parametrize("kind", [Kind.RATE, Kind.DIFFERENCE])
    def test_a_counter_that_stands_still_gives_zero(self, kind: Kind) -> None:
        assert reading(kind, 100, 1030, (100.0, 1000)) == Reading(True, 0.0)

    @pytest.mark.parametrize("kind", [Kind.RATE, Kind.DIFFERENCE])
    def test_a_reset_counter_is_only_remembered(self, kind: Kind) -> None:
        assert reading(kind, 3, 1030, (100.0, 1000)) == Reading(True, None)

    def test_a_second_one_for_the_same_second_is_ignored(self) -> None:
        found = {value: reading(Kind.RATE, value, 1000, (100.0, 1000)) for value in (3, 100, 160)}
        assert found == dict.fromkeys(found, Reading(False, None))

    def test_a_smaller_one_for_the_same_second_resets_a_difference(self) -> None:
        assert reading(Kind.DIFFERENCE, 3, 1000, (100.0, 1000)) == Reading(True, None)
        for value in (100, 160):
            assert reading(Kind.DIFFERENCE, value, 1000, (100.0, 1000)) == Reading(False, None)

    def test_an_earlier_one_is_late_for_a_rate(self) -> None:
        found = {value: reading(Kind.RATE, value, 999, (100.0, 1000)) for value in (3, 100, 160)}
        assert found == dict.fromkeys(found, Reading(False, None, late=True))

    def test_an_earlier_one_is_as_good_as_any_for_a_difference(self) -> None:
        found = [reading(Kind.DIFFERENCE, value, 999, (100.0, 1000)) for value in (3, 100, 160)]
        assert found == [Reading(True, None), Reading(True, 0.0), Reading(True, 60.0)]

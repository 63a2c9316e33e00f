"""What holds for every value that any agent may send."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from dataserver.rules.values import Kind, bounds, limited, number, parse_number, reading, type_rule

FINITE = st.floats(allow_nan=False, allow_infinity=False)
BOUND = st.one_of(st.none(), st.integers(-1000, 1000).map(float))
COUNTERS = st.sampled_from([Kind.RATE, Kind.DIFFERENCE])
TIMES = st.integers(1, 2**31)
#: Texts that are numbers, nearly, or not at all.
TEXTS = st.one_of(st.text(), st.text("0123456789.,eE+- \t٣x"), FINITE.map(repr))


@given(TEXTS)
def test_any_text_is_a_finite_number_or_none(text: str) -> None:
    parsed = parse_number(text)
    assert parsed is None or math.isfinite(parsed)


@given(FINITE)
def test_whatever_python_writes_is_read_as_the_same_number(value: float) -> None:
    assert parse_number(repr(value)) == value
    assert parse_number(f" {value!r}\n".replace(".", ",")) == value


@given(TEXTS)
def test_what_python_takes_for_no_number_is_none_here(text: str) -> None:
    try:
        float(text.replace(",", "."))
    except ValueError:
        # Digits of other scripts count as zero where Python stumbles over a mixture of them.
        assert parse_number(text) is None or not text.isascii()


@given(TEXTS, BOUND, BOUND, BOUND)
def test_a_number_that_is_kept_is_its_own_text(
    text: str, factor: float | None, low: float | None, high: float | None
) -> None:
    kept = number(text, bounds(factor, low, high))
    if kept is not None:
        assert re.fullmatch(r"-?[0-9]+\.[0-9]{5}", kept.text)
        assert float(kept.text) == kept.number


@given(TEXTS, BOUND, BOUND)
def test_keeping_what_was_kept_changes_nothing(
    text: str, low: float | None, high: float | None
) -> None:
    kept = number(text, bounds(None, low, high))
    if kept is not None:
        assert number(kept.text) == kept


@given(FINITE, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_with_max_above_min_exactly_the_values_between_are_taken(
    value: float, one: int, other: int
) -> None:
    low, high = sorted((float(one), float(other)))
    taken = limited(value, bounds(None, low, high)) is not None
    assert taken == (low == high or low <= value <= high)


@given(FINITE, TIMES, FINITE, TIMES)
def test_only_a_later_reading_is_remembered_for_rates(
    value: float, time: int, last: float, last_time: int
) -> None:
    found = reading(Kind.RATE, value, time, (last, last_time))
    assert found.remember == (time > last_time)
    assert found.late == (time < last_time)


@given(FINITE, TIMES, FINITE, TIMES)
def test_every_reading_is_remembered_for_differences_but_a_repeated_one(
    value: float, time: int, last: float, last_time: int
) -> None:
    found = reading(Kind.DIFFERENCE, value, time, (last, last_time))
    assert found.remember == (time != last_time or value < last)
    assert not found.late


@given(COUNTERS, FINITE, TIMES, FINITE, TIMES)
def test_an_amount_is_never_negative_and_comes_from_two_readings_in_order(
    kind: Kind, value: float, time: int, last: float, last_time: int
) -> None:
    found = reading(kind, value, time, (last, last_time))
    in_order = time > last_time if kind is Kind.RATE else time != last_time
    assert (found.amount is not None) == (in_order and value >= last)
    if found.amount is not None:
        assert found.amount >= 0


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 10_000)), min_size=1, max_size=20))
def test_rates_times_seconds_add_up_to_what_the_counter_grew(
    readings: list[tuple[int, int]],
) -> None:
    """Whatever the order in which readings come, and however often the counter starts anew."""
    last: tuple[float, int] | None = None
    counted = grown = 0.0
    for time, value in readings:
        found = reading(Kind.RATE, value, time, last)
        if found.amount is not None and last is not None:
            counted += found.amount * (time - last[1])
        if found.remember:
            grown += max(0.0, value - last[0]) if last is not None else 0.0
            last = (value, time)
    assert math.isclose(counted, grown, abs_tol=1e-6)


@given(st.text())
def test_every_type_name_has_a_rule(name: str) -> None:
    rule = type_rule(name)
    assert rule.is_async == name.startswith("async_")
    assert (rule.kind is Kind.TEXT) == name.endswith("_string")

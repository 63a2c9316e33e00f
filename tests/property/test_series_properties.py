"""What holds for every step function: compared with one that is told second by second."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from dataserver.rules.series import aggregate, insert_late, steps, value_at

LAST = 60
TIMES = st.integers(0, LAST)
# Few values, so that equal ones follow each other; short spans, so that seconds are shared.
NUMBERS = st.sampled_from([0.0, 1.0, -2.5, 0.1, 1e15])
VALUES = st.one_of(NUMBERS, st.sampled_from(["", "up", "down"]))
NUMBER_POINTS = st.lists(st.tuples(TIMES, NUMBERS), max_size=30).map(
    lambda points: sorted(points, key=lambda point: point[0])
)
POINTS = st.lists(st.tuples(TIMES, VALUES), max_size=30).map(
    lambda points: sorted(points, key=lambda point: point[0])
)

Value = float | str


def by_second(points: list[tuple[int, Value]], until: int = 2 * LAST) -> list[Value | None]:
    """The value at each second from 0 on, found by walking along."""
    found: list[Value | None] = []
    for second in range(until):
        before = [value for time, value in points if time <= second]
        found.append(before[-1] if before else None)
    return found


@given(POINTS, TIMES)
def test_the_value_is_that_of_the_last_point_before(
    points: list[tuple[int, Value]], time: int
) -> None:
    assert value_at(points, time) == by_second(points)[time]


@given(POINTS, TIMES, TIMES)
def test_the_steps_of_a_span_say_all_of_the_function_there(
    points: list[tuple[int, Value]], start: int, length: int
) -> None:
    end = start + length
    path = list(steps(points, start, end))
    assert all(start <= time <= end for time, _ in path)
    assert by_second(path)[start : end + 1] == by_second(points)[start : end + 1]


@given(POINTS, TIMES, TIMES, st.integers(1, 40))
def test_points_from_before_the_start_matter_only_by_the_last_one(
    points: list[tuple[int, Value]], start: int, length: int, step: int
) -> None:
    before = [point for point in points if point[0] <= start]
    needed = before[-1:] + [point for point in points if point[0] > start]
    end = start + length
    assert list(steps(needed, start, end)) == list(steps(points, start, end))
    assert list(aggregate(needed, range(start, end, step), end)) == list(
        aggregate(points, range(start, end, step), end)
    )


@given(NUMBER_POINTS, TIMES, TIMES, st.integers(1, 40))
def test_each_span_sums_up_its_seconds(
    points: list[tuple[int, float]], start: int, length: int, step: int
) -> None:
    end = start + length
    seconds = by_second(list(points))
    spans = list(aggregate(points, range(start, end, step), end))
    covered = [second for span in spans for second in range(span.start, span.end)]
    assert covered == list(range(start, end))
    for span in spans:
        values = seconds[span.start : span.end]
        known = [float(value) for value in values if value is not None]
        assert span.last == values[-1]
        assert span.minimum == min(known, default=None)
        assert span.maximum == max(known, default=None)
        if known:
            assert span.mean is not None
            assert math.isclose(span.mean, math.fsum(known) / len(known), abs_tol=1e-9)
            assert min(known) <= span.mean <= max(known)
        else:
            assert span.mean is None


@given(POINTS, TIMES, TIMES, st.integers(1, 40))
def test_a_span_with_text_has_a_last_value_only(
    points: list[tuple[int, Value]], start: int, length: int, step: int
) -> None:
    seconds = by_second(points)
    for span in aggregate(points, range(start, start + length, step), start + length):
        values = seconds[span.start : span.end]
        assert span.last == values[-1]
        if any(isinstance(value, str) for value in values):
            assert (span.minimum, span.maximum, span.mean) == (None, None, None)


@given(POINTS, TIMES, VALUES, st.one_of(st.none(), st.integers(1, LAST)))
def test_a_late_value_is_there_at_its_time_and_nothing_else_changes_from_the_next_known_on(
    points: list[tuple[int, Value]], time: int, value: Value, gap: int | None
) -> None:
    before = by_second(points, 3 * LAST)
    inserted = list(points)
    added = insert_late(inserted, time, value, None if gap is None else time + gap)
    after = by_second(inserted, 3 * LAST)
    assert after[time] == value
    assert after[:time] == before[:time]
    if gap is not None and before[time] is not None:
        assert after[time + gap :] == before[time + gap :]
    assert len(inserted) == len(points) + len(added)
    assert inserted == sorted(inserted, key=lambda point: point[0])


@given(st.permutations(range(8)), st.lists(VALUES, min_size=8, max_size=8))
def test_packets_in_any_order_read_back_as_what_each_carried(
    order: list[int], values: list[Value]
) -> None:
    """Stored as the server does: on change when in order, inserted when late."""
    points: list[tuple[int, Value]] = []
    had: list[int] = []
    for index in order:
        time = index * 300
        if had and time < max(had):
            following = min(other for other in had if other > time)
            insert_late(points, time, values[index], following)
        elif value_at(points, time) != values[index]:
            points.append((time, values[index]))
        had.append(time)
    assert [value_at(points, index * 300) for index in range(8)] == values

"""The step function: reading it, summing it up, and putting late values into it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from dataserver.rules.series import Aggregate, aggregate, insert_late, next_after, steps, value_at

POINTS = [(10, 1.0), (20, 2.0), (30, 4.0)]


class TestValueAt:
    def test_a_value_holds_from_its_time_until_the_next(self) -> None:
        values = {9: None, 10: 1.0, 19: 1.0, 20: 2.0, 30: 4.0, 10**9: 4.0}
        assert {time: value_at(POINTS, time) for time in values} == values

    def test_of_several_at_one_second_the_last_one_holds(self) -> None:
        assert value_at([(10, 1.0), (10, 3.0), (10, 2.0)], 10) == 2.0

    def test_without_points_there_is_no_value(self) -> None:
        assert value_at([], 5) is None


class TestSteps:
    def test_they_begin_with_the_value_at_the_start(self) -> None:
        assert list(steps(POINTS, 15, 30)) == [(15, 1.0), (20, 2.0), (30, 4.0)]

    def test_a_point_at_the_start_is_there_once(self) -> None:
        assert list(steps(POINTS, 20, 25)) == [(20, 2.0)]

    def test_before_the_first_point_there_is_nothing_at_the_start(self) -> None:
        assert list(steps(POINTS, 0, 15)) == [(10, 1.0)]

    def test_a_span_without_points_has_the_value_that_holds(self) -> None:
        assert list(steps(POINTS, 40, 50)) == [(40, 4.0)]

    def test_a_span_before_all_points_is_empty(self) -> None:
        assert list(steps(POINTS, 0, 9)) == []

    def test_a_repeated_value_is_kept_since_it_was_reported_again(self) -> None:
        points = [(10, "restart"), (20, "restart")]
        assert list(steps(points, 10, 20)) == points

    def test_points_after_the_end_are_not_asked_for(self) -> None:
        def points() -> Iterator[tuple[int, float]]:
            yield from POINTS
            raise AssertionError("read past the end")

        assert list(steps(points(), 0, 25)) == [(10, 1.0), (20, 2.0)]

    def test_they_come_one_by_one(self) -> None:
        endless = ((time, 0.5) for time in iter(int, 1))
        assert list(islice(steps(endless, -1, 10), 3)) == [(0, 0.5)] * 3


class TestAggregate:
    def test_the_mean_is_weighted_by_time(self) -> None:
        assert list(aggregate([(0, 1.0), (30, 4.0)], range(0, 40, 40), 40)) == [
            Aggregate(0, 40, last=4.0, minimum=1.0, maximum=4.0, mean=1.75)
        ]

    def test_a_span_inherits_the_value_that_holds(self) -> None:
        first, second = aggregate(POINTS, range(30, 50, 10), 50)
        assert first == Aggregate(30, 40, 4.0, 4.0, 4.0, 4.0)
        assert second == Aggregate(40, 50, 4.0, 4.0, 4.0, 4.0)

    def test_a_point_on_the_edge_belongs_to_the_later_span(self) -> None:
        first, second = aggregate(POINTS, range(10, 30, 10), 30)
        assert (first.last, first.maximum) == (1.0, 1.0)
        assert (second.last, second.minimum) == (2.0, 2.0)

    def test_the_last_span_may_be_short(self) -> None:
        assert [(it.start, it.end) for it in aggregate(POINTS, range(0, 25, 10), 25)] == [
            (0, 10),
            (10, 20),
            (20, 25),
        ]

    def test_before_the_first_point_nothing_is_known(self) -> None:
        (span,) = aggregate(POINTS, range(0, 10, 10), 10)
        assert span == Aggregate(0, 10, None, None, None, None)

    def test_the_mean_is_that_of_the_part_where_something_is_known(self) -> None:
        (span,) = aggregate([(5, 3.0)], range(0, 10, 10), 10)
        assert span.mean == 3.0

    def test_a_value_that_was_replaced_in_its_own_second_never_held(self) -> None:
        (span,) = aggregate([(0, 1.0), (5, 99.0), (5, 2.0)], range(0, 10, 10), 10)
        assert (span.minimum, span.maximum, span.mean) == (1.0, 2.0, 1.5)

    def test_text_has_only_a_last_value(self) -> None:
        (span,) = aggregate([(0, "up"), (5, "down")], range(0, 10, 10), 10)
        assert span == Aggregate(0, 10, "down", None, None, None)

    def test_numbers_and_text_in_one_span_are_text(self) -> None:
        points: list[tuple[int, float | str]] = [(0, 1.0), (5, "down"), (10, 2.0)]
        mixed, numbers = aggregate(points, range(0, 20, 10), 20)
        assert mixed == Aggregate(0, 10, "down", None, None, None)
        assert numbers == Aggregate(10, 20, 2.0, 2.0, 2.0, 2.0)

    def test_the_mean_of_equal_values_is_that_value(self) -> None:
        (span,) = aggregate([(time, 0.1) for time in range(0, 300, 7)], range(0, 300, 300), 300)
        assert span.mean == 0.1

    def test_values_whose_sum_is_no_number_have_no_mean(self) -> None:
        (span,) = aggregate([(0, 1.7e308), (100, -1.7e308)], range(0, 200, 200), 200)
        assert span == Aggregate(0, 200, -1.7e308, -1.7e308, 1.7e308, None)

    def test_an_empty_span_has_no_parts(self) -> None:
        assert list(aggregate(POINTS, range(20, 20, 10), 20)) == []


class TestInsertLate:
    def test_the_earlier_value_comes_back_at_the_next_known_time(self) -> None:
        points = [(10, 1.0)]
        assert insert_late(points, 15, 7.0, 20) == [(15, 7.0), (20, 1.0)]
        assert points == [(10, 1.0), (15, 7.0), (20, 1.0)]

    def test_a_point_that_follows_in_time_needs_nothing_restored(self) -> None:
        points = [(10, 1.0), (20, 2.0)]
        assert insert_late(points, 15, 7.0, 20) == [(15, 7.0)]

    def test_a_value_that_the_function_has_already_adds_nothing(self) -> None:
        points = [(10, 1.0), (20, 2.0)]
        assert insert_late(points, 15, 1.0, 20) == []
        assert points == [(10, 1.0), (20, 2.0)]

    def test_before_the_first_point_there_is_nothing_to_restore(self) -> None:
        points = [(10, 1.0)]
        assert insert_late(points, 5, 7.0, 8) == [(5, 7.0)]

    def test_where_nothing_later_is_known_the_value_stays(self) -> None:
        points = [(10, 1.0)]
        assert insert_late(points, 15, 7.0, None) == [(15, 7.0)]

    def test_in_a_second_that_has_a_point_the_late_one_goes_behind_it(self) -> None:
        points = [(10, 1.0), (10, 2.0)]
        insert_late(points, 10, 3.0, 11)
        assert points == [(10, 1.0), (10, 2.0), (10, 3.0), (11, 2.0)]

    def test_text_is_restored_as_well(self) -> None:
        assert insert_late([(10, "a")], 15, "b", 16) == [(15, "b"), (16, "a")]


def test_the_next_time_is_strictly_after() -> None:
    following = {5: 10, 10: 20, 19: 20, 20: None, 25: None}
    assert {time: next_after([10, 20], time) for time in following} == following

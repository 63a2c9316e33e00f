"""The table of statuses: what a value means by itself, and what becomes of the module with it."""

from __future__ import annotations

from typing import Any

import pytest

from dataserver.rules.status import (
    FRESH,
    FRESH_ASYNC,
    PLAIN,
    Rules,
    Standing,
    Status,
    advance,
    given,
    is_pending,
    judge_number,
    judge_text,
    rules,
    shortcut,
    status_of,
)

N, C, W, U, F = Status

_COLUMNS: dict[str, Any] = {
    "min_critical": 0.0,
    "max_critical": 0.0,
    "min_warning": 0.0,
    "max_warning": 0.0,
    "str_critical": "",
    "str_warning": "",
    "critical_inverse": False,
    "warning_inverse": False,
    "percentage_critical": False,
    "percentage_warning": False,
    "warning_time": 0,
    "each_ff": False,
    "min_ff_event": 0,
    "min_ff_event_normal": 0,
    "min_ff_event_critical": 0,
    "min_ff_event_warning": 0,
    "ff_type": 0,
    "ff_timeout": 0,
    "module_ff_interval": 0,
}


def made(**columns: Any) -> Rules:
    return rules(**{**_COLUMNS, **columns})


def after(
    how: Rules, news: list[Status], standing: Standing = FRESH, is_async: bool = False
) -> tuple[Standing, list[tuple[int, Status]]]:
    """Where a module stands after values a minute apart, and what was told when."""
    told = []
    for minute, new in enumerate(news):
        step = advance(how, standing, new, 60 * minute, is_async)
        standing = step.standing
        if step.event_status is not None:
            told.append((minute, step.event_status))
    return standing, told


class TestJudging:
    @pytest.mark.parametrize(
        ("low", "high", "inverse", "critical"),
        [
            (10, 20, False, [10, 19.999]),
            (10, 20, True, [-5, 9.999, 20, 21]),
            (10, 0, False, [10, 19.999, 20, 21]),
            (10, 0, True, [-5, 9.999]),
            (0, 0, False, []),
            (5, 5, True, []),
        ],
    )
    def test_an_interval(
        self, low: float, high: float, inverse: bool, critical: list[float]
    ) -> None:
        how = made(min_critical=low, max_critical=high, critical_inverse=inverse)
        values = [-5, 9.999, 10, 19.999, 20, 21]
        assert [v for v in values if judge_number(how, v, False, "") is C] == critical

    def test_critical_comes_before_warning(self) -> None:
        how = made(min_critical=10, max_critical=20, min_warning=0, max_warning=30)
        assert [judge_number(how, v, False, "") for v in (5, 15, 25, 35)] == [W, C, W, N]

    def test_zero_is_down_where_a_proc_type_says_nothing_else(self) -> None:
        numbers = [-1, 0, 0.5, 1]
        assert [judge_number(PLAIN, v, True, "") for v in numbers] == [N, C, C, N]
        assert [judge_number(PLAIN, v, False, "") for v in numbers] == [N] * 4
        inverse = made(critical_inverse=True)
        assert [judge_number(inverse, v, True, "") for v in numbers] == [C, N, N, C]
        own = made(min_critical=5, max_critical=6)
        assert [judge_number(own, v, True, "") for v in numbers] == [N] * 4

    @pytest.mark.parametrize(
        ("low", "high", "before", "critical"),
        [
            (0, 10, "100.00000", [110.1, 111]),
            (10, 0, "100.00000", [80, 89.9]),
            (10, 10, "100.00000", [80, 89.9, 110.1, 111]),
            (10, 10, "", []),
            (10, 10, "0.00000", []),
            (10, 10, "-100.00000", [80, 89.9, 90, 109.9, 110.1, 111]),
        ],
    )
    def test_percents(self, low: float, high: float, before: str, critical: list[float]) -> None:
        how = made(min_critical=low, max_critical=high, percentage_critical=True)
        values = [80, 89.9, 90, 109.9, 110.1, 111]
        assert how.relative
        assert [v for v in values if judge_number(how, v, False, before) is C] == critical

    def test_texts(self) -> None:
        how = made(str_critical="err(or)?", str_warning="^warn", warning_inverse=False)
        assert [judge_text(how, t) for t in ("an error", "warn", "a warn", "")] == [C, W, N, N]
        inverse = made(str_critical="fine", critical_inverse=True)
        assert [judge_text(inverse, t) for t in ("fine", "not so good")] == [N, C]

    def test_a_pattern_that_is_none_is_no_threshold(self) -> None:
        how = made(str_critical="(", critical_inverse=True, str_warning="x")
        assert [judge_text(how, t) for t in ("(", "x")] == [N, W]

    def test_what_a_packet_may_say(self) -> None:
        told = ["CRITICAL", " warning\n", "Normal", "UNKNOWN", "", None, "NOT_INITIALISED", "1"]
        assert [given(text) for text in told] == [C, W, N, None, None, None, None, None]

    def test_a_number_that_is_no_status(self) -> None:
        assert [status_of(n) for n in (0, 3, 4, 5, -1, None)] == [N, U, F, F, F, F]


class TestFlipFlop:
    def test_without_a_limit_each_status_counts_at_once(self) -> None:
        standing, told = after(PLAIN, [N, C, C, W, N])
        assert told == [(0, N), (1, C), (3, W), (4, N)]
        assert (standing.status, standing.changed_at) == (N, 240)

    def test_a_limit_wants_so_many_values_after_the_first(self) -> None:
        how = made(min_ff_event=2)
        _, told = after(how, [N, C, C, N, C, C, C, C])
        assert told == [(6, C)]

    def test_the_limit_of_the_new_status_with_each_ff(self) -> None:
        how = made(each_ff=True, min_ff_event_critical=1, min_ff_event_normal=2, min_ff_event=9)
        _, told = after(how, [N, C, C, N, N, N, W])
        assert told == [(2, C), (5, N), (6, W)]

    def test_counters_are_not_reset_by_other_statuses(self) -> None:
        how = made(ff_type=1, min_ff_event=1)
        _, told = after(how, [N, C, N, C, C, C])
        assert told == [(3, C), (5, C)]

    def test_a_first_value_is_normal_until_a_limit_is_reached(self) -> None:
        standing, told = after(made(min_ff_event=2), [C])
        assert (standing.status, standing.last, told) == (N, C, [])
        assert is_pending(made(min_ff_event=2), standing)

    def test_a_run_that_takes_too_long_starts_anew(self) -> None:
        how = made(min_ff_event=3, ff_timeout=100)
        news = [C, C, C, C]
        assert after(how, news, FRESH_ASYNC)[1] == [(3, C)]
        assert after(how, news, FRESH_ASYNC, is_async=True)[1] == []
        just_in_time = made(min_ff_event=3, ff_timeout=180)
        assert after(just_in_time, news, FRESH_ASYNC, is_async=True)[1] == [(3, C)]

    def test_the_count_of_changes_fits_its_column(self) -> None:
        for how in (made(ff_type=1, min_ff_event=1000), made(min_ff_event=1000)):
            standing, _ = after(how, [C] * 2000)
            assert standing.changes == 255


class TestWarningTime:
    def test_too_many_warnings_in_a_row_are_critical_until_there_is_none(self) -> None:
        _, told = after(made(warning_time=2), [W, W, W, W, W, W, N, W])
        assert told == [(0, W), (3, C), (6, N), (7, W)]

    def test_another_status_starts_the_count_anew(self) -> None:
        _, told = after(made(warning_time=2), [W, W, W, N, W, W, W, W])
        assert told == [(0, W), (3, N), (4, W), (7, C)]


class TestUnknown:
    def unknown(self, known: Status, **more: Any) -> Standing:
        standing, _ = after(PLAIN, [known, known, known])
        return standing._replace(status=U, last=U, **more)

    @pytest.mark.parametrize("known", [N, C, W])
    def test_the_next_value_brings_back_what_is_known(self, known: Status) -> None:
        how = made(min_ff_event=3)
        step = advance(how, self.unknown(known), N if known else C, 999, False)
        assert (step.standing.status, step.standing.known, step.event_status) == (
            known,
            known,
            known,
        )
        assert step.standing.changed_at == 999
        assert is_pending(how, step.standing)

    def test_or_a_status_of_its_own(self) -> None:
        step = advance(PLAIN, self.unknown(C), W, 999, False)
        assert (step.standing.status, step.event_status, step.previous) == (W, W, C)

    def test_it_resets_the_counters_and_breaks_no_run(self) -> None:
        how = made(ff_type=1, min_ff_event=5)
        step = advance(how, self.unknown(N, normal=2, warning=3, critical=1), N, 999, False)
        assert (step.standing.normal, step.standing.warning, step.standing.critical) == (0, 0, 0)
        once_counting = self.unknown(C, changes=2, normal=2, warning=3, critical=1)
        plain = advance(made(min_ff_event=3), once_counting, C, 999, False).standing
        assert (plain.changes, plain.normal, plain.warning, plain.critical) == (3, 0, 0, 0)

    def test_a_module_that_never_had_a_value_becomes_normal(self) -> None:
        step = advance(made(min_ff_event=3), FRESH._replace(status=U, last=U), C, 999, False)
        assert (step.standing.status, step.event_status) == (N, None)


def test_what_has_come_to_rest_stays_there() -> None:
    for how in (
        PLAIN,
        made(min_ff_event=3),
        made(min_ff_event=300),
        made(ff_type=1),
        made(warning_time=1),
        made(min_ff_event=2, ff_timeout=10),
    ):
        for news in (
            [first, *[status] * count]
            for first in (N, C, W)
            for status in (N, C, W)
            for count in (*range(9), 300)
        ):
            standing, _ = after(how, news)
            steady, grown = shortcut(how, standing)
            if steady is not None:
                again = advance(how, standing, steady, 10**9, False)
                assert (again.standing, again.event_status) == (standing, None)
            if grown is not None:
                again = advance(how, standing, grown.status, 10**9, False)
                assert (again.standing, again.event_status, again.grew) == (grown, None, True)
                assert shortcut(how, grown).steady_status is grown.status
    assert shortcut(PLAIN, after(PLAIN, [N])[0]).next_if_same is not None
    assert shortcut(PLAIN, after(PLAIN, [N, N])[0]).steady_status is N


def test_warnings_that_are_still_counted_are_not_steady() -> None:
    # As read from the database after the console changed the module's configuration.
    how = made(warning_time=1)
    standing = after(how, [N, N])[0]
    assert shortcut(how, standing).steady_status is N
    counted = standing._replace(warnings=1)
    assert shortcut(how, counted) == (None, None)
    assert advance(how, counted, N, 10**9, False).standing == standing


def test_equal_configurations_have_one_set_of_rules() -> None:
    assert made() is PLAIN
    assert made(min_warning=5) is made(min_warning=5)

"""The parts of graphs that only compute: zones, silences, statuses over time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataserver.graphs import module, reading
from dataserver.graphs.model import Silences, Span, StatusSpan, Zone
from dataserver.graphs.module import Zones, drawn_zones, zones_of
from dataserver.rules.series import Bucket, buckets, merged
from dataserver.rules.status import PLAIN, Interval, rules
from dataserver.store.read.access import ActiveSpan

intervals = st.builds(
    Interval,
    st.sampled_from([-5.0, 0.0, 1.0, 50.0, 80.0]),
    st.sampled_from([-5.0, 0.0, 60.0, 90.0]),
    st.booleans(),
    st.just(False),
)
numbers = st.sampled_from(
    [-1e9, -5.0, -1.0, 0.0, 0.5, 1.0, 49.0, 50.0, 60.0, 79.9, 80.0, 90.0, 1e9]
)


def thresholds(**given: float) -> Zones | None:
    values = {
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
        "each_ff": False,
        "warning_time": 0,
        "min_ff_event": 0,
        "min_ff_event_normal": 0,
        "min_ff_event_critical": 0,
        "min_ff_event_warning": 0,
        "ff_type": 0,
        "ff_timeout": 0,
        "module_ff_interval": 0,
    }
    return zones_of(rules(**values | given), is_proc=False)


class TestZones:
    @given(st.builds(Zones, intervals | st.none(), intervals | st.none()), numbers)
    def test_what_is_drawn_is_what_is_judged(self, zones: Zones, value: float) -> None:
        drawn = [
            zone.status
            for zone in drawn_zones(zones)
            if (zone.low is None or value >= zone.low) and (zone.high is None or value < zone.high)
        ]
        # Critical lies over warning.
        assert (drawn[-1] if drawn else "normal") == zones.status(value)

    @given(
        st.builds(Zones, intervals | st.none(), intervals | st.none()),
        st.lists(st.tuples(numbers, st.integers(1, 100)), min_size=1),
    )
    def test_seconds_by_status_are_those_of_each_value(
        self, zones: Zones, held: list[tuple[float, int]]
    ) -> None:
        expected: dict[str, int] = {}
        for value, seconds in held:
            status = zones.status(value)
            expected[status] = expected.get(status, 0) + seconds
        over = [sum(s for value, s in held if value >= edge) for edge in zones.edges]
        found = zones.seconds(sum(s for _, s in held), over)
        assert {status: s for status, s in found.items() if s} == expected

    def test_a_proc_module_is_critical_when_it_is_down(self) -> None:
        zones = zones_of(PLAIN, is_proc=True)
        assert zones is not None
        assert (zones.status(0.0), zones.status(1.0)) == ("critical", "normal")
        assert drawn_zones(zones) == (Zone("critical", 0.0, 1.0),)

    def test_thresholds_of_percents_have_no_place_on_the_axis(self) -> None:
        zones = thresholds(min_critical=10.0, max_critical=20.0, percentage_critical=True)
        assert zones is None
        assert drawn_zones(zones) == ()

    def test_a_threshold_without_upper_end_has_none(self) -> None:
        zones = thresholds(min_critical=90.0, min_warning=80.0, max_warning=90.0)
        assert drawn_zones(zones) == (Zone("warning", 80.0, 90.0), Zone("critical", 90.0, None))


class TestBuckets:
    @given(
        st.lists(st.integers(1, 400), min_size=1, max_size=60).map(sorted),
        st.data(),
    )
    def test_points_summed_up_in_pieces_are_those_summed_up_at_once(
        self, times: list[int], data: st.DataObject
    ) -> None:
        values = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=len(times), max_size=len(times)))
        edges = (-10.0, 0.5)
        lefts = data.draw(st.sampled_from([range(0, 450, 50), [0, 23, 24, 200, 399]]))
        whole = list(buckets(times, values, lefts, 450, edges))
        cut = data.draw(st.integers(1, len(times)))
        until = times[cut] if cut < len(times) else 450
        pieces = [
            *buckets(times[:cut], values[:cut], lefts, until, edges),
            *buckets(times[cut:], values[cut:], lefts, 450, edges),
        ]
        together: list[Bucket] = []
        for piece in pieces:
            if together and together[-1].column == piece.column:
                together[-1] = merged(together[-1], piece)
            else:
                together.append(piece)
        assert [b._replace(area=0) for b in together] == [b._replace(area=0) for b in whole]
        for one, other in zip(together, whole, strict=True):
            assert math.isclose(one.area, other.area, rel_tol=1e-9, abs_tol=1e-3)


class TestSilences:
    HEARD = (ActiveSpan(0, 900, 4), ActiveSpan(3_000, 3_300, 2))

    def test_a_silence_begins_when_a_packet_was_due(self) -> None:
        found = reading.silences(self.HEARD, 0, 300, 0, 3_400)
        assert found == Silences(0, (Span(1_200, 3_000),))

    def test_the_last_silence_lasts_until_now(self) -> None:
        found = reading.silences(self.HEARD, 0, 300, 1_500, 5_000)
        assert found.spans == (Span(1_500, 3_000), Span(3_600, 5_000))

    def test_an_agent_never_heard_of_is_not_silent(self) -> None:
        assert reading.silences([], None, 300, 0, 5_000) == Silences(None, ())

    def test_a_module_is_unknown_after_two_intervals(self) -> None:
        found = reading.unknown_spans(self.HEARD, 300, 300, 0, 3_400)
        assert found == [Span(1_500, 3_000)]

    def test_what_was_due_in_a_silence_did_not_arrive(self) -> None:
        # 1200, 1500, ... 2700.
        expected, share = reading.share_arrived(self.HEARD, 6, 0, 300, 0, 3_400)
        assert (expected, share) == (12.0, 0.5)

    def test_an_agent_that_is_a_little_late_lacks_nothing(self) -> None:
        heard = [ActiveSpan(0, 3_330, 11)]
        assert reading.share_arrived(heard, 11, 0, 300, 0, 3_400) == (11.0, 1.0)

    def test_what_is_older_than_the_ledger_was_not_expected(self) -> None:
        assert reading.share_arrived([], 0, None, 300, 0, 3_400) == (0.0, None)
        assert reading.share_arrived([], 0, 5_000, 300, 0, 3_400) == (0.0, None)

    def test_an_agent_silent_all_the_time_sent_nothing_of_what_was_due(self) -> None:
        expected, share = reading.share_arrived([ActiveSpan(0, 0, 1)], 0, 0, 300, 3_000, 6_000)
        assert (expected, share) == (10.0, 0.0)


class TestStatuses:
    def test_they_follow_the_values_and_begin_with_the_first(self) -> None:
        points = [(10, "normal"), (20, "critical"), (25, "critical"), (30, "normal")]
        found = module.statuses_of_points(points, lambda value: value, 0, 40, [])
        assert found == [
            StatusSpan(0, 10, None),
            StatusSpan(10, 20, "normal"),
            StatusSpan(20, 30, "critical"),
            StatusSpan(30, 40, "normal"),
        ]

    def test_unknown_lies_over_them_but_not_over_what_was_before_the_first_value(self) -> None:
        points = [(10, "normal"), (20, "critical")]
        unknown = [Span(0, 5), Span(12, 14), Span(16, 25), Span(30, 50)]
        found = module.statuses_of_points(points, lambda value: value, 0, 40, unknown)
        assert found == [
            StatusSpan(0, 10, None),
            StatusSpan(10, 12, "normal"),
            StatusSpan(12, 14, "unknown"),
            StatusSpan(14, 16, "normal"),
            StatusSpan(16, 25, "unknown"),
            StatusSpan(25, 30, "critical"),
            StatusSpan(30, 40, "unknown"),
        ]

    @given(
        st.lists(st.integers(0, 200), unique=True, max_size=10).map(sorted),
        st.lists(st.integers(0, 220), unique=True, max_size=8).map(sorted),
    )
    def test_every_second_has_one_status(self, times: list[int], edges: list[int]) -> None:
        unknown = [Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
        points = [(time, "normal" if place % 2 else "warning") for place, time in enumerate(times)]
        found = module.statuses_of_points(points, lambda value: value, 0, 200, unknown)
        for second in range(200):
            holding = [span.status for span in found if span.start <= second < span.end]
            before = [status for time, status in points if time <= second]
            silent = any(start <= second < end for start, end in unknown)
            expected = None if not before else "unknown" if silent else before[-1]
            assert holding == [expected]

    def test_a_column_shows_its_gravest_status_and_the_sums_count_each(self) -> None:
        columns = [
            (Span(0, 10), {"normal": 9.0, "critical": 1.0}),
            (Span(10, 20), {"critical": 10.0}),
            (Span(20, 30), {"normal": 10.0}),
            (Span(30, 40), {None: 10.0}),
        ]
        spans, seconds = module.statuses_of_columns(columns, [Span(25, 35)])
        assert spans == [
            StatusSpan(0, 20, "critical"),
            StatusSpan(20, 30, "unknown"),
            StatusSpan(30, 40, None),
        ]
        assert seconds == {"normal": 14.0, "critical": 11.0, "unknown": 5.0, None: 10.0}

    def test_shares_add_up(self) -> None:
        shares = module.shares({"normal": 60.0, "critical": 20.0, None: 10.0}, 100)
        assert shares == {
            "normal": 0.6,
            "unknown": 0.0,
            "warning": 0.0,
            "critical": 0.2,
            "not known": pytest.approx(0.2),
        }

"""What the console's pages show, before any page: sparklines, silence, values in words."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from dataserver.console.pages.agents import silent
from dataserver.console.sparks import HEIGHT, WIDTH, drawn
from dataserver.console.value_words import LONGEST, severity_words, value_words
from dataserver.graphs.model import SparkColumn, Sparkline
from dataserver.store.read.modules import SHORT, AgentRecord, ModuleRecord

NOW = 1_800_000_000


def line(*values: float | None) -> Sparkline:
    """A module that had one value in each column."""
    return tuple(None if value is None else SparkColumn(value, value, value) for value in values)


def points(text: str) -> list[tuple[float, float]]:
    """The points of a polygon or polyline, all of them inside of the picture."""
    found = [tuple(map(float, point.split(","))) for point in text.split()]
    for x, y in found:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    return [(x, y) for x, y in found]


class TestSparklines:
    def test_a_value_that_never_changed_is_a_line_through_the_middle(self) -> None:
        found = drawn(line(*[5.0] * 48))
        assert points(found.line) == [(0, HEIGHT / 2), (WIDTH, HEIGHT / 2)]
        assert found.words == "last day: 5"

    def test_steps_go_straight_on_and_then_up_or_down(self) -> None:
        found = points(drawn(line(0, 0, 0, 10, 10, 0)).line)
        unit = WIDTH / 6
        low, high = max(y for _, y in found), min(y for _, y in found)
        assert found == [
            (0, low),
            (3 * unit, low),
            (3 * unit, high),
            (5 * unit, high),
            (5 * unit, low),
            (WIDTH, low),
        ]

    def test_one_column_is_as_wide_as_the_picture(self) -> None:
        found = drawn((SparkColumn(-1, 3, 0),))
        assert {x for x, _ in points(found.line)} == {0, WIDTH}
        band = points(found.band)
        assert {x for x, _ in band} == {0, WIDTH}
        assert len({y for _, y in band}) == 2
        assert found.words == "last day: -1 to 3"

    def test_what_was_not_known_yet_stays_empty(self) -> None:
        found = drawn(line(None, None, 1, 2))
        assert min(x for x, _ in points(found.line)) == WIDTH / 2
        assert min(x for x, _ in points(found.band)) == WIDTH / 2

    @pytest.mark.parametrize("none", [(), (None,), (None, None)])
    def test_without_any_value_nothing_is_drawn(self, none: Sparkline) -> None:
        found = drawn(none)
        assert (found.band, found.line) == ("", "")
        assert "no value" in found.words

    @pytest.mark.parametrize(
        ("low", "high"),
        [
            (-1.7e308, 1.7e308),
            (0.0, 5e-324),
            (-5e-324, 5e-324),
            (1e300, 1.0000000000000002e300),
            (-1e15, -1e15 + 0.125),
            (0.1, 0.2),
            (-0.0, 0.0),
        ],
    )
    def test_numbers_of_any_size_stay_inside_of_the_picture(self, low: float, high: float) -> None:
        found = drawn((*line(low, high), SparkColumn(low, high, low)))
        for shape in (found.band, found.line):
            assert points(shape)
            assert "nan" not in shape
            assert "inf" not in shape

    def test_the_greatest_is_above_the_least(self) -> None:
        [(_, first), *_, (_, last)] = points(drawn(line(-1.7e308, 0, 1.7e308)).line)
        assert first > last

    def test_what_is_no_number_is_not_drawn(self) -> None:
        odd = line(math.nan, 1, math.inf, 2, -math.inf)
        assert drawn(odd).line == drawn(line(None, 1, None, 2, None)).line
        assert drawn(odd).words == "last day: 1 to 2"

    def test_a_band_is_closed_and_never_crosses_itself(self) -> None:
        columns = tuple(SparkColumn(-place, place * 2.0, place) for place in range(10))
        band = points(drawn(columns).band)
        there = [x for x, _ in band]
        turn = there.index(WIDTH) + 1
        assert all(a <= b for a, b in pairwise(there[:turn]))
        assert all(a >= b for a, b in pairwise(there[turn:]))

    def test_many_columns_without_a_change_are_few_points(self) -> None:
        flat = drawn(line(*[1.0] * 24, *[2.0] * 24))
        assert len(points(flat.line)) == 4


def agent(**values: object) -> AgentRecord:
    known = {
        "id": 1,
        "name": "one",
        "alias": "",
        "group": None,
        "os": None,
        "contact": NOW - 601,
        "packet_time": None,
        "modules": 0,
        "interval": 300,
        "mode": 1,
        "disabled": False,
        "quiet": False,
        "counts": None,
        **values,
    }
    return AgentRecord(**known)  # type: ignore[arg-type]


class TestSilence:
    def test_one_that_missed_two_intervals_is_silent(self) -> None:
        assert silent(agent(), NOW) == 601
        assert silent(agent(contact=NOW - 600), NOW) is None
        assert silent(agent(contact=NOW - 601, interval=301), NOW) is None

    @pytest.mark.parametrize(
        "values",
        [
            {"contact": None},
            {"disabled": True},
            {"interval": 0},
            {"contact": NOW + 10_000},
            {"contact": NOW},
        ],
    )
    def test_one_of_which_no_packet_is_due_is_not(self, values: dict[str, object]) -> None:
        assert silent(agent(**values), NOW) is None


def module(kind: str | None = "generic_data", unit: str = "") -> ModuleRecord:
    return ModuleRecord(
        id=1,
        name="m",
        type=kind,
        value=None,
        unit=unit,
        time=None,
        saved=None,
        interval=300,
        description="",
        disabled=False,
        quiet=False,
        status=None,
        pending=None,
        since=None,
    )


class TestValues:
    def test_long_texts_are_cut_and_said_to_be(self) -> None:
        whole = "ä" * LONGEST
        assert value_words(whole, module("generic_data_string")) == whole
        cut = value_words(whole + "x", module("generic_data_string"))
        assert cut == f"{whole}… ({LONGEST + 1} characters)"

    def test_of_a_text_that_was_read_in_part_no_length_is_claimed(self) -> None:
        cut = value_words("x" * SHORT, module("generic_data_string"))
        assert cut.endswith(f"({SHORT} characters or more)")

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (0.0, "0 s"),
            (-0.5, "-0.5 s"),
            (1234567.0, "1,234,567 s"),
            (1e308, "1e+308 s"),
            (5e-324, "4.940656e-324 s"),
            (123456789012.0, "123,456,789,012 s"),
        ],
    )
    def test_numbers_are_read_by_people(self, value: float, words: str) -> None:
        assert value_words(value, module(unit="s")) == words

    def test_a_severity_that_nobody_knows_is_its_number(self) -> None:
        assert [severity_words(each) for each in (4, 7, 20, -1)] == ["critical", "7", "20", "-1"]

"""The parts of a module's page by themselves: changes, thresholds in words, zones, the file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dataserver.console.graph_view import GraphView, zone_name
from dataserver.console.pages import module
from dataserver.console.pages.module import Change, changes_of, thresholds_of
from dataserver.graphs.model import Span
from dataserver.rules.status import PLAIN, Rules, rules
from dataserver.store.read.history import Point

#: 2026-01-01 00:00:00 UTC.
START = 1_767_225_600


class TestChanges:
    def test_each_holds_until_the_next_and_the_last_until_now(self) -> None:
        found = changes_of([(10, 1.0), (30, 2.0)], now=100)
        assert found == [Change(30, 2.0, 70, is_last=True), Change(10, 1.0, 20, is_last=False)]

    def test_a_value_that_is_stored_again_is_no_change(self) -> None:
        found = changes_of([(10, "a"), (20, "a"), (30, "b"), (40, "b")], now=50)
        assert [(each.time, each.value, each.seconds) for each in found] == [
            (30, "b", 20),
            (10, "a", 20),
        ]

    def test_of_several_values_in_one_second_the_last_one_counts(self) -> None:
        found = changes_of([(10, 1.0), (20, 5.0), (20, 1.0), (30, 2.0)], now=40)
        assert [(each.time, each.value) for each in found] == [(30, 2.0), (10, 1.0)]

    def test_what_may_have_begun_before_all_that_was_read_is_left_out(self) -> None:
        points: list[Point] = [(place, float(place // 100)) for place in range(200)]
        assert [each.value for each in changes_of(points, now=300)] == [1.0]
        assert [each.value for each in changes_of(points[1:], now=300)] == [1.0, 0.0]

    def test_nothing_stored_is_no_change(self) -> None:
        assert changes_of([], now=5) == []


def _rules(**given: object) -> Rules:
    plain: dict[str, object] = {
        **dict.fromkeys(("min_critical", "max_critical", "min_warning", "max_warning"), 0.0),
        **dict.fromkeys(("str_critical", "str_warning"), ""),
        **dict.fromkeys(("critical_inverse", "warning_inverse"), False),
        **dict.fromkeys(("percentage_critical", "percentage_warning", "each_ff"), False),
        **dict.fromkeys(("warning_time", "min_ff_event", "min_ff_event_normal"), 0),
        **dict.fromkeys(("min_ff_event_critical", "min_ff_event_warning", "ff_type"), 0),
        **dict.fromkeys(("ff_timeout", "module_ff_interval"), 0),
    }
    return rules(**{**plain, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("type_name", "given", "words"),
    [
        ("generic_data", {"min_critical": 90.0}, "critical from 90"),
        ("generic_data", {"min_warning": 4.0, "max_warning": 8.5}, "warning from 4 to below 8.5"),
        (
            "generic_data",
            {"min_critical": 1.0, "max_critical": 9.0, "critical_inverse": True},
            "critical below 1, and from 9",
        ),
        ("generic_data", {"min_critical": 5.0, "critical_inverse": True}, "critical below 5"),
        (
            "generic_data",
            {"min_warning": 10.0, "max_warning": 20.0, "percentage_warning": True},
            "warning where it falls by more than 10 % or rises by 20 % or more "
            "from one value to the next",
        ),
        ("generic_proc", {}, "critical when it is down (0)"),
        ("generic_proc", {"critical_inverse": True}, "critical when it is up"),
        ("generic_data_string", {"str_critical": "^x"}, "critical where the text matches ^x"),
        (
            "async_string",
            {"str_warning": "ok", "warning_inverse": True},
            "warning where the text does not match ok",
        ),
    ],
)
def test_thresholds_in_words(type_name: str, given: dict[str, object], words: str) -> None:
    found = thresholds_of(_rules(**given), type_name)
    assert [f"{each.status} {each.words}" for each in found] == [words]


def test_without_rules_there_are_no_thresholds() -> None:
    assert thresholds_of(PLAIN, "generic_data") == ()


class TestZone:
    def test_a_zone_is_called_as_browsers_call_it(self) -> None:
        assert zone_name(ZoneInfo("Europe/Madrid"), START) == "Europe/Madrid"
        assert zone_name(UTC, START) == "UTC"
        assert zone_name(timezone(timedelta(hours=-3, minutes=-30)), START) == "-03:30"

    def test_the_systems_zone_is_called_by_where_its_file_really_lies(self, tmp_path: Path) -> None:
        file = tmp_path / "zoneinfo" / "Europe" / "Madrid"
        link = tmp_path / "localtime"
        file.parent.mkdir(parents=True)
        file.touch()
        link.symlink_to(file)
        assert zone_name(_from_file(link), START) == "Europe/Madrid"

    def test_a_copied_zone_file_is_told_by_its_offset(self, tmp_path: Path) -> None:
        copy = tmp_path / "localtime"
        copy.touch()
        assert zone_name(_from_file(copy), START) == "+01:00"


def _from_file(path: Path) -> ZoneInfo:
    """The zone of Madrid, as if it were read from there."""
    madrid = ZoneInfo("Europe/Madrid")
    found = next(Path(each) for each in _folders() if (Path(each) / str(madrid)).is_file())
    with (found / str(madrid)).open("rb") as file:
        return ZoneInfo.from_file(file, key=os.fspath(path))


def _folders() -> Iterator[str]:
    import importlib.util
    import zoneinfo

    yield from zoneinfo.TZPATH
    package = importlib.util.find_spec("tzdata.zoneinfo")
    if package is not None:
        yield from package.submodule_search_locations or ()


def test_a_graph_begins_with_the_span_asked_for_and_marks_it() -> None:
    day = 86_400
    view = GraphView.of(
        Span(START - day, START), now=START, is_live=True, refresh=60, zone=UTC, first=START - 10
    )
    assert [each.name for each in view.ranges if each.is_chosen] == ["day"]
    assert view.ranges[-1].name == "all"
    assert view.ranges[-1].seconds >= 10
    fixed = GraphView.of(
        Span(START - day, START), now=START, is_live=False, refresh=60, zone=UTC, first=None
    )
    assert not any(each.is_chosen for each in fixed.ranges)
    assert [each.name for each in fixed.ranges][-1] == "year"


class TestFile:
    def test_it_is_made_while_it_is_read(self) -> None:
        taken = 0

        def points() -> Iterator[Point]:
            nonlocal taken
            for place in range(20_000):
                taken += 1
                yield START + place, float(place)

        chunks = module.encoded(points(), UTC)
        first = next(chunks)
        assert taken < 5_000
        whole = first + b"".join(chunks)
        rows = list(csv.reader(io.StringIO(whole.decode(), newline="")))
        assert len(rows) == 20_001
        assert rows[-1] == [str(START + 19_999), "2026-01-01 05:33:19+00:00", "19999"]

    def test_a_doubled_hour_is_told_apart(self) -> None:
        # 2026-10-25 01:30 UTC is the second half past two of that night in Madrid.
        times = (1_792_888_200, 1_792_891_800)
        points: list[Point] = [(time, 1.0) for time in times]
        text = b"".join(module.encoded(points, ZoneInfo("Europe/Madrid"))).decode()
        assert [line.split(",")[1] for line in text.split("\r\n")[1:3]] == [
            "2026-10-25 02:30:00+02:00",
            "2026-10-25 02:30:00+01:00",
        ]

    @pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx"])
    def test_no_text_begins_as_a_formula(self, text: str) -> None:
        content = b"".join(module.encoded([(START, text)], UTC)).decode()
        rows = list(csv.reader(io.StringIO(content, newline="")))
        assert rows[1][2] == f"'{text}"

    def test_a_text_of_half_a_character_stops_nothing(self) -> None:
        assert b"?" in b"".join(module.encoded([(START, "\udc80")], UTC))

    def test_a_time_outside_of_the_calendar_has_no_local_one(self) -> None:
        content = b"".join(module.encoded([(10**15, 1.0)], UTC)).decode()
        assert content.split("\r\n")[1] == "1000000000000000,,1"

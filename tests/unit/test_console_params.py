"""What a request asks for: taken, or refused with a line that says what is allowed."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from dataserver.config.paths import Home
from dataserver.console import params
from dataserver.console.params import NotFound
from dataserver.console.source import Source
from dataserver.errors import UsageError

NOW = 1_800_000_000
HIGHEST = 2**63 - 1


def asked(query: str = "", **values: str) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": (query or urlencode(values)).encode("latin-1"),
            "path_params": {},
        }
    )


@pytest.fixture
def source(home: Home) -> Source:
    home.config.write_text('timezone = "Europe/Madrid"\n')
    return Source(home, {}, clock=lambda: NOW + 0.9)


def test_a_text_is_taken_without_the_blanks_around_it() -> None:
    assert params.text(asked(q="  web 1 "), "q") == "web 1"
    assert params.text(asked(), "q") == ""


def test_a_text_that_is_too_long_is_refused() -> None:
    assert params.text(asked(q="x" * 200), "q") == "x" * 200
    with pytest.raises(UsageError, match="q is longer than 200 characters"):
        params.text(asked(q="x" * 201), "q")


def test_bytes_that_are_not_utf8_become_a_mark_for_what_is_no_character() -> None:
    assert params.text(asked("q=%ff%ed%b2%80"), "q").encode("utf-8").decode() == "\ufffd" * 4


@pytest.mark.parametrize(("text", "number"), [("", 7), ("1", 1), ("007", 7), ("100", 100)])
def test_a_whole_number_within_its_bounds_is_taken(text: str, number: int) -> None:
    assert params.integer(asked(page=text), "page", 7, 1, 100) == number


@pytest.mark.parametrize(
    "text", ["0", "101", "-1", "+1", "1.5", "1e2", "0x1", "one", "١", "²", "1_0", "9" * 20]
)
def test_any_other_number_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="page must be a whole number from 1 to 100"):
        params.integer(asked(page=text), "page", 7, 1, 100)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(UsageError, match="longer"):
        params.integer(asked(page="9" * 5000), "page", 1)


def test_no_number_is_higher_than_a_database_can_hold() -> None:
    assert params.integer(asked(id=str(HIGHEST)), "id", 0) == HIGHEST
    with pytest.raises(UsageError):
        params.integer(asked(id=str(HIGHEST + 1)), "id", 0)


def test_of_a_number_that_is_said_twice_the_last_one_counts() -> None:
    assert params.integer(asked("page=2&page=3"), "page", 1) == 3


def test_one_of_several_words_is_taken_and_any_other_refused_with_the_words() -> None:
    assert params.choice(asked(sort="name"), "sort", ("name", "status")) == "name"
    assert params.choice(asked(), "sort", ("name", "status"), "name") == "name"
    with pytest.raises(UsageError, match="sort must be one of name, status, not 'NAME'"):
        params.choice(asked(sort="NAME"), "sort", ("name", "status"))


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_a_flag_is_set_by_these_words(text: str) -> None:
    assert params.flag(asked(open=text), "open")


@pytest.mark.parametrize("text", ["", "0", "false", "no", "2"])
def test_a_flag_is_not_set_by_others(text: str) -> None:
    assert not params.flag(asked(open=text), "open")


def test_an_id_that_no_row_can_have_is_not_there() -> None:
    request = asked()
    request.scope["path_params"] = {"id": HIGHEST}
    assert params.path_id(request) == HIGHEST
    request.scope["path_params"] = {"id": HIGHEST + 1}
    with pytest.raises(NotFound):
        params.path_id(request)


def test_without_anything_the_span_is_the_last_so_many_seconds(source: Source) -> None:
    assert params.span(asked(), source, 3600) == (NOW - 3600, NOW)


def test_a_span_may_be_given_in_seconds_before_now_or_in_the_zones_time(source: Source) -> None:
    assert params.span(asked(**{"from": "1000", "to": "2000"}), source, 1) == (1000, 2000)
    assert params.span(asked(**{"from": "-2h", "to": "now"}), source, 1) == (NOW - 7200, NOW)
    # 2026-01-31 00:00 in Madrid is an hour before it is in Greenwich.
    local = params.span(asked(**{"from": "2026-01-31", "to": "2026-01-31 01:00"}), source, 1)
    assert local == (1_769_814_000, 1_769_817_600)


def test_a_span_that_ends_in_the_past_begins_so_many_seconds_before_its_end(source: Source) -> None:
    assert params.span(asked(to="5000"), source, 3600) == (1400, 5000)
    assert params.span(asked(to="5"), source, 3600) == (0, 5)


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        ("2000", "2000", "must end after"),
        ("2000", "1000", "must end after"),
        ("now", "", "must end after"),
        ("0", "9999999999", "hundred years"),
        ("yesterday", "", "not a time"),
        ("2026-02-30", "", "not a time"),
        ("-5y", "", "not a duration"),
        ("99999999999", "", "not a time"),
        ("1" * 41, "", "longer than 40"),
        ("1\x00", "", "not a time"),
        ("<script>", "", "not a time"),
    ],
)
def test_any_other_span_is_refused(source: Source, first: str, last: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        params.span(asked(**{"from": first, "to": last}), source, 3600)

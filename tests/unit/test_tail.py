"""The last lines of a rotated log, and those that come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataserver.fleet.supervision.manager import follow_files, last


class Stopped(Exception):
    """Nothing more happens."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def older(log: Path) -> Path:
    return log.with_name("log.1")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def followed(log: Path, count: int, *steps: Callable[[], object]) -> list[str]:
    """The lines, when in each pause one of ``steps`` happens."""
    waiting = iter(steps)

    def pause() -> None:
        step = next(waiting, None)
        if step is None:
            raise Stopped
        step()

    found: list[str] = []

    found.extend(lines_until_stopped(follow_files(log, count, pause=pause)))
    return found


def lines_until_stopped(lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except Stopped:
        return


def test_the_last_lines_reach_into_the_part_before(log: Path) -> None:
    append(older(log), "a\nb\n")
    append(log, "c\nd\n")
    assert list(last(log, 3)) == ["b", "c", "d"]
    assert list(last(log, 9)) == ["a", "b", "c", "d"]
    assert list(last(log, 0)) == []


def test_the_last_line_need_not_be_whole(log: Path) -> None:
    append(log, "a\nb")
    assert list(last(log, 1)) == ["b"]


def test_without_a_log_there_is_nothing(log: Path) -> None:
    assert list(last(log, 5)) == []


def test_bytes_that_are_no_text_come_back_as_they_were(log: Path) -> None:
    log.write_bytes(b"\xff\xfe\n")
    [line] = last(log, 1)
    assert line.encode("utf-8", "surrogateescape") == b"\xff\xfe"


def test_what_comes_follows_each_line_once_it_is_whole(log: Path) -> None:
    append(log, "a\nb\nhal")
    steps = (lambda: append(log, "f\nne"), lambda: append(log, "xt\n"))
    assert followed(log, 1, *steps) == ["b", "half", "next"]


def test_a_log_that_is_not_there_yet_is_waited_for(log: Path) -> None:
    assert followed(log, 5, lambda: None, lambda: append(log, "a\n")) == ["a"]


def test_rotation_loses_and_repeats_nothing(log: Path) -> None:
    append(log, "a\n")

    def rotate() -> None:
        append(log, "b\n")
        log.rename(older(log))
        append(log, "c\n")

    assert followed(log, 5, rotate, lambda: append(log, "d\n")) == ["a", "b", "c", "d"]


def test_rotated_and_not_there_yet_it_is_waited_for(log: Path) -> None:
    append(log, "a\n")
    steps = (lambda: log.rename(older(log)), lambda: append(log, "b\n"))
    assert followed(log, 5, *steps) == ["a", "b"]


def test_an_emptied_log_begins_anew(log: Path) -> None:
    append(log, "a long line\n")
    assert followed(log, 5, lambda: log.write_text("b\n")) == ["a long line", "b"]


def test_a_line_without_end_comes_in_parts(log: Path) -> None:
    append(log, "x" * (5 << 19))
    assert [len(line) >> 20 for line in followed(log, 5)] == [1, 1]

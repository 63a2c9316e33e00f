"""Incomplete files: read again when they changed, given up when they were quiet."""

from __future__ import annotations

import pytest

from dataserver.spool.files import SpoolFile
from dataserver.spool.incomplete import IncompleteFiles
from tests.support.clock import Clocks

START = 1_700_000_000.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks(START)


@pytest.fixture
def waiting(clocks: Clocks) -> IncompleteFiles:
    return IncompleteFiles(60.0, monotonic=clocks.monotonic, clock=clocks.wall)


def file(size: int = 10, mtime: float = START, name: str = "a.1.data") -> SpoolFile:
    return SpoolFile(name, "a", 1, size, int(mtime * 1e9), 7)


def test_an_unknown_file_is_worth_reading(waiting) -> None:
    assert waiting.worth_reading(file())


def test_an_incomplete_file_is_not_read_again_until_it_changes(waiting) -> None:
    waiting.add(file(size=10))
    assert not waiting.worth_reading(file(size=10))
    assert waiting.worth_reading(file(size=11))
    assert waiting.worth_reading(file(mtime=START + 1))


def test_a_file_is_due_when_it_was_quiet_for_long_enough(waiting, clocks) -> None:
    waiting.add(file())
    clocks.advance(59.9)
    assert not waiting.due(file())
    clocks.advance(0.1)
    assert waiting.due(file())


def test_every_change_starts_the_quiet_time_again(waiting, clocks) -> None:
    waiting.add(file(size=10))
    clocks.advance(59)
    waiting.add(file(size=20))
    clocks.advance(59)
    assert not waiting.due(file(size=20))
    clocks.advance(1)
    assert waiting.due(file(size=20))


def test_reading_an_unchanged_file_again_does_not_prolong_its_wait(waiting, clocks) -> None:
    waiting.add(file())
    clocks.advance(30)
    waiting.add(file())
    clocks.advance(30)
    assert waiting.due(file())


def test_a_changed_file_is_not_due_whatever_it_was_before(waiting, clocks) -> None:
    waiting.add(file(size=10))
    clocks.advance(100)
    assert not waiting.due(file(size=11))


def test_an_old_stub_is_due_at_first_sight(waiting) -> None:
    waiting.add(file(mtime=START - 60))
    assert waiting.due(file(mtime=START - 60))


def test_a_file_modified_a_moment_ago_is_not_due_at_first_sight(waiting) -> None:
    waiting.add(file(mtime=START - 59))
    assert not waiting.due(file(mtime=START - 59))


def test_a_file_that_changed_after_we_saw_it_is_watched_whatever_its_time(waiting, clocks) -> None:
    waiting.add(file(size=10))
    clocks.advance(1)
    old_time = file(size=20, mtime=START - 9999)
    waiting.add(old_time)
    assert not waiting.due(old_time)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_setting_the_clock_makes_no_difference_to_a_watched_file(waiting, clocks, jump) -> None:
    waiting.add(file())
    clocks.wall.advance(jump)
    clocks.advance(59.9)
    assert not waiting.due(file())
    clocks.advance(0.1)
    assert waiting.due(file())


def test_a_file_from_the_future_waits_its_time_and_no_longer(waiting, clocks) -> None:
    ahead = file(mtime=START + 9999)
    waiting.add(ahead)
    assert not waiting.due(ahead)
    clocks.advance(60)
    assert waiting.due(ahead)


def test_a_forgotten_file_is_new_again(waiting, clocks) -> None:
    waiting.add(file())
    waiting.forget(file())
    assert waiting.worth_reading(file())
    assert len(waiting) == 0


def test_files_that_are_no_longer_listed_are_forgotten(waiting) -> None:
    waiting.add(file(name="a.1.data"))
    waiting.add(file(name="b.1.data"))
    waiting.keep([file(name="b.1.data")])
    assert waiting.worth_reading(file(name="a.1.data"))
    assert not waiting.worth_reading(file(name="b.1.data"))


def test_the_next_one_due_is_known(waiting, clocks) -> None:
    assert waiting.next_due() is None
    waiting.add(file(name="a.1.data"))
    clocks.advance(20)
    waiting.add(file(name="b.1.data", mtime=clocks.wall.now))
    assert waiting.next_due() == pytest.approx(40)
    clocks.advance(100)
    assert waiting.next_due() == 0

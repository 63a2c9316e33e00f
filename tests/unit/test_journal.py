"""The logs of supervised instances: kept up to a size, and harmless where they cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.fleet.model import log_file
from dataserver.fleet.supervision.processes import Journals


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    for name in ("main", "beta"):
        home.instance(name).folder.mkdir(parents=True)
    return home


@pytest.fixture
def heard() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def journals(home: Home, heard: list[tuple[str, str]]) -> Iterator[Journals]:
    journals = Journals(home, lambda name, line: heard.append((name, line)), largest=100)
    yield journals
    journals.keep(())


def opened(home: Home) -> list[str]:
    """The logs that this process has open, also those that are deleted."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    return sorted(path for path in paths if path.startswith(f"{home.var}/"))


def test_lines_are_kept_and_a_full_log_becomes_the_part_before(
    home: Home, journals: Journals
) -> None:
    for number in range(4):
        journals.write("main", f"{number} " + "x" * 40)
    log = log_file(home.instance())
    assert [line[0] for line in log.with_name("log.1").read_text().splitlines()] == ["0", "1"]
    assert [line[0] for line in log.read_text().splitlines()] == ["2", "3"]


def test_one_that_was_removed_leaves_no_folder_and_no_open_file(
    home: Home, journals: Journals, heard: list[tuple[str, str]]
) -> None:
    paths = home.instance("beta")
    for name in ("main", "beta"):
        journals.write(name, "a line")
    log_file(paths).unlink()
    paths.var.rmdir()
    paths.folder.rmdir()
    journals.write("beta", "its last word")
    assert not paths.var.exists()
    assert heard[-1] == ("beta", "its last word")
    journals.keep({"main"})
    assert opened(home) == [str(log_file(home.instance()))]


def test_those_of_no_instance_any_more_are_closed(home: Home, journals: Journals) -> None:
    journals.write("beta", "a line")
    journals.keep({"main"})
    assert opened(home) == []
    journals.write("beta", "another")
    assert log_file(home.instance("beta")).read_text() == "a line\nanother\n"


def test_a_pipe_in_its_place_holds_up_nobody(
    home: Home, journals: Journals, heard: list[tuple[str, str]]
) -> None:
    paths = home.instance()
    paths.var.mkdir(parents=True)
    os.mkfifo(log_file(paths))
    journals.write("main", "a line")
    assert heard == [("main", "a line")]


def test_a_folder_that_is_none_holds_up_nobody(
    home: Home, journals: Journals, heard: list[tuple[str, str]]
) -> None:
    # Neither can it be looked at, for root too.
    home.var.mkdir()
    (home.var / "main").symlink_to("main")
    journals.write("main", "a line")
    assert heard == [("main", "a line")]

"""Lists in which one name is very long: no line but its own is, and a program gets the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dataserver.cli.output import WIDEST, print_table
from tests.support.commands import Run
from tests.support.failures import failures
from tests.support.packets import START, module, packet
from tests.support.server import Place

LONG = "n" * 100 + "m" * 100


def test_no_list_is_padded_to_its_longest_name(tmp_path: Path, dataserver: Run) -> None:
    place = Place(tmp_path / "home", "sqlite:///var/dataserver.db")
    for place_in_list, name in enumerate((LONG, "short")):
        content = packet(name, module(name, "1"), module("web", "1"), time=START)
        place.drop(f"{name}.{place_in_list}.data", content)
        place.drop(f"{name}.{place_in_list}0.data", b"<no packet>")
    assert dataserver("run", "--once", "--home", place.home.root).returncode == 0

    def check(command: tuple[str, ...]) -> None:
        printed = dataserver(*command, "--home", place.home.root)
        assert printed.returncode == 0, printed.stderr
        lines = printed.stdout.splitlines()
        # Events are cut to what fits a line; --json has all of them.
        is_whole = any(LONG in line for line in lines)
        assert is_whole or command == ("events",), "a program gets the whole name"
        others = [line for line in lines if LONG[:30] not in line]
        assert len(others) >= 2
        assert max(map(len, others)) < 200, others

    lists = (("agents",), ("modules", LONG), ("events",), ("rejected", "list"))
    assert failures(check, lists) == {}


def test_on_a_terminal_a_long_name_loses_its_middle_unless_it_is_the_last_of_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(LONG, "short"), ("short", LONG)]
    print_table(("ONE", "TWO"), rows)
    assert LONG in capsys.readouterr().out.splitlines()[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("ONE", "TWO"), rows)
    head, cut, last = capsys.readouterr().out.splitlines()
    assert head == "ONE".ljust(WIDEST) + "  TWO"
    assert cut == f"{'n' * 19}...{'m' * 18}  short"
    assert last == "short".ljust(WIDEST) + f"  {LONG}"

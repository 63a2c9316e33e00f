"""What a user is told to type next is what works where the program was called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dataserver.cli.program import extra, spelled


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program in a checkout whose environment is not activated."""
    path = tmp_path / "a b" / "dataserver"
    path.parent.mkdir()
    path.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setenv("PATH", "/nowhere")
    return path


def test_hints_name_the_program_as_it_was_called(program: Path) -> None:
    called = f"'{program}'"
    assert spelled("`dataserver up` does") == f"`{called} up` does"
    assert spelled("run: dataserver db check") == f"run: {called} db check"
    assert spelled("next: dataserver --home x check") == f"next: {called} --home x check"
    assert spelled("dataserver check") == f"{called} check"


def test_other_words_of_that_name_are_left_alone(program: Path) -> None:
    for text in ("the dataserver runs", "dataserver.toml", "dataserver: no", "/opt/dataserver up"):
        assert spelled(text) == text


def test_where_its_name_alone_calls_it_that_is_enough(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(program.parent))
    assert spelled("`dataserver up` does") == "`dataserver up` does"
    # Another program of that name is not meant.
    monkeypatch.setattr(sys, "argv", [str(program.with_name("other") / "dataserver")])
    assert spelled("`dataserver up` does") != "`dataserver up` does"


def test_hints_name_the_home_that_was_named(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (["--home", "/srv/a b"], ["status", "--home=/srv/a b"]):
        monkeypatch.setattr(sys, "argv", [str(program), *given])
        here = f"'{program}' --home '/srv/a b'"
        assert spelled("see `dataserver refused`") == f"see `{here} refused`"
        # What makes a home, or names one, is left as it is.
        assert spelled("`dataserver init DIR`") == f"`'{program}' init DIR`"
        assert spelled("next: dataserver --home x check") == f"next: '{program}' --home x check"
    monkeypatch.setenv("PATH", str(program.parent))
    assert spelled("see `dataserver refused`") == "see `dataserver --home '/srv/a b' refused`"


def test_an_extra_is_installed_beside_this_program() -> None:
    command = extra("graph")
    assert command.startswith(f"{sys.executable} -m pip install --editable ")
    assert command.endswith("[graph]'")

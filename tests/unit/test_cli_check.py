"""What `dataserver check` finds, where a test of the installed command cannot make it so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dataserver.cli import main
from dataserver.home import Home


def problems(home: Home, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """Name and text of what is not in order."""
    with pytest.raises(SystemExit):
        main(["--home", str(home.root), "check", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    return [(each["name"], each["text"]) for each in checks if not each["ok"]]


def test_a_database_file_that_cannot_be_written_is_a_problem(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--home", str(home.root), "db", "create"])
    capsys.readouterr()
    assert problems(home, capsys) == []
    # Root may write everything, so the system's answer is played.
    file = home.root / "var/dataserver.db"
    true_access = os.access

    def access(path: Path, mode: int) -> bool:
        return path != file and true_access(path, mode)

    monkeypatch.setattr("dataserver.cli.check.os.access", access)
    ((name, text),) = problems(home, capsys)
    assert name == "db rights"
    assert str(file) in text


def test_without_the_library_of_regular_expressions_no_instance_would_run(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # It may have been loaded by another test; the check has to ask the system.
    monkeypatch.setattr("dataserver.pcre2.LIBRARY", "libpcre2-none.so.0")
    ((name, text),) = problems(home, capsys)
    assert name == "patterns"
    assert "apt install libpcre2-8-0" in text

"""What `dataserver check` finds, where a test of the installed command cannot make it so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from tests.support.commands import Run


@pytest.fixture
def problems(dataserver: Run, home: Home) -> Callable[[], list[tuple[str, str]]]:
    """Tells name and text of what is not in order."""

    def tell() -> list[tuple[str, str]]:
        checks = json.loads(dataserver("--home", home.root, "check", "--json").stdout)["checks"]
        return [(each["name"], each["text"]) for each in checks if not each["ok"]]

    return tell


def test_a_database_file_that_cannot_be_written_is_a_problem(
    home: Home,
    dataserver: Run,
    problems: Callable[[], list[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert dataserver("--home", home.root, "db", "create").returncode == 0
    assert problems() == []
    # Root may write everything, so the system's answer is played.
    file = home.root / "var/dataserver.db"
    true_access = os.access

    def access(path: Path, mode: int) -> bool:
        return path != file and true_access(path, mode)

    monkeypatch.setattr("dataserver.cli.check.os.access", access)
    ((name, text),) = problems()
    assert name == "db rights"
    assert str(file) in text


def test_without_the_library_of_regular_expressions_no_instance_would_run(
    problems: Callable[[], list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It may have been loaded by another test; the check has to ask the system.
    monkeypatch.setattr("dataserver.rules.pcre2.LIBRARY", "libpcre2-none.so.0")
    ((name, text),) = problems()
    assert name == "patterns"
    assert "apt install libpcre2-8-0" in text

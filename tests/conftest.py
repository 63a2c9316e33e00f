"""What all tests share: no settings from outside, a fresh home, databases, the command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from tests.support import commands, databases, randomness
from tests.support.commands import Run
from tests.support.databases import (
    bare_database,
    database,
    mariadb,
    mariadb_database,
    pandora_database,
    sqlite_database,
    store_url,
)

__all__ = [
    "bare_database",
    "database",
    "mariadb",
    "mariadb_database",
    "pandora_database",
    "sqlite_database",
    "store_url",
]

# Started in the background of a script the tests inherit that Ctrl-C is ignored, and so would all
# that they start; a handler, whichever, is the default again in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="run the tests marked `long` too, and random tests with new random numbers",
    )


def pytest_configure(config: pytest.Config) -> None:
    randomness.choose(config.getoption("--all"))


def pytest_report_header(config: pytest.Config) -> str | None:
    """How to repeat the random tests of this run."""
    return randomness.header() if config.getoption("--all") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only `make test-all` runs; a test that is asked for by its name is run."""
    if config.getoption("--all") or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have a data server of its own."""
    for name in list(os.environ):
        if name.startswith("DATASERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """At the end of a test process its database server goes, with all it wrote."""
    yield
    databases.remove_shared()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the instance `main` and nothing set but its drop directory."""
    home = Home(tmp_path / "home")
    main = home.instance()
    main.folder.mkdir(parents=True)
    main.config.write_text('data_in = "../../data_in"\n')
    (home.root / "data_in").mkdir()
    return home


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty directory, in which commands are called."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def dataserver(here: Path) -> Run:
    """Call the command in this process (:func:`tests.support.commands.call`)."""
    return lambda *args, **options: commands.call(*args, **{"cwd": here, **options})


@pytest.fixture
def installed(here: Path) -> Run:
    """Run the installed program, as a user does (:func:`tests.support.commands.run`)."""
    return lambda *args, **options: commands.run(*args, **{"cwd": here, **options})

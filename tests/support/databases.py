"""The kinds of store that every store test runs against, as fixtures.

``database``  a :class:`Database` of each kind in turn, empty of agents, not yet opened
``store_url`` its URL only
``mariadb_database``, ``pandora_database``  one kind, for tests that concern no other
``mariadb``   the session's server, for tests that kill or stop it

A conftest takes them over by importing them.  One MariaDB server per test process,
started when the first test asks for it; a fresh database for each test.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from dataserver.store.engine import open_engine
from dataserver.store.probe import Layout, prepare
from tests.support import pandora
from tests.support.mariadb import MariaDB

SQLITE = "sqlite"
MARIADB = "mariadb"
PANDORA = "pandora"
KINDS = (SQLITE, MARIADB, PANDORA)

_numbers = itertools.count(1)


@dataclass
class Database:
    """One database of a test: where it is and, on MariaDB, the server to be cruel to."""

    kind: str
    url: str
    home: Path
    name: str = ""
    server: MariaDB | None = None
    _engines: list[Engine] = field(default_factory=list)

    def engine(self, **options: Any) -> Engine:
        """Open it as the server does; disposed of at the test's end."""
        timeouts = {"connect_timeout": 5.0, "read_timeout": 20.0, **options}
        engine = open_engine(self.url, home=self.home, **timeouts)
        self._engines.append(engine)
        return engine

    def prepare(self) -> Layout:
        """Create the tables that are ours to create."""
        return prepare(self.engine())

    def kill(self) -> None:
        self._mariadb().kill()

    def restart(self) -> None:
        self._mariadb().restart()

    def stop_cont(self) -> contextlib.AbstractContextManager[None]:
        return self._mariadb().stop_cont()

    def close(self) -> None:
        """Let go of all connections and, on MariaDB, drop the database."""
        for engine in self._engines:
            engine.dispose()
        if self.server is not None:
            if not self.server.running:
                self.server.start()
            self.server.drop(self.name)

    def _mariadb(self) -> MariaDB:
        assert self.server is not None, f"{self.kind} has no server"
        return self.server


@contextlib.contextmanager
def opened(kind: str, home: Path) -> Iterator[Database]:
    """A new database of this kind, for as long as the block lasts."""
    database = _new(kind, home)
    try:
        yield database
    finally:
        database.close()


def shared_server() -> MariaDB:
    """The server of this process, running."""
    global _server  # noqa: PLW0603 - one per process is what is meant
    if _server is None:
        _server = MariaDB(Path(tempfile.mkdtemp(prefix="mariadb-")) / "server")
        atexit.register(_remove_server)
    if not _server.running:
        _server.start()
    return _server


_server: MariaDB | None = None


def _remove_server() -> None:
    global _server  # noqa: PLW0603
    if _server is not None:
        _server.remove()
        _server.directory.parent.rmdir()
        _server = None


def _new(kind: str, home: Path) -> Database:
    if kind == SQLITE:
        return Database(kind, "sqlite:///var/dataserver.db", home)
    server = shared_server()
    name = f"test_{next(_numbers)}"
    url = server.create(name)
    if kind == PANDORA:
        server.execute(*pandora.statements(), database=name)
    return Database(kind, url, home, name, server)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The session's server; it is restarted when a test left it dead."""
    yield shared_server()
    _remove_server()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each kind of store in turn."""
    if request.param != SQLITE:
        request.getfixturevalue("mariadb")
    with opened(request.param, tmp_path) as new:
        yield new


@pytest.fixture
def mariadb_database(mariadb: MariaDB, tmp_path: Path) -> Iterator[Database]:
    """An empty database on MariaDB."""
    with opened(MARIADB, tmp_path) as new:
        yield new


@pytest.fixture
def pandora_database(mariadb: MariaDB, tmp_path: Path) -> Iterator[Database]:
    """An existing Pandora FMS database on MariaDB."""
    with opened(PANDORA, tmp_path) as new:
        yield new


@pytest.fixture
def store_url(database: Database) -> str:
    """The URL of each kind of store in turn."""
    return database.url

"""The kinds of store that tests run on, as fixtures; each test gets one that is as new.

``database``           each kind in turn, with all its tables and no agents, not yet opened
``store_url``          its URL only
``sqlite_database``, ``mariadb_database``, ``pandora_database``   one kind, for tests that
                       concern no other
``bare_database``      each kind in turn before any server saw it: for tests of its creation
``mariadb``            the session's server, for tests that kill or stop it

A conftest takes them over by importing them.  Making a database takes most of a second, using
one a few milliseconds; so they are made once for each test process and reset after each test:
an SQLite file is a copy of a prepared one, on MariaDB the tables that a test wrote to are
emptied (:mod:`tests.support.reset`).
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from dataserver.store.database import open_engine
from dataserver.store.layout import Layout
from dataserver.store.probe import prepare
from tests.support import pandora
from tests.support.mariadb import MariaDB, in_memory
from tests.support.reset import Pool
from tests.support.waiting import PATIENCE

SQLITE = "sqlite"
MARIADB = "mariadb"
PANDORA = "pandora"
KINDS = (SQLITE, MARIADB, PANDORA)

#: Where the file of an SQLite store lies, below its home.
SQLITE_FILE = Path("var/dataserver.db")


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
        names = ("connect_timeout", "read_timeout", "lock_timeout", "idle_timeout")
        patient = dict.fromkeys(names, PATIENCE)
        engine = open_engine(self.url, home=self.home, **{**patient, **options})
        self._engines.append(engine)
        return engine

    def prepare(self) -> Layout:
        """What every server does at its start: create the tables that are ours, where missing."""
        return prepare(self.engine())

    def kill(self) -> None:
        self._mariadb().kill()

    def restart(self) -> None:
        self._mariadb().restart()

    def stop_cont(self) -> contextlib.AbstractContextManager[None]:
        return self._mariadb().stop_cont()

    def dispose(self) -> None:
        """Close all connections."""
        for engine in self._engines:
            engine.dispose()

    def _mariadb(self) -> MariaDB:
        assert self.server is not None, f"{self.kind} has no server"
        return self.server


@contextlib.contextmanager
def opened(kind: str, home: Path, *, bare: bool = False) -> Iterator[Database]:
    """A database of this kind for as long as the block lasts; ``bare``: without our tables."""
    if kind == SQLITE:
        database = Database(kind, f"sqlite:///{SQLITE_FILE}", home)
        if not bare:
            target = home / SQLITE_FILE
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_sqlite_template(), target)
        try:
            yield database
        finally:
            database.dispose()
        return
    server = shared_server()
    with _pool(kind, bare).database() as name:
        database = Database(kind, server.url(name), home, name, server)
        try:
            yield database
        finally:
            database.dispose()
            if not server.running:
                server.start()


def shared_server() -> MariaDB:
    """The server of this process, running."""
    global _server  # noqa: PLW0603 - one per process is what is meant
    if _server is None:
        folder = tempfile.mkdtemp(prefix="mariadb-", dir=in_memory())
        _server = MariaDB(Path(folder) / "server")
    if not _server.running:
        _server.start()
    return _server


_server: MariaDB | None = None


def remove_shared() -> None:
    """Stop the server of this process, and delete what was made for all its tests."""
    global _server  # noqa: PLW0603
    if _server is not None:
        _server.remove()
        _server.directory.parent.rmdir()
        _server = None
    for folder in _made_once:
        shutil.rmtree(folder)
    _made_once.clear()
    _pool.cache_clear()
    _sqlite_template.cache_clear()


#: Folders that last as long as the process.
_made_once: list[Path] = []


@cache
def _pool(kind: str, bare: bool) -> Pool:
    """The databases of one kind on the shared server."""
    label = f"{kind}_bare" if bare else kind

    def make(server: MariaDB, name: str) -> None:
        url = server.create(name)
        if kind == PANDORA:
            server.execute(*pandora.statements(), database=name)
        if not bare:
            engine = open_engine(url, home=Path("/nonexistent"))
            prepare(engine)
            engine.dispose()

    return Pool(shared_server, f"test_{label}", make)


@cache
def _sqlite_template() -> Path:
    """An SQLite file with all tables, for this process."""
    home = Path(tempfile.mkdtemp(prefix="sqlite-template-", dir=in_memory()))
    _made_once.append(home)
    engine = open_engine(f"sqlite:///{SQLITE_FILE}", home=home)
    prepare(engine)
    # The last connection that closes puts everything into the one file.
    engine.dispose()
    return home / SQLITE_FILE


@pytest.fixture
def mariadb() -> MariaDB:
    """The session's server; it is restarted when a test left it dead."""
    return shared_server()


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each kind of store in turn."""
    with opened(request.param, tmp_path) as new:
        yield new


@pytest.fixture(params=KINDS)
def bare_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Each kind of store in turn, before any server of ours saw it."""
    with opened(request.param, tmp_path, bare=True) as new:
        yield new


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    """A SQLite file, the embedded default."""
    with opened(SQLITE, tmp_path) as new:
        yield new


@pytest.fixture
def mariadb_database(tmp_path: Path) -> Iterator[Database]:
    """A database of our own on MariaDB."""
    with opened(MARIADB, tmp_path) as new:
        yield new


@pytest.fixture
def pandora_database(tmp_path: Path) -> Iterator[Database]:
    """An existing Pandora FMS database on MariaDB."""
    with opened(PANDORA, tmp_path) as new:
        yield new


@pytest.fixture
def store_url(database: Database) -> str:
    """The URL of each kind of store in turn."""
    return database.url

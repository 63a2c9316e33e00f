"""Fixtures of the fault tests: a store of each kind, and what an undisturbed run leaves in it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults import corpus
from tests.faults.corpus import File
from tests.support import commands
from tests.support.databases import KINDS, MARIADB, SQLITE, Database, opened
from tests.support.dump import Dump, dump
from tests.support.server import Place, Server

#: What an undisturbed run leaves in a store like this one, of these packets.
Undisturbed = Callable[[Database, Sequence[File]], Dump]
#: Packets that are stored together.
BATCH = 5
#: For tests to which the kind of store makes no difference, or hardly one.
on_sqlite = pytest.mark.parametrize(
    "store", [SQLITE, pytest.param(MARIADB, marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(params=[SQLITE, MARIADB])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A store of each kind in turn, with all its tables."""
    with opened(request.param, tmp_path / "home") as database:
        yield database


@pytest.fixture(params=[SQLITE, MARIADB])
def bare_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same, without tables: the server makes them."""
    with opened(request.param, tmp_path / "home", bare=True) as database:
        yield database


@pytest.fixture(params=KINDS)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """As ``store``, and an existing Pandora FMS database, whose tables have no unique keys."""
    with opened(request.param, tmp_path / "home") as database:
        yield database


@pytest.fixture(params=KINDS)
def any_bare_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same, without tables of ours."""
    with opened(request.param, tmp_path / "home", bare=True) as database:
        yield database


@pytest.fixture
def place(store: Database) -> Place:
    """A home on that store, with small batches, so that there are many moments to die in."""
    return Place(store.home, store.url, batch_packets=BATCH)


@pytest.fixture
def few() -> list[File]:
    """A hundred packets: twenty batches."""
    return _corpus(10, 10)


@pytest.fixture
def small() -> list[File]:
    """A few hundred packets."""
    return _corpus(10, 30)


@pytest.fixture
def large() -> list[File]:
    """The backlog of 5,000 packets."""
    return _corpus(50, 100)


@pytest.fixture(params=["few", pytest.param("large", marks=pytest.mark.long)])
def files(request: pytest.FixtureRequest) -> list[File]:
    """A hundred packets; in `make test-all` also the large backlog."""
    found: list[File] = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def undisturbed() -> Undisturbed:
    """What a kind of store holds when one server took these packets in, and nothing else
    happened."""
    return lambda store, files: _undisturbed(
        store.kind, len({file.agent for file in files}), len(files)
    )


@lru_cache(maxsize=4)
def _corpus(agents: int, rounds: int) -> list[File]:
    return corpus.corpus(agents, rounds)


@lru_cache(maxsize=8)
def _undisturbed(kind: str, agents: int, packets: int) -> Dump:
    with TemporaryDirectory(prefix="undisturbed-") as folder, opened(kind, Path(folder)) as store:
        place = Place(store.home, store.url)
        corpus.write(_corpus(agents, packets // agents), place.data_in())
        done = commands.call("--home", place.home.root, "run", "--once", cwd=store.home)
        assert done.returncode == 0, done.stderr
        assert (place.packets_left(), place.rejected()) == ([], [])
        return dump(store.engine())


def backlog(server: Server, files: Sequence[File]) -> None:
    """Bring packets to a running server, which finds them all at once."""
    server.send(signal.SIGSTOP)
    corpus.write(files, server.place.data_in(server.instance))
    server.send(signal.SIGCONT)


def shares(files: Sequence[File], count: int) -> list[Sequence[File]]:
    """The packets in so many parts, in order."""
    size = -(-len(files) // count)
    return [files[begin : begin + size] for begin in range(0, len(files), size)]

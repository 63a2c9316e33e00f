"""Fixtures of the fault tests: a store of each kind, and what an undisturbed run leaves in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults import corpus
from tests.faults.corpus import File
from tests.support.databases import KINDS, MARIADB, SQLITE, Database, opened
from tests.support.dump import Dump, dump
from tests.support.server import Place, Server

#: What an undisturbed run leaves, by kind of store and size of the corpus.
Undisturbed = Callable[[Sequence[File]], Dump]


@pytest.fixture(params=[SQLITE, MARIADB])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store of each kind in turn."""
    with opened(request.param, tmp_path / "home") as database:
        yield database


@pytest.fixture(params=KINDS)
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The same, and an existing Pandora FMS database, whose tables have no unique keys."""
    with opened(request.param, tmp_path / "home") as database:
        yield database


@pytest.fixture
def place(store: Database) -> Place:
    """A home on that store, with small batches, so that there are many moments to die in."""
    return Place(store.home, store.url, batch_packets=5)


@pytest.fixture
def small() -> list[File]:
    """A few hundred packets."""
    return _corpus(10, 30)


@pytest.fixture
def large() -> list[File]:
    """The backlog of 5,000 packets."""
    return _corpus(50, 100)


@pytest.fixture
def undisturbed(store: Database) -> Undisturbed:
    """What the store holds when one server took these packets in and nothing happened to it."""
    return lambda files: _undisturbed(store.kind, len({f.agent for f in files}), len(files))


@lru_cache(maxsize=4)
def _corpus(agents: int, rounds: int) -> list[File]:
    return corpus.corpus(agents, rounds)


@lru_cache(maxsize=8)
def _undisturbed(kind: str, agents: int, packets: int) -> Dump:
    with TemporaryDirectory(prefix="undisturbed-") as folder, opened(kind, Path(folder)) as store:
        place = Place(store.home, store.url)
        corpus.write(_corpus(agents, packets // agents), place.data_in())
        with Server(place) as server:
            server.wait_taken()
            assert server.stop() == 0
        assert place.rejected() == []
        return dump(store.engine())

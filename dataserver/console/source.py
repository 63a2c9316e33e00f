"""What the console reads: one home and its database, looked at anew where something changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import tzinfo
from threading import Lock

from dataserver.config import load
from dataserver.errors import DataserverError, StoreUnavailable
from dataserver.graphs.reading import Graphs
from dataserver.home import MAIN, Home
from dataserver.store.readonly import ReadingStore, open_reading

__all__ = ["ReadingStore", "Source"]

#: Seconds after which the database and the settings are looked at anew, and for which nobody else
#: tries a database that was away a moment ago: it may take its time to answer that it is not there.
_OLD, _AWAY = 60.0, 3.0


class Source:
    """A home, as it is set up for one instance; used by many threads.

    ``clock`` gives epoch seconds.
    """

    def __init__(
        self,
        home: Home,
        environment: Mapping[str, str],
        instance: str = MAIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.home = home
        self.environment = environment
        self.instance = instance
        self._clock = clock
        self._looking = Lock()
        self._store: ReadingStore | None = None
        self._looked = float("-inf")
        self._failure: DataserverError | None = None

    def now(self) -> int:
        """Epoch seconds."""
        return int(self._clock())

    @property
    def zone(self) -> tzinfo:
        """The zone of local times, also while the database is away.  Raises ConfigError."""
        store = self._store
        if store is not None:
            return store.zone
        return load(self.home.instance(self.instance), self.environment).zone(self.environment)

    def store(self) -> ReadingStore:
        """The database.

        Raises StoreUnavailable and SchemaError, and ConfigError where the settings are no good.
        """
        store = self._store
        if store is not None and time.monotonic() - self._looked < _OLD:
            return store
        # One looks, the others have what there is, or wait no longer than a look takes.
        if store is not None and self._looking.locked():
            return store
        with self._looking:
            return self._look()

    def graphs(self) -> Graphs:
        """The graphs of the database; raises as :meth:`store`."""
        store = self.store()
        return Graphs(store.engine, store.layout, store.zone)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Whatever the block finds out about the database being away is remembered."""
        try:
            yield
        except StoreUnavailable as error:
            with self._looking:
                self._forget(error)
            raise

    def close(self) -> None:
        """Let go of the database."""
        with self._looking:
            self._drop()

    def _look(self) -> ReadingStore:
        now = time.monotonic()
        if self._store is not None and now - self._looked < _OLD:
            return self._store
        if self._failure is not None and now - self._looked < _AWAY:
            raise self._failure
        try:
            settings = load(self.home.instance(self.instance), self.environment)
            fresh = open_reading(settings, self.home.root)
        except DataserverError as error:
            self._forget(error)
            raise
        self._drop()
        self._store, self._failure, self._looked = fresh, None, time.monotonic()
        return fresh

    def _forget(self, error: DataserverError) -> None:
        self._drop()
        self._failure, self._looked = error, time.monotonic()

    def _drop(self) -> None:
        # Whoever still reads from it goes on: an engine let go of closes what comes back to it.
        if self._store is not None:
            self._store.close()
        self._store = None

"""The console's data source: one home and its database, reopened from time to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import tzinfo
from threading import Lock

from dataserver.config.load import load_for_reading
from dataserver.config.paths import MAIN, Home
from dataserver.errors import ConfigError, DataserverError, StoreUnavailable, UsageError
from dataserver.graphs.reading import Graphs
from dataserver.store.opening import ReadingStore, open_reading

#: Seconds after which the settings are read and the database is opened again, and after which an
#: unavailable database is tried again: a failure to connect may take long.
_OLD, _AWAY = 60.0, 3.0
#: Seconds for which other threads wait for the first opening of the database.
_PATIENCE = 2.0
#: Limits for connecting and for an answer, in seconds, if the servers' settings are higher:
#: servers can wait, users cannot.
_CONNECTING, _ANSWERING = 5.0, 15.0
_NO_ANSWER = "the database has not answered yet"


class Source:
    """A home and the database of one of its instances; used by many threads.

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
        #: Held while a thread opens the database; and for a moment, to change the state.
        self._looking, self._changing = Lock(), Lock()
        self._store: ReadingStore | None = None
        self._looked = float("-inf")
        self._failure: DataserverError | None = None

    def now(self) -> int:
        """Epoch seconds."""
        return int(self._clock())

    @property
    def zone(self) -> tzinfo:
        """The zone of local times, also while the database is unavailable.  Raises ConfigError."""
        store = self._store
        if store is not None:
            return store.zone
        return load_for_reading(self.home.instance(self.instance), self.environment).zone(
            self.environment
        )

    def store(self) -> ReadingStore:
        """The database.

        Raises StoreUnavailable and SchemaError, and ConfigError for invalid settings.
        """
        store, failure = self._store, self._failure
        if store is not None and time.monotonic() - self._looked < _OLD:
            return store
        # One thread opens it.  The others use the old one, or wait for a moment.
        known = store is not None or failure is not None
        if not self._looking.acquire(timeout=0 if known else _PATIENCE):
            if store is not None:
                return store
            raise _copy(failure) if failure else StoreUnavailable(_NO_ANSWER)
        try:
            return self._look()
        finally:
            self._looking.release()

    def graphs(self) -> Graphs:
        """The graphs of the database; raises as :meth:`store`."""
        store = self.store()
        return Graphs(store.engine, store.layout, store.zone)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """If the database is unavailable in the block, the next caller opens it again."""
        before = self._store
        try:
            yield
        except StoreUnavailable:
            with self._changing:
                # Unless another thread has reopened it: the error concerns the old one.
                if self._store is before:
                    self._drop()
            raise

    def close(self) -> None:
        """Close the database."""
        with self._changing:
            self._drop()

    def _look(self) -> ReadingStore:
        store, failure, since = self._store, self._failure, time.monotonic() - self._looked
        if store is not None and since < _OLD:
            return store
        if failure is not None and since < _AWAY:
            raise _copy(failure)
        try:
            fresh = self._opened()
        except DataserverError as error:
            with self._changing:
                self._drop()
                self._failure, self._looked = error, time.monotonic()
            raise
        with self._changing:
            self._drop()
            self._store, self._failure, self._looked = fresh, None, time.monotonic()
        return fresh

    def _opened(self) -> ReadingStore:
        try:
            settings = load_for_reading(self.home.instance(self.instance), self.environment)
        except UsageError as error:
            # The home or the instance existed when the console was started.
            raise ConfigError(error.message, hint=error.hint) from error
        bounded = replace(
            settings,
            connect_timeout=min(settings.connect_timeout, _CONNECTING),
            database_timeout=min(settings.database_timeout, _ANSWERING),
        )
        return open_reading(bounded, self.home.root, keep=True)

    def _drop(self) -> None:
        # Current readers go on: their connections are closed when they are returned.
        if self._store is not None:
            self._store.close()
        self._store = None


def _copy(error: DataserverError) -> DataserverError:
    """A new error of the same content: several threads may raise it at the same time."""
    return type(error)(error.message, hint=error.hint)

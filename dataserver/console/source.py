"""What the console reads: one home and its database, looked at anew where something changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import tzinfo
from threading import Lock

from dataserver.config.load import load_to_look
from dataserver.config.paths import MAIN, Home
from dataserver.errors import ConfigError, DataserverError, StoreUnavailable, UsageError
from dataserver.graphs.reading import Graphs
from dataserver.store.opening import ReadingStore, open_reading

__all__ = ["ReadingStore", "Source"]

#: Seconds after which the database and the settings are looked at anew, and for which nobody else
#: tries a database that was away a moment ago: it may take its time to answer that it is not there.
_OLD, _AWAY = 60.0, 3.0
#: Seconds for which others wait for whoever looks, where nothing is known yet.
_PATIENCE = 2.0
#: What a page waits for, in seconds, whatever the servers' settings are: to be connected, and for
#: an answer.  Servers have time; whoever looks has other pages to look at.
_CONNECTING, _ANSWERING = 5.0, 15.0
_NO_ANSWER = "the database has not answered yet"


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
        #: Held by the one that looks, which takes its time; and for a moment, to change what is
        #: known.
        self._looking, self._changing = Lock(), Lock()
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
        return load_to_look(self.home.instance(self.instance), self.environment).zone(
            self.environment
        )

    def store(self) -> ReadingStore:
        """The database.

        Raises StoreUnavailable and SchemaError, and ConfigError where the settings are no good.
        """
        store, failure = self._store, self._failure
        if store is not None and time.monotonic() - self._looked < _OLD:
            return store
        # One looks.  The others go on with what is known, or wait for a moment.
        known = store is not None or failure is not None
        if not self._looking.acquire(timeout=0 if known else _PATIENCE):
            if store is not None:
                return store
            raise _anew(failure) if failure else StoreUnavailable(_NO_ANSWER)
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
        """Whoever finds the database away in the block has it looked at anew by the next one."""
        before = self._store
        try:
            yield
        except StoreUnavailable:
            with self._changing:
                # Unless somebody has done so meanwhile: this was news of the one before.
                if self._store is before:
                    self._drop()
            raise

    def close(self) -> None:
        """Let go of the database."""
        with self._changing:
            self._drop()

    def _look(self) -> ReadingStore:
        store, failure, since = self._store, self._failure, time.monotonic() - self._looked
        if store is not None and since < _OLD:
            return store
        if failure is not None and since < _AWAY:
            raise _anew(failure)
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
            settings = load_to_look(self.home.instance(self.instance), self.environment)
        except UsageError as error:
            # The home or the instance was there when the console was started.
            raise ConfigError(error.message, hint=error.hint) from error
        bounded = replace(
            settings,
            connect_timeout=min(settings.connect_timeout, _CONNECTING),
            database_timeout=min(settings.database_timeout, _ANSWERING),
        )
        return open_reading(bounded, self.home.root, keep=True)

    def _drop(self) -> None:
        # Whoever still reads from it goes on: its connections are closed as they come back.
        if self._store is not None:
            self._store.close()
        self._store = None


def _anew(error: DataserverError) -> DataserverError:
    """The same error, which several threads raise at the same time."""
    return type(error)(error.message, hint=error.hint)

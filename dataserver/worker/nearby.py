"""Reading a few packets in the worker's own process, without growing by what they hold.

lxml remembers every tag name that it has met for as long as its thread lives, and names are
the uploaders' choice.  So packets are parsed in a thread that is replaced now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from dataserver.spool.files import SpoolFile
from dataserver.spool.intake import Load

#: Bytes of packets after which the thread is replaced.  A name takes some ten times the memory
#: that it takes in a packet.
LIFETIME = 4 * 2**20


class Nearby:
    """Does what ``load`` does, in a thread of its own; for one caller at a time."""

    def __init__(
        self, load: Callable[[Iterable[SpoolFile]], Load], lifetime: int = LIFETIME
    ) -> None:
        self._load = load
        self._lifetime = lifetime
        self._thread: ThreadPoolExecutor | None = None
        self._read = 0

    def load(self, files: Iterable[SpoolFile]) -> Load:
        """Everything that ``files`` hold."""
        if self._read >= self._lifetime:
            self.close()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        found = self._thread.submit(self._load, files).result()
        self._read += found.bytes
        return found

    def close(self) -> None:
        """End the thread; the next use starts another."""
        thread, self._thread, self._read = self._thread, None, 0
        if thread is not None:
            thread.shutdown()

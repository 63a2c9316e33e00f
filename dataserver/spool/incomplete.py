"""Incomplete files: when each is read again, and when it is rejected.

An upload may be slow or stall, so an incomplete file waits.  It is read again only after it
changed, and rejected when it has been quiet for ``incomplete_after`` seconds: unchanged for that
long on the monotonic clock since it was found, or, when it is found, not modified for
that long (so that a run that does not wait can reject old ones).  After that, file times
are compared only with each other, never with a clock, so setting the clock back or forward
makes no difference to a file that is being watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dataserver.spool.files import SpoolFile


class _Watched(NamedTuple):
    """An incomplete file as it was read, and since when (monotonic seconds) it is unchanged."""

    identity: tuple[int, int, int]
    quiet_since: float


class IncompleteFiles:
    """The incomplete files of a drop directory.

    ``incomplete_after`` in seconds; ``monotonic`` and ``clock`` (epoch) give seconds.
    """

    def __init__(
        self,
        incomplete_after: float,
        *,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._after = incomplete_after
        self._monotonic = monotonic
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def worth_reading(self, file: SpoolFile) -> bool:
        """Whether a listed file is unknown, or changed since it was found incomplete."""
        watched = self._watched.get(file.name)
        return watched is None or watched.identity != _identity(file)

    def add(self, file: SpoolFile) -> None:
        """Remember a file that was read (``file`` as read) and found incomplete."""
        known = self._watched.get(file.name)
        now = self._monotonic()
        if known is not None:
            if known.identity != _identity(file):
                self._watched[file.name] = _Watched(_identity(file), now)
            return
        is_old = self._clock() - file.mtime_ns / 1e9 >= self._after
        self._watched[file.name] = _Watched(_identity(file), now - self._after if is_old else now)

    def due(self, file: SpoolFile) -> bool:
        """Whether a known file has been unchanged for so long that it is to be rejected."""
        watched = self._watched.get(file.name)
        if watched is None or watched.identity != _identity(file):
            return False
        return self._monotonic() - watched.quiet_since >= self._after

    def forget(self, file: SpoolFile) -> None:
        """Remove a file that was completed or is gone."""
        self._watched.pop(file.name, None)

    def keep(self, listed: Iterable[SpoolFile]) -> None:
        """Forget every file that a scan no longer lists."""
        if self._watched:
            names = {file.name for file in listed}
            self._watched = {k: v for k, v in self._watched.items() if k in names}

    def next_due(self) -> float | None:
        """Seconds until the next file is due (0 or more), or None if no file is waiting."""
        if not self._watched:
            return None
        oldest = min(watched.quiet_since for watched in self._watched.values())
        return max(0.0, oldest + self._after - self._monotonic())


def _identity(file: SpoolFile) -> tuple[int, int, int]:
    return file.inode, file.size, file.mtime_ns

"""Wrong logins: whoever guesses a user's password gets a few guesses a minute."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

#: Wrong logins for one user from one address, and the seconds in which there may be as many.
_ALLOWED, _PERIOD = 10, 60.0
#: Users and addresses that are counted; of more the ones longest ago are forgotten.
_COUNTED = 10_000
#: Bytes of a name that are kept.
_NAME = 256


class _Count(NamedTuple):
    wrong: int
    since: float


class Failures:
    """Counts by address and user; for one thread.  ``monotonic`` gives seconds.

    By user too: behind a proxy all have one address, and who guesses at one user's password must
    not keep the others out.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: OrderedDict[tuple[str, bytes], _Count] = OrderedDict()

    def pause(self, address: str, name: bytes) -> int:
        """Seconds after which the next guess is taken; 0: now."""
        count = self._counts.get((address, name[:_NAME]))
        if count is None or count.wrong < _ALLOWED:
            return 0
        left = count.since + _PERIOD - self._monotonic()
        return max(0, -int(-left // 1))

    def add(self, address: str, name: bytes) -> None:
        """One was wrong."""
        key = (address, name[:_NAME])
        now = self._monotonic()
        count = self._counts.pop(key, _Count(0, now))
        if now - count.since >= _PERIOD:
            count = _Count(0, now)
        self._counts[key] = _Count(count.wrong + 1, count.since)
        if len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)

"""Waiting for what another process or thread does: for the event, never for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds after which a wait has failed: far more than anything takes on a machine that is ten
#: times slower than a developer's.  Nothing ever sleeps this long where all is well.
PATIENCE = 300.0


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    *,
    alive: Callable[[], bool] = lambda: True,
    seconds: float = PATIENCE,
    pause: float = 0.01,
) -> T:
    """Wait until ``condition()`` is true, and return what it gave.

    ``what`` is waited for; as a function it is asked only when the wait has failed, and may add
    what a process logged.  ``alive`` is False once nothing can come any more.  Raises
    AssertionError after ``seconds``, and at once where ``alive`` says so.
    """
    deadline = time.monotonic() + seconds
    while True:
        is_alive = alive()
        # Asked in this order: what a process does last is seen after its end.
        if found := condition():
            return found
        if not is_alive:
            raise AssertionError(f"it ended instead of: {_text(what)}")
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for: {_text(what)}")
        time.sleep(pause)


def _text(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()

"""Logging the refused parts of stored packets: the first few of a period, the rest summed up.

Which refusals are new is known from the database's table, also after a start.  The first few new
ones of a period are logged one by one.  All others, and everything that is refused again, are
summed up in one line: at the end of the period if some of them are new, otherwise once an hour.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dataserver.store.changes import FirstRefused, Tally

log = logging.getLogger(__name__)

#: Lines in one period at most, seconds of a period, and of one without new refusals.
FIRST, PERIOD, SELDOM = 20, 300.0, 3600.0
#: Characters of a name and of a value in a line.
_LONGEST = 100
#: What a sum counts, in the plural and the singular.
_PARTS = ("values or other parts of packets", "value or other part of a packet")


class RefusalLog:
    """Decides what is logged and when; ``monotonic`` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since = self._summed = monotonic()
        self._lines = 0
        #: How many refusals are to be summed up, and how many of them are new.
        self._count = self._new = 0

    def note(self, tally: Tally) -> None:
        """A transaction was committed."""
        if not tally.refused_by_reason:
            return
        now = self._monotonic()
        if now - self._since >= PERIOD:
            self._since, self._lines = now, 0
        logged = tally.first_refused[: max(0, FIRST - self._lines)]
        for each in logged:
            _log(each)
        self._lines += len(logged)
        if not self._count:
            self._summed = now
        self._count += tally.refused_by_reason.total() - len(logged)
        self._new += len(tally.first_refused) - len(logged)

    def run_due(self, *, everything: bool = False) -> None:
        """Log the sum if it is due, or in any case if ``everything``."""
        seconds = self._monotonic() - self._summed
        wait = PERIOD if self._new else SELDOM
        if not self._count or not (everything or seconds >= wait):
            return
        minutes = max(1, round(seconds / 60))
        span = "minute" if minutes == 1 else f"{minutes} minutes"
        new = f", {self._new} of them for the first time" if self._new else ""
        log.warning(
            "%d more %s refused in the last %s%s; `dataserver refused` lists all",
            self._count,
            _PARTS[self._count == 1],
            span,
            new,
        )
        self._count = self._new = 0


def _log(each: FirstRefused) -> None:
    extra = {
        "agent": each.agent[:_LONGEST],
        "module_name": each.module[:_LONGEST] or None,
        "value": each.value[:_LONGEST],
        "reason": each.reason.value,
    }
    log.warning("refused: %s; %s", each.reason.text, each.reason.remedy, extra=extra)

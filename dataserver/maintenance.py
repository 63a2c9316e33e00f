"""What has to be done now and then: fold the ledger, look after the rejected packets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from dataserver.settings import Settings
from dataserver.spool.rejected import Rejected
from dataserver.store import ledger
from dataserver.store.errors import translating
from dataserver.store.sql import Sql

log = logging.getLogger(__name__)

#: Seconds between two rounds.
EVERY = 60.0


class Maintenance:
    """Does a little of everything that is due; called by the worker between two batches."""

    def __init__(
        self,
        engine: Engine,
        rejected: Rejected,
        settings: Settings,
        monotonic: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._sql = Sql(engine.dialect)
        self._rejected = rejected
        self._settings = settings
        self._monotonic = monotonic
        self._clock = clock
        self._last = monotonic()
        #: How far the present pass through the agents has come.
        self._after = 0

    def due(self) -> bool:
        """Whether the last round is long enough ago."""
        return self._monotonic() - self._last >= EVERY

    def round(self) -> int:
        """One round; how many rejected packets were dropped.  Raises StoreError, OSError."""
        self._last = self._monotonic()
        settings = self._settings
        for name in self._rejected.return_completed(Path(settings.data_in)):
            log.info("%a was completed after it was rejected as incomplete: it is read again", name)
        dropped = self._rejected.prune(settings.rejected_max_days, settings.rejected_max_bytes)
        with translating("fold the ledger"), self._engine.begin() as conn:
            now, days = int(self._clock()), settings.ledger_days
            self._after = ledger.fold(conn, self._sql, days, now, self._after) or 0
        return dropped

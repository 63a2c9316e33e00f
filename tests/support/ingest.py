"""Taking packets into a store inside a test's process, as the worker does with one batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from zoneinfo import ZoneInfo

from dataserver import packet
from dataserver.model import Arrival
from dataserver.store.learning import Rules
from dataserver.store.probe import prepare
from dataserver.store.recorder import Outcome, Recorder
from dataserver.times import packet_time
from tests.support.databases import Database
from tests.support.golden import number

ZONE = ZoneInfo("UTC")
#: A packet's times in the cases are around these; the clock when it is taken in is later.
NOW = 1_800_000_000


class Ingest:
    """Records packets into one database, a batch at a time, with the settings of the cases."""

    def __init__(self, database: Database) -> None:
        engine = database.engine()
        self.recorder = Recorder(
            engine,
            prepare(engine),
            zone=ZONE,
            rules=Rules("ingest", update_parent=False),
            longest_text=16_000_000,
            ledger_days=3650,
        )
        self.rejected: list[str] = []

    def take_in(self, files: Iterable[tuple[Path, int | None]]) -> list[Outcome]:
        """Record these files, with the modification time that they count as having."""
        return self.record(
            arrival(file.read_bytes(), number(file), modified or NOW) for file, modified in files
        )

    def record(self, arrivals: Iterable[Arrival]) -> list[Outcome]:
        """Record these packets in one transaction."""
        outcomes, _ = self.recorder.record(list(arrivals), NOW)
        self.rejected += [str(outcome.error) for outcome in outcomes if outcome.error]
        return outcomes


def arrival(content: bytes, file_number: int = 0, modified: int = NOW) -> Arrival:
    """A packet as the worker hands it to the store."""
    parsed = packet.parse(content)
    time = packet_time(parsed, zone=ZONE, number=file_number, modified=modified)
    return Arrival(parsed, time, file_number, modified)

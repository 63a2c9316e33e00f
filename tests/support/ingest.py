"""Taking packets into a store inside a test's process: through the worker, or past it.

:class:`Instance`  files in a drop directory, for the real worker
:class:`Ingest`    packets straight into the recorder, a batch at a time
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from dataserver.config import load
from dataserver.config.paths import Home
from dataserver.ingest.pipeline import Pipeline
from dataserver.ingest.report import Report
from dataserver.ingest.worker import run
from dataserver.model import Arrival
from dataserver.packet import parse
from dataserver.rules.times import packet_time
from dataserver.runtime.heartbeat import Heartbeat
from dataserver.spool.rejected import Rejected
from dataserver.store.admission import Outcome
from dataserver.store.agents import AutoCreatePolicy
from dataserver.store.probe import prepare
from dataserver.store.recorder import Recorder
from tests.support.databases import Database

ZONE = ZoneInfo("UTC")
#: A packet's times in the cases are around these; the clock when it is taken in is later.
NOW = 1_800_000_000


class Instance:
    """A home with one instance, set up as the golden cases were made; it runs when told to."""

    #: No packet of a case is in the future or too old, whenever the test runs.
    SETTINGS: Mapping[str, object] = {
        "server_name": "ingest",
        "timezone": "UTC",
        "autocreate_group": 10,
        "max_ahead": 3650 * 86_400,
        "ledger_days": 3650,
    }

    def __init__(self, database: Database, **settings: object) -> None:
        home = Home(database.home)
        self.paths = home.instance()
        self.paths.folder.mkdir(parents=True)
        shared = {"database": database.url, **self.SETTINGS, **settings}
        home.config.write_text(_toml(shared), encoding="utf-8")
        self.paths.config.write_text('data_in = "data_in"\n', encoding="utf-8")
        self.data_in = self.paths.folder / "data_in"
        self.data_in.mkdir()
        self._database = database

    def place(self, files: Iterable[tuple[Path, int | None]]) -> None:
        """Copy files into the drop directory, with the modification time that they must have."""
        for file, modified in files:
            copy = self.data_in / file.name
            shutil.copyfile(file, copy)
            if modified is not None:
                os.utime(copy, (modified, modified))

    def run_once(self) -> None:
        """Take in what is there, as a process that ends then."""
        run(load.load(self.paths, {}), self.paths, once=True)

    @contextlib.contextmanager
    def one_process(self) -> Iterator[Pipeline]:
        """A process that goes on: each step takes in what is there; what it knows stays."""
        report = Report(self.paths, time.time, time.monotonic, os.getpid())
        heartbeat = Heartbeat(self.paths.heartbeat, report.run)
        settings, engine = load.load(self.paths, {}), self._database.engine()
        with Pipeline(settings, engine, report, heartbeat, lambda _: False, patient=False) as own:
            yield own

    @property
    def rejected(self) -> list[str]:
        """What was set aside, and why."""
        return [f"{it.name}: {it.detail}" for it in Rejected(self.paths.rejected).list()]


def _toml(values: Mapping[str, object]) -> str:
    # JSON's texts, numbers and booleans are TOML's too.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class Ingest:
    """Records packets into one database, a batch at a time, with the settings of the cases."""

    def __init__(self, database: Database, zone: tzinfo = ZONE) -> None:
        engine = database.engine()
        self.recorder = Recorder(
            engine,
            prepare(engine),
            zone=zone,
            learning=AutoCreatePolicy("ingest", update_parent=False),
            longest_text=16_000_000,
            ledger_days=3650,
        )
        self.rejected: list[str] = []

    def record(self, arrivals: Iterable[Arrival]) -> list[Outcome]:
        """Record these packets in one transaction."""
        outcomes, _ = self.recorder.record(list(arrivals), NOW)
        self.rejected += [str(outcome.error) for outcome in outcomes if outcome.error]
        return outcomes


def arrival(content: bytes, file_number: int = 0, modified: int = NOW) -> Arrival:
    """A packet as the worker hands it to the store."""
    parsed = parse.parse(content)
    time = packet_time(parsed, zone=ZONE, number=file_number, modified=modified)
    return Arrival(parsed, time, file_number, modified)

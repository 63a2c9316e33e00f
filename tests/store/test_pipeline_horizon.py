"""What a session tells the other servers of the packets that wait at it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from dataserver.config import load
from dataserver.config.paths import Home
from dataserver.errors import SpoolError
from dataserver.ingest.pipeline import Pipeline
from dataserver.ingest.report import Report
from dataserver.runtime.heartbeat import Heartbeat
from dataserver.store import schema
from dataserver.store.database import open_engine

HOUR = 3_600


@pytest.mark.parametrize("content", [b"<agent_data></agent_data>", b"<a/>\0</agent_data>"])
def test_a_bad_packet_that_cannot_be_set_aside_stops_no_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    home = Home(tmp_path)
    home.config.write_text('database = "sqlite:///data.db"\n', encoding="utf-8")
    paths = home.instance()
    (paths.folder / "data_in").mkdir(parents=True)
    paths.config.write_text('data_in = "data_in"\n', encoding="utf-8")
    bad = paths.folder / "data_in" / "bad.1.data"
    bad.write_bytes(content)
    os.utime(bad, (time.time() - HOUR,) * 2)
    report = Report(paths, time.time, time.monotonic, os.getpid())
    heartbeat = Heartbeat(paths.heartbeat, report.run)
    engine = open_engine("sqlite:///data.db", home=tmp_path)
    settings = load.load(paths, {})
    with Pipeline(settings, engine, report, heartbeat, lambda _: False, patient=True) as session:
        monkeypatch.setattr(session.spool, "reject", _refuse)
        session.step()
        with engine.connect() as conn:
            c = schema.server_process.c
            assert conn.execute(select(c.queue, c.oldest)).all() == [(1, None)]
    engine.dispose()
    assert bad.exists()


def _refuse(*_: object, **__: object) -> bool:
    raise SpoolError("the disk is full")

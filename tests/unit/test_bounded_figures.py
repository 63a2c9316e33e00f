"""What an uploader may make the worker's figures grow by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.ingest.pipeline import count_bounded
from dataserver.ingest.report import Report
from dataserver.model import Packet
from tests.support.clock import Clocks


def test_sections_are_counted_by_name() -> None:
    counts = Counter(log_module=1)
    count_bounded(counts, {"log_module": 2, "traps": 3})
    assert counts == {"log_module": 3, "traps": 3}


def test_any_number_of_names_makes_only_a_few_figures() -> None:
    counts: Counter[str] = Counter()
    for number in range(1_000):
        count_bounded(counts, {f"section{number}": 1, "x" * 100_000: 1})
    assert len(counts) < 100
    assert max(map(len, counts)) < 100
    assert counts.total() == 2_000


def test_any_number_of_agents_whose_packets_are_mended_makes_a_bounded_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = Clocks()
    report = Report(Home(tmp_path).instance("main"), clocks.wall, clocks.monotonic, 1)
    for number in range(2_000):
        report.log_remarks(Packet(f"{number}" + "x" * 10_000, b"", remarks=("it was mended",)))
        report.log_remarks(Packet("0" + "x" * 10_000, b"", remarks=("it was mended",)))
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith("x': it was mended")
    assert "further ones are not logged" in told[-1]
    assert len(told) < 1_000
    assert max(map(len, told)) < 300


def test_agents_whose_long_names_begin_alike_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = Clocks()
    report = Report(Home(tmp_path).instance("main"), clocks.wall, clocks.monotonic, 1)
    for number in range(5):
        name = f"{'<script>' * 100_000}{number}"
        report.log_remarks(Packet(name, b"", remarks=("it was mended",)))
    assert len(caplog.records) == 1

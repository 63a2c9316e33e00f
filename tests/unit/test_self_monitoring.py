"""Self-monitoring: from figures to a packet, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.errors import PacketError, Reason, StoreRefused
from dataserver.ingest.report import Report
from dataserver.ingest.self_monitoring import (
    Figures,
    SelfMonitoring,
    free_percent,
    process_name,
    report_packet,
)
from dataserver.model import Arrival, Module, Packet
from dataserver.rules.values import parse_number
from dataserver.store.recorder import Outcome
from tests.support.clock import Clocks

NOW = 1_800_000_000
FULL = Figures(1, 2, 3.5, 4.25, 5.5, 6, 7, 8, 9.5, 10.5, 11.5)


class Desk:
    """A recorder and its delivery in one, both stand-ins."""

    def __init__(self, error: PacketError | None = None, *, refuses: bool = False) -> None:
        self.error = error
        self.delivered: list[Arrival] = []
        self._refuses = refuses

    def newest(self, names: list[str]) -> dict[str, tuple[int, int]]:
        if self._refuses:
            raise StoreRefused("not such a name")
        return {}

    def retry(self, action: Callable[[], object]) -> object:
        return action()

    def deliver(self, arrivals: list[Arrival]) -> list[tuple[Arrival, Outcome]]:
        self.delivered += arrivals
        return [(arrival, Outcome(error=self.error)) for arrival in arrivals]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks(NOW, 50.0)


@pytest.fixture
def report(clocks: Clocks, tmp_path: Path) -> Report:
    paths = Home(tmp_path).instance("main")
    return Report(paths, clocks.wall, clocks.monotonic, 1)


def internals(
    report: Report,
    tmp_path: Path,
    *,
    tactical: dict[str, float] | None = None,
    **settings: object,
) -> SelfMonitoring:
    wanted = {"self_monitoring": True, "data_in": tmp_path, **settings}
    return SelfMonitoring(
        Settings(**wanted),  # type: ignore[arg-type]
        report,
        lambda _: dict(tactical or {}),
        host=lambda: "host1",
    )


def packet(figures: Figures = FULL, process: str = "host1/main", time: int = NOW) -> Packet:
    return report_packet(
        figures, agent="pandora.internals", process=process, interval=300, time=time
    )


def by_name(found: Packet) -> dict[str, Module]:
    return {module.name.removeprefix("host1/main "): module for module in found.modules}


def test_every_figure_becomes_a_module_of_its_process() -> None:
    found = packet()
    assert found.agent_name == "pandora.internals"
    assert found.interval == "300"
    assert all(module.name.startswith("host1/main ") for module in found.modules)
    values = [float(module.value or "") for module in found.modules]
    assert values == [1, 2, 3.5, 4.25, 5.5, 6, 7, 8, 9.5, 10.5, 11.5]
    assert len({module.name for module in found.modules}) == len(values)
    assert all(parse_number(module.value or "") is not None for module in found.modules)
    assert all(module.tags["description"] for module in found.modules)


def test_what_is_not_known_is_left_out() -> None:
    assert list(by_name(packet(Figures(status=1, queue=0)))) == ["Status", "Queued packets"]


def test_the_thresholds_warn_before_they_are_critical() -> None:
    modules = by_name(packet())
    assert modules["Status"].type == "generic_proc"
    free = modules["Free disk"].tags
    assert (free["min_warning"], free["max_warning"]) == ("0", "15")
    assert (free["min_critical"], free["max_critical"]) == ("0", "5")
    oldest = modules["Oldest queued packet"].tags
    assert float(oldest["min_warning"]) < float(oldest["min_critical"])
    assert "min_warning" not in modules["Queued packets"].tags


def test_two_reports_are_two_packets_and_one_is_one() -> None:
    assert packet().digest == packet().digest
    others = (packet(process="host2/main"), packet(time=NOW + 1), packet(Figures(status=1)))
    assert len({packet().digest, *(each.digest for each in others)}) == 4
    assert len(packet().digest) == 16


def test_a_hosts_name_is_made_fit_for_a_modules() -> None:
    names = {
        "web-1.example.org": "web-1.example.org/main",
        "a b\n<script>/c": "a-b-script-c/main",
        "": "localhost/main",
        "h" * 500: "h" * 64 + "/main",
    }
    assert {host: process_name(host, "main") for host in names} == names


def test_it_is_due_at_once_and_after_each_interval_whatever_became_of_the_report(
    report: Report, clocks: Clocks, tmp_path: Path
) -> None:
    reports = internals(report, tmp_path, self_monitoring_interval=60)
    desk = Desk()
    times = []
    for _ in range(200):
        if reports.due():
            times.append(clocks.monotonic.now)
            desk.error = PacketError(Reason.NO_AGENT, "not known") if len(times) % 2 else None
            reports.run(desk, desk)  # type: ignore[arg-type]
        clocks.advance(1)
    assert times == [50, 110, 170, 230]
    assert len(desk.delivered) == 4
    assert report.counters.commit_seconds.count == 4


def test_where_it_is_off_it_is_never_due(report: Report, tmp_path: Path) -> None:
    assert not internals(report, tmp_path, self_monitoring=False).due()


def test_a_report_that_is_refused_is_told_once(
    report: Report, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports = internals(report, tmp_path)
    desk = Desk(PacketError(Reason.NO_AGENT, "the agent is not known and autocreate is off"))
    for _ in range(5):
        reports.run(desk, desk)  # type: ignore[arg-type]
    [said] = caplog.messages
    assert "pandora.internals" in said
    assert "autocreate is off" in said


def test_an_agent_that_cannot_be_asked_for_costs_a_report_only(
    report: Report, tmp_path: Path
) -> None:
    reports = internals(report, tmp_path)
    desk = Desk(refuses=True)
    reports.run(desk, desk)  # type: ignore[arg-type]
    assert desk.delivered == []
    assert not reports.due()


def test_rates_and_counts_are_of_the_time_since_the_report_before(
    report: Report, clocks: Clocks, tmp_path: Path
) -> None:
    reports = internals(report, tmp_path)
    report.counters.packets, report.counters.samples = 1_000_000, 9_000_000
    first = by_name(reports.arrival(None).packet)
    assert not {"Packet rate", "Value rate", "Rejected packets", "Database latency"} & set(first)
    clocks.advance(300)
    report.counters.packets += 600
    report.counters.samples += 3000
    report.counters.rejected["malformed"] += 2
    report.counters.rejected["clock"] += 1
    report.counters.commit_seconds.observe(0.2)
    report.counters.commit_seconds.observe(0.4)
    report.gauges.queue = 17
    second = by_name(reports.arrival(None).packet)
    assert second["Packet rate"].value == "2.000"
    assert second["Value rate"].value == "10.000"
    assert second["Rejected packets"].value == "3.000"
    assert second["Database latency"].value == "300.000"
    assert second["Queued packets"].value == "17.000"
    clocks.advance(300)
    third = by_name(reports.arrival(None).packet)
    assert third["Rejected packets"].value == "0.000"
    assert "Database latency" not in third


def test_a_report_is_not_older_than_anothers_whose_clock_is_ahead(
    report: Report, tmp_path: Path
) -> None:
    later = {None: 0, NOW - 40: 0, NOW: 0, NOW + 7: 7, NOW + 300: 300, NOW + 86_400: 0}
    found = {newest: internals(report, tmp_path).arrival(newest).time for newest in later}
    assert found == {newest: NOW + seconds for newest, seconds in later.items()}


def test_the_free_share_is_that_of_the_file_system(tmp_path: Path) -> None:
    free = free_percent(tmp_path)
    assert free is not None
    assert 0 <= free <= 100
    assert free_percent(tmp_path / "missing") is None


def test_a_file_system_without_free_inodes_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Found:
        f_bavail, f_blocks, f_favail, f_files = 50, 100, 3, 100

    monkeypatch.setattr("os.statvfs", lambda _: Found)
    assert free_percent(tmp_path) == 3
    Found.f_files = Found.f_favail = 0
    assert free_percent(tmp_path) == 50


# -- figures of the whole database ---------------------------------------------------


def test_figures_of_the_database_are_called_as_the_console_looks_for_them(
    report: Report, tmp_path: Path
) -> None:
    told = {"total_modules": 12.0, "mysql_questions_reads": 7e9, "not told": 1.0}
    desk = Desk()
    internals(report, tmp_path, tactical=told).run(desk, desk)  # type: ignore[arg-type]
    modules = by_name(desk.delivered[0].packet)
    assert modules["total_modules"].value == "12.000"
    reads = modules["mysql_questions_reads"]
    assert (reads.type, reads.value) == ("generic_data_inc_abs", "7000000000.000")
    assert float(modules["CPU Load"].value or "") >= 0
    assert "not told" not in modules


def test_a_process_that_does_not_report_on_the_database_says_nothing_of_it(
    report: Report, tmp_path: Path
) -> None:
    desk = Desk()
    internals(report, tmp_path).run(desk, desk)  # type: ignore[arg-type]
    names = [module.name for module in desk.delivered[0].packet.modules]
    assert names
    assert all(name.startswith("host1/main ") for name in names)


def test_figures_that_cannot_be_read_are_left_out_and_told_once(
    report: Report, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int) -> dict[str, float]:
        raise StoreRefused("no right to ask")

    settings = Settings(self_monitoring=True, data_in=tmp_path)
    reports, desk = SelfMonitoring(settings, report, refuse), Desk()
    for _ in range(3):
        reports.run(desk, desk)  # type: ignore[arg-type]
    assert len(desk.delivered) == 3
    assert caplog.messages == [
        "the report on this server has no figures of the database: no right to ask"
    ]

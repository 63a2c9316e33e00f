"""Alerts, which this server does not evaluate: said at once, everywhere, and no reason to stop."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.errors import SchemaError
from dataserver.ingest.periodic import DatabaseJobs
from dataserver.ingest.report import Report
from dataserver.runtime.heartbeat import Trouble
from dataserver.store.processes import ProcessStats
from tests.support.clock import Clocks
from tests.support.commands import Run
from tests.support.databases import Database
from tests.support.packets import START, module, packet
from tests.support.server import Place, Server

ALERT = "INSERT INTO talert_template_modules (id_agent_module, id_alert_template) VALUES ({}, 1)"


@pytest.fixture
def place(tmp_path: Path, pandora_database: Database) -> Place:
    return Place(tmp_path / "home", pandora_database.url, cache_seconds=1)


def define(database: Database, *modules: int) -> None:
    """An operator of the console defines an alert for each of these modules."""
    with database.engine().begin() as conn:
        for number in modules:
            conn.execute(text(ALERT.format(number)))


def delete(database: Database) -> None:
    with database.engine().begin() as conn:
        conn.execute(text("DELETE FROM talert_template_modules"))


def test_alerts_are_counted_each_cache_seconds_and_said_once(
    pandora_database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    time = Clocks(1_800_000_000.0, 1000.0)
    report = Report(Home(tmp_path).instance(), time.wall, time.monotonic, 42)
    jobs = DatabaseJobs(
        pandora_database.engine(),
        pandora_database.prepare(),
        Settings(cache_seconds=10),
        ZoneInfo("UTC"),
        report,
        ProcessStats,
        [],
    )
    found = []
    for change in ([], [1], [2, 3], None):
        if change is None:
            delete(pandora_database)
        else:
            define(pandora_database, *change)
        time.advance(10.0)
        assert jobs.due()
        jobs.run_due()
        found.append((report.gauges.alerts_not_evaluated, Trouble.ALERTS in report.troubles))
    assert found == [(0, False), (1, True), (3, True), (0, False)]
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in told] == ["alerts are not evaluated", "resolved"]


@pytest.mark.long
def test_an_alert_of_a_running_server_is_said_everywhere_and_does_not_hinder_its_next_start(
    place: Place, pandora_database: Database, dataserver: Run
) -> None:
    home = ("--home", place.home.root)
    with Server(place) as server:
        server.wait_ready()
        define(pandora_database, 1)
        server.wait(lambda: "alerts" in server.status.get("troubles", {}), "a word about it")
        assert "1 alert is defined in the console" in dataserver("status", *home).stdout
        health = dataserver("health", *home)
        assert health.returncode == 0
        assert "healthy: alerts are not evaluated" in health.stdout
        (row,) = json.loads(dataserver("instances", "list", "--json", *home).stdout)["instances"]
        assert (row["state"], "alerts: 1 alert" in row["detail"]) == ("running", True)
        metric = 'dataserver_alerts_not_evaluated{instance="main",server="dataserver"} 1'
        assert metric in server.paths.metrics.read_text()
        define(pandora_database, 2, 3)
        server.wait(lambda: server.status["gauges"]["alerts_not_evaluated"] == 3, "all of them")
        assert "3 alerts are defined" in server.status["troubles"]["alerts"]["error"]
        assert server.log.count("alerts are not evaluated") == 1
        assert server.stop() == 0
        server.start()
        server.wait(lambda: "alerts" in server.status.get("troubles", {}), "a word about it")
        place.drop("a.1.data", packet("a", module("load", "1"), time=START))
        server.wait_taken()
        delete(pandora_database)
        server.wait(lambda: not server.status["troubles"], "no trouble any more")
        assert server.stop() == 0


def test_a_first_start_on_a_database_with_alerts_is_refused_unless_they_may_rest(
    place: Place, pandora_database: Database, dataserver: Run
) -> None:
    define(pandora_database, 1, 2)
    name = place.drop("a.1.data", packet("a", module("load", "1"), time=START)).name
    run = ("run", "--once", "--home", place.home.root)
    refused = dataserver(*run)
    assert refused.returncode == SchemaError.exit_code
    assert "2 alerts are defined in the console" in refused.stderr
    assert "accept_no_alerts = true" in refused.stderr
    assert place.packets_left() == [name]
    place.configure(accept_no_alerts=True)
    accepted = dataserver(*run)
    assert accepted.returncode == 0
    rests = "2 alerts are defined in the console, which this server does not evaluate (accept"
    assert accepted.stderr.count(rests) == 1
    assert "alerts are not evaluated" not in accepted.stderr
    assert place.packets_left() == []
    place.configure(accept_no_alerts=False)
    again = dataserver(*run)
    assert again.returncode == 0
    assert again.stderr.count("alerts are not evaluated: ") == 1

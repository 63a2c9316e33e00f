"""What servers report on themselves, and events of rejected packets, as the database has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.schema import DropTable

from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.errors import Reason
from dataserver.ingest import rejection_events, self_monitoring
from dataserver.ingest.delivery import Delivery
from dataserver.ingest.rejection_events import FIRST, PERIOD, RejectionEvents
from dataserver.ingest.report import Report
from dataserver.ingest.self_monitoring import SelfMonitoring
from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.tactical import Tactical
from tests.support.clock import Clock
from tests.support.databases import PANDORA, SQLITE, Database
from tests.support.ingest import NOW, ZONE, Ingest
from tests.support.kinds import database_of
from tests.support.packets import arrival_at

AGENT = "pandora.internals"

database = database_of(SQLITE, PANDORA)


class Process:
    """One server process: its clock, its figures, its way to the database."""

    def __init__(self, database: Database, host: str, home: Path, ahead: int = 0) -> None:
        self.clock = Clock(NOW + ahead)
        self.store = Ingest(database)
        self.report = Report(Home(home).instance("main"), self.clock, self.clock, 1)
        self.report.gauges.database_up = 1
        settings = Settings(self_monitoring=True, data_in=home)
        engine = database.engine()
        # Its lease is by the clock of the test.
        self.tactical = Tactical(
            engine,
            self.store.recorder.layout,
            host,
            float(settings.self_monitoring_interval),
            clock=lambda _: float(self.clock()),
        )
        self.internals = SelfMonitoring(
            settings, self.report, self.tactical.read, host=lambda: host
        )
        self.delivery = Delivery(
            self.store.recorder,
            clock=self.clock,
            pause=lambda _: False,
            on_failure=lambda *_: None,
            on_success=self.report.note_stored,
        )
        self.teller = RejectionEvents(engine, self.store.recorder.layout, ZONE, self.report)

    def tell(self) -> None:
        self.internals.run(self.store.recorder, self.delivery)


class Rows:
    """What the database holds of it."""

    def __init__(self, database: Database) -> None:
        self.engine = database.engine()

    def modules(self) -> dict[str, tuple[str, int]]:
        """Value and status of each module by its name."""
        m, s = schema.module.c, schema.state.c
        query = select(m.name, s.value, s.status).join_from(
            schema.module, schema.state, s.module_id == m.id
        )
        with self.engine.connect() as conn:
            found = conn.execute(query).all()
        assert len({row.name for row in found}) == len(found)
        return {entities.decode(row.name): (row.value, row.status) for row in found}

    def texts(self, kind: str) -> list[str]:
        """The events of a type, in their order."""
        c = schema.event.c
        query = select(c.text).where(c.type == kind).order_by(c.id)
        with self.engine.connect() as conn:
            return [entities.decode(text) for text in conn.scalars(query)]

    def agents(self) -> list[str]:
        with self.engine.connect() as conn:
            return list(conn.scalars(select(schema.agent.c.name)))


@pytest.fixture
def one(database: Database, tmp_path: Path) -> Process:
    return Process(database, "host1", tmp_path)


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database)


def test_a_report_is_an_agents_packet_with_units_and_thresholds(one: Process, rows: Rows) -> None:
    one.report.gauges.queue = 7
    one.tell()
    assert rows.agents() == [AGENT]
    modules = rows.modules()
    assert modules["host1/main Status"] == ("1.00000", 0)
    assert modules["host1/main Queued packets"] == ("7.00000", 0)
    c = schema.module.c
    query = select(c.unit, c.min_warning, c.max_warning, c.max_critical, c.module_interval).where(
        c.name == entities.encode("host1/main Free disk")
    )
    with rows.engine.connect() as conn:
        assert tuple(conn.execute(query).one()) == ("%", 0, 15, 5, 300)
    assert one.report.counters.packets == 1


def test_the_thresholds_tell(one: Process, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, unreadable, oldest in ((50, 0, 0), (10, 2, 700), (2, 0, 4000), (90, 0, 1)):
        monkeypatch.setattr(self_monitoring, "free_percent", lambda _, free=free: free)
        one.report.gauges.unreadable, one.report.gauges.oldest_age_seconds = unreadable, oldest
        one.tell()
        one.clock.advance(300)
    assert rows.texts("going_up_warning") == [
        "Module 'host1/main Oldest queued packet' is going to WARNING (700)",
        "Module 'host1/main Unreadable packets' is going to WARNING (2)",
        "Module 'host1/main Free disk' is going to WARNING (10)",
    ]
    assert rows.texts("going_up_critical") == [
        "Module 'host1/main Oldest queued packet' is going to CRITICAL (4000)",
        "Module 'host1/main Free disk' is going to CRITICAL (2)",
    ]
    assert {status for _, status in rows.modules().values()} == {0}


def test_two_hosts_share_the_agent_and_neither_is_late_nor_held(
    database: Database, one: Process, rows: Rows, tmp_path: Path
) -> None:
    two = Process(database, "host2", tmp_path, ahead=40)
    for turn in range(4):
        # The one whose clock is ahead comes first.
        for process in (two, one):
            process.report.gauges.unreadable = turn % 2
            process.tell()
            process.clock.advance(300)
    assert one.report.counters.packets == two.report.counters.packets == 4
    assert one.report.counters.late == two.report.counters.late == 0
    names = [name.split()[0] for name in rows.modules()]
    assert names.count("host1/main") == names.count("host2/main") == 11
    # A late one would change the status and tell nobody.
    for host in ("host1", "host2"):
        told = f"Module '{host}/main Unreadable packets' is going to WARNING (1)"
        assert rows.texts("going_up_warning").count(told) == 2
    assert rows.agents() == [AGENT]


def test_an_agent_that_was_deleted_comes_back(one: Process, rows: Rows) -> None:
    one.tell()
    with rows.engine.begin() as conn:
        conn.execute(delete(schema.state))
        conn.execute(delete(schema.module))
        conn.execute(delete(schema.agent))
    one.clock.advance(300)
    one.tell()
    assert rows.agents() == [AGENT]
    assert rows.modules()["host1/main Status"] == ("1.00000", 0)


# -- figures of the whole database ---------------------------------------------------

OF_DATABASE = {
    *("total_modules", "total_groups", "total_notinit", "total_unknown", "last_events_24h"),
    *("total_string_data", "mysql_size_of_data", "mysql_questions_reads"),
    *("mysql_questions_writes", "CPU Load"),
}


def of_database(rows: Rows) -> dict[str, float]:
    """The values of the modules that are no process's own; those without a value are left out."""
    m, s, a = schema.module.c, schema.state.c, schema.agent.c
    query = select(m.name, s.value).where(
        s.module_id == m.id, m.agent_id == a.id, a.name == AGENT, s.value != ""
    )
    with rows.engine.connect() as conn:
        found = {entities.decode(row[0]): float(row[1]) for row in conn.execute(query)}
    return {name: value for name, value in found.items() if "/" not in name}


def test_a_consoles_tactical_view_has_its_figures(
    pandora_database: Database, tmp_path: Path
) -> None:
    one, rows = Process(pandora_database, "host1", tmp_path), Rows(pandora_database)
    sent = {"load": "1", "name": "text", "never": ""}
    one.store.record([arrival_at(0, sent, agent=f"web{number}") for number in range(4)])
    a, e = schema.agent.c, schema.event.c
    with rows.engine.begin() as conn:
        counts = {"total_count": 7, "notinit_count": 2, "unknown_count": 3, "critical_count": 0}
        conn.execute(update(schema.agent).values(counts))
        conn.execute(update(schema.agent).where(a.name == "web1").values(critical_count=1))
        conn.execute(update(schema.agent).where(a.name == "web2").values(disabled=1))
        conn.execute(delete(schema.event))
        for ago in (0, 86_399, 86_400, 900_000):
            conn.execute(insert(schema.event).values({e.time.key: NOW - ago, e.type.key: "system"}))
        groups = len(conn.execute(select(schema.group)).all())
    one.tell()
    found = of_database(rows)
    # Counters have a value from the second report on.
    assert found.keys() == OF_DATABASE - {"mysql_questions_reads", "mysql_questions_writes"}
    assert (found["total_modules"], found["total_notinit"]) == (21, 6)
    assert (found["total_unknown"], found["total_groups"]) == (2, groups)
    assert found["last_events_24h"] == 2
    assert 0 < found["mysql_size_of_data"] < 1_000
    one.clock.advance(300)
    one.tell()
    later = of_database(rows)
    assert later.keys() == OF_DATABASE
    # Between two reports there are a few statements, not all since the server began.
    assert 0 < later["mysql_questions_reads"] < 100_000
    assert 0 < later["mysql_questions_writes"] < 100_000


def test_one_process_of_all_reports_on_the_database_and_another_takes_over(
    pandora_database: Database, tmp_path: Path
) -> None:
    one, two = (Process(pandora_database, host, tmp_path) for host in ("host1", "host2"))
    reporting = []
    for turn in range(6):
        # The first one stops after four reports.
        told = turn < 4 and bool(one.tactical.read(NOW))
        reporting.append((told, bool(two.tactical.read(NOW))))
        for process in (one, two):
            process.clock.advance(300)
    assert reporting == [(True, False)] * 4 + [(False, True)] * 2
    # It stops in good order: nobody has to wait.
    two.tactical.leave()
    assert one.tactical.read(NOW)
    assert not two.tactical.read(NOW)


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_a_database_of_our_own_has_no_tactical_view(one: Process, rows: Rows) -> None:
    one.tell()
    assert of_database(rows) == {}


# -- events of rejected packets ------------------------------------------------------


def test_a_rejected_packet_is_an_error_event_of_its_agent(one: Process, rows: Rows) -> None:
    one.store.record([arrival_at(0, {"load": "1"}, agent="web 1")])
    one.teller.throttle.note(Reason.CLOCK, "web.7.data", "its clock <is> wrong", "web 1")
    one.teller.throttle.note(Reason.CLOCK, "no.7.data", "wrong", "nobody")
    one.teller.throttle.note(Reason.MALFORMED, "\udcff\n.7.data", "no agent", None)
    one.teller.run_due()
    assert rows.texts("error") == [
        "Unable to process XML data file 'web.7.data': its clock <is> wrong (clock)",
        "Unable to process XML data file 'no.7.data': wrong (clock)",
        "Unable to process XML data file '\\udcff\\n.7.data': no agent (malformed)",
    ]
    c = schema.event.c
    query = select(c.severity, c.status, c.time, c.agent_id, c.group_id).where(c.type == "error")
    with rows.engine.connect() as conn:
        agent_id, group_id = conn.execute(select(schema.agent.c.id, schema.agent.c.group_id)).one()
        found = [tuple(row) for row in conn.execute(query.order_by(c.id))]
    assert found == [
        (0, 0, NOW, agent_id, group_id),
        (0, 0, NOW, 0, 0),
        (0, 0, NOW, 0, 0),
    ]


# What bounds it knows nothing of the database.
@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_a_storm_is_a_few_rows(one: Process, rows: Rows) -> None:
    for second in range(1800):
        one.teller.throttle.note(Reason.MALFORMED, f"a.{second}.data", "no end", None)
        one.teller.run_due()
        one.clock.advance(1)
    one.teller.run_due(everything=True)
    assert len(rows.texts("error")) <= FIRST + 1800 / PERIOD + 1
    told = [int(text.split()[0]) for text in rows.texts("error")[FIRST:]]
    assert sum(told) == 1800 - FIRST


def test_what_cannot_be_written_waits_and_hurts_nobody(
    mariadb_database: Database, tmp_path: Path
) -> None:
    process, rows = Process(mariadb_database, "host1", tmp_path), Rows(mariadb_database)
    process.teller.throttle.note(Reason.MALFORMED, "a.1.data", "no end", None)
    mariadb_database.kill()
    process.teller.run_due()
    mariadb_database.restart()
    process.teller.run_due()
    process.clock.advance(60)
    process.teller.run_due()
    assert len(rows.texts("error")) == 1


def test_while_the_database_is_away_it_is_not_asked(
    one: Process, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejection_events, "translating", lambda _: pytest.fail("asked"))
    one.report.gauges.database_up = 0
    one.teller.throttle.note(Reason.MALFORMED, "a.1.data", "no end", None)
    one.teller.run_due()
    one.teller.run_due(everything=True)
    assert one.teller.throttle.due()
    assert rows.texts("error") == []


def test_without_a_table_of_events_nothing_is_told(
    pandora_database: Database, tmp_path: Path
) -> None:
    with pandora_database.engine().begin() as conn:
        conn.execute(DropTable(schema.event))
    process = Process(pandora_database, "host1", tmp_path)
    process.teller.throttle.note(Reason.MALFORMED, "a.1.data", "no end", None)
    process.teller.run_due()
    assert not process.teller.throttle.due()

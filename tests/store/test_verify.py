"""Comparing the hosts of a pair by what stands in the database, and what may be missing there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import Engine

from dataserver.store import probe, schema
from dataserver.store.layout import inspect
from dataserver.store.probe import prepare
from dataserver.store.processes import (
    Process,
    Processes,
    ProcessFingerprints,
    ProcessStats,
    ServerProcess,
    processes_seen,
)
from dataserver.vrrp.verify import Comparison, Outcome, compare
from tests.support.clock import Clock
from tests.support.databases import KINDS, SQLITE, Database
from tests.support.kinds import database_of

LIVE = 90.0
NOW = 1_800_000_000.0

# Rows are compared by Python; two tests look at what the databases make of them.
database = database_of(SQLITE)
on_every_kind = pytest.mark.parametrize("database", KINDS, indirect=True)

MARKS = ProcessFingerprints(host_keys="keys", authorized_keys="authorized", pair="pair")


@dataclass
class Pair:
    """Writes rows as servers do, by a clock of the test."""

    engine: Engine
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    written: int = 0

    def server(
        self,
        host: str,
        instance: str = "main",
        *,
        marks: ProcessFingerprints = MARKS,
        name: str = "twins",
        version: str = "1.0",
        configuration: str | None = "same",
        ahead: float = 0.0,
    ) -> Processes:
        """One that has just shown that it lives; its host's clock is so much ahead."""
        self.written += 1
        process = Process(f"run{self.written}", name, 0, host, instance, 42, version, configuration)
        own_clock = Clock(self.clock.now + ahead)
        row = Processes(process, LIVE, clock=self.clock, own_clock=own_clock)
        with self.engine.begin() as conn:
            row.beat(conn, ProcessStats(), marks)
        return row

    def leave(self, row: Processes) -> None:
        with self.engine.begin() as conn:
            row.leave(conn, ProcessStats())

    def seen(self) -> list[ServerProcess]:
        with self.engine.connect() as conn:
            return processes_seen(conn, inspect(self.engine))

    def compare(self, *named: str, wanted: tuple[str, ...] = ()) -> Comparison:
        return compare(self.seen(), LIVE, named, wanted)


@pytest.fixture
def pair(database: Database, monkeypatch: pytest.MonkeyPatch) -> Pair:
    pair = Pair(database.engine())
    monkeypatch.setattr("dataserver.store.processes.database_time", pair.clock)
    return pair


def unequal(comparison: Comparison) -> dict[str, tuple[Outcome, str]]:
    return {
        f.what: (f.outcome, f.text) for f in comparison.findings if f.outcome is not Outcome.EQUAL
    }


def only(comparison: Comparison, what: str, outcome: Outcome) -> str:
    """The text of the one finding that is not equal."""
    assert not comparison.equal
    found = unequal(comparison)
    assert list(found) == [what]
    assert found[what][0] is outcome
    return found[what][1]


@on_every_kind
def test_twins_that_match_are_equal_in_everything(pair: Pair) -> None:
    for host in ("ds1", "ds2"):
        for instance in ("main", "second"):
            pair.server(host, instance, configuration=f"of {instance}")
    comparison = pair.compare()
    assert comparison.equal
    assert comparison.hosts == ("ds1", "ds2")
    assert [f.what for f in comparison.findings] == [
        "SSH host keys",
        "authorized_keys",
        "pair.toml",
        "clock",
        "version",
        "server name of main",
        "configuration of main",
        "server name of second",
        "configuration of second",
    ]


def test_files_that_differ_are_named_with_what_to_do(pair: Pair) -> None:
    pair.server("ds1")
    for key, what, mend in (
        ("host_keys", "SSH host keys", "copy /etc/ssh/ssh_host_"),
        ("authorized_keys", "authorized_keys", "copy uploads/authorized_keys"),
        ("pair", "pair.toml", "copy keepalived/pair.toml"),
    ):
        twin = pair.server("ds2", marks=MARKS._replace(**{key: "other"}))
        assert mend in only(pair.compare(), what, Outcome.DIFFERENT)
        pair.leave(twin)


def test_what_a_host_does_not_tell_is_not_called_equal(pair: Pair) -> None:
    for key in ProcessFingerprints._fields:
        marks = MARKS._replace(**{key: None})
        servers = [pair.server(host, marks=marks) for host in ("ds1", "ds2")]
        comparison = pair.compare()
        assert [outcome for outcome, _ in unequal(comparison).values()] == [Outcome.UNKNOWN], key
        assert not comparison.equal, key
        for server in servers:
            pair.leave(server)


def test_instances_of_one_host_that_disagree_are_not_compared(pair: Pair) -> None:
    pair.server("ds1")
    pair.server("ds1", "second", marks=MARKS._replace(pair="other"))
    pair.server("ds2")
    pair.server("ds2", "second")
    assert "do not agree" in only(pair.compare(), "pair.toml", Outcome.UNKNOWN)


def test_versions_server_names_and_configurations_are_compared(pair: Pair) -> None:
    pair.server("ds1", version="1.0", name="one", configuration="a")
    pair.server("ds2", version="1.1", name="two", configuration="b")
    found = unequal(pair.compare())
    assert {outcome for outcome, _ in found.values()} == {Outcome.DIFFERENT}
    assert found["version"][1].startswith("ds1 runs 1.0, ds2 1.1;")
    assert found["server name of main"][1].startswith("one on ds1, two on ds2;")
    assert "config show main" in found["configuration of main"][1]
    assert len(found) == 3


def test_a_host_of_two_versions_does_not_match_another_such(pair: Pair) -> None:
    for host in ("ds1", "ds2"):
        pair.server(host, version="1.0")
        pair.server(host, "second", version="1.1")
    assert "1.0, 1.1" in only(pair.compare(), "version", Outcome.DIFFERENT)


def test_a_configuration_that_is_not_told_is_not_called_equal(pair: Pair) -> None:
    pair.server("ds1", configuration=None)
    pair.server("ds2", configuration=None)
    only(pair.compare(), "configuration of main", Outcome.UNKNOWN)


def test_an_instance_that_the_pair_wants_and_nobody_runs_is_not_called_equal(pair: Pair) -> None:
    for host in ("ds1", "ds2"):
        pair.server(host)
    assert pair.compare(wanted=("main",)).equal
    text = only(pair.compare(wanted=("main", "second")), "instance second", Outcome.UNKNOWN)
    assert "neither host" in text


def test_an_instance_of_one_host_only_is_a_difference(pair: Pair) -> None:
    pair.server("ds1")
    pair.server("ds2")
    pair.server("ds2", "second")
    text = only(pair.compare(), "instance second", Outcome.DIFFERENT)
    assert text == "runs on ds2 only; start it on ds1, or stop it on ds2"


class TestClock:
    def test_a_second_apart_is_well(self, pair: Pair) -> None:
        for one, two in ((0.0, 1.0), (100.0, 100.9), (-0.5, 0.5)):
            servers = pair.server("ds1", ahead=one), pair.server("ds2", ahead=two)
            assert pair.compare().equal, (one, two)
            for server in servers:
                pair.leave(server)

    def test_more_is_not(self, pair: Pair) -> None:
        for one, two, first in ((0, 1.2, "ds2"), (3, 1.5, "ds1")):
            servers = pair.server("ds1", ahead=one), pair.server("ds2", ahead=two)
            text = only(pair.compare(), "clock", Outcome.DIFFERENT)
            assert text.startswith(f"{first} is {abs(one - two):.1f} s ahead of ")
            for server in servers:
                pair.leave(server)


class TestHosts:
    def test_nobody_was_seen(self, pair: Pair) -> None:
        assert "no server" in only(pair.compare(), "hosts", Outcome.UNKNOWN)

    def test_one_alone_is_told_that_its_twin_was_never_seen(self, pair: Pair) -> None:
        pair.server("ds1")
        text = only(pair.compare(), "hosts", Outcome.UNKNOWN)
        assert text.startswith("the twin of ds1 has not been seen")

    def test_one_that_fell_silent_is_not_compared(self, pair: Pair) -> None:
        pair.server("ds2")
        pair.clock.advance(LIVE + 1)
        pair.server("ds1")
        text = only(pair.compare(), "hosts", Outcome.UNKNOWN)
        assert text.startswith("ds2: its last sign of life was 91 s ago;")

    def test_one_that_stopped_is_not_compared(self, pair: Pair) -> None:
        pair.server("ds1")
        pair.leave(pair.server("ds2"))
        text = only(pair.compare(), "hosts", Outcome.UNKNOWN)
        assert text.startswith("ds2: its last instance stopped 0 s ago;")

    def test_of_an_instance_that_was_started_again_the_last_process_counts(
        self, pair: Pair
    ) -> None:
        pair.server("ds1", configuration="old")
        pair.leave(pair.server("ds2", version="0.9"))
        pair.clock.advance(10)
        pair.server("ds1")
        pair.server("ds2")
        assert pair.compare().equal

    def test_of_three_those_are_compared_that_the_pair_names(self, pair: Pair) -> None:
        pair.server("ds1.example.org")
        pair.server("ds2.example.org")
        pair.server("other", version="0.1")
        text = only(pair.compare(), "hosts", Outcome.UNKNOWN)
        assert text.startswith(
            "3 hosts use this database (ds1.example.org, ds2.example.org, other)"
        )
        comparison = pair.compare("ds1", "ds2")
        assert comparison.equal
        assert comparison.hosts == ("ds1.example.org", "ds2.example.org")

    @pytest.mark.parametrize("new", ["ds1.example.org", "DS1"])
    def test_one_that_was_renamed_is_found_by_its_new_name(self, pair: Pair, new: str) -> None:
        pair.server("ds1")
        pair.clock.advance(LIVE + 1)
        pair.server(new)
        pair.server("ds2.example.org")
        comparison = pair.compare("ds1", "ds2")
        assert comparison.equal
        assert comparison.hosts == (new, "ds2.example.org")

    def test_one_of_the_pair_that_was_never_seen_is_named(self, pair: Pair) -> None:
        pair.server("ds1")
        pair.server("other")
        text = only(pair.compare("ds1", "ds2"), "hosts", Outcome.UNKNOWN)
        assert text.startswith("ds2 of pair.toml not seen")


@on_every_kind
class TestOlderDatabase:
    """Its table of processes is that of an earlier version."""

    NEW = ("pair", "clock_offset")

    @pytest.fixture
    def older(self, database: Database) -> Database:
        with database.engine().begin() as conn:
            for column in self.NEW:
                conn.exec_driver_sql(f"ALTER TABLE tserver_process DROP COLUMN {column}")
        return database

    def test_it_gets_the_columns_when_a_server_starts(self, older: Database) -> None:
        assert not set(self.NEW) & set(inspect(older.engine()).found.columns["tserver_process"])
        layout = older.prepare()
        assert set(self.NEW) <= set(layout.found.columns["tserver_process"])
        assert older.prepare() == layout

    def test_several_servers_may_start_at_once(self, older: Database) -> None:
        engines = [older.engine() for _ in range(2)]
        stale = inspect(engines[0])
        assert prepare(engines[1]) != stale
        # The other one looked before, and finds the columns there when it adds them.
        assert set(self.NEW) <= set(
            probe._completed(engines[0], stale).found.columns["tserver_process"]
        )

    def test_what_is_not_there_is_not_compared(self, older: Database) -> None:
        layout = inspect(older.engine())
        for host in ("ds1", "ds2"):
            process = Process(host, "twins", 0, host, "main", 42, "1.0", "same")
            with older.engine().begin() as conn:
                Processes(process, LIVE, layout=layout).beat(conn, ProcessStats(), MARKS)
        with older.engine().connect() as conn:
            comparison = compare(processes_seen(conn, layout), LIVE)
        assert list(unequal(comparison)) == ["pair.toml", "clock"]
        assert not comparison.equal


def test_where_the_columns_may_not_be_added_the_server_goes_on_and_says_so(
    mariadb_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    server = mariadb_database.server
    assert server is not None
    server.execute(
        "ALTER TABLE tserver_process DROP COLUMN pair",
        "CREATE OR REPLACE USER plain@127.0.0.1",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {mariadb_database.name}.* TO plain@127.0.0.1",
        database=mariadb_database.name,
    )
    url = mariadb_database.url.replace("root@", "plain@")
    layout = replace(mariadb_database, url=url).prepare()
    mariadb_database.dispose()
    server.execute("DROP USER plain@127.0.0.1")
    assert not layout.has(schema.server_process.c.pair)
    assert "without tserver_process.pair: cannot add" in caplog.text
    assert "lacks a right" in caplog.text

"""How instances do, put together from folders, lock, heartbeat, status file and manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from dataserver.config.paths import Home, Paths
from dataserver.fleet.model import Managed, RunState
from dataserver.fleet.overview import Condition, Row, overview
from dataserver.fleet.registry import Registry, disable
from dataserver.runtime.heartbeat import Beat, Phase, Status, process_start, write_atomic
from dataserver.spool.lock import InstanceLock
from dataserver.spool.queue import count_queue

NOW = 1_800_000_000.0


@contextmanager
def running(home: Home, **changes: object) -> Iterator[int]:
    """This process runs `main`, as far as can be seen; ``changes`` of its heartbeat."""
    paths = home.instance()
    with InstanceLock("main", paths.var, home.root / "data_in"):
        beat(paths, os.getpid(), **changes)
        status(paths, os.getpid())
        yield os.getpid()


def beat(paths: Paths, pid: int, **changes: object) -> None:
    found = Beat(
        pid=pid,
        process_start=process_start(pid),
        run="r",
        phase=Phase.IDLE,
        phase_since=NOW - 10,
        phase_seconds=10.0,
        beat=5,
        loop_seconds=0.5,
        time=NOW,
    )
    paths.var.mkdir(parents=True, exist_ok=True)
    text = {name: getattr(found, name) for name in Beat.__slots__}
    write_atomic(paths.heartbeat, json.dumps(text | changes))


def status(
    paths: Paths,
    pid: int,
    error: str | None = None,
    gauges: Mapping[str, float] = MappingProxyType({}),
    troubles: Mapping[str, object] = MappingProxyType({}),
) -> None:
    Status(
        instance=paths.name,
        server_name="s",
        version="0",
        pid=pid,
        run="r",
        started=NOW - 100,
        written=NOW,
        phase="idle",
        data_in="/where/it/really/is",
        database="sqlite:///x",
        database_error=error,
        packets_per_second=2.5,
        gauges={"queue": 7, "oldest_age_seconds": 3.0, **gauges},
        troubles=dict(troubles),
    ).write(paths.status)


def row(home: Home, managed: Managed | None = None, now: float = NOW) -> Row:
    found = {} if managed is None else {"main": managed}
    rows = overview(Registry(home).instances(), found, now, {})
    return next(each for each in rows if each.name == "main")


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


class TestRunning:
    def test_it_shows_what_the_instance_itself_says(self, home: Home) -> None:
        with running(home) as pid:
            found = row(home, Managed(RunState.RUNNING, pid, NOW - 99, restarts=2))
        assert found == Row(
            name="main",
            state=Condition.RUNNING,
            detail=None,
            enabled=True,
            supervised=True,
            pid=pid,
            since=NOW - 100,
            queue=7,
            queue_more=False,
            oldest=NOW - 3,
            held=None,
            held_until=None,
            packets_per_second=2.5,
            restarts=2,
            data_in="/where/it/really/is",
            phase="idle",
            database_error=None,
        )

    def test_files_that_are_held_are_told_with_what_else_is_wrong(self, home: Home) -> None:
        gauges = {"held": 3, "held_until_time_seconds": NOW + 4.2}
        with running(home) as pid:
            status(home.instance(), pid, gauges=gauges)
            found = row(home)
            assert (found.held, found.held_until) == (3, NOW + 4.2)
            text = "3 of the queue held for 4 s, until their agent's backlog has settled"
            assert found.detail == text
            status(home.instance(), pid, gauges=gauges, troubles={"alerts": {"error": "1 alert"}})
            assert row(home).detail == f"alerts: 1 alert; {text}"
            status(home.instance(), pid, gauges={"held": 0, "held_until_time_seconds": 0})
            found = row(home)
            assert (found.held, found.held_until, found.detail) == (0, None, None)

    def test_one_that_nobody_supervises_runs_all_the_same(self, home: Home) -> None:
        with running(home) as pid:
            for managed in (None, Managed(RunState.HELD), Managed(RunState.FAILED)):
                found = row(home, managed)
                told = (found.state, found.supervised, found.pid)
                assert told == (Condition.RUNNING, False, pid), managed

    def test_one_that_waits_for_the_database_is_not_stuck_and_says_why(self, home: Home) -> None:
        with running(home, phase="waiting for database", loop_seconds=1e6) as pid:
            status(home.instance(), pid, "server has gone away")
            found = row(home)
        assert found.state is Condition.WAITING_FOR_DATABASE
        assert found.detail == found.database_error == "server has gone away"

    def test_what_it_does_not_count_while_it_waits_is_counted(self, home: Home) -> None:
        (home.root / "data_in/a.1.data").touch()
        with running(home, phase="waiting for database"):
            assert row(home).queue == 1

    def test_one_that_does_not_move_is_stuck(self, home: Home) -> None:
        for changes in ({"loop_seconds": 1e6}, {"time": NOW - 1000}):
            with running(home, **changes):
                assert row(home).state is Condition.STUCK, changes

    def test_it_may_be_on_its_way(self, home: Home) -> None:
        found = {}
        for phase in ("starting", "stopping"):
            with running(home, phase=phase):
                found[phase] = row(home).state
        assert found == {"starting": Condition.STARTING, "stopping": Condition.STOPPING}

    def test_the_heartbeat_of_another_process_says_nothing_of_this_one(self, home: Home) -> None:
        with running(home):
            beat(home.instance(), gone())
            assert row(home).state is Condition.STARTING

    def test_a_file_that_its_next_start_cannot_use_is_told(self, home: Home) -> None:
        with running(home):
            home.instance().config.write_text("surprise = 1\n")
            found = row(home)
        assert found.state is Condition.RUNNING
        assert "surprise" in str(found.detail)


class TestNotRunning:
    def test_one_that_never_ran_is_stopped(self, home: Home) -> None:
        found = row(home)
        assert (found.state, found.pid, found.since) == (Condition.STOPPED, None, None)
        assert found.data_in == str(home.root / "data_in")

    def test_one_that_is_meant_not_to_run_is_disabled(self, home: Home) -> None:
        disable(home.instance())
        found = row(home, Managed(RunState.STOPPED))
        assert (found.state, found.enabled) == (Condition.DISABLED, False)

    def test_one_whose_process_is_gone_without_a_word_is_dead(self, home: Home) -> None:
        beat(home.instance(), gone())
        found = row(home)
        assert (found.state, found.since) == (Condition.DEAD, NOW)

    def test_one_that_said_so_is_stopped(self, home: Home) -> None:
        beat(home.instance(), gone(), phase="stopped")
        assert row(home).state is Condition.STOPPED

    def test_whoever_runs_it_knows_more(self, home: Home) -> None:
        beat(home.instance(), gone())
        wanted = {
            RunState.STARTING: Condition.STARTING,
            RunState.STOPPING: Condition.STOPPING,
            RunState.WAITING: Condition.WAITING_TO_RESTART,
            RunState.FAILED: Condition.FAILED,
        }
        found = {}
        for told in wanted:
            seen = row(home, Managed(told, None, NOW - 5, 3, "ended with exit code 9"))
            assert (seen.detail, seen.since) == ("ended with exit code 9", NOW - 5)
            assert seen.restarts == 3
            found[told] = seen.state
        assert found == wanted

    def test_one_whose_file_is_no_good_is_broken_and_says_why(self, home: Home) -> None:
        home.instance().config.write_text("surprise = 1\n")
        for managed in (None, Managed(RunState.FAILED, detail="exit code 3")):
            found = row(home, managed)
            assert found.state is Condition.BROKEN, managed
            assert "surprise" in str(found.detail), managed

    def test_one_that_is_broken_hides_no_other(self, home: Home) -> None:
        for name in ("alpha", "beta"):
            (home.instances / name).mkdir()
        (home.instances / "alpha/instance.toml").mkdir()
        (home.instances / "beta/instance.toml").write_bytes(b"\xff")
        rows = overview(Registry(home).instances(), {}, NOW, {})
        assert [(each.name, each.state) for each in rows] == [
            ("alpha", Condition.BROKEN),
            ("beta", Condition.BROKEN),
            ("main", Condition.STOPPED),
        ]

    def test_files_of_a_running_one_that_hold_nonsense_are_none(self, home: Home) -> None:
        keys = ("heartbeat", "time"), ("status", "started"), ("status", "packets_per_second")
        wrong = []
        for file, key in keys:
            for value in ("1", None, 1e400, 10**400, [1]):
                with running(home):
                    path = getattr(home.instance(), file)
                    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
                    found = row(home)
                is_up = found.state in (Condition.RUNNING, Condition.STARTING)
                # By its heartbeat; as it says itself.
                if not is_up or found.since not in (NOW, NOW - 100):
                    wrong.append((file, key, value, found))
        assert wrong == []

    def test_the_queue_is_counted_complete_or_not(self, home: Home) -> None:
        data_in = home.root / "data_in"
        for name in ("a.1.data", "b_2.data", "a.1.checksum", ".part.1.data", "conf"):
            (data_in / name).touch()
        (data_in / "c.3.data").mkdir()
        (data_in / "d.4.data").symlink_to("a.1.data")
        os.utime(data_in / "b_2.data", (50, 50))
        found = row(home)
        assert (found.queue, found.oldest) == (2, 50)

    def test_a_drop_directory_that_is_gone_has_no_queue(self, home: Home) -> None:
        (home.root / "data_in").rmdir()
        assert row(home).queue is None

    def test_a_lock_that_may_not_be_looked_at_is_told_and_the_manager_believed(
        self, home: Home
    ) -> None:
        # A directory that cannot be entered, for root too.
        home.var.mkdir()
        (home.var / "main").symlink_to("main")
        assert row(home).state is Condition.UNKNOWN
        assert row(home, Managed(RunState.RUNNING, 1)).state is Condition.RUNNING


def test_counting_stops_at_a_bound(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"a.{number}.data").touch()
    assert count_queue(tmp_path, 5)[::2] == (5, True)
    assert count_queue(tmp_path, 9)[::2] == (9, False)

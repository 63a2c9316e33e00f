"""The benchmark of several instances: what it measures, and that it believes no wrong result."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import __main__, generator, instances
from bench.errors import BenchError
from bench.instances import Bench, Fleet, Result, Waits, table, typical
from bench.proc import Usage
from bench.runs import files
from bench.server import installed
from bench.stores import Sqlite
from bench.workloads import TEN, Workload

SMALL = Workload("small", "some agents", 9, TEN, 2)


def bench(folder: Path, command: list[str] | None = None) -> Bench:
    return Bench(command or installed(), Sqlite(folder), folder, lambda _: None, workload=SMALL)


def server(folder: Path, instead: str) -> list[str]:
    """The installed command, but for what shell is told to do ``instead``; $name is the last."""
    script = folder / "server"
    real = installed()[0]
    script.write_text(f'#!/bin/sh\nfor name; do :; done\n{instead}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return [str(script)]


def result(count: int, seconds: float, start: str = "empty", store: str = "sqlite") -> Result:
    usage = Usage(seconds, 2.0, 50_000_000)
    return Result(store, start, count, 1_000, usage, None, Waits(None, 0.5, None, 0))


@pytest.mark.long
def test_the_work_is_done_on_an_empty_database_and_again_on_a_filled_one(tmp_path: Path) -> None:
    empty, filled = bench(tmp_path).measure(2)
    assert [empty.start, filled.start] == list(instances.STARTS)
    for each in (empty, filled):
        assert (each.store, each.instances, each.packets) == ("sqlite", 2, 18)
        assert each.usage.rss > 0
        assert each.waits.seconds is not None
        assert (each.waits.locks, each.waits.deadlocks, each.database_cpu) == (None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_all_instances_get_as_many_agents_and_no_agent_is_split(tmp_path: Path) -> None:
    generator.write(SMALL, tmp_path / "corpus")
    fleet = Fleet(installed(), tmp_path / "home", f"sqlite:///{tmp_path}/x.db", 4)
    fleet.deliver(files(tmp_path / "corpus", range(SMALL.rounds)))
    stems = [Counter(p.name.split(".")[0] for p in fleet.data_in(n).iterdir()) for n in fleet.names]
    assert sorted(map(len, stems)) == [2, 2, 2, 3]
    assert sum(stems, Counter()).total() == 18
    assert {count for counter in stems for count in counter.values()} == {SMALL.rounds}


@pytest.mark.long
def test_a_lost_packet_is_an_error_and_no_figure(tmp_path: Path) -> None:
    instead = 'rm -f "$(ls "$2/instances/$name/data_in/"*.data 2>/dev/null | head -n 1)"'
    with pytest.raises(BenchError, match="the instances stored"):
        list(bench(tmp_path, server(tmp_path, instead)).measure(2))


@pytest.mark.long
def test_an_instance_that_fails_is_an_error_and_ends_the_others(tmp_path: Path) -> None:
    there = tmp_path / "there"
    fails = f"while ! [ -s {there} ]; do sleep 0.01; done; exit 5"
    instead = f"case $name in 2) {fails} ;; 3) echo $$ >{there}; exec sleep 300 ;; esac"
    with pytest.raises(BenchError, match="an instance exited 5"):
        list(bench(tmp_path, server(tmp_path, instead)).measure(3))
    assert not Path(f"/proc/{there.read_text().strip()}").exists()


def test_what_mariadb_counted_is_the_difference_in_seconds() -> None:
    before = {"innodb_row_lock_waits": 5, "innodb_row_lock_time": 100, "innodb_deadlocks": 1}
    after = {"innodb_row_lock_waits": 8, "innodb_row_lock_time": 1600, "innodb_deadlocks": 3}
    counters = [{"retries": {"StoreConflict": 2}}, {"retries": {}}]
    assert instances._waits(before, after, counters) == Waits(3, 1.5, 2, 2)


def test_what_sqlites_writers_waited_is_summed_up() -> None:
    counters = [{"retries": {}, "lock_wait_seconds": {"count": 9, "sum": 0.5}}] * 2
    assert instances._waits({}, {}, counters) == Waits(None, 1.0, None, 0)


def test_a_server_that_does_not_count_its_waits_has_none_to_show() -> None:
    assert instances._waits({}, {}, [{"retries": {}}]).seconds is None


def test_of_repeated_runs_the_one_of_median_speed_is_shown() -> None:
    runs = [result(1, seconds) for seconds in (4.0, 1.0, 2.0)] + [result(2, 1.0)]
    assert [each.usage.seconds for each in typical(runs)] == [2.0, 1.0]


def test_the_gain_is_against_the_fewest_instances_of_the_same_row() -> None:
    runs = [result(4, 1.0), result(1, 2.0), result(1, 4.0, "filled"), result(2, 4.0, "filled")]
    lines = [line.split() for line in table(runs).splitlines()[1:]]
    assert [(line[1], line[2], line[4]) for line in lines] == [
        ("empty", "1", "1.00"),
        ("empty", "4", "2.00"),
        ("filled", "1", "1.00"),
        ("filled", "2", "1.00"),
    ]


def test_counts_that_are_none_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for counts in ("0", "1,x", "", "1,,2", "-1"):
        monkeypatch.setattr(sys, "argv", ["bench", "instances", f"--counts={counts}"])
        with pytest.raises(SystemExit, match="2"):
            __main__.main()
        said = capsys.readouterr().err.splitlines()
        assert "no list of numbers" in said[-1], counts


def test_the_benchmark_is_started_as_its_documentation_says() -> None:
    command = [sys.executable, "-m", "bench", "instances", "--counts=0"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 2
    assert "no list of numbers" in done.stderr

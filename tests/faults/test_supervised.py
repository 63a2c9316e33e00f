"""The supervisor with real processes: killed, stopped, starved, and killed itself."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from dataserver.fleet.model import RunState
from dataserver.runtime.heartbeat import process_start
from dataserver.store.database import open_engine
from tests.support import packets
from tests.support.databases import Database
from tests.support.disk import mounted
from tests.support.fleet import Fleet, descendants
from tests.support.packets import START
from tests.support.server import Place, Server
from tests.support.waiting import wait_until

#: Limits that a test can wait for.
QUICK = {"PAUSE": (0.05, 0.1), "FAILURES": 4}
#: Run in the supervisor: it counts what it hears of its children, and its clock can be put ahead.
_WATCHED = """
import time
from pathlib import Path
from dataserver.fleet.supervision.supervisor import Supervisor
folder, told, monotonic = Path({folder!r}), Supervisor._notified, time.monotonic

def hear(self, child, ready):
    told(self, child, ready)
    with (folder / "words").open("a") as words:
        words.write(".")

def ahead():
    path = folder / "ahead"
    return monotonic() + (float(path.read_text()) if path.exists() else 0.0)

Supervisor._notified, time.monotonic = hear, ahead
"""


class Watched(Fleet):
    """A supervisor with its own limits, of which is known what it hears."""

    def __init__(self, place: Place, folder: Path) -> None:
        folder.mkdir()
        super().__init__(place, before=_WATCHED.format(folder=str(folder)))
        self._folder = folder

    def wait_words(self, count: int) -> None:
        """Wait until its children have told it so many times more that they move."""
        path = self._folder / "words"
        enough = path.stat().st_size + count
        self.wait(lambda: path.stat().st_size >= enough, f"{count} words")

    def pass_time(self, seconds: float) -> None:
        """Put its clock ahead: to be done while it is stopped."""
        path = self._folder / "ahead.part"
        path.write_text(str(seconds))
        path.rename(self._folder / "ahead")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", "sqlite:///var/dataserver.db")


def packet(agent: str, minute: int) -> tuple[str, bytes]:
    """A packet of an agent, by name and content."""
    at = START + 60 * minute
    return f"{agent}.{at}.data", packets.packet(agent, packets.module("Load"), time=at)


def ledger(place: Place) -> int:
    """How many packets were taken in."""
    engine = open_engine("sqlite:///var/dataserver.db", home=place.home.root)
    try:
        with engine.connect() as conn:
            return int(conn.exec_driver_sql("SELECT count(*) FROM tpacket").scalar_one())
    finally:
        engine.dispose()


def wait_gone(pids: set[int]) -> None:
    """Wait until none of these processes is there."""
    wait_until(
        lambda: all(process_start(pid) is None for pid in pids), f"the end of {pids}", pause=0.02
    )


def test_one_that_is_killed_comes_back_and_loses_nothing(place: Place) -> None:
    place.add("beta")
    with Fleet(place, constants=QUICK) as fleet:
        fleet.wait_running("main", "beta")
        other = fleet.pid("main")
        for round_ in range(3):
            place.drop(*packet("web1", round_), instance="beta")
            old = fleet.pid("beta")
            os.kill(old, signal.SIGKILL)
            fleet.wait_running("beta", but_not=old)
        fleet.wait_taken("beta")
        assert fleet.pid("main") == other
        managed = fleet.managed("beta")
        assert managed is not None
        assert managed.restarts == 3
        assert fleet.stop() == 0
    assert ledger(place) == 3


def test_when_it_is_killed_itself_nothing_is_left_and_the_next_one_takes_over(
    place: Place,
) -> None:
    names = ["main", place.add("beta").name]
    with Fleet(place) as fleet:
        fleet.wait_running(*names)
        children = {fleet.pid(name) for name in names}
        # One that could not hear any word any more.
        os.kill(fleet.pid("beta"), signal.SIGSTOP)
        fleet.kill()
        wait_gone(children)
        place.drop(*packet("web1", 0))
        fleet.start()
        fleet.wait_running(*names)
        fleet.wait_taken()
        assert not children & {fleet.pid(name) for name in names}
        assert fleet.stop() == 0
    assert descendants(place.home.root) == set()


def test_one_that_is_stopped_is_noticed_killed_and_replaced(place: Place) -> None:
    with Fleet(place, constants={"SILENCE_LIMIT": 3.0, **QUICK}) as fleet:
        fleet.wait_running()
        old = fleet.pid()
        os.kill(old, signal.SIGSTOP)
        fleet.wait_running("main", but_not=old)
        assert process_start(old) is None
        assert "main is stuck" in fleet.log
        place.drop(*packet("web1", 0))
        fleet.wait_taken()


def test_when_it_is_stopped_itself_its_children_go_on_and_are_not_taken_for_stuck(
    place: Place, tmp_path: Path
) -> None:
    with Watched(place, tmp_path / "watched") as fleet:
        fleet.wait_running()
        old = fleet.pid()
        fleet.send(signal.SIGSTOP)
        place.drop(*packet("web1", 0))
        fleet.wait_taken()
        # Longer than its limit of silence and than its own measure of a sleep.
        fleet.pass_time(100.0)
        fleet.send(signal.SIGCONT)
        fleet.wait_words(2)
        place.add("beta")
        fleet.wait_running("main", "beta")
        assert fleet.pid() == old
        assert "stuck" not in fleet.log


@pytest.mark.parametrize("count", [9, pytest.param(20, marks=pytest.mark.long)])
def test_many_instances_take_packets_at_the_same_time_and_leave_in_good_order(
    place: Place, count: int
) -> None:
    # More than may start at the same time.
    names = [place.add(f"i{number:02d}").name for number in range(count - 1)] + ["main"]
    with Fleet(place) as fleet:
        fleet.wait_running(*names)
        for number, name in enumerate(names):
            place.drop(*packet(f"web{number}", 0), instance=name)
        fleet.wait_taken(*names)
        assert fleet.stop() == 0
    assert ledger(place) == count
    assert descendants(place.home.root) == set()
    assert fleet.log.count("stopped") == count


def test_one_that_dies_at_every_start_is_given_up_and_disturbs_nobody(place: Place) -> None:
    broken = place.add("beta")
    (broken.folder / "data_in").rmdir()
    with Fleet(place, constants=QUICK) as fleet:
        fleet.wait_running("main")
        fleet.wait_state(RunState.FAILED, "beta")
        managed = fleet.managed("beta")
        assert managed is not None
        assert managed.detail is not None
        assert "data_in" in managed.detail
        assert managed.restarts == QUICK["FAILURES"] - 1
        place.drop(*packet("web1", 0))
        fleet.wait_taken()
        # Mended, and asked for anew.
        (broken.folder / "data_in").mkdir()
        os.utime(broken.config)
        fleet.wait_running("beta")


def test_a_broken_configuration_is_one_line_and_is_read_again_when_it_changes(
    place: Place,
) -> None:
    broken = place.add("beta")
    good = broken.config.read_text()
    broken.config.write_text("data_in = \n")
    with Fleet(place) as fleet:
        fleet.wait_running("main")
        fleet.wait_state(RunState.FAILED, "beta")
        managed = fleet.managed("beta")
        assert managed is not None
        assert managed.detail is not None
        assert "instance.toml is not TOML" in managed.detail
        assert "\n" not in managed.detail
        broken.config.write_text(good)
        fleet.wait_running("beta")


def test_a_change_is_read_by_the_running_process(place: Place) -> None:
    with Fleet(place) as fleet:
        fleet.wait_running("main")
        old = fleet.pid()
        place.configure(server_name="another-name")
        fleet.wait(lambda: "configuration read again" in fleet.log, "the new configuration")
        assert fleet.pid() == old


def test_folders_that_come_and_go_are_noticed(place: Place) -> None:
    with Fleet(place) as fleet:
        fleet.wait_running("main")
        beta = place.add("beta")
        fleet.wait_running("beta")
        old = fleet.pid("beta")
        (beta.folder / "disabled").touch()
        fleet.wait_state(RunState.STOPPED, "beta")
        assert process_start(old) is None
        (beta.folder / "disabled").unlink()
        fleet.wait_running("beta", but_not=old)
        old = fleet.pid("beta")
        shutil.rmtree(beta.folder)
        fleet.wait(lambda: fleet.managed("beta") is None, "beta to be forgotten")
        assert process_start(old) is None


def test_a_second_supervisor_of_a_home_is_refused(place: Place) -> None:
    with Fleet(place) as fleet:
        fleet.wait_running()
        second = Fleet(place)
        with second:
            assert second.wait_exit() == 4
        assert "supervised by process" in fleet.log
        assert fleet.stop() == 0


def test_one_that_is_run_by_hand_is_left_alone_and_taken_over_when_it_ends(place: Place) -> None:
    with Server(place) as server:
        server.wait_ready()
        with Fleet(place) as fleet:
            fleet.wait_state(RunState.HELD)
            managed = fleet.managed()
            assert managed is not None
            assert str(server.pid) in (managed.detail or "")
            assert server.stop() == 0
            fleet.wait_running()


def test_a_drop_directory_of_another_instance_is_never_worked_on_twice(place: Place) -> None:
    twin = place.add("twin")
    twin.config.write_text('data_in = "../main/data_in"\n')
    with Fleet(place) as fleet:
        fleet.wait(
            lambda: (
                {RunState.HELD, RunState.RUNNING}
                == {m.state for name in ("main", "twin") if (m := fleet.managed(name))}
            ),
            "one that runs and one that waits",
        )
        place.drop(*packet("web1", 0))
        fleet.wait_taken()
    assert ledger(place) == 1


def test_sigint_twice_kills_what_does_not_leave(place: Place) -> None:
    with Fleet(place) as fleet:
        fleet.wait_running()
        child = fleet.pid()
        os.kill(child, signal.SIGSTOP)
        fleet.send(signal.SIGINT)
        fleet.wait_state(RunState.STOPPING)
        fleet.send(signal.SIGINT)
        assert fleet.wait_exit() == 0
    wait_gone({child})


def test_what_an_instance_says_is_kept_and_passed_on(place: Place) -> None:
    with Fleet(place) as fleet:
        fleet.wait_running()
        assert fleet.stop() == 0
    kept = (place.paths().var / "log").read_text()
    assert "starting instance main" in kept
    assert "0 packets" in kept
    assert kept.count("\n") == sum('"instance": "main"' in line for line in fleet.log.splitlines())


def test_a_database_that_hangs_makes_nobody_stuck(
    mariadb_database: Database, tmp_path: Path
) -> None:
    place = Place(tmp_path / "home", mariadb_database.url, database_timeout=1, connect_timeout=1)
    with Watched(place, tmp_path / "watched") as fleet:
        fleet.wait_running()
        old = fleet.pid()
        with mariadb_database.stop_cont():
            place.drop(*packet("web1", 0))
            heartbeat = place.paths().heartbeat
            fleet.wait(lambda: "waiting for database" in heartbeat.read_text(), "it to wait")
            fleet.wait_words(3)
        fleet.wait_taken()
        assert fleet.pid() == old
        assert fleet.stop() == 0
    assert "stuck" not in fleet.log


def test_a_full_disk_makes_nobody_stuck(tmp_path: Path) -> None:
    """Where no heartbeat can be written any more, the word to the supervisor still gets through."""
    place = Place(tmp_path / "home", f"sqlite:///{tmp_path}/elsewhere.db")
    with (
        mounted(place.home.var, 1 << 20) as disk,
        Watched(place, tmp_path / "watched") as fleet,
    ):
        fleet.wait_running()
        old = fleet.pid()
        disk.fill()
        fleet.wait_words(1)  # so that none is on its way
        written = place.paths().heartbeat.stat().st_mtime_ns
        fleet.wait_words(2)
        assert place.paths().heartbeat.stat().st_mtime_ns == written, "the disk is not full"
        assert process_start(old) is not None
        place.drop(*packet("web1", 0))
        fleet.wait_taken()
        assert fleet.stop() == 0
    assert "stuck" not in fleet.log
    assert fleet.log.count("started as process") == 1


def test_a_folder_that_it_may_not_enter_any_more_disturbs_nobody(place: Place) -> None:
    assert os.geteuid() == 0, "this test gives up rights of root: run it as root"
    place.add("beta")
    rights = "-dac_override,-dac_read_search"
    less = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    with Fleet(place, wrapper=less) as fleet:
        fleet.wait_running("main", "beta")
        place.paths("beta").var.chmod(0)
        os.kill(fleet.pid("beta"), signal.SIGTERM)  # it says goodbye into its log
        fleet.wait_state(RunState.WAITING, "beta")
        place.drop(*packet("web1", 0))
        fleet.wait_taken("main")
        place.paths("beta").var.chmod(0o750)
        fleet.wait_running("beta")
        assert fleet.stop() == 0


def test_whoever_read_its_output_may_go_away(place: Place) -> None:
    with Fleet(place, piped=True) as fleet:
        fleet.wait_running()
        assert fleet.process is not None
        assert fleet.process.stderr is not None
        fleet.process.stderr.close()
        old = fleet.pid()
        os.kill(old, signal.SIGKILL)  # it has something to say about that
        fleet.wait_running("main", but_not=old)
        place.drop(*packet("web1", 0))
        fleet.wait_taken()
        assert fleet.stop() == 0


def test_sighup_has_it_look_at_the_folders_now(place: Place) -> None:
    with Fleet(place, constants={"LOOK": 3600.0}) as fleet:
        fleet.wait_running()
        place.add("beta")
        fleet.send(signal.SIGHUP)
        fleet.wait_running("main", "beta")

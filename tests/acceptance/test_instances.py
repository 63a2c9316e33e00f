"""`dataserver instances` as an operator meets it, with the real `dataserver up`."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from typing import Any

import pytest

from dataserver.cli import instances as instances_commands
from dataserver.fleet.model import RunState
from dataserver.runtime.heartbeat import Phase, process_start
from tests.support import commands
from tests.support.commands import COMMAND, Run, Terminal
from tests.support.fleet import Fleet
from tests.support.packets import module, packet
from tests.support.server import Place, Server
from tests.support.waiting import PATIENCE, wait_until

URL = "sqlite:///var/dataserver.db"
TWO_MEGABYTES = 2 << 20
LESS_THAN_ROOT = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]

Instances = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A home of the test's own, or that of the fleet if it asks for one."""
    if "fleet" in request.fixturenames:
        shared: Fleet = request.getfixturevalue("shared_fleet")
        return shared.place
    return Place(tmp_path / "home", URL)


@pytest.fixture
def instances(place: Place, dataserver: Run) -> Instances:
    """`dataserver instances ...` on the place's home."""
    return lambda *args: dataserver("--home", place.home.root, "instances", *args)


@pytest.fixture
def as_program(place: Place, installed: Run) -> Instances:
    """The same, as a process of its own; it takes the options of :func:`subprocess.run`."""
    return lambda *args, **options: installed(
        "--home", place.home.root, "instances", *args, **options
    )


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """`dataserver up`, for all tests that only want it to be there."""
    with Fleet(Place(tmp_path_factory.mktemp("fleet") / "home", URL)) as fleet:
        yield fleet
        assert fleet.stop() == 0


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Fleet:
    """`dataserver up`, with `main` running and no other instance."""
    home = shared_fleet.place.home
    for name in home.instance_names():
        if name != "main":
            # One that is broken could not be removed.
            home.instance(name).config.write_text('data_in = "data_in"\n')
            _call(home.root, "remove", name, "--force", "--yes")
            shared_fleet.wait(lambda name=name: shared_fleet.managed(name) is None, "the end of it")
    shared_fleet.wait(lambda: shared_fleet.managed() is not None, "main to be listed")
    _call(home.root, "start", "main")
    return shared_fleet


def _call(home: Path, *args: object) -> None:
    done = commands.call("--home", home, "instances", *args, cwd=home)
    assert done.returncode == 0, done.stderr


def row(instances: Instances, name: str = "main") -> dict[str, Any]:
    """What `list --json` says of an instance."""
    result = instances("list", "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    [found] = [each for each in json.loads(result.stdout)["instances"] if each["name"] == name]
    return dict(found)


def good(result: CompletedProcess[str]) -> str:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(result: CompletedProcess[str], why: str, code: int = 2) -> str:
    """One line on stderr that says why."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("dataserver: ")
    assert result.stderr.count("\n") == 1
    assert why in result.stderr
    return result.stderr


def tree(root: Path) -> set[str]:
    """All that is there, but for what running leaves behind."""
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_newcomer_spawns_one_drops_files_kills_it_and_removes_it(
    place: Place, as_program: Instances, fleet: Fleet
) -> None:
    said = good(as_program("spawn", "beta"))
    assert str(place.data_in("beta")) in said
    assert f"beta: running, process {fleet.pid('beta')}" in said

    place.drop("web1.1.data", packet("web1", module("load", "1")))
    place.drop("web2.1.data", packet("web2", module("load", "2")), instance="beta")
    fleet.wait_taken("main", "beta")
    for name in ("main", "beta"):
        # What a running instance says of its queue is up to a second old.
        wait_until(lambda name=name: row(as_program, name)["queue"] == 0, "an empty queue")

    table = good(as_program("list")).splitlines()
    head = "NAME STATE PID SINCE QUEUE OLDEST RATE RESTARTS DATA_IN"
    assert table[0].split() == head.split()
    for name, line in zip(("beta", "main"), table[1:], strict=True):
        cells = line.split()
        assert cells[:3] == [name, "running", str(fleet.pid(name))]
        assert cells[5] == "0"
        assert cells[-1] == str(place.data_in(name))

    killed = fleet.pid("beta")
    os.kill(killed, signal.SIGKILL)
    fleet.wait_running("beta", but_not=killed)
    wait_until(lambda: row(as_program, "beta")["state"] == "running", "beta to run")
    assert row(as_program, "beta")["restarts"] == 1
    place.drop("web2.2.data", packet("web2", module("load", "3")), instance="beta")
    fleet.wait_taken("beta")

    assert good(as_program("remove", "beta")) == "beta: removed\n"
    assert not place.paths("beta").folder.exists()
    assert not place.paths("beta").var.exists()
    assert [
        each["name"] for each in json.loads(good(as_program("list", "--json")))["instances"]
    ] == ["main"]
    assert row(as_program)["state"] == "running"


class TestSpawn:
    def test_where_nothing_runs_the_home_it_is_made_and_says_what_runs_it(
        self, place: Place, instances: Instances
    ) -> None:
        said = good(instances("spawn", "beta"))
        assert "`dataserver up`" in said
        assert place.data_in("beta").is_dir()
        assert row(instances, "beta")["state"] == "stopped"

    def test_a_drop_directory_is_named_from_here_and_kept_absolute(
        self, place: Place, instances: Instances, tmp_path: Path
    ) -> None:
        good(instances("spawn", "beta", "--data-in", "deep/in"))
        wanted = tmp_path / "here/deep/in"
        assert wanted.is_dir()
        written = tomllib.loads(place.paths("beta").config.read_text())
        assert written == {"data_in": str(wanted)}
        assert not place.data_in("beta").exists()

    def test_one_that_is_there_is_used_as_it_is(self, instances: Instances, tmp_path: Path) -> None:
        there = tmp_path / "there"
        there.mkdir(mode=0o711)
        (there / "web1.1.data").write_bytes(packet("web1", module("load")))
        good(instances("spawn", "beta", "--data-in", there))
        assert row(instances, "beta")["queue"] == 1
        assert there.stat().st_mode & 0o777 == 0o711

    def test_settings_are_written_as_what_they_are(
        self, place: Place, instances: Instances
    ) -> None:
        settings = {
            "settle": ("2.5", 2.5),
            "batch_packets": ("7", 7),
            "unknown": ("off", False),
            "max_packet": ("128 MiB", "128 MiB"),
            "server_name": ('"quoted" \\ = ü', '"quoted" \\ = ü'),
        }
        options = [f"--set={key}={text}" for key, (text, _) in settings.items()]
        good(instances("spawn", "beta", *options))
        written = tomllib.loads(place.paths("beta").config.read_text())
        assert written == {"data_in": "data_in"} | {k: v for k, (_, v) in settings.items()}

    def test_a_setting_that_cannot_be_is_one_line_and_nothing_is_made(
        self, place: Place, instances: Instances
    ) -> None:
        before = tree(place.home.root)
        for setting, why in (
            ("settel=1", "did you mean 'settle'?"),
            ("settle=soon", "settle = 'soon'"),
            ("settle=nan", "settle = 'nan'"),
            ("batch_packets=0", "batch_packets"),
            ("database_password=secret", "database_password_file"),
            ("data_in=/x", "--data-in"),
            ("settle=70", "settle_max"),
            ("server_name=a\x1b[2Jb", "server_name"),
            ("database_password_file=nowhere", "instances/beta/nowhere"),
        ):
            line = refused(instances("spawn", "beta", "--set", setting), why, code=3)
            assert "\x1b" not in line
            assert ".new-" not in line
            assert tree(place.home.root) == before, setting

    def test_a_setting_without_value_or_twice_is_refused(self, instances: Instances) -> None:
        for setting in ("settle", "settle=1"):
            refused(instances("spawn", "beta", "--set", setting, "--set", "settle=1"), "--set")

    def test_a_name_that_is_no_good_is_one_line_and_nothing_is_made(
        self, place: Place, instances: Instances
    ) -> None:
        before = tree(place.home.root)
        long = "x" * 65
        for name in ("..", ".", "a/b", "/abs", "a b", "", long, "units", "spool", "A", "a\n", "-x"):
            refused(instances("spawn", name), "")
            assert tree(place.home.root) == before, name

    def test_a_name_that_is_taken_is_refused(self, place: Place, instances: Instances) -> None:
        refused(instances("spawn", "main"), "instance 'main' exists already")
        (place.home.instances / "beta").mkdir()
        refused(instances("spawn", "beta"), "is not an instance")

    def test_a_drop_directory_of_another_is_refused_and_nothing_is_made(
        self, place: Place, instances: Instances
    ) -> None:
        before = tree(place.home.root)
        for taken in (place.data_in(), place.data_in() / "inside"):
            refused(instances("spawn", "beta", "--data-in", taken), "that of instance main")
            assert tree(place.home.root) == before, taken

    def test_of_two_at_once_on_the_same_directory_one_is_made(
        self, place: Place, tmp_path: Path
    ) -> None:
        base = [str(COMMAND), "--home", str(place.home.root), "instances", "spawn"]
        both = [
            subprocess.Popen(
                [*base, name, "--data-in", str(tmp_path / "in")], stdout=PIPE, stderr=PIPE
            )
            for name in ("beta", "gamma")
        ]
        for process in both:
            process.communicate(timeout=PATIENCE)
        assert sorted(process.returncode for process in both) == [0, 2]
        assert len(place.home.instance_names()) == 2

    def test_without_a_home_it_says_how_to_make_one(self, dataserver: Run, tmp_path: Path) -> None:
        result = dataserver("--home", tmp_path, "instances", "spawn", "beta")
        refused(result, "dataserver init")

    def test_one_that_does_not_come_up_says_why_and_its_folder_stays(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        """Its directory's lock is somebody else's."""
        with held(place.home.root / "busy"):
            result = instances("spawn", "beta", "--data-in", place.home.root / "busy")
            assert result.returncode == 7
            assert result.stderr.count("\n") == 1
            assert "beta does not run" in result.stderr
            assert "used by" in result.stderr
            assert place.paths("beta").config.exists()
        fleet.wait_running("main")


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """A drop directory that a process of somebody else has locked."""
    directory.mkdir()
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "flock", directory, "sh", "-c", "echo; exec sleep 6000"],
        stdout=PIPE,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"\n"
            yield
        finally:
            # The lock is shared with what flock started.
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()
            for pid in map(int, children.split()):
                os.kill(pid, signal.SIGKILL)
            holder.kill()


class TestStartAndStop:
    def test_what_is_stopped_stays_so_until_it_is_started(
        self, place: Place, instances: Instances, as_program: Instances, fleet: Fleet
    ) -> None:
        pid = fleet.pid()
        assert good(as_program("stop", "main")) == "main: stopped\n"
        assert process_start(pid) is None
        assert row(instances)["state"] == "disabled"
        place.drop("web1.1.data", packet("web1", module("load")))
        assert row(instances)["queue"] == 1
        assert good(instances("stop", "main")) == "main: stopped\n"
        assert good(as_program("start", "main")).startswith("main: running, process ")
        fleet.wait_taken("main")

    def test_a_restart_is_another_process(self, as_program: Instances, fleet: Fleet) -> None:
        pid = fleet.pid()
        said = good(as_program("restart", "main"))
        assert said.startswith("main: running, process ")
        assert int(said.split()[-1]) not in (pid, 0)
        assert process_start(pid) is None

    def test_restarts_in_quick_succession_are_no_failures(
        self, instances: Instances, fleet: Fleet
    ) -> None:
        before = len(fleet.log)
        for _ in range(4):
            assert good(instances("restart", "main")).startswith("main: running, process ")
        assert "next try" not in fleet.log[before:]

    def test_a_restart_starts_what_does_not_run(self, instances: Instances, fleet: Fleet) -> None:
        good(instances("stop", "main"))
        assert good(instances("restart", "main")).startswith("main: running, process ")

    def test_several_are_done_although_one_is_not_there(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        good(instances("spawn", "beta"))
        place.paths("beta").config.write_text("surprise = 1\n")
        good(instances("stop", "--all"))
        result = instances("start", "--all")
        assert result.returncode == 7
        assert "surprise" in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout.startswith("main: running, process ")

    def test_a_name_that_is_not_there_changes_nothing(
        self, instances: Instances, fleet: Fleet
    ) -> None:
        refused(instances("stop", "main", "nobody"), "no instance 'nobody'")
        assert row(instances)["state"] == "running"

    def test_names_and_all_exclude_each_other(self, instances: Instances) -> None:
        refused(instances("stop"), "--all")
        refused(instances("stop", "main", "--all"), "not both")

    def test_one_that_hangs_is_told_and_others_are_not_held_up(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        good(instances("spawn", "beta"))
        pid = fleet.pid("beta")
        os.kill(pid, signal.SIGSTOP)
        command = [COMMAND, "--home", place.home.root, "instances", "stop", "--all"]
        with subprocess.Popen([*command, "--timeout", str(PATIENCE)], stdout=PIPE) as waiting:
            try:
                assert waiting.stdout is not None
                assert waiting.stdout.readline() == b"main: stopped\n"
            finally:
                waiting.kill()
        result = instances("stop", "beta", "--timeout", "1")
        assert (result.returncode, result.stdout) == (7, "")
        assert f"beta is not stopped yet: stopping, process {pid}" in result.stderr
        os.kill(pid, signal.SIGCONT)
        fleet.wait_state(RunState.STOPPED, "beta")

    def test_without_waiting_it_only_asks(self, instances: Instances, fleet: Fleet) -> None:
        assert good(instances("stop", "main", "--no-wait")) == "main: asked to be stopped\n"
        fleet.wait_state(RunState.STOPPED)


class TestByHand:
    """Started by `dataserver run`; no supervisor."""

    def test_it_is_listed_as_such_and_stopped_all_the_same(
        self, place: Place, instances: Instances
    ) -> None:
        with Server(place) as server:
            server.wait_phase(Phase.IDLE)
            found = row(instances)
            assert (found["state"], found["supervised"]) == ("running", False)
            assert found["pid"] == server.pid
            assert "running (by hand)" in good(instances("list"))
            assert good(instances("stop", "main")) == "main: stopped\n"
            assert server.wait_exit() == 0
        assert row(instances)["state"] == "disabled"

    def test_under_a_supervisor_it_is_stopped_too(self, place: Place, instances: Instances) -> None:
        with Server(place) as server:
            server.wait_phase(Phase.IDLE)
            with Fleet(place) as fleet:
                fleet.wait_state(RunState.HELD)
                assert row(instances)["supervised"] is False
                assert good(instances("start", "main")).endswith("not supervised\n")
                refused(instances("restart", "main"), "not supervised", code=1)
                good(instances("stop", "main"))
                assert server.wait_exit() == 0
                assert fleet.stop() == 0

    def test_a_start_says_that_nothing_would_run_it_but_enables_it(
        self, instances: Instances
    ) -> None:
        good(instances("stop", "main"))
        refused(instances("start", "main"), "`dataserver up`", code=7)
        assert row(instances)["state"] == "stopped"

    def test_a_restart_does_not_end_what_nobody_would_start_again(
        self, place: Place, instances: Instances
    ) -> None:
        with Server(place) as server:
            server.wait_phase(Phase.IDLE)
            refused(instances("restart", "main"), "no manager would restart it", code=7)
            assert server.running

    def test_a_process_that_has_nothing_to_do_with_it_is_never_signalled(
        self, place: Place, instances: Instances
    ) -> None:
        """The number in the lock file is another's: it came from another container."""
        assert os.geteuid() == 0, "this test makes a namespace of processes: run it as root"
        var = place.paths().var
        var.mkdir(parents=True)
        lock = var / "lock"
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            space = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
            command = ["sh", "-c", STOP_BESIDE_A_BYSTANDER, "sh", lock, COMMAND, place.home.root]
            result = subprocess.run(
                [*space, *command], capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        refused(result, "cannot be signalled from here", code=1)


#: Exits with 99 where the bystander was ended.
STOP_BESIDE_A_BYSTANDER = """
sleep 600 </dev/null >/dev/null 2>&1 &
echo $! > "$1"
"$2" --home "$3" instances stop main
code=$?
kill -0 $! || exit 99
exit $code
"""


class TestList:
    def test_it_works_after_everything_died(self, place: Place, instances: Instances) -> None:
        with Fleet(place) as fleet:
            fleet.wait_running("main")
            pid = fleet.pid()
            fleet.kill()
        wait_until(lambda: process_start(pid) is None, "its end")
        # Its lock goes with the last of its threads.
        wait_until(lambda: row(instances)["state"] == "dead", "all of it to be gone")
        assert json.loads(good(instances("list", "--json")))["manager"] is None
        assert "`dataserver up`" in good(instances("list"))

    def test_it_works_while_the_database_hangs(self, place: Place, instances: Instances) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        with closing(server):
            port = server.getsockname()[1]
            place.configure(database=f"mysql://u@127.0.0.1:{port}/x", connect_timeout=60)
            with Fleet(place) as fleet:
                fleet.wait_running("main")
                assert row(instances)["pid"] == fleet.pid()
                fleet.kill()

    def test_a_folder_that_cannot_be_read_hides_no_other(
        self, place: Place, dataserver: Run
    ) -> None:
        assert os.geteuid() == 0, "this test gives up rights of root: run it as root"
        place.add("closed")
        place.paths("closed").folder.chmod(0)
        place.add("hidden")
        place.paths("hidden").var.mkdir(parents=True)
        place.paths("hidden").var.chmod(0)
        command = [*LESS_THAN_ROOT, COMMAND, "--home", place.home.root, "instances", "list"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        table, whys = done.stdout.splitlines()[1:4], done.stdout.splitlines()[4:]
        assert [line.split()[:2] for line in table] == [
            ["closed", "broken"],
            ["hidden", "unknown"],
            ["main", "stopped"],
        ]
        assert [line.partition(":")[0] for line in whys[:2]] == ["closed", "hidden"]
        assert all("Permission denied" in line for line in whys[:2])

    def test_a_broken_one_is_one_line_and_no_error(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        place.add("beta")
        place.paths("beta").config.write_text("surprise = 1\n")
        fleet.wait_state(RunState.FAILED, "beta")
        lines = good(instances("list")).splitlines()
        assert lines[1].split()[:2] == ["beta", "broken"]
        assert lines[3].startswith("beta: ")
        assert "surprise" in lines[3]
        assert len(lines) == 4

    def test_names_and_reasons_are_escaped(self, place: Place, instances: Instances) -> None:
        place.paths().config.write_text('data_in = "a\\u001b[2J"\n')
        assert "\x1b" not in good(instances("list"))


class TestRemove:
    def test_main_is_never_removed(self, instances: Instances) -> None:
        refused(instances("remove", "main", "--force", "--yes"), "main is never removed")

    def test_with_packets_it_is_refused_and_goes_on_running(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        good(instances("spawn", "beta"))
        place.drop("a.1.data", b"<agent_data", instance="beta")
        line = refused(instances("remove", "beta"), "1 packet queued")
        assert "dataserver run beta --once" in line
        assert row(instances, "beta")["state"] == "running"

    def test_with_one_that_comes_while_it_stops_it_is_refused_and_runs_again(
        self,
        place: Place,
        instances: Instances,
        fleet: Fleet,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        good(instances("spawn", "beta"))
        stop = instances_commands._stop

        def stop_and_upload(*arguments: Any) -> None:
            stop(*arguments)
            place.drop("a.1.data", b"<agent_data", instance="beta")

        monkeypatch.setattr(instances_commands, "_stop", stop_and_upload)
        refused(instances("remove", "beta"), "1 packet queued")
        fleet.wait_running("beta")
        assert place.packets_left("beta") == ["a.1.data"]

    def test_what_another_command_removes_meanwhile_is_gone(
        self,
        instances: Instances,
        as_program: Instances,
        fleet: Fleet,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        good(instances("spawn", "beta"))
        waited = instances_commands.wait_with_progress

        def beaten(*arguments: Any) -> Iterator[Any]:
            assert good(as_program("remove", "beta")) == "beta: removed\n"
            return waited(*arguments)

        monkeypatch.setattr(instances_commands, "wait_with_progress", beaten)
        refused(instances("remove", "beta"), "beta no longer exists: another command removed it")
        refused(instances("remove", "beta"), "there is no instance 'beta'")

    def test_of_two_commands_at_once_one_removes_it(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        good(instances("spawn", "beta"))
        command = [COMMAND, "--home", place.home.root, "instances", "remove", "beta"]
        both = [subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) for _ in range(2)]
        said = sorted(each.communicate(timeout=PATIENCE) for each in both)
        assert said[1] == ("beta: removed\n", "")
        # Why the other did not depends on how far it was.
        assert said[0][0] == ""
        assert said[0][1].count("\n") == 1
        assert not place.paths("beta").folder.exists()

    def test_with_rejected_packets_too(self, place: Place, instances: Instances) -> None:
        good(instances("spawn", "beta"))
        place.drop("a.1.data", b"<agent_data>no name</agent_data>", instance="beta")
        with Server(place, "beta") as server:
            server.wait(lambda: place.rejected("beta"), "a rejected packet")
            assert server.stop() == 0
        refused(instances("remove", "beta"), "1 packet rejected")
        assert place.rejected("beta")

    def test_with_files_of_others_among_what_it_left_too(
        self, place: Place, instances: Instances
    ) -> None:
        good(instances("spawn", "beta"))
        place.paths("beta").var.mkdir(parents=True)
        (place.paths("beta").var / "own.db").touch()
        refused(instances("remove", "beta"), "own.db")

    def test_forced_it_asks_and_without_a_terminal_refuses(
        self, place: Place, instances: Instances
    ) -> None:
        good(instances("spawn", "beta"))
        place.drop("a.1.data", packet("a", module("load")), instance="beta")
        line = refused(instances("remove", "beta", "--force"), "1 packet queued")
        assert "--yes" in line
        assert place.packets_left("beta") == ["a.1.data"]
        said = good(instances("remove", "beta", "--force", "--yes"))
        assert said == "beta: lost: 1 packet queued\nbeta: removed\n"
        assert not place.paths("beta").folder.exists()

    def test_on_a_terminal_it_asks(
        self, place: Place, instances: Instances, as_program: Instances
    ) -> None:
        good(instances("spawn", "beta"))
        place.drop("a.1.data", packet("a", module("load")), instance="beta")
        for answer in ("n", "", "y"):
            with Terminal() as terminal:
                terminal.type(f"{answer}\n")
                result = as_program("remove", "beta", "--force", stdin=terminal.device)
            assert "1 packet queued" in result.stderr
            assert place.paths("beta").folder.exists() is (answer != "y")

    def test_several_go_although_one_does_not(self, place: Place, instances: Instances) -> None:
        good(instances("spawn", "beta"))
        good(instances("spawn", "gamma"))
        result = instances("remove", "beta", "main", "nobody", "gamma")
        assert result.returncode == 2
        assert result.stdout == "beta: removed\ngamma: removed\n"
        assert result.stderr.count("\n") == 2

    def test_one_started_by_hand_is_stopped_first(self, place: Place, instances: Instances) -> None:
        good(instances("spawn", "beta"))
        with Server(place, "beta") as server:
            server.wait_phase(Phase.IDLE)
            assert good(instances("remove", "beta")) == "beta: removed\n"
            assert server.wait_exit() == 0
        assert not place.paths("beta").var.exists()

    def test_a_drop_directory_elsewhere_goes_only_if_it_is_empty(
        self, place: Place, instances: Instances, tmp_path: Path
    ) -> None:
        for name in ("empty", "full"):
            good(instances("spawn", name, "--data-in", tmp_path / name))
        (tmp_path / "full/conf").mkdir()
        said = good(instances("remove", "empty", "full"))
        assert not (tmp_path / "empty").exists()
        assert (tmp_path / "full/conf").is_dir()
        assert said.splitlines()[-1] == f"full: {tmp_path / 'full'} stays"

    def test_links_are_not_followed(
        self, place: Place, instances: Instances, tmp_path: Path
    ) -> None:
        good(instances("spawn", "beta"))
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "file").touch()
        place.data_in("beta").rmdir()
        place.data_in("beta").symlink_to(precious)
        (place.paths("beta").folder / "link").symlink_to(precious)
        place.paths("beta").var.parent.mkdir(exist_ok=True)
        place.paths("beta").var.symlink_to(precious)
        said = good(instances("remove", "beta", "--force", "--yes"))
        assert "stays" in said
        assert (precious / "file").exists()
        assert not os.path.lexists(place.paths("beta").var)


class TestLogs:
    def test_they_are_what_it_said_and_go_on(
        self, place: Place, instances: Instances, fleet: Fleet
    ) -> None:
        lines = good(instances("logs", "main", "--lines", 1000)).splitlines()
        assert any(json.loads(line)["message"].startswith("starting instance") for line in lines)
        command = [COMMAND, "--home", place.home.root, "instances", "logs", "--follow", "-n", "0"]
        with subprocess.Popen(command, stdout=PIPE) as following:
            try:
                assert following.stdout is not None
                output = following.stdout.fileno()
                # What was said before it looked does not come: so again and again.
                log = place.paths().var / "log"

                def came() -> object:
                    with log.open("a") as file:
                        file.write('{"message": "ping"}\n')
                    return select.select([output], [], [], 0)[0] and b"ping" in os.read(output, 99)

                wait_until(came, "what was said")
            finally:
                following.kill()

    def test_on_a_terminal_each_is_a_short_line_escaped(
        self, place: Place, instances: Instances, as_program: Instances
    ) -> None:
        var = place.paths().var
        var.mkdir(parents=True)
        message = {
            "time": "2026-01-01T00:00:00Z",
            "level": "info",
            "message": "evil \x1b[2J",
            "instance": "main",
            "agent": "web1",
        }
        (var / "log").write_text(json.dumps(message) + "\nraw \x1b[2J\n")
        raw = good(instances("logs", "main"))
        assert json.loads(raw.splitlines()[0]) == message
        with Terminal() as terminal:
            as_program("logs", "main", stdout=terminal.device)
            shown = terminal.shown()
        assert "info: evil \\x1b[2J (agent=web1)" in shown
        assert "raw \\x1b[2J" in shown

    def test_where_there_are_none_it_says_so(self, instances: Instances) -> None:
        refused(instances("logs"), "main has no log")


class TestFullDisk:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        """A home on a small disk of its own."""
        assert os.geteuid() == 0, "this test mounts: run it as root"
        disk = tmp_path / "disk"
        disk.mkdir()
        options = f"size={TWO_MEGABYTES},nr_inodes=64"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], check=True)
        try:
            yield Place(disk / "home", URL)
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)

    @pytest.mark.parametrize("what", ["inodes", "bytes"])
    def test_leaves_no_half_instance_and_says_so_in_one_line(
        self, place: Place, instances: Instances, what: str
    ) -> None:
        ballast = place.home.root / "ballast"
        ballast.mkdir()
        with suppress(OSError):
            for number in range(1000):
                (ballast / str(number)).write_bytes(b"" if what == "inodes" else bytes(65536))
        if what == "inodes":
            # Room for the folder, not for all that belongs into it.
            (ballast / "0").unlink()
        before = tree(place.home.root)
        line = refused(instances("spawn", "beta"), "No space left on device", code=1)
        assert "nothing was created" in line
        assert tree(place.home.root) == before
        for path in ballast.iterdir():
            path.unlink()
        good(instances("spawn", "beta"))

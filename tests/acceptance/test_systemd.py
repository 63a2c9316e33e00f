"""Instances run by a real systemd, as an administrator has them after `units --install`."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.house import module, packet
from tests.support.mariadb import MariaDB
from tests.support.systemd import HOME, PYTHON, SHARED, Machine, installed, machine

TEMPLATE = Path("/etc/systemd/system/dataserver@.service")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine for all the tests here; the instance main runs."""
    with installed(tmp_path_factory.mktemp("host")) as made:
        made.run("systemctl", "start", "dataserver.target")
        made.wait_state("running")
        yield made


def spawned(host: Machine, name: str, *options: object) -> None:
    """An instance of a test's own; it runs."""
    host.dataserver("instances", "spawn", name, *options)
    host.wait_state("running", name)


def told_watchdog(host: Machine, name: str) -> str:
    """When an instance told systemd the last time that it moves."""
    property_ = "WatchdogTimestampMonotonic"
    return host.show(unit(name), property_)[property_]


def unit(name: str) -> str:
    return f"dataserver@{name}.service"


def complaints(host: Machine, name: str) -> list[str]:
    """What an instance complained about, but for packets."""
    lines = host.journal("--output=cat", f"_SYSTEMD_UNIT={unit(name)}").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    bad = [each["message"] for each in told if each["level"] not in ("debug", "info")]
    return [message for message in bad if not message.startswith("rejected")]


class TestInstalling:
    def test_everything_is_put_in_place_once(self, tmp_path: Path) -> None:
        with machine(tmp_path) as bare:
            bare.run(PYTHON, "-P", "-m", "dataserver", "init", HOME)
            (bare.home.root / "database.password").write_text("hush\n")
            bare.home.config.write_text('database_password_file = "database.password"\n')
            # As root had used it before: its files must not be in the server's way.
            bare.dataserver("run", "--once")
            first = bare.dataserver("instances", "units", "--install").stdout
            for did in ("wrote  /etc/systemd/system/dataserver@.service", "made   account", "set "):
                assert did in first
            assert "WARN" not in first
            assert self._owners(bare) == {
                ".": ("root", "root", 0o755),
                "instances": ("root", "root", 0o755),
                "var": ("dataserver", "dataserver", 0o751),
                "var/dataserver.db": ("dataserver", "dataserver", 0o640),
                "data_in": ("dataserver", "dataserver-upload", 0o2730),
                "database.password": ("root", "dataserver", 0o640),
            }
            enabled = bare.run("systemctl", "is-enabled", "dataserver.target", unit("main"))
            assert enabled.stdout.split() == ["enabled", "enabled"]

            second = bare.dataserver("instances", "units", "--install").stdout
            assert "wrote" not in second
            assert "made" not in second
            bare.run("systemctl", "start", "dataserver.target")
            bare.wait_state("running")

    def _owners(self, bare: Machine) -> dict[str, tuple[str, str, int]]:
        names = (".", "instances", "var", "var/dataserver.db", "data_in", "database.password")
        found = {}
        for name in names:
            said = bare.run("stat", "--format=%U %G %a", HOME / name).stdout.split()
            found[name] = (said[0], said[1], int(said[2], 8))
        return found

    @pytest.mark.long
    def test_a_home_with_an_odd_name_runs_as_well(self, tmp_path: Path) -> None:
        home = Path("/srv/o d 100%/$HOME %i")
        with machine(tmp_path) as bare:
            bare.run("mkdir", "-p", home.parent)
            bare.run(PYTHON, "-P", "-m", "dataserver", "init", home)
            bare.dataserver("instances", "units", "--install", home=home)
            bare.run("systemctl", "start", "dataserver.target")

            def runs() -> bool:
                listed = bare.dataserver("instances", "list", "--json", home=home).stdout
                return json.loads(listed)["instances"][0]["state"] == "running"

            bare.wait(runs, "main running")
            bare.upload("web1.1.data", packet("web1"), home / "data_in")
            bare.wait(lambda: bare.packets(home / "var/dataserver.db") == 1, "the packet")
            bare.dataserver("instances", "stop", "main", home=home)
            bare.run("systemctl", "start", unit("main"))
            assert bare.show(unit("main"), "ActiveState")["ActiveState"] == "inactive"

    def test_a_unit_that_somebody_changed_stays_until_it_is_replaced(self, host: Machine) -> None:
        path = host.outside(TEMPLATE)
        ours = path.read_text()
        path.write_text(ours + "# mine\n")
        said = host.dataserver("instances", "units", "--install").stdout
        assert f"kept   {TEMPLATE} (it differs" in said
        said = host.dataserver("instances", "units", "--install", "--replace").stdout
        assert f"wrote  {TEMPLATE} (the old one is" in said
        assert path.read_text() == ours
        assert path.with_name(f"{path.name}.old").read_text() == ours + "# mine\n"

    def test_who_runs_it_is_systemd_for_this_home_only(self, host: Machine) -> None:
        listed = json.loads(host.dataserver("instances", "list", "--json").stdout)
        assert listed["manager"] == "systemd"
        other = Path("/var/lib/other")
        host.run(PYTHON, "-P", "-m", "dataserver", "init", other)
        listed = json.loads(host.dataserver("instances", "list", "--json", home=other).stdout)
        assert listed["manager"] is None


class TestHardening:
    def test_packets_are_taken_under_it(self, host: Machine) -> None:
        # A backlog: a process of its own reads it.
        before = host.packets()
        for number in range(1500):
            host.upload(f"h{number}.1.data", packet(f"h{number}", module("load", "1")))
        host.wait(lambda: host.packets() == before + 1500, "all packets in the ledger")
        uid, _ = host.account("dataserver")
        pid = host.row()["pid"]
        assert Path(f"/proc/{host.pid}/root/proc/{pid}").stat().st_uid == uid
        assert complaints(host, "main") == []

    def test_a_bad_packet_is_set_aside_under_it(self, host: Machine) -> None:
        host.upload("bad.1.data", b"<agent_data></agent_data>")
        rejected = host.home.instance().rejected
        host.wait(lambda: list(rejected.glob("*no-agent.data")), "the packet set aside")
        [file] = rejected.glob("*no-agent.data")
        assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0

    def test_operators_patterns_work_under_it(self, host: Machine) -> None:
        text = "<module><name>text</name><type>generic_data_string</type><data>down</data>"
        text += "<str_critical>^d(o|u)wn$</str_critical></module>"
        host.upload("pattern.1.data", packet("pattern", text))
        said = []

        def judged() -> bool:
            said[:] = [host.dataserver("modules", "pattern", "--json", check=False).stdout]
            return '"critical"' in said[0]

        host.wait(judged, f"a critical module: {said}")

    def test_nothing_else_can_be_done(self, host: Machine) -> None:
        # Open to all, so that only the unit stands in the way.
        for path in (HOME / "uploads", Path("/srv/open"), Path("/home/open"), Path("/tmp/open")):
            host.run("mkdir", "-p", "-m", "777", path)
        script = host.home.var / "probe.py"
        script.write_text(_PROBE)
        host.adapt(
            unit("probe"),
            f"[Unit]\nConditionPathExists=\n[Service]\nType=oneshot\nRestart=no\n"
            f"ExecStart=\nExecStart={PYTHON} -P {HOME}/var/probe.py {HOME}\n",
        )
        host.run("systemctl", "start", unit("probe"))
        told = ("--output=cat", f"_SYSTEMD_UNIT={unit('probe')}")
        found = json.loads(host.wait(lambda: host.journal(*told), "what came of it"))
        assert found.pop("may write to var") == "done"
        assert found.pop("may write to data_in") == "done"
        assert {what: said for what, said in found.items() if said == "done"} == {}
        assert found.pop("capabilities") == "0000000000000000"

    @pytest.mark.long
    @pytest.mark.parametrize("way", ["tcp", "socket"])
    def test_mariadb_is_reached_under_it(self, host: Machine, way: str) -> None:
        with MariaDB(host.directory / "shared" / way) as server:
            url = server.create("mine")
            if way == "socket":
                server.socket.parent.chmod(0o755)
                path = SHARED / way / server.socket.name
                url = f"mysql://root@localhost/mine?unix_socket={path}"
            name = f"maria-{way}"
            spawned(host, name, "--set", f"database={url}")
            data_in = HOME / f"instances/{name}/data_in"
            host.upload("web1.1.data", packet("web1"), data_in)
            counted = "SELECT count(*) FROM tpacket"

            def stored() -> int:
                conn = server.connect("mine")
                try:
                    cursor = conn.cursor()
                    cursor.execute(counted)
                    return int(cursor.fetchone()[0])
                finally:
                    conn.close()

            host.wait(stored, "the packet in MariaDB")
            files = host.outside(data_in)
            host.wait(lambda: not list(files.glob("*.data")), "its file gone")
            host.dataserver("instances", "remove", name)


class TestLife:
    def test_it_is_active_once_it_is_ready_and_not_before(self, host: Machine) -> None:
        spawned(host, "slow")
        pid = host.row("slow")["pid"]
        host.adapt(unit("slow"), "[Service]\nExecStart=\nExecStart=/bin/sleep infinity\n")
        host.dataserver("instances", "restart", "slow", "--no-wait")
        pid = host.wait_state("starting", "slow", but_not=pid)
        assert host.show(unit("slow"), "ActiveState")["ActiveState"] == "activating"
        assert pid == host.row("slow")["pid"]
        host.adapt(unit("slow"), "")
        host.dataserver("instances", "restart", "slow")
        host.wait_state("running", "slow")
        host.wait(
            lambda: host.show(unit("slow"), "StatusText")["StatusText"] in ("idle", "scanning"),
            "the text of its status",
        )

    def test_one_that_is_killed_comes_back(self, host: Machine) -> None:
        spawned(host, "killed")
        pid = host.row("killed")["pid"]
        host.run("kill", "-KILL", pid)
        assert host.wait_state("running", "killed", but_not=pid) != pid
        assert host.row("killed")["restarts"] == 1

    @pytest.mark.long
    def test_one_that_left_unasked_comes_back(self, host: Machine) -> None:
        spawned(host, "left")
        pid = host.row("left")["pid"]
        host.run("kill", "-TERM", pid)
        host.wait_state("running", "left", but_not=pid)

    def test_one_that_is_stopped_in_its_tracks_is_killed_and_comes_back(
        self, host: Machine
    ) -> None:
        host.adapt(unit("stuck"), "[Service]\nRestartSec=100ms\nWatchdogSec=3\n")
        spawned(host, "stuck")
        pid = host.row("stuck")["pid"]
        host.run("kill", "-STOP", pid)
        host.wait_state("running", "stuck", but_not=pid)
        # More than once where the machine is too slow for such a watchdog.
        assert host.row("stuck")["restarts"] >= 1
        host.dataserver("instances", "remove", "stuck")

    @pytest.mark.long
    def test_waiting_for_its_database_is_not_being_stuck(self, host: Machine) -> None:
        url = "mysql://nobody@127.0.0.1:9/none"
        host.dataserver("instances", "spawn", "waiting", "--set", f"database={url}")
        pid = host.wait_state("waiting for database", "waiting")
        # It goes on telling the watchdog that it moves.
        for _ in range(3):
            last = told_watchdog(host, "waiting")
            host.wait(lambda last=last: told_watchdog(host, "waiting") != last, "a sign of life")
        row = host.row("waiting")
        assert (row["pid"], row["restarts"], row["state"]) == (pid, 0, "waiting for database")
        assert host.show(unit("waiting"), "ActiveState")["ActiveState"] == "active"
        host.dataserver("instances", "remove", "waiting")

    @pytest.mark.long
    def test_a_stopped_one_stays_so_whoever_starts_it(self, host: Machine) -> None:
        spawned(host, "quiet")
        host.dataserver("instances", "stop", "quiet")
        row = host.row("quiet")
        assert (row["state"], row["pid"], row["enabled"]) == ("disabled", None, False)
        host.run("systemctl", "start", unit("quiet"), "dataserver.target")
        assert host.show(unit("quiet"), "ActiveState")["ActiveState"] == "inactive"
        enabled = host.run("systemctl", "is-enabled", unit("quiet"), check=False).stdout.strip()
        assert enabled == "disabled"
        host.dataserver("instances", "start", "quiet")
        host.wait_state("running", "quiet")
        assert host.run("systemctl", "is-enabled", unit("quiet")).stdout.strip() == "enabled"

    @pytest.mark.long
    def test_one_that_ends_at_every_start_is_given_up_and_can_be_started_again(
        self, host: Machine
    ) -> None:
        spawned(host, "lame")
        host.adapt(unit("lame"), "[Unit]\nStartLimitBurst=5\n[Service]\nRestartSec=100ms\n")
        data_in = host.home.instance("lame").folder / "data_in"
        data_in.rename(data_in.with_name("away"))
        said = host.dataserver("instances", "restart", "lame", check=False)
        assert said.returncode == 7
        host.wait_state("failed", "lame")
        row = host.row("lame")
        assert row["pid"] is None
        assert "exit code 5" in row["detail"]
        assert "data_in" in row["detail"]
        assert row["restarts"] >= 3
        data_in.with_name("away").rename(data_in)
        host.dataserver("instances", "start", "lame")
        host.wait_state("running", "lame")

    @pytest.mark.long
    def test_one_whose_settings_are_wrong_is_not_tried_again(self, host: Machine) -> None:
        spawned(host, "wrong")
        config = host.home.instance("wrong").config
        good = config.read_text()
        config.write_text("settle = 'soon'\n")
        said = host.dataserver("instances", "restart", "wrong", check=False)
        assert said.returncode == 7
        row = host.row("wrong")
        assert (row["state"], row["restarts"]) == ("broken", 0)
        assert host.show(unit("wrong"), "ActiveState")["ActiveState"] == "failed"
        config.write_text(good)
        host.dataserver("instances", "start", "wrong")
        host.wait_state("running", "wrong")

    @pytest.mark.long
    def test_the_target_stops_and_starts_all(self, host: Machine) -> None:
        spawned(host, "member")
        host.run("systemctl", "stop", "dataserver.target")
        host.wait_state("stopped", "member")
        row = host.row("member")
        assert "systemctl start dataserver.target" in row["detail"]
        host.run("systemctl", "start", "dataserver.target")
        host.wait_state("running", "member")
        host.wait_state("running")

    @pytest.mark.long
    def test_what_it_said_can_be_read_and_followed(self, host: Machine) -> None:
        spawned(host, "loud")
        said = host.dataserver("instances", "logs", "loud", "--lines", "50").stdout
        assert "starting instance loud" in said
        command = [PYTHON, "-P", "-m", "dataserver", "--home", HOME, "instances", "logs", "loud"]
        with subprocess.Popen(
            [*host.entering(), *map(str, command), "--follow", "--lines", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as follower:
            try:
                assert follower.stdout is not None
                heard = bytearray()
                stream = follower.stdout.fileno()
                os.set_blocking(stream, False)

                def told() -> bool:
                    host.run("systemctl", "reload", unit("loud"))
                    with suppress(BlockingIOError):
                        heard.extend(os.read(stream, 65536))
                    return b"configuration read again" in heard

                host.wait(told, "what it says from now on")
            finally:
                follower.send_signal(signal.SIGKILL)


class TestOutside:
    @pytest.mark.long
    def test_a_drop_directory_outside_of_the_home_is_reached_by_its_instance(
        self, host: Machine
    ) -> None:
        data_in = Path("/srv/out side")
        spawned(host, "outside", "--data-in", data_in)
        drop_in = host.outside(Path(f"/etc/systemd/system/{unit('outside')}.d/paths.conf"))
        assert '"-/srv/out side"' in drop_in.read_text()
        before = host.packets()
        host.upload("web1.1.data", packet("outside"), data_in)
        host.upload("bad.1.data", b"<agent_data></agent_data>", data_in)
        rejected = host.home.instance("outside").rejected
        host.wait(lambda: host.packets() == before + 1, "the packet in the ledger")
        host.wait(lambda: list(rejected.glob("*no-agent.data")), "the packet set aside")
        host.wait(lambda: not list(host.outside(data_in).iterdir()), "the directory empty")
        assert complaints(host, "outside") == []
        host.dataserver("instances", "stop", "outside")
        assert not drop_in.exists()
        assert host.show(unit("outside"), "NeedDaemonReload")["NeedDaemonReload"] == "no"
        host.dataserver("instances", "start", "outside")
        assert drop_in.exists()
        host.dataserver("instances", "remove", "outside", "--force", "--yes")
        assert not drop_in.parent.exists()
        assert host.row("outside") == {}


#: Tries what an intruder would; prints what came of it as JSON.
_PROBE = """
import ctypes, json, os, socket, sys
home = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)

def create(path):
    with open(path, "w") as file:
        file.write("x")

def call(function, *args):
    if function(*args):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def executable():
    import mmap
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

attempts = {
    "may write to var": lambda: create(f"{home}/var/probe"),
    "may write to data_in": lambda: create(f"{home}/data_in/probe"),
    "settings": lambda: create(f"{home}/dataserver.toml"),
    "an instance": lambda: create(f"{home}/instances/main/instance.toml"),
    "a marker": lambda: create(f"{home}/instances/main/disabled"),
    "the home": lambda: create(f"{home}/probe"),
    "uploads": lambda: create(f"{home}/uploads/probe"),
    "/etc": lambda: create("/etc/probe"),
    "the program": lambda: create("/opt/dataserver/probe"),
    "what is open to all": lambda: create("/srv/open/probe"),
    "root's home": lambda: os.listdir("/root"),
    "homes": lambda: os.listdir("/home/open"),
    "others' temporary files": lambda: os.listdir("/tmp/open"),
    "a mount": lambda: call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None),
    "a user namespace": lambda: call(libc.unshare, 0x10000000),
    "executable memory": executable,
    "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0),
    "other processes": lambda: os.stat("/proc/1"),
    "a disk": lambda: open("/dev/vda", "rb") if os.path.exists("/dev/vda") else 1 / 0,
    "setgid": lambda: os.chmod(f"{home}/var/probe", 0o6755),
    "the clock": lambda: __import__("time").clock_settime(0, 0.0),
}
found = {}
for what, attempt in attempts.items():
    try:
        attempt()
        found[what] = "done"
    except Exception as exc:
        found[what] = str(exc)
status = open("/proc/self/status").read()
found["capabilities"] = status.split("CapBnd:")[1].split()[0]
for left in (f"{home}/var/probe", f"{home}/data_in/probe"):
    os.unlink(left)
print(json.dumps(found))
"""

"""The agent's side in shell: what it makes, sends, keeps and gives up, against real servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from calendar import timegm
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from dataserver.packet import parse
from dataserver.rules import entities
from dataserver.store import schema
from tests.support.commands import Run
from tests.support.databases import SQLITE, Database, opened
from tests.support.failures import failures
from tests.support.server import Place, Server
from tests.support.uploads import Gate, SshServer, ssh_server
from tests.support.waiting import PATIENCE, wait_until

SCRIPT = Path(__file__).parents[2] / "docs" / "agent" / "agent.sh"
#: What a system of busybox and OpenSSH has besides busybox.
OPENSSH = ("scp",)
#: A module of 400 kB, and bytes of its upload after which it is held back.
LARGE = """more_modules() {
    module Large generic_data_string "$(head -c 400000 /dev/zero | tr '\\000' 7)"
}
"""
HALF = 300_000
#: The second: a sixth of the default's work, which is not what is tested.
SCP_OPTIONS = "-F /dev/null -o KexAlgorithms=curve25519-sha256"
HOSTILE = "a'b\"c<d>&amp;]]>e; $(touch x) `f` \\1 ü"


class Host:
    """A monitored machine: its script, settings and outgoing folder."""

    def __init__(self, root: Path, data_in: Path, sshd: Path, port: int) -> None:
        self.root = root
        self.outgoing = root / "outgoing"
        self.shell: Sequence[str] = ("dash",)
        self.environment = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "HOME": str(root)}
        self._settings: dict[str, object] = {
            "NAME": "web1.example.org",
            "SERVER": "127.0.0.1",
            "PORT": port,
            "ACCOUNT": os.environ.get("USER", "root"),
            "TARGET": f"{data_in}/",
            "KEY": sshd / "client",
            "KNOWN_HOSTS": root / "known_hosts",
            "SCP_OPTIONS": SCP_OPTIONS,
            "OUTGOING": self.outgoing,
            "PAUSE": 0,
            "ZONE": "UTC",
        }
        (root / "bin").mkdir(parents=True)
        key = (sshd / "host.pub").read_text()
        (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
        self.configure()

    def configure(self, more: str = "", **settings: object) -> None:
        """Write the settings, and ``more`` lines of shell after them."""
        self._settings |= settings
        lines = [f"{key}={shlex.quote(str(value))}\n" for key, value in self._settings.items()]
        (self.root / "agent.conf").write_text("".join([*lines, more]))

    def fake(self, name: str, body: str) -> None:
        """Put a program before the real one of this name."""
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def busybox_only(self) -> None:
        """From now on it has busybox and OpenSSH, nothing else."""
        busybox = shutil.which("busybox")
        assert busybox is not None, "busybox is not installed (see tools/test-packages.txt)"
        programs = self.root / "programs"
        programs.mkdir()
        applets = subprocess.run([busybox, "--list"], check=True, text=True, capture_output=True)
        for name in applets.stdout.split():
            (programs / name).symlink_to(busybox)
        for name in OPENSSH:
            (programs / name).symlink_to(shutil.which(name) or name)
        self.environment["PATH"] = f"{self.root / 'bin'}:{programs}"
        self.shell = (busybox, "sh")

    def command(self, *options: str) -> list[str]:
        return [*self.shell, str(SCRIPT), "-f", str(self.root / "agent.conf"), *options]

    def run(self, *options: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
        """One run, to its end."""
        command = [*before, *self.command(*options)]
        return subprocess.run(
            command, check=False, env=self.environment, capture_output=True, timeout=PATIENCE
        )

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """A run in the background; it and its children are gone after the block."""
        command = [shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL"]
        command += self.command(*options)
        with (self.root / "stderr").open("wb") as stderr:
            process = subprocess.Popen(command, env=self.environment, stderr=stderr)
        try:
            yield process
        finally:
            kill(descendants(process.pid))
            process.kill()
            process.wait()

    def waiting(self) -> list[str]:
        """The packets that wait, in order."""
        return sorted(path.name for path in self.outgoing.glob("*.data"))

    def left_over(self) -> list[str]:
        """What else lies in the folder, but for the number of the last packet."""
        names = set(os.listdir(self.outgoing)) - set(self.waiting())
        return sorted(names - {".last"})


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def said(run: subprocess.CompletedProcess[bytes]) -> list[str]:
    """The lines on stderr; there is never anything on stdout."""
    assert run.stdout == b""
    return run.stderr.decode("utf-8", "replace").splitlines()


def assert_quiet(run: subprocess.CompletedProcess[bytes]) -> None:
    assert (run.returncode, said(run)) == (0, [])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with opened(SQLITE, tmp_path / "home") as new:
        yield new


@pytest.fixture
def place(database: Database) -> Place:
    # However slow the machine is: what was cut waits for the next try.
    return Place(database.home, database.url, incomplete_after=3600)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def host(tmp_path: Path, place: Place, ssh: SshServer) -> Host:
    new = Host(tmp_path / "host", place.data_in(), tmp_path / "sshd", ssh.port)
    new.configure(ACCOUNT=ssh.user)
    return new


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """What goes through it gets half-way, until it is opened."""
    gate = Gate(tmp_path / "gate", HALF)
    gate.close()
    yield gate
    gate.open()


@pytest.fixture(params=["dash", "busybox"])
def any_host(request: pytest.FixtureRequest, host: Host) -> Host:
    """The same script on a usual system, and on one that has nothing but busybox."""
    if request.param == "busybox":
        host.busybox_only()
    return host


def values(database: Database, agent: str) -> dict[str, str]:
    """The newest value of each module of an agent."""
    a, m, s = schema.agent.c, schema.module.c, schema.state.c
    joined = schema.agent.join(schema.module, m.agent_id == a.id)
    joined = joined.join(schema.state, s.module_id == m.id)
    with database.engine().connect() as conn:
        rows = conn.execute(select(a.name, m.name, s.value).select_from(joined)).all()
    return {entities.decode(m): value for a, m, value in rows if entities.decode(a) == agent}


@pytest.fixture
def taken(place: Place, dataserver: Run) -> Callable[[], int]:
    """Let a server take what was uploaded; how many packets it stored."""

    def take() -> int:
        assert dataserver("--home", place.home.root, "run", "--once").returncode == 0
        assert (place.packets_left(), place.rejected()) == ([], [])
        return int(json.loads(place.paths().status.read_text())["counters"]["packets"])

    return take


# -- what it makes -------------------------------------------------------------------


def test_a_packet_is_taken_and_its_values_are_stored(
    any_host: Host, place: Place, database: Database
) -> None:
    any_host.configure(PROCESSES="sshd no-such-program", DISKS="/ /proc")
    any_host.environment["LC_ALL"] = any_host.environment["LANG"] = "de_DE.UTF-8"
    with Server(place) as server:
        assert_quiet(any_host.run())
        server.wait_counted("packets", 1)
    found = values(database, "web1.example.org")
    assert float(found.pop("Process sshd")) == 1
    assert float(found.pop("Process no-such-program")) == 0
    assert 0 <= float(found.pop("Disk_/")) <= 100
    assert float(found.pop("Free Memory")) > 0
    assert float(found.pop("Uptime")) > 0
    assert float(found.pop("Load Average")) >= 0
    assert found == {}, "what has no size is not told of"
    assert any_host.waiting() == any_host.left_over() == []


def test_a_packet_is_dated_in_the_servers_zone(any_host: Host) -> None:
    any_host.environment["TZ"] = "America/New_York"
    before = int(time.time())
    printed = parse.parse(any_host.run("--print").stdout)
    assert printed.timestamp is not None
    told = timegm(time.strptime(printed.timestamp, "%Y/%m/%d %H:%M:%S"))
    assert before <= told <= time.time()


def test_hostile_names_and_values_arrive_as_they_are(
    any_host: Host, place: Place, database: Database, taken: Callable[[], int]
) -> None:
    odd = "first ]]> line\\n\\001\\033[31m<second>&\\n'third' \\357\\277\\277]]>]]>"
    any_host.fake(
        "uname", f'case $1 in -n) printf "%s" {shlex.quote(HOSTILE)} ;; *) echo x ;; esac'
    )
    any_host.configure(f"""unset NAME; NAME=$(uname -n)
more_modules() {{
    module {shlex.quote("odd " + HOSTILE)} generic_data_string "$(printf {shlex.quote(odd)})" '&<%'
    module none generic_data ""
    exit 3
}}
""")
    assert_quiet(any_host.run())
    [file] = list(place.data_in().iterdir())
    assert re.fullmatch(r"[0-9a-f]+\.\d+\.data", file.name)
    assert taken() == 1
    found = values(database, HOSTILE)
    expected = "first ]]> line\n[31m<second>&\n'third' ]]>]]>"
    assert found["odd " + HOSTILE] == expected
    assert "none" not in found
    assert not list(any_host.root.rglob("x"))


def test_two_packets_of_the_same_second_do_not_collide(
    any_host: Host, place: Place, taken: Callable[[], int]
) -> None:
    any_host.fake("date", "echo 1700000000 2023/11/14 22:13:20")
    for value in ("1", "2"):
        any_host.configure(f"more_modules() {{ module n generic_data {value}; }}\n")
        assert_quiet(any_host.run())
    numbers = sorted(path.name for path in place.data_in().iterdir())
    stem = "web1.example.org"
    assert numbers == [f"{stem}.1700000000.data", f"{stem}.1700000001.data"]
    assert taken() == 2


# -- what it keeps -------------------------------------------------------------------


def test_what_cannot_be_sent_is_kept_and_sent_in_order_when_the_server_is_back(
    any_host: Host, place: Place, ssh: SshServer, taken: Callable[[], int]
) -> None:
    # No two are the same: such ones, of one second, would be one to the server.
    any_host.configure("more_modules() { module run generic_data $$; }\n", PORT=1)
    for count in (1, 2, 3):
        run = any_host.run()
        assert run.returncode == 1
        [line] = said(run)
        assert line.startswith(f"agent.sh: cannot send to 127.0.0.1, packets waiting: {count}: ")
        assert "Connection refused" in line
        assert len(any_host.waiting()) == count
        assert any_host.left_over() == []
    kept = any_host.waiting()
    any_host.configure("more_modules() { module run generic_data $$; }\n", PORT=ssh.port)
    assert_quiet(any_host.run())
    assert any_host.waiting() == []
    arrived = sorted(place.data_in().iterdir(), key=lambda path: path.stat().st_mtime_ns)
    names = [path.name for path in arrived]
    assert names == sorted(names)
    assert names[:3] == kept
    assert len(names) == 4
    assert taken() == 4


def test_an_sshd_that_comes_back_while_the_script_tries_gets_the_packet(
    host: Host, place: Place, ssh: SshServer, tmp_path: Path
) -> None:
    os.kill(ssh.pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(ssh.pid), "sshd's end")
    host.configure(TRIES=1000000)
    with host.running() as run, ssh_server(tmp_path / "sshd", ssh.port):
        assert run.wait(PATIENCE) == 0
    assert len(list(place.data_in().iterdir())) == 1


@pytest.mark.parametrize("victim", ["scp", "sshd"])
def test_a_cut_upload_is_sent_again_and_stored_once(
    host: Host, place: Place, ssh: SshServer, database: Database, victim: str, gate: Gate
) -> None:
    host.configure(LARGE, SCP_OPTIONS=f"{SCP_OPTIONS} -S {gate.program}", TRIES=1)
    with Server(place) as server:
        server.wait_ready()
        with host.running() as run:
            wait_half(place)
            kill(descendants(run.pid if victim == "scp" else ssh.pid))
            assert run.wait(PATIENCE) == 1
        [cut] = host.waiting()
        assert place.packets_left() == [cut]
        assert (place.data_in() / cut).stat().st_size < (host.outgoing / cut).stat().st_size
        host.configure(SCP_OPTIONS=SCP_OPTIONS)
        assert_quiet(host.run())
        server.wait_counted("packets", 2)
        server.wait_taken()
    assert place.rejected() == []
    assert values(database, "web1.example.org")["Large"] == "7" * 400_000


def uploads(place: Place) -> list[Path]:
    return list(place.data_in().glob("*.data"))


def wait_half(place: Place) -> None:
    wait_until(lambda: any(file.stat().st_size for file in uploads(place)), "half of a packet")


def test_more_than_may_wait_drops_the_oldest_and_says_so(any_host: Host) -> None:
    any_host.configure(PORT=1, TRIES=1, MAX_FILES=3)
    seen = []
    for _ in range(5):
        run = any_host.run()
        seen.append(any_host.waiting()[-1])
    assert any_host.waiting() == seen[-3:]
    first, second = said(run)
    assert "1 of the oldest packets dropped" in first
    assert "packets waiting: 3" in second


def test_more_bytes_than_may_wait_drop_the_oldest_too(any_host: Host) -> None:
    any_host.configure(PORT=1, TRIES=1, MAX_BYTES=2500)
    names = []
    for _ in range(4):
        any_host.run()
        names.append(any_host.waiting()[-1])
    kept = any_host.waiting()
    assert 1 <= len(kept) < 4
    assert kept == names[-len(kept) :]
    assert sum((any_host.outgoing / name).stat().st_size for name in kept) <= 2500


def test_a_full_disk_makes_no_packet_but_what_waits_is_sent(any_host: Host, place: Place) -> None:
    assert os.geteuid() == 0, "this test mounts a small disk of its own, so it needs root"
    inner = f"""mount -t tmpfs -o size=32k tmpfs {any_host.outgoing} &&
        printf '<agent_data agent_name="old">\\n</agent_data>\\n' >{any_host.outgoing}/old.1.data &&
        {{ cat /dev/zero >{any_host.outgoing}/filler 2>/dev/null; "$@"; }}"""
    any_host.outgoing.mkdir()
    run = any_host.run(before=["unshare", "--mount", "/bin/sh", "-c", inner, "sh"])
    assert run.returncode == 3
    [line] = said(run)
    assert "is there room?" in line
    assert [path.name for path in place.data_in().iterdir()] == ["old.1.data"]


# -- two at once, and signals ----------------------------------------------------------


def test_a_second_run_leaves_the_sending_to_the_first(
    any_host: Host, place: Place, gate: Gate, taken: Callable[[], int]
) -> None:
    any_host.configure(LARGE, SCP_OPTIONS=f"{SCP_OPTIONS} -S {gate.program}")
    with any_host.running() as first:
        wait_half(place)
        any_host.configure()
        assert_quiet(any_host.run())
        assert len(any_host.waiting()) == 2
        gate.open()
        assert first.wait(PATIENCE) == 0
        assert (any_host.root / "stderr").read_bytes() == b""
    assert any_host.waiting() == any_host.left_over() == []
    assert taken() == 2


def test_a_run_that_was_killed_keeps_nobody_from_sending(
    any_host: Host, place: Place, gate: Gate, taken: Callable[[], int]
) -> None:
    any_host.configure(LARGE, SCP_OPTIONS=f"{SCP_OPTIONS} -S {gate.program}")
    with any_host.running() as first:
        wait_half(place)
        children = descendants(first.pid)
        first.kill()
        kill(children)
    assert ".lock" in os.listdir(any_host.outgoing)
    any_host.configure(SCP_OPTIONS=SCP_OPTIONS)
    assert_quiet(any_host.run())
    assert any_host.waiting() == []
    assert taken() == 2


def test_a_lock_whose_number_another_process_has_by_now_holds_for_a_while_only(
    any_host: Host,
) -> None:
    any_host.outgoing.mkdir()
    lock = any_host.outgoing / ".lock"
    lock.write_text(f"{os.getpid()} {int(time.time())}\n")
    assert_quiet(any_host.run())
    assert len(any_host.waiting()) == 1
    lock.write_text(f"{os.getpid()} {int(time.time()) - 1000}\n")
    assert_quiet(any_host.run())
    assert any_host.waiting() == any_host.left_over() == []


def test_it_sends_one_packet_after_another_until_it_is_told_to_stop(
    any_host: Host, place: Place
) -> None:
    with any_host.running("--every", "1") as run:
        wait_until(lambda: len(uploads(place)) >= 3, "three packets")
        any_host.configure(PORT=1)  # not read again
        run.terminate()
        assert run.wait(PATIENCE) == -signal.SIGTERM
    assert any_host.left_over() == []
    intervals = {parse.parse(path.read_bytes()).interval for path in uploads(place)}
    assert intervals == {"1"}


def test_a_signal_ends_it_while_it_waits_and_what_it_waits_with(any_host: Host) -> None:
    with any_host.running("--every", "86399") as run:
        wait_until(lambda: sleepers(run.pid), "its sleep")
        asleep = sleepers(run.pid)
        run.terminate()
        assert run.wait(PATIENCE) == -signal.SIGTERM
        wait_until(lambda: not any(map(is_alive, asleep)), "the end of its sleep")
    assert any_host.left_over() == []


def sleepers(pid: int) -> list[int]:
    return [each for each in descendants(pid) if re.search(rb"sleep\0\d{5}\0", cmdline(each))]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    return cmdline(pid) != b""  # a zombie has none


# -- what it refuses -------------------------------------------------------------------


WRONG_SETTINGS = (
    ("SERVER", ""),
    ("SERVER", "-oProxyCommand=id"),
    ("SERVER", "a b"),
    ("ACCOUNT", "-l root"),
    ("TARGET", "/data_in/; id"),
    ("TARGET", "$(id)"),
    ("PORT", "ssh"),
    ("TRIES", "08"),
    ("MAX_FILES", "0"),
    ("OUTGOING", "here"),
    ("KEY", "/nonexistent"),
    ("NAME", ""),
    ("SCP", "no-such-scp"),
)


def test_a_wrong_setting_is_one_line_and_nothing_is_done(host: Host, place: Place) -> None:
    def is_refused(setting: tuple[str, str]) -> None:
        name, value = setting
        host.configure(f"{name}={shlex.quote(value)}\n")
        run = host.run()
        assert run.returncode == 2
        [line] = said(run)
        assert name in line or value in line

    assert failures(is_refused, WRONG_SETTINGS) == {}
    assert uploads(place) == []
    assert not host.outgoing.exists()


def test_wrong_usage_is_one_line(host: Host) -> None:
    for command in (host.command("--evry"), host.command("--every"), host.command()[:-1]):
        run = subprocess.run(command, check=False, capture_output=True, env=host.environment)
        assert run.returncode == 2
        assert len(said(run)) == 1


def test_a_server_with_another_host_key_gets_nothing(
    host: Host, place: Place, tmp_path: Path
) -> None:
    other = (tmp_path / "sshd" / "client.pub").read_text()
    known = host.root / "known_hosts"
    known.write_text(f"{known.read_text().split()[0]} {other}")
    run = host.run()
    assert run.returncode == 1
    [line] = said(run)
    assert "packets waiting: 1" in line
    assert len(host.waiting()) == 1
    assert uploads(place) == []


def test_the_protocol_of_old_servers_is_one_option(
    any_host: Host, taken: Callable[[], int]
) -> None:
    any_host.configure(SCP_OPTIONS=f"-O {SCP_OPTIONS}")
    assert_quiet(any_host.run())
    assert taken() == 1

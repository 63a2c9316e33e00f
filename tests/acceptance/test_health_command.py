"""`dataserver health` and `keepalived verify` with real servers, as an administrator meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dataserver.cli.base import App
from dataserver.cli.keepalived import verify
from dataserver.runtime.heartbeat import Phase, uptime
from dataserver.vrrp.health import STOPPED_GRACE
from tests.support.commands import Run
from tests.support.databases import MARIADB, SQLITE, Database, opened
from tests.support.disk import mounted
from tests.support.server import Place, Server
from tests.support.waiting import wait_until

PAIR = """
virtual_addresses = ["10.0.0.10/24"]
instances = {instances}

[[host]]
name = "ds1"
address = "10.0.0.1/24"
interface = "eth0"
priority = 101

[[host]]
name = "ds2"
address = "10.0.0.2/24"
interface = "eth0"
priority = 100
"""


def write_pair(place: Place, *instances: str, more: str = "") -> None:
    folder = place.home.root / "keepalived"
    folder.mkdir(exist_ok=True)
    text = PAIR.format(instances=json.dumps(instances or ("main",)))
    (folder / "pair.toml").write_text(text + more)


# -- health -------------------------------------------------------------------------------


class TestHealth:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(tmp_path / "home", "sqlite:///var/dataserver.db")

    @pytest.fixture
    def health(self, dataserver: Run, place: Place) -> Callable[..., tuple[int, str]]:
        def health(*arguments: str) -> tuple[int, str]:
            done = dataserver("--home", place.home.root, "health", *arguments)
            return done.returncode, done.stdout + done.stderr

        return health

    @pytest.fixture
    def pass_since_its_heartbeat(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[float], None]:
        """Let the command come so many seconds after what is its last heartbeat now."""

        def let_pass(seconds: float) -> None:
            then = json.loads(place.paths().heartbeat.read_text())["uptime"]
            monkeypatch.setattr("dataserver.vrrp.health.uptime", lambda: then + seconds)

        return let_pass

    def test_from_its_start_to_its_end(
        self, place: Place, health: Any, pass_since_its_heartbeat: Any
    ) -> None:
        place.paths().var.mkdir(parents=True)
        assert health() == (1, "main: sick: no heartbeat that can be read\n")
        with Server(place) as server:
            server.wait(lambda: health() == (0, "main: healthy\n"), "it to be well")
            pid = server.pid
            server.kill()
            assert health() == (1, f"main: sick: dead: process {pid} is gone\n")
            server.start()
            server.wait(lambda: health()[0] == 0, "it to be well")
            assert server.stop() == 0
            pass_since_its_heartbeat(STOPPED_GRACE - 0.1)
            assert health() == (0, "main: healthy\n"), "perhaps it is being restarted"
            pass_since_its_heartbeat(STOPPED_GRACE + 0.1)
            assert health() == (1, "main: sick: stopped\n")

    def test_one_that_waits_for_the_database_is_healthy_and_it_is_told(
        self, place: Place, health: Any
    ) -> None:
        place.configure(database="mysql://nobody@127.0.0.1:1/none", connect_timeout=1)
        with Server(place) as server:
            server.wait_phase(Phase.WAITING_FOR_DATABASE)
            text = "main: waiting for database: waiting for the database: "
            server.wait(lambda: health()[1].startswith(text), "the reason in the health")
            assert health()[0] == 0

    def test_one_that_is_stopped_by_a_signal_becomes_stuck(
        self,
        place: Place,
        health: Any,
        pass_since_its_heartbeat: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with Server(place) as server:
            server.wait_ready()
            server.send(signal.SIGSTOP)
            threads = list(Path(f"/proc/{server.pid}/task").iterdir())
            server.wait(
                lambda: all(") T " in (each / "stat").read_text() for each in threads),
                "all its threads to stop",
            )
            pass_since_its_heartbeat(11.0)
            assert health() == (1, "main: sick: stuck: no heartbeat for 11 s\n")
            monkeypatch.setattr("dataserver.vrrp.health.uptime", uptime)
            server.send(signal.SIGCONT)
            server.wait(lambda: health()[0] == 0, "it to be well again")

    def test_a_drop_directory_that_takes_nothing_is_a_fault(
        self, place: Place, health: Any
    ) -> None:
        with Server(place) as server, mounted(place.data_in(), 1 << 20) as disk:
            server.wait_ready()
            disk.fill()
            code, text = health()
            assert code == 5
            assert "main: fault: data_in takes no files: No space left on device;" in text
            assert [name for name in os.listdir(place.data_in()) if name.startswith(".")] == []

    def test_the_instances_of_the_pair_count_or_all_that_are_to_run(
        self, place: Place, health: Any
    ) -> None:
        for name in ("second", "third"):
            place.add(name)
        (place.paths("third").folder / "disabled").touch()
        assert [line.split(":")[0] for line in health()[1].splitlines()] == ["main", "second"]
        write_pair(place, "second")
        assert [line.split(":")[0] for line in health()[1].splitlines()] == ["second"]
        assert [line.split(":")[0] for line in health("third")[1].splitlines()] == ["third"]
        place.paths().var.mkdir(parents=True)
        with Server(place) as server:
            server.wait(lambda: health("main") == (0, "main: healthy\n"), "it to be well")
            assert health()[0] == 1

    def test_the_limits_are_the_pairs(self, place: Place, health: Any) -> None:
        with mounted(place.data_in(), 1 << 20) as disk, Server(place) as server:
            server.wait_ready()
            disk.fill(300_000)
            server.wait(lambda: health() == (0, "main: healthy\n"), "it to be well")
            write_pair(place, more="\n[check]\ndisk_warn_percent = 50\ndisk_ok_percent = 60\n")
            code, text = health()
            assert code == 1
            assert text.startswith("main: sick: data_in is nearly full: 2")

    def test_as_json(self, place: Place, health: Any) -> None:
        place.paths().var.mkdir(parents=True)
        code, text = health("--json")
        assert code == 1
        assert json.loads(text) == {
            "verdict": "sick",
            "instances": [
                {
                    "instance": "main",
                    "verdict": "sick",
                    "reasons": [{"verdict": "sick", "text": "no heartbeat that can be read"}],
                }
            ],
        }

    def test_what_cannot_be_asked(self, health: Any) -> None:
        for name, text in (
            ("none", "there is no instance 'none'"),
            ("../x", "invalid instance name"),
        ):
            code, said = health(name)
            assert code == 2, name
            assert text in said

    def test_a_pair_that_is_wrong_is_named(self, place: Place, health: Any) -> None:
        write_pair(place, more="\n[check]\ndisk_warn = 5\n")
        code, text = health()
        assert code == 3
        assert "pair.toml" in text
        assert "disk_warn_percent" in text


# -- verify -------------------------------------------------------------------------------


class Twin:
    """A host of its own name, SSH host keys and home; the database is shared."""

    def __init__(self, root: Path, name: str, database: str) -> None:
        self.name = name
        self.place = Place(root / name, database, server_name="twins", server_keepalive=6)
        self.ssh = root / f"{name}-ssh"
        self.ssh.mkdir()
        self.host_key("shared")
        (self.place.home.root / "uploads").mkdir()
        self.authorize("ssh-ed25519 AAAA web1")
        write_pair(self.place)

    def host_key(self, key: str) -> None:
        path = self.ssh / "ssh_host_ed25519_key.pub"
        path.write_text(f"ssh-ed25519 {key} root@{self.name}\n")

    def authorize(self, line: str) -> None:
        (self.place.home.root / "uploads" / "authorized_keys").write_text(f"{line}\n")

    def server(self, instance: str = "main") -> Server:
        assert os.geteuid() == 0, "namespaces of hosts need root"
        return Server(self.place, instance, wrapper=self._wrapper())

    def _wrapper(self) -> Sequence[str]:
        script = (
            'echo "$0" > /proc/sys/kernel/hostname; mount --bind "$1" /etc/ssh; shift; exec "$@"'
        )
        return ["unshare", "--uts", "--mount", "sh", "-ec", script, self.name, str(self.ssh)]

    def verify(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
        """The exit code, and what is not well: by what was compared."""
        app = App(home_option=self.place.home.root)
        code = verify.main(["--json"], obj=app, standalone_mode=False)
        said = json.loads(capsys.readouterr().out)
        assert said["equal"] is (code == 0)
        found = {f["what"]: f["text"] for f in said["findings"] if f["outcome"] != "equal"}
        return code, found


@pytest.fixture(params=[SQLITE, MARIADB])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request.param, tmp_path / "shared") as database:
        database.prepare()
        yield database


@pytest.fixture
def twins(database: Database, tmp_path: Path) -> tuple[Twin, Twin]:
    # The same database, wherever the home is.
    url = database.url.replace("sqlite:///", f"sqlite:///{database.home}/")
    return Twin(tmp_path, "ds1", url), Twin(tmp_path, "ds2", url)


def wait_seen(server: Server, one: Twin, capsys: Any, wanted: set[str]) -> dict[str, str]:
    """Wait until verify names exactly these; what it says of them."""
    found: dict[str, str] = {}

    def is_so() -> bool:
        found.clear()
        found.update(one.verify(capsys)[1])
        return set(found) == wanted

    server.wait(is_so, f"verify to name {wanted}")
    return found


def test_two_servers_that_match_and_then_do_not(
    twins: tuple[Twin, Twin], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = twins
    with one.server() as first:
        first.wait(
            lambda: "ds2 of pair.toml not seen on this database" in one.verify(capsys)[1]["hosts"],
            "only ds2 to be missing",
        )
        with two.server() as second:
            second.wait(
                lambda: one.verify(capsys) == two.verify(capsys) == (0, {}), "both to be equal"
            )
            assert second.stop() == 0
            assert wait_seen(first, one, capsys, {"hosts"})["hosts"].startswith(
                "ds2: its last instance stopped"
            )
            two.host_key("another")
            two.authorize("restrict ssh-ed25519 AAAA web1")
            write_pair(two.place, more="[check]\nfall = 5\n")
            two.place.configure(server_name="other")
            two.place.add("second")
            second.start()
            with two.server("second") as third:
                third.wait_ready()
                found = wait_seen(
                    second,
                    one,
                    capsys,
                    {
                        "SSH host keys",
                        "authorized_keys",
                        "pair.toml",
                        "server name of main",
                        "configuration of main",
                        "instance second",
                    },
                )
                assert one.verify(capsys)[0] == 1
                assert found["server name of main"].startswith("twins on ds1, other on ds2;")
                assert found["instance second"].startswith("runs on ds2 only;")


@pytest.mark.parametrize("database", [SQLITE], indirect=True)
def test_it_is_told_in_lines(twins: tuple[Twin, Twin], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = twins
    shutil.rmtree(two.ssh)
    two.ssh.mkdir()
    app = App(home_option=one.place.home.root)

    def lines() -> list[str]:
        assert verify.main([], obj=app, standalone_mode=False) == 1
        return capsys.readouterr().out.splitlines()

    def is_complete() -> list[str]:
        """All of it, once no database was too slow for the clocks to be compared."""
        said = lines()
        first, *others = [line.partition(" ")[0] for line in said]
        return said if first == "UNKNOWN" and set(others) == {"ok"} else []

    with one.server() as first, two.server() as second:
        first.wait_ready()
        second.wait_ready()
        said = wait_until(is_complete, lambda: f"all to be compared: {lines()}")
    assert said[0].startswith("UNKNOWN  SSH host keys    ds2: its server can read no /etc/ssh")
    assert said[1:3] == [
        "ok       authorized_keys  equal",
        "ok       pair.toml        equal",
    ]
    assert re.fullmatch(r"ok       clock            \d\.\d s apart", said[3])

"""dataserver keepalived as an administrator meets it, and what it makes with real keepalived."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dataserver.config.paths import Home
from dataserver.vrrp.configtest import test as run_config_test
from dataserver.vrrp.reading import parse
from tests.support.commands import COMMAND, Run
from tests.support.pairs import CASES, NAMES, SHARED_DATABASE, SIMPLE
from tests.support.twins import SETTINGS, TABLES, Box, twins
from tests.support.waiting import PATIENCE, wait_until

#: The rendered folders of all cases.
FOLDERS = sorted(path.parent for name in NAMES for path in CASES.glob(f"{name}/*/*/README.md"))


def need_root() -> None:
    assert os.geteuid() == 0, "keepalived's test needs namespaces: run this test as root"


@pytest.fixture
def keepalived(dataserver: Run, home: Home) -> Run:
    """Run one of the commands on a home with a shared database."""
    environment = {**os.environ, **SHARED_DATABASE}

    def run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        options = {"env": environment, **options}
        return dataserver("--home", home.root, "keepalived", *words, **options)

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestInit:
    def test_it_writes_a_pair_that_can_be_rendered(self, keepalived: Run, home: Home) -> None:
        assert keepalived("init").returncode == 0
        assert keepalived("render").returncode == 0
        assert (home.root / "keepalived" / "alpha" / "keepalived.conf").is_file()

    def test_it_leaves_one_that_is_there(self, keepalived: Run, home: Home) -> None:
        path = home.root / "keepalived" / "pair.toml"
        path.parent.mkdir()
        path.write_text("mine\n")
        result = keepalived("init")
        assert result.returncode == 2
        assert "exists already" in result.stderr
        assert path.read_text() == "mine\n"

    def test_it_wants_a_home(self, dataserver: Run, tmp_path: Path) -> None:
        result = dataserver("--home", tmp_path / "nowhere", "keepalived", "init")
        assert result.returncode == 2
        assert not (tmp_path / "nowhere").exists()

    def test_a_new_home_has_no_pair_and_no_templates(self, dataserver: Run, tmp_path: Path) -> None:
        assert dataserver("init", tmp_path / "new").returncode == 0
        assert sorted(tree(tmp_path / "new" / "keepalived")) == ["README.md"]
        assert not list((tmp_path / "new").rglob("*.j2"))


class TestRender:
    @pytest.fixture(autouse=True)
    def pair(self, home: Home) -> Path:
        path = home.root / "keepalived" / "pair.toml"
        path.parent.mkdir()
        path.write_text(SIMPLE)
        return path

    def test_it_writes_each_host_a_folder(self, keepalived: Run, home: Home) -> None:
        assert keepalived("render").returncode == 0
        written = tree(home.root / "keepalived")
        assert written.pop("pair.toml")
        assert written == tree(CASES / "unicast" / "expected")
        for path in (home.root / "keepalived").glob("*/*"):
            program = path.read_bytes().startswith(b"#!")
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if program else 0o644)

    def test_it_writes_elsewhere_when_told(
        self, keepalived: Run, home: Home, tmp_path: Path
    ) -> None:
        assert keepalived("render", "--out", tmp_path / "a" / "b").returncode == 0
        assert tree(tmp_path / "a" / "b") == tree(CASES / "unicast" / "expected")
        assert sorted(tree(home.root / "keepalived")) == ["pair.toml"]

    def test_check_is_content_with_what_was_just_written(self, keepalived: Run) -> None:
        keepalived("render")
        result = keepalived("render", "--check")
        assert (result.returncode, result.stderr) == (0, "")
        assert "12 files" in result.stdout

    def test_check_names_what_is_stale_missing_or_extra_and_touches_nothing(
        self, keepalived: Run, home: Home
    ) -> None:
        keepalived("render")
        folder = home.root / "keepalived"
        (folder / "alpha" / "README.md").write_text("mine\n")
        (folder / "alpha" / "check-drop").chmod(0o644)
        (folder / "beta" / "notify").unlink()
        (folder / "beta" / "old\x1b[31m").touch()
        shutil.copytree(folder / "beta", folder / "gamma")
        before = tree(folder)
        result = keepalived("render", "--check")
        assert result.returncode == 1
        assert [line.split(None, 1)[0] for line in result.stdout.splitlines()] == [
            "stale",
            "stale",
            "missing",
            "extra",
            "extra",
        ]
        for name in ("alpha/README.md", "alpha/check-drop", "beta/notify", "gamma"):
            assert re.search(rf"^\w+ +{folder}/{name}$", result.stdout, re.MULTILINE)
        assert "\x1b" not in result.stdout
        assert tree(folder) == before

    def test_check_goes_on_past_what_is_no_file(self, keepalived: Run, home: Home) -> None:
        keepalived("render")
        folder = home.root / "keepalived" / "alpha"
        for name in ("README.md", "check-drop", "check-health", "notify"):
            (folder / name).unlink()
        (folder / "README.md").mkdir()
        (folder / "check-drop").symlink_to("check-drop")
        os.mkfifo(folder / "check-health")
        result = keepalived("render", "--check")
        assert (result.returncode, result.stderr) == (1, "")
        said = [line.split() for line in result.stdout.splitlines()]
        assert sorted((word, Path(path).name) for word, path in said) == [
            ("missing", "notify"),
            ("stale", "README.md"),
            ("stale", "check-drop"),
            ("stale", "check-health"),
        ]

    def test_what_lies_in_the_way_is_named_with_what_to_do(
        self, keepalived: Run, home: Home
    ) -> None:
        folder = home.root / "keepalived" / "alpha"
        for path in (folder, folder / "notify"):
            if path == folder:
                path.touch()
            else:
                folder.unlink()
                path.mkdir(parents=True)
            result = keepalived("render")
            assert result.returncode == 2
            assert result.stderr.startswith(f"dataserver: {path} is ")
            assert result.stderr.endswith("; move it away\n")
            assert not list(path.parent.glob(".*")), "nothing half written is left"

    def test_check_of_nothing_says_that_all_is_missing(self, keepalived: Run) -> None:
        result = keepalived("render", "--check")
        assert result.returncode == 1
        assert result.stdout.count("missing ") == 12

    def test_a_change_of_the_pair_makes_them_stale(self, keepalived: Run, pair: Path) -> None:
        keepalived("render")
        pair.write_text(SIMPLE.replace("192.0.2.10", "192.0.2.20"))
        assert keepalived("render", "--check").returncode == 1
        assert "wrote" in keepalived("render").stdout
        assert keepalived("render", "--check").returncode == 0

    def test_a_pair_on_sqlite_is_refused(self, keepalived: Run, home: Home) -> None:
        result = keepalived("render", env=dict(os.environ))
        assert result.returncode == 3
        assert "SQLite" in result.stderr
        assert result.stderr.count("\n") == 1
        assert sorted(tree(home.root / "keepalived")) == ["pair.toml"]

    def test_a_wrong_field_is_named_in_one_line(self, keepalived: Run, pair: Path) -> None:
        pair.write_text(SIMPLE.replace('"eth0"', '"eth0\\n} x {\\u001b[31m"'))
        result = keepalived("render")
        assert result.returncode == 3
        assert f"{pair}: host 1: interface" in result.stderr
        assert result.stderr.count("\n") == 1
        assert "\x1b" not in result.stderr

    def test_no_pair_is_told_from_a_wrong_one(self, keepalived: Run, pair: Path) -> None:
        pair.unlink()
        result = keepalived("render")
        assert result.returncode == 2
        assert "keepalived init" in result.stderr

    def test_a_link_is_replaced_not_followed(
        self, keepalived: Run, home: Home, tmp_path: Path
    ) -> None:
        (tmp_path / "precious").write_text("precious")
        (home.root / "keepalived" / "alpha").mkdir()
        (home.root / "keepalived" / "alpha" / "notify").symlink_to(tmp_path / "precious")
        assert keepalived("render").returncode == 0
        assert (tmp_path / "precious").read_text() == "precious"
        assert keepalived("render", "--check").returncode == 0


class TestConfigTest:
    """keepalived's own judgement."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        need_root()
        shutil.copytree(CASES / "unicast" / "expected" / "alpha", tmp_path / "alpha")
        return tmp_path / "alpha"

    @staticmethod
    def change(folder: Path, old: str, new: str) -> None:
        path = folder / "keepalived.conf"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def test_everything_that_is_rendered_is_good(self) -> None:
        need_root()
        assert len(FOLDERS) >= 2 * len(NAMES)
        tested = {path.relative_to(CASES): run_config_test(path) for path in FOLDERS}
        assert {
            path: it for path, it in tested.items() if not it.good or it.code or it.output
        } == {}

    def test_what_this_machine_lacks_is_no_mistake_and_is_told(
        self, keepalived: Run, folder: Path
    ) -> None:
        self.change(folder, "eth0", "nosuch0")
        self.change(folder, "script_user dataserver", "script_user no-such-user")
        result = keepalived("test", folder)
        assert result.returncode == 0
        assert "not tested: this machine does not have interface nosuch0" in result.stdout
        assert "not tested: this machine does not have account no-such-user" in result.stdout
        assert "keepalived.conf: good" in result.stdout

    def test_on_the_host_itself_it_is_a_mistake(self, folder: Path, home: Home) -> None:
        self.change(folder, "eth0", "nosuch0")
        command = ["unshare", "--uts", "sh", "-c", 'hostname Alpha.example.org && exec "$@"', "sh"]
        command += [str(COMMAND), "--home", str(home.root), "keepalived", "test", str(folder)]
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=PATIENCE
        )
        assert result.returncode == 1
        assert "missing: interface nosuch0" in result.stdout
        assert "not tested" not in result.stdout

    def test_an_interface_may_have_any_name_that_the_kernel_takes(self, folder: Path) -> None:
        path = folder / "keepalived.conf"
        text = path.read_text()
        assert "eth0" in text
        tested = {}
        for name in ("type", "brd", "name", "ds-peer-1"):
            path.write_text(text.replace("eth0", name))
            tested[name] = run_config_test(folder)
        assert {name: it for name, it in tested.items() if not it.good} == {}

    def test_what_no_interface_of_the_pair_can_be_is_left_to_keepalived(self, folder: Path) -> None:
        self.change(folder, "dev eth0", "dev all")
        assert not run_config_test(folder).good
        self.change(folder, "dev all", "dev lo")
        assert run_config_test(folder).good

    @pytest.mark.parametrize("is_known", [True, False])
    def test_a_mail_server_by_its_name_is_no_mistake(
        self, folder: Path, is_known: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look_up(name: str, _: object) -> list[str]:
            assert name == "mail.example.org"
            if not is_known:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return ["192.0.2.99"]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        old = "    max_auto_priority"
        mail = "    notification_email_from a@example.org\n    smtp_server mail.example.org 25\n"
        self.change(folder, old, mail + old)
        before = Path("/etc/hosts").read_bytes()
        tested = run_config_test(folder)
        assert (tested.code, tested.output, tested.good) == (0, (), True)
        assert ("an address of mail.example.org" in tested.lacking) is not is_known
        assert Path("/etc/hosts").read_bytes() == before

    def test_it_is_good_with_root_as_the_scripts_user_too(self, folder: Path) -> None:
        self.change(folder, "script_user dataserver", "script_user root")
        assert run_config_test(folder).good

    def test_a_broken_file_is_not_good(self, keepalived: Run, folder: Path) -> None:
        path = folder / "keepalived.conf"
        good = path.read_text()
        wrong = {}
        for old, new, says in (
            ("priority 201", "priority 999", "999"),
            ("rise 3", "rais 3", "rais"),
            ("192.0.2.10/24", "192.0.2.1000/24", "192.0.2.1000"),
            ("virtual_router_id 51", "", "router id"),
            ("vrrp_instance", "vrrp_instanz", "vrrp_instanz"),
        ):
            self.change(folder, old, new)
            result = keepalived("test", folder)
            is_told = says in result.stdout and "NOT good" in result.stdout
            if result.returncode != 1 or not is_told:
                wrong[old] = result
            path.write_text(good)
        assert wrong == {}

    def test_an_empty_file_is_not_good(self, keepalived: Run, folder: Path) -> None:
        for text in ("", "# nothing\n", "! vrrp_instance x {}\n"):
            (folder / "keepalived.conf").write_text(text)
            result = keepalived("test", folder)
            assert result.returncode == 1, text
            assert "no vrrp_instance" in result.stdout

    def test_a_script_that_is_missing_or_no_program_is_named(
        self, keepalived: Run, folder: Path
    ) -> None:
        for name in ("check-health", "check-drop", "notify"):
            (folder / name).chmod(0o644)
            assert f"{name} is not in the folder" in keepalived("test", folder).stdout
            (folder / name).unlink()
            result = keepalived("test", folder)
            assert result.returncode == 1
            assert f"{name} is not in the folder" in result.stdout
            shutil.copy(CASES / "unicast" / "expected" / "alpha" / name, folder / name)

    def test_a_missing_file_is_not_good(self, keepalived: Run, folder: Path) -> None:
        (folder / "keepalived.conf").unlink()
        result = keepalived("test", folder)
        assert result.returncode == 2
        assert "keepalived.conf" in result.stderr

    def test_nothing_of_this_machine_is_touched(self, keepalived: Run, folder: Path) -> None:
        places = [Path("/etc/passwd"), Path("/etc/group")]
        before = [path.read_bytes() for path in places], tree(Path("/etc/keepalived"))
        interfaces = Path("/proc/net/dev").read_text().count("\n")
        assert keepalived("test", folder).returncode == 0
        assert ([path.read_bytes() for path in places], tree(Path("/etc/keepalived"))) == before
        assert Path("/proc/net/dev").read_text().count("\n") == interfaces

    def test_hostile_words_in_the_file_do_nothing_else(
        self, keepalived: Run, folder: Path, tmp_path: Path
    ) -> None:
        evil = tmp_path / "evil"
        self.change(folder, "interface eth0", f"interface $(touch${{IFS}}{evil})")
        self.change(folder, "script_user dataserver", f"script_user `touch${{IFS}}{evil}`")
        assert keepalived("test", folder).returncode == 1
        assert not evil.exists()

    def test_who_is_not_root_is_told_so(self, folder: Path) -> None:
        # The interpreter may lie where others cannot read: so the right is given up inside of it.
        code = (
            "import os, sys; from dataserver.cli import main; import dataserver.vrrp.configtest,"
            " dataserver.cli.keepalived, dataserver.cli.uploads; "
            "os.setuid(65534); main(sys.argv[1:])"
        )
        with TemporaryDirectory() as place:
            Path(place).chmod(0o755)
            shutil.copytree(folder, Path(place) / "alpha")
            command = [COMMAND.with_name("python"), "-P", "-c", code, "keepalived", "test"]
            result = subprocess.run(
                [*command, f"{place}/alpha"],
                check=False,
                capture_output=True,
                text=True,
                cwd="/",
                timeout=PATIENCE,
            )
        assert result.returncode == 1
        assert "root" in result.stderr
        assert result.stderr.count("\n") == 1


class TestStatusElsewhere:
    def test_a_machine_that_is_no_host_of_the_pair_is_told_so(
        self, keepalived: Run, home: Home
    ) -> None:
        (home.root / "keepalived").mkdir()
        text = SIMPLE.replace('"alpha"', '"no-such-host-a"').replace('"beta"', '"no-such-host-b"')
        (home.root / "keepalived" / "pair.toml").write_text(text)
        result = keepalived("status")
        assert result.returncode == 2
        assert "neither no-such-host-a (192.0.2.11) nor" in result.stderr


class TestTwins:
    """Real keepalived on two hosts, with the rendered files as they are."""

    @pytest.fixture
    def home_of_pair(self, tmp_path: Path) -> Path:
        home = tmp_path / "pair"
        (home / "keepalived").mkdir(parents=True)
        (home / "keepalived" / "pair.toml").write_text(SETTINGS + SIMPLE + TABLES)
        return home

    @pytest.fixture
    def hosts(self, home_of_pair: Path) -> Iterator[tuple[Box, Box]]:
        """Both run, the first has the address."""
        pair = parse(SETTINGS + SIMPLE + TABLES, "pair.toml")
        with twins(home_of_pair, pair) as (first, second):
            self.start(first, second)
            yield first, second

    @staticmethod
    def start(first: Box, second: Box) -> None:
        first.start_keepalived()
        wait_until(lambda: first.state == "MASTER", "MASTER")
        second.start_keepalived()
        wait_until(lambda: second.state == "BACKUP", "BACKUP")

    @staticmethod
    def had(box: Box, *states: str) -> None:
        """It was in these states, one after the other; the command is told beside all else."""
        wait_until(lambda: len(box.history()) >= len(states), f"{len(states)} states")
        assert box.history() == list(states)

    @staticmethod
    def let_pass(box: Box) -> None:
        """Wait for keepalived's next checks: in their time it would have taken the address."""
        last = box.checked_at()
        wait_until(lambda: box.checked_at() > last + 4, "more checks")

    def test_one_has_the_address_and_status_says_which(self, hosts: tuple[Box, Box]) -> None:
        first, second = hosts
        wait_until(lambda: first.status()[0] == second.status()[0] == 0, "checks")
        here, there = first.status()[1], second.status()[1]
        assert (here["host"], here["state"], here["has_address"]) == ("alpha", "MASTER", True)
        assert (there["host"], there["state"], there["has_address"]) == ("beta", "BACKUP", False)
        assert first.has_address()
        assert not second.has_address()
        self.had(first, "BACKUP", "MASTER")

    def test_a_sick_host_loses_the_address_to_a_well_one_which_keeps_it(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        first.be_sick()
        wait_until(lambda: second.state == "MASTER", "takeover")
        wait_until(lambda: first.state == "BACKUP", "BACKUP")
        first.be_well()
        wait_until(lambda: "priority from 197 to 201" in first.log(), "well again")
        self.let_pass(first)
        assert (first.state, second.state) == ("BACKUP", "MASTER"), "it stays where it is"
        second.be_sick()
        wait_until(lambda: first.state == "MASTER" and second.state == "BACKUP", "way back")
        self.had(first, "BACKUP", "MASTER", "BACKUP", "MASTER")
        self.had(second, "BACKUP", "MASTER", "BACKUP")

    @pytest.mark.long
    def test_of_two_sick_hosts_the_one_that_has_the_address_keeps_it(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        second.be_sick()
        wait_until(lambda: "priority from 200 to 196" in second.log(), "sick")
        first.be_sick()
        wait_until(lambda: "priority from 203 to 199" in first.log(), "sick")
        self.let_pass(second)
        assert (first.state, second.state) == ("MASTER", "BACKUP")
        code, said = first.status()
        assert code == 1
        assert "dead" in str(said["problems"])
        second.be_well()
        wait_until(lambda: second.state == "MASTER", "takeover by the one that is well")
        self.had(first, "BACKUP", "MASTER", "BACKUP")
        self.had(second, "BACKUP", "MASTER")

    @pytest.mark.long
    def test_a_host_that_takes_no_files_gives_the_address_up_even_to_a_sick_one(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        second.be_sick()
        wait_until(lambda: "priority from 200 to 196" in second.log(), "sick")
        first.take_no_files()
        wait_until(lambda: first.state == "FAULT", "FAULT")
        wait_until(lambda: second.state == "MASTER", "takeover")
        wait_until(lambda: not first.has_address(), "address gone")
        code, said = first.status()
        assert code == 1
        assert "takes no files" in str(said["problems"])

    @pytest.mark.long
    def test_a_host_that_stops_in_order_gives_the_address_away_at_once(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        first.stop_keepalived()
        wait_until(lambda: second.state == "MASTER", "takeover")
        wait_until(lambda: first.state == "STOP", "its last word")
        assert not first.has_address()
        code, said = first.status()
        assert code == 1
        assert "keepalived does not run" in str(said["problems"])

    @pytest.mark.long
    def test_what_a_killed_one_leaves_behind_is_told_and_taken_away(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        first.kill_keepalived()
        wait_until(lambda: second.state == "MASTER", "takeover")
        assert first.has_address(), "the trap: both have it"
        code, said = first.status()
        assert code == 1
        assert "left behind" in str(said["problems"])
        wait_until(lambda: "notify" not in [name for _, name in first.processes()], "no notify")
        first.after_keepalived()
        assert not first.has_address()
        # A number that another process has by now must not keep it from starting.
        first.run("sh", "-c", "echo 1 | tee /run/keepalived.pid > /run/vrrp.pid")
        first.start_keepalived()
        wait_until(lambda: first.state == "BACKUP", "BACKUP")
        wait_until(lambda: first.status()[0] == 0, "well")
        self.let_pass(first)
        assert (first.state, second.state) == ("BACKUP", "MASTER"), "it stays where it is"

    @pytest.mark.long
    def test_a_reload_changes_neither_the_state_nor_since_when(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        before = [box.known for box in hosts]
        for box in hosts:
            old = [pid for pid, name in box.processes() if name == "notify"]
            box.reload_keepalived()
            wait_until(lambda b=box, o=old: self.has_another(b, o), "another notify")
        assert [box.known for box in hosts] == before
        first.be_sick()
        wait_until(lambda: second.state == "MASTER", "takeover")
        self.had(first, "BACKUP", "MASTER", "BACKUP")
        self.had(second, "BACKUP", "MASTER")

    @pytest.mark.long
    def test_a_notify_program_that_died_is_told_and_a_restart_mends_it(
        self, hosts: tuple[Box, Box]
    ) -> None:
        first, second = hosts
        wait_until(lambda: first.status()[0] == second.status()[0] == 0, "well")
        for box in hosts:
            for pid in [pid for pid, name in box.processes() if name == "notify"]:
                # One that ran beside it may be gone by now.
                box.run("kill", "-KILL", pid, check=False)
        first.be_sick()
        wait_until(second.has_address, "takeover")
        wait_until(lambda: not first.has_address(), "address gone")
        # What notify wrote last is wrong on both by now, and nothing is concluded from it.
        assert (first.state, second.state) == ("MASTER", "BACKUP")
        for box in hosts:
            code, said = box.status()
            assert code == 1
            problems = str(said["problems"])
            assert "notify does not run" in problems
            assert "left behind" not in problems
            assert "MASTER without" not in problems
        # After a reload keepalived says again that it is BACKUP, and not that it is MASTER.
        second.reload_keepalived()
        wait_until(lambda: "does not run" not in str(second.status()[1]), "another notify")
        code, said = second.status()
        assert code == 1
        assert said["problems"] == [
            "192.0.2.10 on eth0 although notify was told BACKUP; `systemctl restart keepalived`"
        ]
        first.be_well()
        for box in hosts:
            box.stop_keepalived()
            box.after_keepalived()
            box.start_keepalived()
            wait_until(lambda: {"MASTER", "BACKUP"} >= {first.state, second.state}, "news")
        wait_until(lambda: first.status()[0] == second.status()[0] == 0, "well")

    @staticmethod
    def has_another(box: Box, old: list[int]) -> bool:
        now = [pid for pid, name in box.processes() if name == "notify"]
        return bool(now) and not set(now) & set(old)

    @pytest.mark.long
    def test_addresses_of_both_kinds_move_together(self, home_of_pair: Path) -> None:
        text = SIMPLE.replace('["192.0.2.10/24"]', '["192.0.2.10/24", "2001:db8::10/64"]')
        for number in ("11", "12"):
            old = f'"192.0.2.{number}/24"'
            text = text.replace(old, f'{old}\naddress6 = "2001:db8::{number}/64"')
        text = SETTINGS + text + TABLES
        (home_of_pair / "keepalived" / "pair.toml").write_text(text)
        with twins(home_of_pair, parse(text, "pair.toml")) as (first, second):
            self.start(first, second)
            wait_until(first.has_address, "both addresses")
            first.be_sick()
            wait_until(second.has_address, "both addresses")
            wait_until(lambda: not first.has_address(), "no address")
            shown = json.loads(second.run("ip", "-json", "-6", "address", "show").stdout)
            flags = [
                each
                for link in shown
                for each in link["addr_info"]
                if each["local"] == "2001:db8::10"
            ]
            assert flags[0]["preferred_life_time"] == 0
            assert "tentative" not in flags[0]

    @pytest.mark.long
    def test_where_the_pair_preempts_the_first_takes_it_back(self, home_of_pair: Path) -> None:
        text = f"preempt = true\nunicast = false\n{SETTINGS}{SIMPLE}{TABLES}"
        (home_of_pair / "keepalived" / "pair.toml").write_text(text)
        with twins(home_of_pair, parse(text, "pair.toml")) as (first, second):
            self.start(first, second)
            first.be_sick()
            wait_until(lambda: second.state == "MASTER", "takeover")
            first.be_well()
            wait_until(lambda: first.state == "MASTER" and second.state == "BACKUP", "way back")

"""Systemd's files for the instances, compared whole, judged by systemd's own tools."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from dataserver import quoting
from dataserver.config.load import load
from dataserver.config.paths import Home
from dataserver.errors import DataserverError, UsageError
from dataserver.fleet.model import Instance, RunState
from dataserver.fleet.systemd import manager as journalctl
from dataserver.fleet.systemd import manager as systemctl
from dataserver.fleet.systemd import names as programs
from dataserver.fleet.systemd import units as access
from dataserver.fleet.systemd import units as systemd
from dataserver.fleet.systemd.manager import Systemd
from dataserver.fleet.systemd.names import drop_in_path
from dataserver.fleet.systemd.units import Account, Needs
from tests.support.commands import Run
from tests.support.waiting import PATIENCE

HOME = Home(Path("/var/lib/dataserver"))
PYTHON = Path("/opt/dataserver/bin/python")
ROOT = Path(__file__).parents[2]
EXPECTED = Path(__file__).with_name("expected_units")
#: What `systemd-analyze security` may find at most; docs/systemd.md says what remains.
EXPOSURE = 1.1


def rendered(home: Home = HOME, python: Path = PYTHON, **needs: Needs) -> dict[str, str]:
    """Each file's path and text."""
    return {str(f.path): f.text for f in systemd.systemd_files(home, python, [python], needs)}


def written(folder: Path, files: dict[str, str]) -> Path:
    """The files below ``folder``; where the units are."""
    for path, text in files.items():
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder / "etc/systemd/system"


class TestFiles:
    def test_an_ordinary_installation(self) -> None:
        inside = HOME.root / "var"
        found = rendered(
            main=Needs(HOME.root / "data_in", inside, HOME.root / "database.password"),
            beta=Needs(HOME.root / "instances/beta/data_in", inside),
            gamma=Needs(Path("/srv/gamma/data_in"), Path("/srv/gamma")),
        )
        expected = {
            f"/{path.relative_to(EXPECTED)}": path.read_text("utf-8")
            for path in EXPECTED.rglob("*")
            if path.is_file()
        }
        assert len(expected) == 5
        assert found == expected

    def test_what_is_below_peoples_homes_is_not_hidden_from_the_server(self) -> None:
        service = rendered(python=Path("/home/me/venv/bin/python"))[
            "/etc/systemd/system/dataserver@.service"
        ]
        assert "\nProtectHome=read-only\n" in service
        assert "\nPrivateTmp=yes\n" in service
        drop_in = systemd.drop_in(HOME, "beta", Needs(Path("/home/me/data_in"))).text
        assert "\nProtectHome=read-only\n" in drop_in

    def test_what_is_temporary_is_not_hidden_either(self) -> None:
        service = rendered(home=Home(Path("/tmp/home")))["/etc/systemd/system/dataserver@.service"]
        assert "\nPrivateTmp=no\n" in service
        assert "\nProtectHome=yes\n" in service
        assert "\nPrivateTmp=no\n" in systemd.drop_in(HOME, "b", Needs(Path("/var/tmp/in"))).text

    def test_odd_paths_reach_the_command_line_as_they_are(self) -> None:
        roots = [Path("/srv", name) for name in ("with space", "100%", "$HOME", "a%ib", "ünï")]
        found = {}
        for root in roots:
            files = rendered(Home(root), Path("/bin/true"))
            text = files["/etc/systemd/system/dataserver@.service"]
            [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
            found[root] = _split(line)
        start = ["/bin/true", "-P", "-m", "dataserver", "--home"]
        assert found == {root: [*start, str(root), "run", "%i"] for root in roots}

    def test_paths_that_systemd_cannot_have_are_refused(self) -> None:
        def written_all(path: Path) -> object:
            return rendered(beta=Needs(path))

        wrong = []
        for name in ("a\nUser=root", "a\tb", 'a"b', "a\\b", "a'b", "a ", "\udcff"):
            for render in (quoting.line, quoting.word, quoting.argument, written_all):
                said: object
                try:
                    said = render(Path("/srv") / name)
                except UsageError as error:
                    said = error
                if "systemd's files cannot contain the path" not in str(said):
                    wrong.append((name, render, said))
        assert wrong == []

    def test_a_directory_of_the_system_is_given_to_nobody(self) -> None:
        paths = ["/", "/etc", "/etc/x/y", "/usr/share", "/var/lib", "/srv", "/dev/shm", "/home"]
        files = {path: rendered(beta=Needs(Path(path))) for path in paths}
        given = [p for p in paths if f"d {p} " in files[p]["/etc/tmpfiles.d/dataserver.conf"]]
        assert given == []

    def test_the_checkout_has_the_shipped_templates(self) -> None:
        shipped = ROOT / "dataserver/resources/home/instances/units"
        names = {path.name for path in shipped.iterdir()}
        assert names == {path.name for path in (ROOT / "instances/units").glob("*.j2")}
        for name in names:
            assert (ROOT / "instances/units" / name).read_text() == (shipped / name).read_text()


class TestNeeds:
    def test_the_directory_of_the_database_is_known(self, home: Home) -> None:
        directories = {
            "sqlite:///var/dataserver.db": home.root / "var",
            "sqlite:////srv/db/one.db?x=1": Path("/srv/db"),
            "mysql://me@db.example.net/pandora": None,
        }
        found = {}
        for url in directories:
            home.config.write_text(f"database = {url!r}\n")
            found[url] = Needs.of(load(home.instance(), {}), home).database
        assert found == directories

    def test_what_is_in_the_home_by_a_link_is_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "real/data_in").mkdir(parents=True)
        (tmp_path / "link").symlink_to("real")
        home = Home(tmp_path / "link")
        assert Needs(tmp_path / "real/data_in").outside(home) == []
        assert Needs(tmp_path / "other").outside(home) == [tmp_path / "other"]


def analyze(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze`; what it prints."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment},
        timeout=PATIENCE,
    )


class TestJudged:
    def test_systemd_finds_nothing_wrong_with_them(self, tmp_path: Path) -> None:
        needs = {"beta": Needs(Path("/srv/a b/100%"))}
        units = written(tmp_path, rendered(python=Path("/bin/true"), **needs))
        (units / "dataserver@beta.service").symlink_to("dataserver@.service")
        found = analyze(
            *("verify", "--man=no", "--recursive-errors=no"),
            *(units / "dataserver@beta.service", units / "dataserver.target"),
            SYSTEMD_UNIT_PATH=f"{units}:/lib/systemd/system",
        )
        assert (found.returncode, found.stderr) == (0, "")

    def test_a_mistake_in_a_unit_is_found(self, tmp_path: Path) -> None:
        units = written(tmp_path, rendered(python=Path("/bin/true")))
        path = units / "dataserver@.service"
        path.write_text(path.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps"))
        assert "protect home" in analyze("verify", "--man=no", path).stderr

    def test_what_is_left_open_is_little(self, tmp_path: Path) -> None:
        units = written(tmp_path, rendered())
        found = analyze("security", "--offline=true", units / "dataserver@.service")
        score = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
        assert score, found.stdout + found.stderr
        assert float(score[1]) <= EXPOSURE
        assert f"**{EXPOSURE}**" in (ROOT / "docs/systemd.md").read_text("utf-8")


class TestCommand:
    def test_it_writes_everything_and_says_the_next_steps(
        self, dataserver: Run, home: Home, tmp_path: Path
    ) -> None:
        said = dataserver("--home", home.root, "instances", "units", "--out", tmp_path / "out")
        assert said.returncode == 0, said.stderr
        assert (tmp_path / "out/etc/systemd/system/dataserver@.service").is_file()
        assert f"wrote  {tmp_path}/out/etc/tmpfiles.d/dataserver.conf" in said.stdout
        assert "--install" in said.stdout

    def test_what_somebody_changed_is_kept_until_it_is_to_be_replaced(
        self, dataserver: Run, home: Home
    ) -> None:
        command = ("--home", home.root, "instances", "units", "--json")
        steps = json.loads(dataserver(*command).stdout)
        path = home.instances / "units/rendered/etc/systemd/system/dataserver.target"
        assert {"did": "wrote", "what": str(path), "why": ""} in steps
        ours = path.read_text()
        path.write_text("[Unit]\n")
        kept = [s for s in json.loads(dataserver(*command).stdout) if s["what"] == str(path)]
        assert kept[0]["did"] == "kept"
        assert "--replace" in kept[0]["why"]
        dataserver(*command, "--replace")
        assert path.read_text() == ours
        assert path.with_name(f"{path.name}.old").read_text() == "[Unit]\n"

    def test_a_broken_instance_holds_up_nobody(self, dataserver: Run, home: Home) -> None:
        broken = home.instance("broken")
        broken.folder.mkdir()
        broken.config.write_text("settle = 'soon'\n")
        said = dataserver("--home", home.root, "instances", "units")
        assert said.returncode == 0
        assert str(broken.config) in said.stderr

    def test_what_cannot_be_is_one_line(self, dataserver: Run) -> None:
        for options in (("--install", "--out", "x"), ("--home", "/nonexistent")):
            said = dataserver("instances", "units", *options)
            assert said.returncode == 2, options
            assert said.stderr.count("\n") == 1

    def test_a_home_named_by_a_way_back_up_is_named_straight(
        self, dataserver: Run, home: Home, tmp_path: Path
    ) -> None:
        crooked = home.root / "instances" / ".."
        dataserver("--home", crooked, "instances", "units", "--out", tmp_path / "out")
        text = (tmp_path / "out/etc/systemd/system/dataserver@.service").read_text()
        assert f" --home {home.root} run %i\n" in text


class TestAccess:
    #: Whoever runs the tests, without the rights that root has over modes.
    ME = Account(os.geteuid(), ())

    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        path = tmp_path / "folder/program"
        path.parent.mkdir(mode=0o700)
        path.touch()
        path.chmod(0o755)
        return path

    def test_a_folder_above_that_is_closed_is_the_obstacle(self, program: Path) -> None:
        assert access.obstacle(program, self.ME) is None
        program.parent.chmod(0o077)
        assert access.obstacle(program, self.ME) == program.parent

    def test_so_is_one_above_a_link(self, program: Path, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir()
        (closed / "link").symlink_to(program)
        assert access.obstacle(closed / "link", self.ME) is None
        closed.chmod(0o077)
        assert access.obstacle(closed / "link", self.ME) == closed

    def test_a_program_has_to_be_readable_too(self, program: Path) -> None:
        program.chmod(0o355)
        assert access.obstacle(program, self.ME) == program

    def test_what_is_not_there_is_an_obstacle(self, tmp_path: Path) -> None:
        assert access.obstacle(tmp_path / "none/x", self.ME) == tmp_path / "none"

    def test_modes_are_read_as_the_kernel_does(self) -> None:
        wanted = {
            (0o400, Account(1, ())): True,
            # The owner's rights count, not what others have.
            (0o044, Account(1, (2,))): False,
            (0o040, Account(3, (9, 2))): True,
            (0o404, Account(3, (2,))): False,
            (0o004, Account(3, ())): True,
            (0o440, Account(None, ())): False,
        }
        found = {}
        for mode, who in wanted:
            info = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, 1, 2, 0, 0, 0, 0))
            found[mode, who] = who.may(info, 4)
        assert found == wanted

    def test_an_account_has_its_groups(self) -> None:
        root = Account.named("root")
        assert root is not None
        assert (root.uid, root.gids[0]) == (0, 0)
        assert Account.named("nobody-has-this-name") is None


class TestSystemctl:
    """Against a systemctl that says what a test wants; the real one is in acceptance/."""

    @pytest.fixture
    def bin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        self.program(folder, "journalctl", "exit 1")
        return folder

    def program(self, folder: Path, name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def instance(self, home: Home, name: str = "main") -> Instance:
        return Instance(home.instance(name), enabled=True, fingerprint="")

    def shown(self, bin: Path, home: Home, **properties: str) -> systemctl.Managed | None:
        text = {"Id": "dataserver@main.service", "LoadState": "loaded", **properties}
        lines = "\n".join(f"{key}={value}" for key, value in text.items())
        self.program(bin, "systemctl", f"cat <<'END'\n{lines}\nEND")
        return Systemd(home).states([self.instance(home)]).get("main")

    def test_each_state_has_its_word(self, bin: Path, home: Home) -> None:
        wanted = {
            ("active", "running"): RunState.RUNNING,
            ("reloading", "reload"): RunState.RUNNING,
            ("activating", "start"): RunState.STARTING,
            ("activating", "auto-restart"): RunState.WAITING,
            ("deactivating", "stop-sigterm"): RunState.STOPPING,
            ("inactive", "dead"): RunState.STOPPED,
            ("failed", "failed"): RunState.FAILED,
            ("something", "new"): RunState.STOPPED,
        }
        found = {}
        for active, sub in wanted:
            shown = self.shown(bin, home, ActiveState=active, SubState=sub, MainPID="0")
            assert shown is not None
            assert shown.pid is None
            found[active, sub] = shown.state
        assert found == wanted

    def test_one_that_failed_says_why(self, bin: Path, home: Home) -> None:
        message = json.dumps({"level": "error", "message": "no drop directory"})
        entry = {"_SYSTEMD_UNIT": "dataserver@main.service", "MESSAGE": message}
        other = {"_SYSTEMD_UNIT": "dataserver@main.service", "MESSAGE": [1, 2]}
        lines = f"{json.dumps(entry)}\n{json.dumps(other)}"
        self.program(bin, "journalctl", f"cat <<'END'\n{lines}\nEND")
        wanted = {
            ("exit-code", "5"): "ended with exit code 5 (no drop directory)",
            ("signal", "9"): "was ended by SIGKILL",
            ("signal", "77"): "was ended by signal 77",
            ("watchdog", "9"): "was stuck, and was killed",
            ("unheard-of", "0"): "failed: unheard-of",
        }
        found = {}
        for result, status in wanted:
            told = {"Result": result, "ExecMainStatus": status, "NRestarts": "4"}
            shown = self.shown(bin, home, ActiveState="failed", **told)
            assert shown is not None
            assert shown.restarts == 4
            found[result, status] = shown.detail
        assert found == wanted

    def test_one_that_systemd_does_not_know_is_missing(self, bin: Path, home: Home) -> None:
        assert self.shown(bin, home, LoadState="not-found") is None
        assert Systemd(home).states([]) == {}

    def test_all_are_asked_for_at_once(self, bin: Path, home: Home, tmp_path: Path) -> None:
        self.program(bin, "systemctl", f'echo "$@" >> {tmp_path}/asked')
        Systemd(home).states([self.instance(home, name) for name in ("a", "b", "c")])
        [asked] = (tmp_path / "asked").read_text().splitlines()
        assert asked.startswith("show ")
        assert asked.endswith("dataserver@a.service dataserver@b.service dataserver@c.service")

    def test_one_that_fails_is_one_clear_line(self, bin: Path, home: Home) -> None:
        self.program(bin, "systemctl", "echo 'Failed to connect\nto bus' >&2; exit 1")
        with pytest.raises(DataserverError, match="systemctl show` failed: Failed to connect to"):
            Systemd(home).states([self.instance(home)])

    def test_one_that_hangs_is_not_waited_for(
        self, bin: Path, home: Home, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(programs, "TIMEOUT", 0.2)
        self.program(bin, "systemctl", "exec sleep 600")
        with pytest.raises(DataserverError, match=r"did not answer within 0\.2 s"):
            Systemd(home).states([self.instance(home)])

    def test_one_that_is_not_there_is_said(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DataserverError, match="systemctl cannot be run"):
            Systemd(home).states([self.instance(home)])
        with pytest.raises(DataserverError, match="journalctl cannot be run"):
            list(Systemd(home).follow(self.instance(home), 1, follow=False))

    def test_a_journal_that_may_not_be_read_is_said(self, bin: Path, home: Home) -> None:
        self.program(bin, "journalctl", "echo line; echo 'insufficient permissions' >&2; exit 1")
        with pytest.raises(DataserverError, match="insufficient permissions"):
            list(journalctl.follow_journal("main", 1, follow=False))

    def test_systemd_runs_the_home_that_its_units_name(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        template = tmp_path / "dataserver@.service"
        monkeypatch.setattr(systemctl, "TEMPLATE", template)
        monkeypatch.setattr(systemctl, "RUNS", tmp_path)
        assert not Systemd.applies(home)
        percent = Home(tmp_path / "100%")
        files = rendered(percent)
        template.write_text(files["/etc/systemd/system/dataserver@.service"])
        assert Systemd.applies(percent)
        assert not Systemd.applies(home)
        (tmp_path / "link").symlink_to(percent.root)
        assert Systemd.applies(Home(tmp_path / "link"))
        monkeypatch.setattr(systemctl, "RUNS", tmp_path / "none")
        assert not Systemd.applies(percent)


def test_a_drop_in_is_where_systemd_looks_for_it() -> None:
    assert str(drop_in_path("b-1")) == "/etc/systemd/system/dataserver@b-1.service.d/paths.conf"


def _split(line: str) -> list[str]:
    """A command line as systemd splits it; specifiers and variables undone, but for %i."""
    words = re.findall(r'"([^"]*)"|(\S+)', line)
    plain = [quoted or bare for quoted, bare in words]
    return [word if word == "%i" else word.replace("%%", "%").replace("$$", "$") for word in plain]

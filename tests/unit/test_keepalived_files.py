"""The files of each host, whole; values that want out of their place; the notify program."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.config.load import load
from dataserver.config.paths import Home
from dataserver.errors import ConfigError, UsageError
from dataserver.vrrp.model import Check, Host, Notify, Pair, about
from dataserver.vrrp.reading import parse, read_pair
from dataserver.vrrp.renderer import INSTALLED, README, Watched, render_pair, watched
from dataserver.vrrp.status import LastNotified, read_state
from tests.support.checks import SHELLS
from tests.support.pairs import CASES, NAMES, ROOT, SHARED_DATABASE, SIMPLE, read_case, rendered
from tests.support.waiting import PATIENCE, wait_until

SHIPPED = ROOT / "keepalived"
PACKAGED = ROOT / "dataserver" / "resources" / "home" / "keepalived"
#: What a hostile line would begin with, were it one of its own.
EVIL = "enable_evil"


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestGolden:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_files_are_those_that_are_kept(self, name: str) -> None:
        files = {str(file.path): file.text for file in rendered(read_case(name))}
        assert files == texts(CASES / name / "expected")

    def test_scripts_are_programs_and_nothing_else_is(self) -> None:
        for name in NAMES:
            for file in rendered(read_case(name)):
                assert (file.mode == 0o755) == file.text.startswith("#!/bin/sh\n"), file.path
                kept = CASES / name / "expected" / file.path
                assert bool(kept.stat().st_mode & 0o100) == (file.mode == 0o755), kept

    def test_scripts_are_understood_by_every_shell(self) -> None:
        for path in sorted(CASES.glob("*/expected/*/*")):
            if "." in path.name:
                continue
            for shell in SHELLS.values():
                done = subprocess.run(
                    [*shell, "-n", path], check=False, capture_output=True, text=True
                )
                assert (done.returncode, done.stderr) == (0, ""), (shell, path)

    def test_a_template_of_the_home_wins(self, tmp_path: Path) -> None:
        own = tmp_path / "keepalived" / "templates" / "notify.j2"
        own.parent.mkdir(parents=True)
        own.write_text("#!/bin/sh\n# {{ host.name }}'s own\n")
        files = {str(file.path): file.text for file in rendered(read_case("unicast"), tmp_path)}
        assert files["alpha/notify"] == "#!/bin/sh\n# alpha's own\n"
        assert "vrrp_instance" in files["alpha/keepalived.conf"]

    def test_hosts_differ_in_what_is_theirs_alone(self) -> None:
        files = {str(file.path): file.text for file in rendered(read_case("unicast"))}
        for name in ("check-health", "check-drop"):
            assert files[f"alpha/{name}"] == files[f"beta/{name}"]
        assert "unicast_src_ip 192.0.2.11\n" in files["alpha/keepalived.conf"]
        assert "unicast_src_ip 192.0.2.12\n" in files["beta/keepalived.conf"]


class TestShipped:
    def test_the_folders_of_the_checkout_are_fresh(self) -> None:
        home = Home(ROOT)
        pair = read_pair(SHIPPED / "pair.toml")
        files = render_pair(home, pair, watched(home, pair, SHARED_DATABASE))
        for file in files:
            assert (SHIPPED / file.path).read_text("utf-8") == file.text, (
                f"{file.path} is stale: `python -m tests.support.pairs`"
            )
            assert os.access(SHIPPED / file.path, os.X_OK) == (file.mode == 0o755)
        kept = {path for path in SHIPPED.glob("*/*") if path.parent.name != "templates"}
        assert kept == {SHIPPED / file.path for file in files}

    def test_nothing_of_this_machine_is_in_them(self) -> None:
        for name, text in texts(SHIPPED / "alpha").items():
            assert str(ROOT) not in text, name

    def test_each_file_that_is_shipped_twice_is_the_same(self) -> None:
        assert (SHIPPED / "README.md").read_text() == (PACKAGED / "README.md").read_text()
        commented = (PACKAGED / "templates" / "pair.toml.j2").read_text()
        assert (SHIPPED / "pair.toml").read_text() == commented
        assert (SHIPPED / "templates").resolve() == PACKAGED / "templates"

    def test_the_manual_has_every_field(self) -> None:
        manual = (ROOT / "docs" / "keepalived.md").read_text("utf-8")
        for record in (Pair, Host, Check, Notify):
            for name in about(record):
                assert f"`{name}`" in manual, name

    def test_the_steps_have_every_file_with_its_place(self) -> None:
        text = (SHIPPED / "alpha" / README).read_text("utf-8")
        for file, place in INSTALLED.items():
            assert f"`{file}`" in text
            assert str(place) in text or f"{place.parent}/" in text


class TestWatched:
    """What of a home the checks look at."""

    def test_what_lies_in_the_home_lies_in_the_home_of_the_hosts(self, home: Home) -> None:
        found = watched(home, parse(SIMPLE, "pair.toml"), SHARED_DATABASE)
        there = Path("/var/lib/dataserver")
        assert found == [Watched("main", there / "var" / "main", there / "data_in")]

    def test_what_lies_elsewhere_stays_there(self, home: Home) -> None:
        home.instance().config.write_text('data_in = "/srv/drop"\n')
        found = watched(home, parse(SIMPLE, "pair.toml"), SHARED_DATABASE)
        assert found[0].data_in == Path("/srv/drop")

    def test_a_home_behind_a_link_is_the_same(self, home: Home, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(home.root)
        linked = Home(tmp_path / "link")
        pair = parse(SIMPLE, "pair.toml")
        assert watched(linked, pair, SHARED_DATABASE) == watched(home, pair, SHARED_DATABASE)

    def test_sqlite_is_refused_with_the_place_where_it_stands(self, home: Home) -> None:
        home.config.write_text('database = "sqlite:///var/x.db"\n')
        with pytest.raises(ConfigError, match=re.escape(f"{home.config}: database = ")):
            watched(home, parse(SIMPLE, "pair.toml"), {})
        home.config.write_text("")
        with pytest.raises(ConfigError, match="default: database"):
            watched(home, parse(SIMPLE, "pair.toml"), {})

    def test_an_instance_that_is_not_there_is_named(self, home: Home) -> None:
        pair = parse(f"instances = ['main', 'gamma']\n{SIMPLE}", "pair.toml")
        with pytest.raises(UsageError, match=r"'gamma'.*there is: main"):
            watched(home, pair, SHARED_DATABASE)

    def test_a_drop_directory_that_no_line_can_hold_is_refused(self, home: Home) -> None:
        home.instance().config.write_text('data_in = "/srv/a\\nb"\n')
        assert load(home.instance(), SHARED_DATABASE).data_in == Path("/srv/a\nb")
        with pytest.raises(ConfigError, match="unprintable"):
            watched(home, parse(SIMPLE, "pair.toml"), SHARED_DATABASE)


def with_text(field: str, value: str) -> str:
    """The simple pair with a text put into one of its fields."""
    quoted = '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if field in {"name", "interface", "address"}:
        return re.sub(rf"(?m)^{field} = .*$", lambda _: f"{field} = {quoted}", SIMPLE, count=1)
    if field in {"home", "script_user"}:
        return f"{field} = {quoted}\n{SIMPLE}"
    if field == "virtual_addresses":
        return re.sub(r"(?m)^virtual_addresses = .*$", lambda _: f"{field} = [{quoted}]", SIMPLE)
    if field == "instances":
        return f"{field} = [{quoted}]\n{SIMPLE}"
    if field == "mail_to":
        rest = 'mail_from = "a@example.org"\nsmtp_server = "mail"'
        return f"{SIMPLE}\n[notify]\n{field} = [{quoted}]\n{rest}\n"
    if field == "command":
        return f'{SIMPLE}\n[notify]\n{field} = ["/bin/true", {quoted}]\n'
    return f"{SIMPLE}\n[notify]\n{field} = {quoted}\n"


FIELDS = ["name", "interface", "address", "home", "script_user", "virtual_addresses", "instances"]
FIELDS += ["mail_to", "mail_from", "smtp_server", "command"]
VALUES = [
    f"x\n{EVIL}",
    f"x\r{EVIL}",
    f"x\u2028{EVIL}",
    f"x }}\n}}\n{EVIL} {{",
    f"x }} {EVIL} {{",
    f"x # ! {EVIL}",
    f"x' ; {EVIL} '",
    f'x" {EVIL} "',
    f"$({EVIL})",
    f"`{EVIL}`",
    f"/x $({EVIL}) `{EVIL}` ' \" \\ {{{{ 7 * 7 }}}} %n",
    f"\\x0a{EVIL}",
    "x\0",
]


class TestHostileValues:
    def test_no_value_leaves_its_place(self) -> None:
        wrong = {}
        for field in FIELDS:
            for value in VALUES:
                if why := self.wrong_with(field, value):
                    wrong[field, value] = why
        assert wrong == {}

    def wrong_with(self, field: str, value: str) -> object:
        """What is wrong with the answer to this value; nothing where it is refused or quoted."""
        text = with_text(field, value)
        assert tomllib.loads(text)
        try:
            pair = parse(text, "pair.toml")
        except ConfigError as exc:
            line = str(exc)
            return line if "\n" in line or f"{field} = " not in line else None
        if field not in {"home", "command"}:
            return "only what a shell gets in quotes may hold anything"
        files = rendered(pair)
        return [file.path for file in files if not self.is_quoted(file.path.name, file.text, value)]

    @staticmethod
    def is_quoted(name: str, text: str, value: str) -> bool:
        """Whether the value is where it may be: a part of one word of a script."""
        if name in {"keepalived.conf", "keepalived.service.conf"}:
            return value not in text
        if name not in {"check-health", "check-drop", "notify"}:
            return True
        lines = [line for line in text.splitlines() if EVIL in line]
        return all(
            any(value in word for word in shlex.split(line))
            for line in lines
            if not line.lstrip().startswith("#")
        )

    def test_a_drop_directory_of_any_name_is_looked_at_and_nothing_else_done(
        self, tmp_path: Path
    ) -> None:
        pair = parse(SIMPLE, "pair.toml")
        for name in ("a'b", "a b", "$(touch evil)", "`touch evil`", 'a"b', "a;b"):
            data_in = tmp_path / name
            data_in.mkdir()
            files = render_pair(Home(tmp_path), pair, [Watched("main", tmp_path / "var", data_in)])
            script = next(file.text for file in files if file.path.name == "check-drop")
            script = script.replace("/run/dataserver-keepalived", str(tmp_path / "state"))
            done = subprocess.run(["sh", "-c", script], check=False, cwd=tmp_path)
            assert done.returncode == 0, name
            assert os.listdir(tmp_path) == [name]
            data_in.rmdir()


class Handler:
    """The notify program, and the end of the FIFO that keepalived has."""

    def __init__(self, folder: Path, shell: str, pair: Pair) -> None:
        self.state_dir = folder / "state"
        self.state_dir.mkdir(exist_ok=True)
        self.fifo = folder / "fifo"
        if not self.fifo.exists():
            os.mkfifo(self.fifo)
        text = next(f.text for f in rendered(pair) if str(f.path) == "alpha/notify")
        script = folder / "notify"
        script.write_text(text.replace("/run/dataserver-keepalived", str(self.state_dir)))
        # As keepalived opens it: there is always a reader.
        self._end = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)
        # What it says to the system's log comes into a file.
        logger = folder / "bin" / "logger"
        logger.parent.mkdir(exist_ok=True)
        logger.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {folder}/log\n")
        logger.chmod(0o755)
        command = ["setpriv", "--pdeathsig", "KILL", *SHELLS[shell], str(script), str(self.fifo)]
        path = f"{logger.parent}:{os.environ['PATH']}"
        self.process = subprocess.Popen(command, env={"PATH": path})

    def says(self, *lines: str) -> None:
        os.write(self._end, "".join(f"{line}\n" for line in lines).encode())

    def closes(self) -> int:
        """keepalived is gone; the handler's exit code."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
        return self.process.wait(PATIENCE)

    def stop(self) -> None:
        if self._end >= 0:
            os.close(self._end)
        self.process.kill()
        self.process.wait()

    def wait_state(self, state: str) -> float:
        """Wait until it has written this state; since when."""
        path = self.state_dir / "state"

        def is_known() -> LastNotified | None:
            known = read_state(path)
            return known if known is not None and known.state == state else None

        known = wait_until(is_known, lambda: f"{state}, not {read_state(path)}", pause=0.005)
        assert known is not None
        return known.since

    def hold(self) -> str:
        return (self.state_dir / "hold").read_text()


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def handlers(tmp_path: Path, shell: str) -> Iterator[list[Handler]]:
    """A place for handlers, which are gone afterwards."""
    made: list[Handler] = []
    yield made
    for each in made:
        each.stop()


class TestNotify:
    """The program at the other end of keepalived's FIFO."""

    @pytest.fixture
    def handler(self, tmp_path: Path, shell: str, handlers: list[Handler]) -> Handler:
        handlers.append(Handler(tmp_path, shell, parse(SIMPLE, "pair.toml")))
        return handlers[-1]

    def test_each_state_is_written_down_and_holds_the_address_while_master(
        self, handler: Handler
    ) -> None:
        for state, hold in (("BACKUP", "0\n"), ("MASTER", "2\n"), ("FAULT", "0\n")):
            handler.says(f'INSTANCE "dataserver" {state} 201')
            handler.wait_state(state)
            assert handler.hold() == hold
        assert handler.closes() == 0

    def test_the_last_news_are_heard_after_it_was_asked_to_leave(self, handler: Handler) -> None:
        handler.says('INSTANCE "dataserver" MASTER 201')
        handler.wait_state("MASTER")
        handler.process.terminate()
        handler.says('INSTANCE "dataserver" STOP 201')
        assert handler.closes() == 0
        assert handler.wait_state("STOP")
        assert handler.hold() == "0\n"

    def test_other_lines_change_nothing(self, handler: Handler) -> None:
        handler.says('INSTANCE "dataserver" BACKUP 200')
        handler.wait_state("BACKUP")
        handler.says(
            'INSTANCE "another" MASTER 200',
            'GROUP "dataserver" MASTER 0',
            'INSTANCE "dataserver" MASTER $(id)',
            'INSTANCE "dataserver" MASTER',
            'INSTANCE "dataserver" $(touch x) 200',
            'INSTANCE "dataserver" MASTER_RX_LOWER_PRI 200',
            "",
            "\\",
            "'\"$(",
        )
        assert handler.closes() == 0
        known = read_state(handler.state_dir / "state")
        assert known is not None
        assert known.state == "BACKUP"
        assert sorted(path.name for path in handler.state_dir.iterdir()) == ["hold", "state"]

    def test_a_new_one_remembers_since_when(
        self, tmp_path: Path, shell: str, handlers: list[Handler]
    ) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "state").write_text("state=MASTER\nsince=1000\npriority=203\n")
        handlers.append(Handler(tmp_path, shell, parse(SIMPLE, "pair.toml")))
        handlers[-1].says('INSTANCE "dataserver" MASTER 201')
        wait_until((handlers[-1].state_dir / "hold").exists, "the hold")
        assert handlers[-1].closes() == 0
        known = read_state(tmp_path / "state" / "state")
        assert known is not None
        assert (known.state, known.since, known.priority) == ("MASTER", 1000, 201)

    def test_what_it_finds_is_never_run(
        self, tmp_path: Path, shell: str, handlers: list[Handler]
    ) -> None:
        (tmp_path / "state").mkdir()
        evil = f"state=MASTER\nsince=$(touch {tmp_path}/evil)\npriority=`touch {tmp_path}/evil`\n"
        (tmp_path / "state" / "state").write_text(evil)
        handlers.append(Handler(tmp_path, shell, parse(SIMPLE, "pair.toml")))
        handlers[-1].says('INSTANCE "dataserver" MASTER 201')
        assert handlers[-1].wait_state("MASTER") > 1_000_000
        assert not (tmp_path / "evil").exists()

    def test_the_command_gets_its_arguments_as_they_are_and_holds_up_nobody(
        self, tmp_path: Path, shell: str, handlers: list[Handler]
    ) -> None:
        tell = tmp_path / "tell it"
        tell.write_text(
            f"#!/bin/sh\necho $$ >> {tmp_path}/pids\n"
            f"{{ for word; do printf '<%s>' \"$word\"; done; echo; }} >> {tmp_path}/told\n"
            "exec sleep 1000\n"
        )
        tell.chmod(0o755)
        odd = 'a\'b "$HOME" `id` \\ {{ 1 }}'
        text = f"{SIMPLE}\n[notify]\ncommand = ['{tell}', '''{odd}''', '']\n"
        handler = Handler(tmp_path, shell, parse(text, "pair.toml"))
        handlers.append(handler)
        states = ("BACKUP", "MASTER")
        try:
            handler.says('INSTANCE "dataserver" BACKUP 200')
            handler.wait_state("BACKUP")
            handler.says('INSTANCE "dataserver" MASTER 200', 'INSTANCE "dataserver" MASTER 202')
            assert handler.closes() == 0
            for name in ("told", "log"):
                wait_lines(tmp_path / name, len(states))
            told = (tmp_path / "told").read_text().splitlines()
            assert sorted(told) == [f"<{odd}><><{state}><alpha><200>" for state in states]
            log = sorted((tmp_path / "log").read_text().splitlines())
            assert [line.partition(" -- ")[2] for line in log] == [
                f"alpha is {state} (priority 200)" for state in states
            ]
        finally:
            for pid in (tmp_path / "pids").read_text().split():
                os.kill(int(pid), signal.SIGKILL)


def wait_lines(path: Path, count: int) -> None:
    wait_until(
        lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines in {path}"
    )

"""`dataserver demo` as a newcomer has it: a console that answers in seconds, nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support import commands
from tests.support.commands import COMMAND, Run
from tests.support.waiting import PATIENCE, wait_until

SMALL = ("--days", "1", "--agents", "10")
#: The command, whose agents send what is due in the next minute: one sends each half minute.
_HURRIED = """
import time
from dataserver.cli import main
from dataserver.demo.running import Running
Running.__init__.__kwdefaults__["clock"] = lambda: time.time() + 60
main()
"""


class Demo:
    """A demo that runs; it dies with the test's process.

    ``hurried``: its agents do not wait for as long as they should.
    """

    def __init__(
        self, folder: Path, *arguments: str, hurried: bool = False, **environment: str
    ) -> None:
        command = [sys.executable, "-P", "-c", _HURRIED] if hurried else [str(COMMAND)]
        self.temp = folder / "temp"
        self.temp.mkdir(exist_ok=True)
        self._out, self._err = folder / "out", folder / "err"
        listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command, "demo", *arguments, *listen],
                env={**os.environ, "TMPDIR": str(self.temp), **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def home(self) -> Path:
        return Path(self.wait_line(r"demo home (\S+).*", "the home's name"))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        wait_until(
            condition,
            lambda: f"{what}\n{self.out}{self.err}",
            alive=lambda: self.process.poll() is None,
        )

    def wait_line(self, pattern: str, what: str) -> str:
        """The part in brackets of a whole line that is like this, once there is one."""
        line = re.compile(rf"^{pattern}\n", re.MULTILINE)
        self.wait(lambda: line.search(self.out), what)
        found = line.search(self.out)
        assert found is not None
        return found[1]

    def address(self) -> str:
        """The console's, once it stands on a line of its own."""
        return self.wait_line(r"(http://\S+)", "the console's address")

    def get(self, path: str) -> bytes:
        with closing(urlopen(self.address() + path, timeout=PATIENCE)) as reply:
            assert reply.status == 200
            content: bytes = reply.read()
            return content

    def processes(self, word: str = "") -> list[int]:
        """The processes that work on its home, but for itself."""
        mine, found = self.process.pid, []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == mine:
                continue
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self.home) in arguments and (not word or word.encode() in arguments):
                found.append(int(entry.name))
        return found

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def demo(folder: Path, *arguments: str, **options: Any) -> Iterator[Demo]:
    running = Demo(folder, *arguments, **options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def wait_gone(running: Demo) -> None:
    home = running.home
    wait_until(lambda: not running.processes(), f"the end of all that works on {home}")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo home with a history."""
    folder = tmp_path_factory.mktemp("demo")
    done = commands.call("demo", folder / "home", *SMALL, "--fill-only", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "home"


@pytest.fixture
def kept(filled: Path, tmp_path: Path) -> Path:
    """The same, for one test."""
    return Path(shutil.copytree(filled, tmp_path / "kept"))


def status(running: Demo) -> dict[str, Any]:
    """What the running server's status file says."""
    try:
        found = json.loads((running.home / "var/main/status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def test_a_newcomer_has_a_console_and_fresh_packets_and_nothing_is_left(tmp_path: Path) -> None:
    with demo(tmp_path, *SMALL, hurried=True) as running:
        # Open to everybody, and well only where the console can read the database.
        running.get("healthz")
        running.wait(
            lambda: _is_up(running) and status(running)["counters"]["packets"] > 0,
            "a fresh packet taken in by the server",
        )
        assert len(running.processes()) >= 3
        home = running.home
        assert home.parent == running.temp
        assert running.end(signal.SIGINT) == 0
        wait_gone(running)
        assert not home.exists()
        assert os.listdir(running.temp) == []
        assert running.err == ""


def _is_up(running: Demo) -> bool:
    """Whether the status is the server's own and not that of the filling."""
    return status(running).get("pid") in running.processes("run")


def test_sigterm_while_it_fills_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--days", "300") as running:
        database = running.home / "var/dataserver.db"
        running.wait(database.exists, "the filling's begin")
        home = running.home
        assert running.end(signal.SIGTERM) == 0
        wait_gone(running)
        assert "stopped before the end" in running.out
        assert not home.exists()


def test_a_killed_demo_leaves_no_process(tmp_path: Path, kept: Path) -> None:
    with demo(tmp_path, str(kept)) as running:
        running.address()
        running.wait(lambda: running.processes("run"), "the server's worker")
        running.end(signal.SIGKILL)
        wait_gone(running)


@pytest.mark.parametrize("name", [pytest.param("console", marks=pytest.mark.long), "up"])
def test_a_process_that_dies_ends_the_demo_and_is_told(
    tmp_path: Path, kept: Path, name: str
) -> None:
    with demo(tmp_path, str(kept)) as running:
        running.address()
        running.wait(lambda: running.processes(name), f"the process of {name}")
        for pid in running.processes(name):
            os.kill(pid, signal.SIGKILL)
        assert running.process.wait(PATIENCE) == 7
        wait_gone(running)
        assert f"the demo's `dataserver {name}` ended (killed by SIGKILL)" in running.err
        assert running.err.count("\n") == 1
        assert os.listdir(running.temp) == []


def test_a_console_that_cannot_listen_ends_it_with_its_own_words(
    tmp_path: Path, kept: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo(tmp_path, str(kept), "--listen", f"127.0.0.1:{port}") as running:
            assert running.process.wait(PATIENCE) == 7
            wait_gone(running)
            assert "the demo's `dataserver console` ended" in running.err
            assert str(port) in running.err


def test_a_kept_home_stays_and_is_continued(tmp_path: Path, kept: Path, dataserver: Run) -> None:
    first = json.loads((kept / "demo.json").read_text())
    with demo(tmp_path, str(kept)) as running:
        running.address()
        assert running.end(signal.SIGTERM) == 0
        wait_gone(running)
        assert os.listdir(running.temp) == []
    again = json.loads((kept / "demo.json").read_text())
    assert again["until"] >= first["until"]
    assert {**again, "until": 0} == {**first, "until": 0}
    listed = dataserver("--home", kept, "agents", "--json")
    # Not all of them: on a Sunday the workstation has been off for a day.
    assert {"web1", "coldstore", "press-7"} <= {each["name"] for each in json.loads(listed.stdout)}


def test_settings_in_the_environment_do_not_count(tmp_path: Path, dataserver: Run) -> None:
    other = tmp_path / "other.db"
    environment = {**os.environ, "DATASERVER_DATABASE": f"sqlite:///{other}"}
    home = tmp_path / "kept"
    asked = ("--days", 1, "--agents", 1, "--fill-only")
    done = dataserver("demo", home, *asked, env=environment)
    assert done.returncode == 0, done.stderr
    assert not other.exists()
    assert (home / "var/dataserver.db").exists()


def test_what_cannot_be_is_refused(dataserver: Run) -> None:
    for arguments, said in (
        (["--fill-only"], "name a DIR to fill"),
        (["--days", "0", "x"], "--days"),
        (["--agents", "100000", "x"], "--agents"),
    ):
        done = dataserver("demo", *arguments)
        assert done.returncode == 2, arguments
        assert said in done.stderr

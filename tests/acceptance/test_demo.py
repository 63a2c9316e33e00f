"""`dataserver demo` as a newcomer has it: a console that answers in seconds, nothing left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.conftest import COMMAND, Run
from tests.support.server import PATIENCE

SMALL = ("--days", "1", "--agents", "10")


class Demo:
    """A demo that runs; it dies with the test's process."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.temp = folder / "temp"
        self.temp.mkdir(exist_ok=True)
        self._out, self._err = folder / "out", folder / "err"
        listen = () if "--listen" in arguments else ("--listen", "127.0.0.1:0")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", COMMAND, "demo", *arguments, *listen],
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
        found = re.search(r"^demo home (\S+)", self.out, re.MULTILINE)
        assert found is not None, self.out + self.err
        return Path(found[1])

    def wait(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended instead of: {what}\n{self.out}{self.err}"
            assert time.monotonic() < deadline, f"waited for: {what}\n{self.out}{self.err}"
            time.sleep(0.05)

    def address(self) -> str:
        """The console's, once it stands on a line of its own."""
        line = re.compile(r"^(http://\S+)$", re.MULTILINE)
        self.wait(lambda: line.search(self.out), "the console's address")
        found = line.search(self.out)
        assert found is not None
        return found[1]

    def get(self, path: str) -> bytes:
        with closing(urlopen(self.address() + path, timeout=30)) as reply:
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
def demo(folder: Path, *arguments: str, **environment: str) -> Iterator[Demo]:
    running = Demo(folder, *arguments, **environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def wait_gone(running: Demo) -> None:
    deadline = time.monotonic() + PATIENCE
    while running.processes():
        assert time.monotonic() < deadline, running.processes()
        time.sleep(0.02)


def status(running: Demo) -> dict[str, Any]:
    """What the running server's status file says."""
    try:
        found = json.loads((running.home / "var/main/status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def test_a_newcomer_has_a_console_and_fresh_packets_and_nothing_is_left(tmp_path: Path) -> None:
    with demo(tmp_path, *SMALL) as running:
        # Open to everybody, and well only where the console can read the database.
        running.get("healthz")
        # Of the agent that sends each half minute at the latest.
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
        running.wait(lambda: "demo home" in running.out, "the home's name")
        database = running.home / "var/dataserver.db"
        running.wait(database.exists, "the filling's begin")
        home = running.home
        assert running.end(signal.SIGTERM) == 0
        wait_gone(running)
        assert "stopped before the end" in running.out
        assert not home.exists()


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    with demo(tmp_path, *SMALL) as running:
        running.address()
        running.wait(lambda: running.processes("run"), "the server's worker")
        running.end(signal.SIGKILL)
        wait_gone(running)


@pytest.mark.parametrize("name", ["console", "up"])
def test_a_process_that_dies_ends_the_demo_and_is_told(tmp_path: Path, name: str) -> None:
    with demo(tmp_path, *SMALL) as running:
        running.address()
        running.wait(lambda: running.processes(name), f"the process of {name}")
        for pid in running.processes(name):
            os.kill(pid, signal.SIGKILL)
        assert running.process.wait(PATIENCE) == 7
        wait_gone(running)
        assert f"the demo's `dataserver {name}` ended (killed by SIGKILL)" in running.err
        assert running.err.count("\n") == 1
        assert os.listdir(running.temp) == []


def test_a_console_that_cannot_listen_ends_it_with_its_own_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo(tmp_path, *SMALL, "--listen", f"127.0.0.1:{port}") as running:
            assert running.process.wait(PATIENCE) == 7
            wait_gone(running)
            assert "the demo's `dataserver console` ended" in running.err
            assert str(port) in running.err


def test_a_kept_home_stays_and_is_continued(tmp_path: Path, dataserver: Run) -> None:
    home = tmp_path / "kept"
    done = dataserver("demo", home, *SMALL, "--fill-only")
    assert done.returncode == 0, done.stderr
    first = json.loads((home / "demo.json").read_text())
    with demo(tmp_path, str(home)) as running:
        running.address()
        assert running.end(signal.SIGTERM) == 0
        wait_gone(running)
        assert os.listdir(running.temp) == []
    again = json.loads((home / "demo.json").read_text())
    assert again["until"] >= first["until"]
    assert {**again, "until": 0} == {**first, "until": 0}
    listed = dataserver("--home", home, "agents", "--json")
    # Not all of them: on a Sunday the workstation has been off for a day.
    assert {"web1", "coldstore", "press-7"} <= {each["name"] for each in json.loads(listed.stdout)}


def test_settings_in_the_environment_do_not_count(tmp_path: Path, dataserver: Run) -> None:
    other = tmp_path / "other.db"
    environment = {**os.environ, "DATASERVER_DATABASE": f"sqlite:///{other}"}
    home = tmp_path / "kept"
    done = dataserver("demo", home, *SMALL, "--fill-only", env=environment)
    assert done.returncode == 0, done.stderr
    assert not other.exists()
    assert (home / "var/dataserver.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fill-only"], "name a DIR to fill"),
        (["--days", "0", "x"], "--days"),
        (["--agents", "100000", "x"], "--agents"),
    ],
)
def test_what_cannot_be_is_refused(dataserver: Run, arguments: list[str], said: str) -> None:
    done = dataserver("demo", *arguments)
    assert done.returncode == 2
    assert said in done.stderr

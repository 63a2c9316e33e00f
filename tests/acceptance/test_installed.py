"""Each command once as the program that was installed: the other tests call most of them in their
own process (tests/support/commands.py), where a defect of the packaging would not show."""

from __future__ import annotations

import ast
import gc
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dataserver import logs
from dataserver.cli import main
from dataserver.config.paths import Home
from dataserver.spool.rejected import Rejected
from tests.support import commands
from tests.support.commands import Run
from tests.support.packets import START, module, packet
from tests.support.pairs import SHARED_DATABASE

#: Stories: each in a home of its own, in this order.  A command, its arguments, what it prints,
#: and its exit code where that is not 0.
STORIES = {
    "store": (
        ("config show", "--home {home}", "data_in = "),
        ("config reference", "", "`settle`"),
        ("check", "--home {home}", "ok"),
        ("db create", "--home {home}", "tagente"),
        ("db check", "--home {home}", "ok"),
        ("keepalived verify", "--home {home}", "UNKNOWN  hosts", 1),
        ("packet show", "{home}/data_in/web1.1.data", "agent_name: web1"),
        ("run", "--once --home {home}", "1 packets in"),
        ("status", "--home {home}", "stopped", 7),
        ("agents", "--home {home}", "web1"),
        ("modules", "web1 --home {home}", "load"),
        ("series", "web1 load --home {home}", "2026-01-01 00:00:00  1.5"),
        ("graph", "web1 load -o {home}/load.png --home {home}", ""),
        ("events", "--home {home}", "new_agent"),
        ("refused", "--home {home}", "nothing was refused"),
        ("rejected list", "--home {home}", "malformed"),
        ("rejected show", "{rejected} --content --home {home}", "<agent_data"),
        ("rejected retry", "{rejected} --home {home}", "{rejected}"),
        ("rejected drop", "{rejected} --home {home}", "{rejected}: dropped"),
    ),
    "machine": (
        ("health", "--home {home}", "main: sick: no heartbeat that can be read", 1),
        ("instances units", "--out {home}/out --home {home}", "wrote"),
        ("uploads setup", "--out {home}/out --home {home}", "wrote"),
        ("uploads key add", "web1 {key} --home {home}", "web1"),
        ("uploads key list", "--home {home}", "SHA256:"),
        ("uploads key remove", "web1 --home {home}", "web1"),
        ("keepalived init", "--home {home}", "pair.toml"),
        ("keepalived render", "--home {home}", "keepalived.conf"),
    ),
}
_DEMO = "test_demo.py::test_a_newcomer_has_a_console_and_fresh_packets_and_nothing_is_left"
_FLEET = "test_instances.py::test_a_newcomer_spawns_one_drops_files_kills_it_and_removes_it"
#: Commands that others run as a process: by which test.
ELSEWHERE = {
    "demo": _DEMO,
    "console": _DEMO,
    "up": _FLEET,
    "instances spawn": _FLEET,
    "instances list": _FLEET,
    "instances remove": _FLEET,
    "instances start": "test_instances.py::test_what_is_stopped_stays_so_until_it_is_started",
    "instances stop": "test_instances.py::test_what_is_stopped_stays_so_until_it_is_started",
    "instances restart": "test_instances.py::test_a_restart_is_another_process",
    "instances logs": "test_instances.py::test_they_are_what_it_said_and_go_on",
    "keepalived test": "test_keepalived.py::test_on_the_host_itself_it_is_a_mistake",
    "keepalived status": "test_keepalived.py::test_one_has_the_address_and_status_says_which",
}
#: The command that makes the home of each story.
FIRST = "init"

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43


def play(run: Run, story: str, home: Home) -> None:
    """Play a story, and say of every step that went otherwise."""
    made = run(FIRST, home.root)
    assert (made.returncode, made.stderr) == (0, "")
    good = packet("web1", module("load", "1.5"), time=START)
    for name, content in (("web1.1", good), ("bad.1", b"<agent_data></agent>")):
        (home.root / "data_in" / f"{name}.data").write_bytes(content)
    wrong = {}
    for command, arguments, said, *code in STORIES[story]:
        rejected = Rejected(home.instance().rejected).list()
        names = {"home": home.root, "key": KEY, "rejected": next((r.id for r in rejected), "")}
        environment = {**os.environ, "DATASERVER_TIMEZONE": "UTC"}
        if command == "keepalived render":
            environment |= SHARED_DATABASE
        words = [word.format(**names) for word in arguments.split()]
        done = run(*command.split(), *words, env=environment)
        if done.returncode != sum(code) or said.format(**names) not in done.stdout:
            wrong[command] = done
        if command == "rejected retry":
            # It is no better now.
            commands.call("run", "--once", "--home", home.root, cwd=home.root)
    assert wrong == {}


@pytest.mark.parametrize("story", STORIES)
def test_the_installed_program_does_its_work(installed: Run, tmp_path: Path, story: str) -> None:
    play(installed, story, Home(tmp_path / "home"))


@pytest.mark.parametrize("story", STORIES)
def test_in_the_tests_own_process_it_does_the_same_and_leaves_no_trace(
    dataserver: Run, tmp_path: Path, story: str
) -> None:
    before, opened, threads = _process(), _opened(), set(threading.enumerate())
    play(dataserver, story, Home(tmp_path / "home"))
    after = _process()
    assert {key: after[key] for key in before if before[key] != after[key]} == {}
    assert _opened() - opened == {}
    assert set(threading.enumerate()) <= threads


def _process() -> dict[str, object]:
    """What a command could change in a process."""
    umask = os.umask(0o022)
    os.umask(umask)
    loggers = [logging.getLogger(name) for name in ("", logs.NAME, "matplotlib")]
    return {
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "umask": umask,
        "niceness": os.nice(0),
        "signals": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "loggers": [(each.handlers[:], each.level, each.propagate) for each in loggers],
        "collector": (gc.get_threshold(), gc.get_freeze_count()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "path": sys.path[:],
    }


def _opened() -> Counter[str]:
    """What this process has open, and how often."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    paths = [os.readlink(link) for link in links if os.path.lexists(link)]
    # matplotlib keeps the fonts that it has used, `rejected retry` the folder of the packets.
    kept = ("/matplotlib/", "/var/main/rejected")
    return Counter(path for path in paths if not any(each in path for each in kept))


def test_no_command_is_missing() -> None:
    here = [step[0] for steps in STORIES.values() for step in steps]
    assert sorted([FIRST, *here, *ELSEWHERE]) == sorted(_commands(main))


def _commands(command: click.Command, name: str = "") -> Iterator[str]:
    """The names of all commands that do something."""
    if not isinstance(command, click.Group):
        yield name
        return
    context = click.Context(command)
    for each in command.list_commands(context):
        found = command.get_command(context, each)
        assert found is not None
        yield from _commands(found, f"{name} {each}".strip())


def test_what_is_said_to_be_run_elsewhere_is() -> None:
    folder = Path(__file__).parent
    wrong = {}
    for command, where in ELSEWHERE.items():
        file, _, name = where.partition("::")
        text = (folder / file).read_text("utf-8")
        functions = (
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
        )
        source = [ast.get_source_segment(text, node) for node in functions if node.name == name]
        processes = ("as_program", "installed", "COMMAND", "Demo(", "demo(", "hosts")
        if len(source) != 1 or not any(way in str(source) for way in processes):
            wrong[command] = where
    assert wrong == {}

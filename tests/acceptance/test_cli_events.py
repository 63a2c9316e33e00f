"""``dataserver events`` as an operator uses it: as a list, on a terminal, and as it goes on."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import insert

from dataserver.rules import entities
from dataserver.store import schema
from tests.support.commands import COMMAND, Terminal
from tests.support.databases import MARIADB, SQLITE, Database, opened
from tests.support.packets import START, module, packet
from tests.support.server import PATIENCE, Place
from tests.support.waiting import wait_until

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = ["TIME", "SEVERITY", "TYPE", "STATE", "AGENT", "MODULE", "TEXT"]
#: Ended by Ctrl-C, as a shell's 130 is, and without a word.
ENDED = (-signal.SIGINT, [], [])
#: What would clear a terminal, and look like a line of the log.
HOSTILE = "gone\x1b[2J\n2026-01-01 00:00:00  critical \u202e"


class Site:
    """A home, its database, and events in it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.place = Place(database.home, database.url)
        database.prepare()
        self.engine = database.engine()
        self.now = int(time.time())
        with self.engine.begin() as conn:
            row = {"name": "web&#x20;1", "alias": "Front&#x20;door", "group_id": 10}
            conn.execute(insert(schema.agent).values(id=1, **row))
            module = {"id": 1, "agent_id": 1, "type_id": 1, "name": "Load&#x20;avg"}
            conn.execute(insert(schema.module).values(**module))

    def add(self, text: str, **values: Any) -> None:
        """An event of a minute ago."""
        row = {"time": self.now - 60, "type": "system", "severity": 1, "agent_id": 1, **values}
        with self.engine.begin() as conn:
            conn.execute(insert(schema.event).values(text=entities.encode(text), **row))

    @property
    def home(self) -> Path:
        return self.place.home.root


@pytest.fixture(params=[SQLITE, MARIADB])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with opened(request.param, tmp_path / "home") as database:
        yield Site(database)


#: For what does not depend on the kind of store.
on_sqlite = pytest.mark.parametrize("site", [SQLITE], indirect=True)


class Following:
    """``dataserver events --follow`` while it runs; its lines as they come."""

    def __init__(self, *arguments: object) -> None:
        command = [str(COMMAND), "events", "--follow", *map(str, arguments)]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._out = _lines_of(self.process.stdout)
        self._errors = _lines_of(self.process.stderr)

    def line(self) -> str:
        """The next line that it prints."""
        return self._next(self._out)

    def text(self) -> str:
        """The text of the next event, of --json."""
        return str(json.loads(self.line())["text"])

    def error(self) -> str:
        """The next line that it complains with."""
        return self._next(self._errors)

    def interrupt(self) -> tuple[int, list[str], list[str]]:
        """Ctrl-C: the exit code, and what it still said on stdout and stderr."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        return code, list(iter(self._out.get, "")), list(iter(self._errors.get, ""))

    def _next(self, lines: queue.Queue[str]) -> str:
        line = lines.get(timeout=PATIENCE)
        assert line, "it ended"
        return line.rstrip("\n")


def _lines_of(stream: IO[str] | None) -> queue.Queue[str]:
    """What comes, line by line; an empty one is the end."""
    assert stream is not None
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with stream:
            for line in stream:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return lines


@contextmanager
def following(site: Site, *arguments: object) -> Iterator[Following]:
    running = Following(*arguments, "--home", site.home)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


class TestList:
    @pytest.fixture
    def ask(self, dataserver: Run, site: Site) -> Callable[..., str]:
        def asked(*arguments: object) -> str:
            result = dataserver("events", *arguments, "--home", site.home)
            assert (result.returncode, result.stderr) == (0, "")
            return result.stdout

        return asked

    def test_a_line_tells_when_what_whose(self, ask: Callable[..., str], site: Site) -> None:
        site.add("older", agent_id=0)
        text = "Module 'Load avg' is going to CRITICAL (5)"
        site.add(text, module_id=1, type="going_up_critical", severity=4, time=1_767_225_600)
        head, *lines = ask("--since", "1000w", "--limit", "1").splitlines()
        assert head.split() == HEAD
        assert re.split(r" {2,}", lines[0]) == [
            "2026-01-01 00:00:00",
            "critical",
            "going_up_critical",
            "new",
            "Front door",
            "Load avg",
            text,
        ]

    def test_hostile_text_stays_on_its_line(self, ask: Callable[..., str], site: Site) -> None:
        site.add(HOSTILE)
        text = ask()
        assert text.count("\n") == 2
        assert all(line.isprintable() for line in text.split("\n"))
        assert "gone\\x1b[2J\\n2026-01-01" in text
        (told,) = json.loads(ask("--json"))
        assert told["text"] == HOSTILE

    def test_a_long_name_moves_its_line_only(self, ask: Callable[..., str], site: Site) -> None:
        with site.engine.begin() as conn:
            conn.execute(schema.module.update().values(name="m" * 40))
        site.add("long", module_id=1)
        site.add("short")
        long, short = ask().splitlines()[1:]
        assert long.endswith(f"  Front door        {'m' * 40}  long")
        assert short.endswith("  Front door        -                 short")

    def test_a_long_text_is_cut_but_in_json(self, ask: Callable[..., str], site: Site) -> None:
        site.add("x" * 5_000)
        assert ask().endswith("xxx... (5000 characters)\n")
        assert len(json.loads(ask("--json"))[0]["text"]) == 5_000

    def test_json_has_words_and_epoch_seconds(self, ask: Callable[..., str], site: Site) -> None:
        assert json.loads(ask("--json")) == []
        site.add("one", status=1, severity=6)
        site.add("two", status=2, module_id=1, severity=9, data="5&#x20;%")
        one, two = json.loads(ask("--json"))
        assert (one["severity"], one["state"], one["time"]) == ("major", "validated", site.now - 60)
        assert (one["agent"], one["alias"], one["module"]) == ("web 1", "Front door", None)
        assert (two["severity"], two["state"], two["data"]) == ("9", "in-process", "5 %")

    def test_the_newest_are_last(self, ask: Callable[..., str], site: Site) -> None:
        for number in range(60):
            site.add(f"event {number}")
        texts = [event["text"] for event in json.loads(ask("--json"))]
        assert texts == [f"event {number}" for number in range(10, 60)]

    def test_what_is_asked_for(self, ask: Callable[..., str], site: Site) -> None:
        site.add("elsewhere", agent_id=0, severity=4, type="error")
        site.add("agent", type="new_agent", status=1)
        site.add("module", module_id=1, severity=3)
        site.add("old", module_id=1, time=site.now - 7200)
        for arguments, texts in [
            (["web 1"], ["agent", "module", "old"]),
            (["front DOOR", "load avg"], ["module", "old"]),
            (["--since", "1h"], ["elsewhere", "agent", "module"]),
            (["--type", "error,new_agent"], ["elsewhere", "agent"]),
            (["--severity", "warning, Critical"], ["elsewhere", "module"]),
            (["--open", "--limit", "2"], ["module", "old"]),
        ]:
            told = json.loads(ask(*arguments, "--json"))
            assert [event["text"] for event in told] == texts

    def test_none_says_how_far_it_looked(self, ask: Callable[..., str], site: Site) -> None:
        site.add("old", time=site.now - 8 * 86_400)
        assert ask() == "no events in the last 7 d; use --since to look further back\n"
        assert "old" in ask("--since", "9d")

    def test_what_cannot_be_is_one_line(self, dataserver: Run, site: Site) -> None:
        wrong = {}
        for arguments, said in (
            (["--since", "yesterday"], "write it like 90s"),
            (["--type", "eror"], "unknown word 'eror'; choose from"),
            (["--severity", "4"], "choose from maintenance, informational"),
            (["--limit", "-1"], "--limit"),
            (["nobody"], "there is no agent 'nobody'"),
            (["web 1", "Load"], "did you mean 'Load avg'"),
        ):
            result = dataserver("events", *arguments, "--home", site.home)
            lines = result.stderr.splitlines()
            if (result.returncode, len(lines)) != (2, 1) or said not in lines[0]:
                wrong[*arguments] = result
        assert wrong == {}


@on_sqlite
class TestColours:
    def shown(self, site: Site, *arguments: str, **environment: str) -> str:
        """What the command writes to a terminal."""
        command = [str(COMMAND), *arguments, "--home", str(site.home)]
        variables = {**os.environ, "TERM": "xterm", **environment}
        variables = {key: value for key, value in variables.items() if value}
        with Terminal() as terminal:
            out = terminal.device
            subprocess.run(command, stdout=out, check=True, env=variables, timeout=PATIENCE)
            return terminal.shown()

    @pytest.fixture
    def critical(self, site: Site) -> Site:
        site.add(HOSTILE, severity=4, module_id=1)
        with site.engine.begin() as conn:
            row = {"module_id": 1, "agent_id": 1, "status": 1, "last_status": 1}
            conn.execute(insert(schema.state).values(**row))
            conn.execute(schema.agent.update().values(critical_count=1, total_count=1))
        return site

    def test_a_terminal_gets_some(self, critical: Site) -> None:
        for command in (["events"], ["agents"], ["modules", "web 1"]):
            text = self.shown(critical, *command, NO_COLOR="")
            assert "\x1b[31mcritical\x1b[0m" in text
            assert set(re.findall(r"\x1b.{,3}", text)) == {"\x1b[31m"[:4], "\x1b[0m"}

    def test_who_wants_none_gets_none(self, critical: Site) -> None:
        for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""}):
            text = self.shown(critical, "events", **environment)
            assert "critical" in text
            assert "\x1b" not in text

    def test_a_file_gets_none(self, critical: Site, dataserver: Run) -> None:
        assert "\x1b" not in dataserver("agents", "--home", critical.home).stdout


class TestFollow:
    def test_it_shows_what_there_is_and_what_comes(self, site: Site) -> None:
        site.add("first")
        site.add("second")
        with following(site, "--limit", "1") as running:
            assert running.line().startswith("TIME ")
            assert running.line().endswith("  second")
            site.add(HOSTILE)
            assert "gone\\x1b[2J\\n" in running.line()
            site.add("fourth")
            assert running.line().endswith("  fourth")
            assert running.interrupt() == ENDED

    @on_sqlite
    def test_json_is_an_object_a_line(self, site: Site) -> None:
        site.add("first", type="error")
        with following(site, "web 1", "--json", "--type", "error") as running:
            assert running.text() == "first"
            site.add("not this")
            site.add("nor this", type="error", agent_id=0)
            site.add("second", type="error")
            assert running.text() == "second"

    @on_sqlite
    def test_it_may_start_with_nothing(self, site: Site) -> None:
        with following(site) as running:
            assert running.line().startswith("TIME ")
            site.add("first")
            assert running.line().endswith("  first")
        with following(site, "--limit", "0") as running:
            assert running.line().startswith("TIME ")
            site.add("second")
            assert running.line().endswith("  second")


def test_a_database_that_goes_away_is_waited_for(mariadb_database: Database) -> None:
    site = Site(mariadb_database)
    site.add("before")
    with following(site, "--json") as running:
        assert running.text() == "before"
        mariadb_database.kill()
        line = running.error()
        assert line.startswith("dataserver: cannot read events: ")
        assert line.endswith("; waiting for the database")
        mariadb_database.restart()
        assert running.error() == "dataserver: the database is available again"
        site.engine.dispose()
        site.add("after")
        assert running.text() == "after"
        assert running.interrupt() == ENDED


def test_ctrl_c_ends_it_also_while_the_database_hangs(mariadb_database: Database) -> None:
    site = Site(mariadb_database)
    # So long that the test fails before the driver gives up.
    site.place.configure(database_timeout=10 * PATIENCE)
    site.add("before")
    with following(site, "--json") as running:
        assert running.text() == "before"
        assert mariadb_database.server is not None
        with mariadb_database.stop_cont():
            _wait_for_question(mariadb_database.server.port)
            assert running.interrupt() == ENDED


def _wait_for_question(port: int) -> None:
    """Until something that was sent to this port lies there unread."""

    def is_asked() -> bool:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, _, queues, *_ = line.split()
            if int(local.split(":")[1], 16) == port and int(queues.split(":")[1], 16):
                return True
        return False

    wait_until(is_asked, "a question to the database")


def test_events_of_real_packets_are_told(dataserver: Run, site: Site) -> None:
    for minute, value in enumerate(("1", "95")):
        disk = module("disk", value, min_critical=90)
        content = packet("db 1", disk, time=START + 60 * minute, interval=60, os_name="Linux")
        site.place.drop(f"db.{minute}.data", content)
        assert dataserver("run", "--once", "--home", site.home).returncode == 0
    told = json.loads(dataserver("events", "db 1", "--json", "--home", site.home).stdout)
    assert [(event["type"], event["module"]) for event in told] == [
        ("new_agent", None),
        ("going_up_critical", "disk"),
    ]
    agents = dataserver("agents", "--status", "critical", "--home", site.home).stdout
    assert re.search(r"^db 1 .* critical +1 critical ", agents, re.MULTILINE)
    assert "web 1" not in agents
    line = dataserver("modules", "db 1", "--home", site.home).stdout.splitlines()[1]
    since = r"2026-01-01 00:01:00 \(\d+ d( \d+ (h|min|s))?\)"
    assert re.match(rf"disk +generic_data +critical +{since} ", line)
    assert dataserver("modules", "db 1", "--status", "warning", "--home", site.home).stdout == (
        "none\n"
    )

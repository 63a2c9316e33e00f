"""``dataserver refused``, the log and ``packet show --would``: what was refused is found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from dataserver.config.paths import Home
from tests.support.packets import START, module, packet

Run = Callable[..., "CompletedProcess[str]"]
Ask = Callable[..., str]


@pytest.fixture
def settled(home: Home) -> Home:
    """A home whose times are UTC."""
    home.config.write_text('timezone = "UTC"\n')
    return home


@pytest.fixture
def ask(dataserver: Run, settled: Home) -> Ask:
    """The way to ask that home."""

    def asked(*arguments: object) -> str:
        result = dataserver(*arguments, "--home", settled.root)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return asked


def drop(home: Home, agent: str, minute: int, *content: str) -> Path:
    """A packet of an agent in the drop directory."""
    time = START + 60 * minute
    file = home.root / "data_in" / f"{agent.replace(' ', '_')}.{time}.data"
    file.write_bytes(packet(agent, *content, time=time))
    return file


def test_each_module_and_reason_has_a_line(settled: Home, ask: Ask) -> None:
    hostile = "n/a\u202e\x85"
    for minute in range(3):
        values = module("disk a", hostile), module("load", "7" * (minute % 2))
        drop(settled, "web 1", minute, *values)
    drop(settled, "db", 9, module("up", "1", "generic_true"), module("long", "x" * 1000))
    ask("run", "--once")
    head, *lines = ask("refused").splitlines()
    assert head.split() == ["AGENT", "MODULE", "COUNT", "FIRST", "LAST", "VALUE", "WHY"]
    assert len(lines) == 4
    assert any("  " + "x" * 60 + "...  not a number" in line for line in lines)
    (disk,) = [line for line in lines if "disk a" in line]
    assert disk.startswith("web 1  disk a  3 ")
    assert r"  n/a\u202e\x85  " in disk
    assert disk.endswith("  not a number")
    (load,) = [line for line in lines if "load" in line]
    assert load.startswith("web 1  load    2  ")
    assert load.split()[-3:] == ["-", "no", "value"]
    assert len(ask("refused", "WEB 1").splitlines()) == 3
    assert len(ask("refused", "--limit", "1").splitlines()) == 2


def test_json_has_the_whole_record(settled: Home, ask: Ask) -> None:
    drop(settled, "web1", 0, module("disk a", "n/a"))
    ask("run", "--once")
    (found,) = json.loads(ask("refused", "web1", "--json"))
    assert found["first"] == found["last"] > START
    assert {key: found[key] for key in ("agent", "module", "reason", "value", "count")} == {
        "agent": "web1",
        "module": "disk a",
        "reason": "not-a-number",
        "value": "n/a",
        "count": 1,
    }


def test_nothing_and_no_agent_are_said(dataserver: Run, settled: Home, ask: Ask) -> None:
    drop(settled, "web1", 0, module("load", "1"))
    ask("run", "--once")
    assert ask("refused") == ask("refused", "web1") == "nothing was refused\n"
    assert json.loads(ask("refused", "--json")) == []
    result = dataserver("refused", "web2", "--home", settled.root)
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no agent 'web2'; did you mean 'web1'?" in result.stderr


def test_a_database_of_an_earlier_version_is_read(settled: Home, ask: Ask) -> None:
    ask("db", "create")
    with sqlite3.connect(settled.root / "var/dataserver.db") as raw:
        raw.execute("DROP TABLE trefused")
    raw.close()
    assert ask("refused").startswith("unknown: this database has no table of refused values")
    assert json.loads(ask("refused", "--json")) == []
    # What is needed is there, so a packet can be rehearsed as well.
    ask("packet", "show", "--would", drop(settled, "web1", 0, module("load", "1")))


def test_the_log_names_each_once_with_the_remedy_and_then_in_sums(
    dataserver: Run, settled: Home
) -> None:
    def run() -> list[dict[str, str]]:
        """What a run says of what was refused."""
        said = dataserver("run", "--once", "--home", settled.root).stderr
        return [line for line in map(json.loads, said.splitlines()) if "refused" in line["message"]]

    for minute in range(3):
        drop(settled, "web1", minute, module("disk", "n/a" + "x" * 1000))
    one, rest = run()
    assert one["message"] == (
        "refused: not a number; change the module's type or what the agent sends"
    )
    assert (one["agent"], one["module_name"], one["reason"]) == ("web1", "disk", "not-a-number")
    assert one["value"] == "n/a" + "x" * 97
    assert rest["message"] == (
        "2 more values or other parts of packets refused in the last minute;"
        " `dataserver refused` lists all"
    )
    # What the table has is not new to the next process either.
    drop(settled, "web1", 3, module("disk", "n/a"), module("load", ""))
    one, rest = run()
    assert one["message"] == "refused: no value; look at what the module runs on its agent"
    assert rest["message"].startswith("1 more value or other part of a packet refused")


def test_a_rehearsal_names_what_would_be_refused(settled: Home, ask: Ask) -> None:
    file = drop(settled, "web1", 0, module("disk a", "n/a"), module("load", "1"))
    shown = ask("packet", "show", "--would", file)
    _, _, table = shown.partition("REFUSED  TIMES  VALUE  WHY\n")
    why = "not a number; change the module's type or what the agent sends"
    assert table.splitlines()[0] == f"disk a   1      n/a    {why}"
    told = json.loads(ask("packet", "show", "--would", file, "--json"))["would"]
    assert told["refused"] == 1
    assert told["refusals"] == [
        {"module": "disk a", "reason": "not-a-number", "value": "n/a", "times": 1}
    ]


def test_an_agent_is_shown_by_its_alias_and_found_by_both(settled: Home, ask: Ask) -> None:
    content = packet("a1b2", module("disk", "n/a"), time=START, agent_alias="web 1")
    (settled.root / "data_in/a1b2.1.data").write_bytes(content)
    ask("run", "--once")
    for agent in ("a1b2", "web 1"):
        assert ask("refused", agent).splitlines()[1].startswith("web 1  disk  ")
        (found,) = json.loads(ask("refused", agent, "--json"))
        assert (found["agent"], found["alias"]) == ("a1b2", "web 1")


def test_status_counts_them_by_reason(dataserver: Run, settled: Home, ask: Ask) -> None:
    drop(settled, "web1", 0, module("disk", "n/a"), module("a", ""), module("b", ""))
    ask("run", "--once")
    shown = dataserver("status", "--home", settled.root).stdout
    counts = "1 not-a-number, 2 no-value since the start: see `dataserver refused`"
    assert f"refused:   {counts}\n" in shown
    metrics = settled.instance().metrics.read_text("utf-8")
    assert 'dataserver_refused_total{instance="main",server=' in metrics
    assert 'reason="no-value"} 2\n' in metrics

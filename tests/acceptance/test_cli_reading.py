"""The reading commands as an operator uses them, on what a run has stored."""

from __future__ import annotations

import csv
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from typing import Any

import pytest

from dataserver.config.paths import Home

Run = Callable[..., "CompletedProcess[str]"]
#: Runs the command in the home with packets, expecting success.
Ask = Callable[..., str]

START = 1_767_225_600
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def web1(minute: int, load: str) -> str:
    """A packet of agent "web 1"; its text is hostile to a terminal."""
    return (
        f'{HEAD}<agent_data agent_name="web 1" agent_alias="W&#233;b" os_name="Linux"'
        f' timestamp="2026/01/01 00:{minute:02}:00" interval="60">'
        "<module><name>Load avg</name><type>generic_data</type><unit>%</unit>"
        f"<description>one &amp; all</description><data>{load}</data></module>"
        "<module><name>state</name><type>async_string</type>"
        f"<data>a,\x85{minute}\u202e</data></module></agent_data>"
    )


@pytest.fixture
def settled(home: Home) -> Home:
    """A home whose times are UTC."""
    home.config.write_text('timezone = "UTC"\n')
    return home


@pytest.fixture
def ask(dataserver: Run, settled: Home) -> Ask:
    """A home in which ten packets were taken in; the way to ask it."""
    for minute in range(10):
        name = f"web.{START + 60 * minute}.data"
        load = str(1 + minute // 4)
        (settled.root / "data_in" / name).write_text(web1(minute, load), "utf-8")
    assert dataserver("run", "--once", "--home", settled.root).returncode == 0

    def asked(*arguments: object) -> str:
        result = dataserver(*arguments, "--home", settled.root)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return asked


def one_line(result: CompletedProcess[str]) -> str:
    assert result.stdout == ""
    assert result.stderr.startswith("dataserver: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def _set(home: Home, table: str, assignments: str) -> None:
    """Change rows behind the server's back, as the console does."""
    with sqlite3.connect(home.root / "var/dataserver.db") as raw:
        raw.execute(f"UPDATE {table} SET {assignments}")
    raw.close()


class TestAgents:
    def test_the_table_has_a_line_for_each(self, ask: Ask) -> None:
        head, line = ask("agents").splitlines()
        assert head.split()[:4] == ["AGENT", "ALIAS", "GROUP", "OS"]
        assert line.startswith("web 1  Wéb    Unknown  Linux")
        assert "2026-01-01 00:09:00" in line
        assert line.endswith("2        60        learning  -")
        assert "  normal  2 normal  " in line

    def test_json_has_epoch_seconds(self, ask: Ask) -> None:
        (agent,) = json.loads(ask("agents", "--json"))
        assert agent["name"] == "web 1"
        assert agent["packet_time"] == START + 540
        assert abs(agent["contact"] - time.time()) < 3600
        assert (agent["modules"], agent["mode"], agent["disabled"]) == (2, "learning", False)
        assert (agent["status"], agent["quiet"]) == ("normal", False)
        assert agent["counts"] == {
            "critical": 0,
            "warning": 0,
            "unknown": 0,
            "normal": 2,
            "not_initialised": 0,
            "total": 2,
        }

    def test_status_and_counts_come_from_the_agents_row(self, ask: Ask, settled: Home) -> None:
        _set(settled, "tagente", "critical_count = 1, unknown_count = 12, disabled = 1, quiet = 1")
        line = ask("agents").splitlines()[1]
        assert "  critical  1 critical, 12 unknown, 2 normal  " in line
        assert line.endswith("learning  disabled, quiet")
        assert ask("agents", "--status", "normal,warning") == "none\n"
        assert ask("agents", "--status", "unknown, CRITICAL") == ask("agents")

    def test_a_status_that_there_is_not_is_one_line(self, dataserver: Run, settled: Home) -> None:
        result = dataserver("agents", "--status", "bad", "--home", settled.root)
        assert result.returncode == 2
        assert "choose from critical, warning" in one_line(result)

    def test_none_is_said(self, dataserver: Run, settled: Home) -> None:
        assert dataserver("db", "create", "--home", settled.root).returncode == 0
        assert dataserver("agents", "--home", settled.root).stdout == "none\n"


class TestModules:
    def test_an_agent_is_found_by_name_and_by_alias(self, ask: Ask) -> None:
        # As JSON: a table says how long ago something was.
        found = {ask("modules", name, "--json") for name in ("web 1", "Wéb", "WEB 1")}
        assert len(found) == 1

    def test_the_table_shows_value_unit_and_times(self, ask: Ask) -> None:
        head, line = ask("modules", "web 1").splitlines()[:2]
        assert head.split()[:5] == ["MODULE", "TYPE", "STATUS", "SINCE", "VALUE"]
        (age,) = re.findall(r"\((\d+ d(?: \d+ (?:h|min|s))?)\)", line)
        assert [cell.strip() for cell in line.split("  ") if cell] == [
            "Load avg",
            "generic_data",
            "normal",
            f"2026-01-01 00:00:00 ({age})",
            "3",
            "%",
            "2026-01-01 00:09:00",
            "2026-01-01 00:08:00",
            "60",
            "-",
            "one & all",
        ]

    def test_a_pending_status_is_told_with_the_present_one(self, ask: Ask, settled: Home) -> None:
        _set(settled, "tagente_estado", "last_status = 1 WHERE id_agente_modulo = 1")
        _set(settled, "tagente_modulo", "quiet = 1")
        first, second = ask("modules", "web 1").splitlines()[1:]
        assert "  normal, critical pending  " in first
        assert "  quiet  " in first
        assert "pending" not in second
        load, state = json.loads(ask("modules", "web 1", "--json"))["modules"]
        assert (load["status"], load["pending"], load["since"]) == ("normal", "critical", START)
        assert (state["status"], state["pending"]) == ("normal", None)

    def test_only_modules_of_a_status(self, ask: Ask, settled: Home) -> None:
        _set(settled, "tagente_estado", "estado = 3, last_status = 3 WHERE id_agente_modulo = 2")
        (state,) = json.loads(ask("modules", "web 1", "--status", "unknown", "--json"))["modules"]
        assert (state["name"], state["status"]) == ("state", "unknown")
        assert ask("modules", "web 1", "--status", "critical,not-initialised") == "none\n"

    def test_json_has_the_whole_value(self, ask: Ask) -> None:
        told = json.loads(ask("modules", "web 1", "--json"))
        load, state = told["modules"]
        assert (told["agent"], load["value"], load["unit"]) == ("web 1", 3.0, "%")
        assert (load["time"], load["saved"]) == (START + 540, START + 480)
        assert state["value"] == "a,\x859\u202e"

    def test_an_unknown_agent_is_one_line_with_what_is_near(
        self, ask: Ask, dataserver: Run, settled: Home
    ) -> None:
        result = dataserver("modules", "web1", "--home", settled.root)
        assert result.returncode == 2
        assert "did you mean 'web 1'" in one_line(result)


class TestSeries:
    def test_without_anything_it_is_the_last_day_of_values(self, ask: Ask) -> None:
        assert ask("series", "Wéb", "load avg").splitlines() == [
            "TIME                 VALUE",
            "2026-01-01 00:00:00  1",
            "2026-01-01 00:04:00  2",
            "2026-01-01 00:08:00  3",
        ]

    def test_a_span_begins_with_the_value_that_holds(self, ask: Ask) -> None:
        lines = ask(
            "series", "web 1", "Load avg", "--from", "2026-01-01 00:05", "--to", START + 480
        )
        assert lines.splitlines()[1:] == ["2026-01-01 00:05:00  2", "2026-01-01 00:08:00  3"]

    def test_steps_are_summed_up(self, ask: Ask) -> None:
        span = ("--from", "2026-01-01", "--to", "2026-01-01 00:10", "--step", "5m")
        assert list(
            csv.DictReader(
                ask("series", "web 1", "Load avg", *span, "--format", "csv").splitlines()
            )
        ) == [
            {
                "start": str(START),
                "end": str(START + 300),
                "local": "2026-01-01 00:00:00",
                "mean": "1.2",
                "min": "1.0",
                "max": "2.0",
                "last": "2.0",
            },
            {
                "start": str(START + 300),
                "end": str(START + 600),
                "local": "2026-01-01 00:05:00",
                "mean": "2.4",
                "min": "2.0",
                "max": "3.0",
                "last": "3.0",
            },
        ]

    def test_steps_of_days_are_days_of_the_zone_also_where_clocks_change(
        self, ask: Ask, settled: Home
    ) -> None:
        settled.config.write_text('timezone = "Europe/Berlin"\n')
        for first, last, lengths in (
            ("2026-03-28", "2026-03-31", [24, 23, 24]),
            ("2026-10-24", "2026-10-27", [24, 25, 24]),
        ):
            span = ("--from", first, "--to", last, "--step", "1d")
            told = json.loads(ask("series", "web 1", "Load avg", *span, "--json"))
            found = [(span["end"] - span["start"]) / 3600 for span in told["spans"]]
            assert (told["step"], found) == (86_400, lengths)
            lines = ask("series", "web 1", "Load avg", *span).splitlines()[1:]
            assert [line[10:19] for line in lines] == [" 00:00:00"] * 3
        # Without --from from the midnight before; weeks from Monday.
        lines = ask("series", "web 1", "Load avg", "--to", "2026-03-30 12:00", "--step", "1d")
        assert [line[:19] for line in lines.splitlines()[1:]] == [
            "2026-03-29 00:00:00",
            "2026-03-30 00:00:00",
        ]
        lines = ask("series", "web 1", "Load avg", "--to", "2026-03-31 12:00", "--step", "1w")
        assert [line[:19] for line in lines.splitlines()[1:]] == ["2026-03-30 00:00:00"]

    def test_steps_begin_where_the_first_value_is(self, ask: Ask) -> None:
        lines = ask("series", "web 1", "Load avg", "--step", "5m").splitlines()
        assert [line[:19] for line in lines[1:]] == ["2026-01-01 00:00:00", "2026-01-01 00:05:00"]

    def test_json_says_what_it_is_of(self, ask: Ask) -> None:
        told = ask("series", "web 1", "Load avg", "--json")
        assert told == ask("series", "web 1", "Load avg", "--format", "json")
        assert json.loads(told) == {
            "agent": "web 1",
            "module": "Load avg",
            "type": "generic_data",
            "unit": "%",
            "from": START + 540 - 86_400,
            "to": START + 540,
            "step": None,
            "points": [
                {"time": START + 60 * minute, "value": value}
                for minute, value in ((0, 1.0), (4, 2.0), (8, 3.0))
            ],
        }

    def test_json_of_steps_and_of_nothing_is_json_too(self, ask: Ask) -> None:
        told = json.loads(ask("series", "web 1", "state", "--step", "5m", "--json"))
        assert [span["last"] for span in told["spans"]] == ["a,\x854\u202e", "a,\x859\u202e"]
        nothing = json.loads(
            ask("series", "web 1", "state", "--from", "2000-01-01", "--to", "2000-01-02", "--json")
        )
        assert nothing["points"] == []

    def test_text_from_packets_cannot_move_the_cursor(self, ask: Ask) -> None:
        for form in ("table", "csv", "json"):
            text = ask("series", "web 1", "state", "--format", form)
            assert text.count("\n") >= 10
            assert [line for line in text.split("\n") if not line.isprintable()] == [], form

    def test_a_value_with_a_comma_is_one_cell(self, ask: Ask) -> None:
        rows = list(csv.DictReader(ask("series", "web 1", "state", "--format", "csv").splitlines()))
        assert rows[0] == {
            "time": str(START),
            "local": "2026-01-01 00:00:00",
            "value": "a,\\x850\\u202e",
        }

    def test_what_cannot_be_is_one_line(self, ask: Ask, dataserver: Run, settled: Home) -> None:
        wrong = {}
        for arguments, said in (
            (["web 1", "Load"], "did you mean 'Load avg'"),
            (["nobody", "Load avg"], "there is no agent 'nobody'"),
            (["web 1", "Load avg", "--from", "tomorrow"], "write it as"),
            (["web 1", "Load avg", "--step", "0"], "90s, 5m"),
            (["web 1", "Load avg", "--from", "now", "--to", "-1h"], "ends before it begins"),
        ):
            result = dataserver("series", *arguments, "--home", settled.root)
            if result.returncode != 2 or said not in one_line(result):
                wrong[*arguments] = result
        assert wrong == {}


class TestReadingOnly:
    def test_without_a_database_it_says_how_to_make_one(
        self, dataserver: Run, settled: Home
    ) -> None:
        for command in (["agents"], ["modules", "x"], ["series", "x", "y"], ["events"]):
            result = dataserver(*command, "--home", settled.root)
            assert result.returncode == 6, command
            assert "dataserver db create" in one_line(result)
            assert not (settled.root / "var").exists()

    def test_a_file_that_is_no_database_is_one_line(self, dataserver: Run, settled: Home) -> None:
        (settled.root / "var").mkdir()
        (settled.root / "var/dataserver.db").write_text("something else entirely " * 100)
        result = dataserver("agents", "--home", settled.root)
        assert result.returncode == 6
        assert "not an SQLite database" in one_line(result)

    def test_an_empty_database_has_no_tables_yet(self, dataserver: Run, settled: Home) -> None:
        (settled.root / "var").mkdir()
        (settled.root / "var/dataserver.db").touch()
        result = dataserver("agents", "--home", settled.root)
        assert result.returncode == 6
        assert "no tables yet" in one_line(result)

    def test_nothing_is_left_behind(self, ask: Ask, settled: Home) -> None:
        before = _contents(settled.root)
        ask("agents")
        ask("modules", "web 1")
        ask("series", "web 1", "Load avg")
        ask("db", "check")
        assert _contents(settled.root) == before


def _contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestDb:
    def test_create_makes_the_tables_once(self, dataserver: Run, settled: Home) -> None:
        first = json.loads(dataserver("db", "create", "--json", "--home", settled.root).stdout)
        assert first["kind"] == "own"
        assert {"tagente", "tpacket"} <= set(first["created"])
        again = dataserver("db", "create", "--home", settled.root)
        assert again.returncode == 0
        assert "nothing to create" in again.stdout

    def test_check_tells_what_it_found(self, ask: Ask) -> None:
        told = json.loads(ask("db", "check", "--json"))
        assert told["ok"] is True
        assert {"connection", "kind", "tables"} <= {each["name"] for each in told["checks"]}

    def test_a_database_that_is_not_there_yet_is_made_by_the_first_start(
        self, dataserver: Run, settled: Home
    ) -> None:
        result = dataserver("db", "check", "--home", settled.root)
        assert result.returncode == 0
        assert "the first start creates it" in result.stdout
        assert not (settled.root / "var").exists()

    def test_one_that_lacks_a_table_is_a_problem(
        self, ask: Ask, dataserver: Run, settled: Home
    ) -> None:
        with sqlite3.connect(settled.root / "var/dataserver.db") as raw:
            raw.execute("DROP TABLE tagente_estado")
        raw.close()
        result = dataserver("db", "check", "--home", settled.root)
        assert result.returncode == 1
        problem = next(line for line in result.stdout.splitlines() if "PROBLEM" in line)
        assert "tagente_estado" in problem

    def test_one_that_is_away_is_one_line_without_its_password(
        self, dataserver: Run, settled: Home
    ) -> None:
        settled.config.write_text('database = "mysql://me:hush@127.0.0.1:1/x"\n')
        for command in ("create", "check"):
            result = dataserver("db", command, "--home", settled.root)
            assert result.returncode == 6
            assert "hush" not in one_line(result)


class TestWould:
    @pytest.fixture
    def told(self, dataserver: Run, settled: Home, tmp_path: Path) -> Callable[..., Any]:
        """What --would says of a packet, as JSON."""

        def tell(content: str, name: str = "web.1.data") -> Any:
            path = tmp_path / name
            path.write_text(content, "utf-8")
            result = dataserver("packet", "show", "--would", "--json", path, "--home", settled.root)
            assert (result.returncode, result.stderr) == (0, "")
            return json.loads(result.stdout)["would"]

        return tell

    def test_on_no_database_yet_everything_is_new(
        self, told: Callable[..., Any], settled: Home
    ) -> None:
        would = told(web1(0, "1"))
        assert (would["new_database"], would["new_agent"]) == (True, True)
        assert would["new_modules"] == ["Load avg", "state"]
        assert [point["module"] for point in would["stored"]] == ["Load avg", "state"]
        assert [event["type"] for event in would["events"]] == ["new_agent"]
        assert not (settled.root / "var").exists()

    def test_a_known_agents_unchanged_value_is_not_stored(
        self, ask: Ask, told: Callable[..., Any]
    ) -> None:
        would = told(web1(10, "3"))
        assert (would["new_database"], would["new_agent"], would["new_modules"]) == (
            False,
            False,
            [],
        )
        assert (would["samples"], would["late"], would["duplicate"]) == (2, False, False)
        assert would["stored"] == [
            {"module": "state", "time": START + 600, "value": "a,\x8510\u202e"}
        ]
        assert would["events"] == []

    def test_nothing_is_stored(self, ask: Ask, told: Callable[..., Any]) -> None:
        questions = [
            ("agents", "--json"),
            ("series", "web 1", "state"),
            ("modules", "web 1", "--json"),
        ]
        before = [ask(*question) for question in questions]
        told(web1(10, "3"))
        told(web1(10, "3").replace("web 1", "web 2"))
        assert [ask(*question) for question in questions] == before

    def test_a_packet_that_was_stored_is_a_duplicate(
        self, ask: Ask, told: Callable[..., Any]
    ) -> None:
        assert told(web1(3, "1"))["duplicate"] is True

    def test_a_packet_from_the_future_would_be_set_aside(self, told: Callable[..., Any]) -> None:
        assert told(web1(0, "1").replace("2026/01/01", "2199/01/01"))["rejected"] == "clock"

    def test_a_packet_that_is_too_large_would_be_set_aside(
        self, told: Callable[..., Any], settled: Home
    ) -> None:
        settled.config.write_text('timezone = "UTC"\nmax_packet = 1024\n')
        assert told(web1(0, "1") + " " * 2000)["rejected"] == "too-large"

    def test_a_packet_that_is_too_old_would_be_set_aside(
        self, ask: Ask, told: Callable[..., Any]
    ) -> None:
        assert told(web1(0, "1").replace("2026/01/01", "2025/01/01"))["rejected"] == "too-old"

    def test_people_are_told_in_words(
        self, ask: Ask, dataserver: Run, settled: Home, tmp_path: Path
    ) -> None:
        (tmp_path / "w.1.data").write_text(web1(2, "9"), "utf-8")
        result = dataserver(
            "packet", "show", "--would", tmp_path / "w.1.data", "--home", settled.root
        )
        lines = result.stdout.splitlines()
        assert "agent: web 1, known" in lines
        assert "late: a newer packet of its agent is stored, so only history would change" in lines
        assert "Load avg  2026-01-01 00:02:00  9" in lines
        assert "Load avg  2026-01-01 00:03:00  1" in lines
        assert all(line.isprintable() for line in lines)

    def test_tables_of_ours_that_are_missing_are_not_added(
        self, ask: Ask, dataserver: Run, settled: Home, tmp_path: Path
    ) -> None:
        with sqlite3.connect(settled.root / "var/dataserver.db") as raw:
            raw.execute("DROP TABLE tpacket_hour")
        raw.close()
        (tmp_path / "w.1.data").write_text(web1(2, "9"), "utf-8")
        result = dataserver(
            "packet", "show", "--would", tmp_path / "w.1.data", "--home", settled.root
        )
        assert result.returncode == 6
        assert "dataserver db create" in one_line(result)

    def test_it_reads_stdin(self, installed: Run, settled: Home) -> None:
        arguments = ("packet", "show", "-", "--would", "--json", "--home", settled.root)
        result = installed(*arguments, input=web1(0, "1"))
        assert json.loads(result.stdout)["would"]["time"] == START


def test_a_reader_that_leaves_early_gets_no_complaint(
    ask: Ask, installed: Run, settled: Home
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        streams = {"stdout": writer, "stderr": PIPE}
        result = installed("series", "web 1", "state", "--home", settled.root, **streams)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")

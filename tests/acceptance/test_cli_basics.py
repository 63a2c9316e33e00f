"""The command as its users meet it: what they type, read and get as exit codes."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, CompletedProcess

import pytest

from dataserver.config.paths import Home
from dataserver.errors import Reason
from dataserver.runtime.heartbeat import Heartbeat, Phase, Status
from dataserver.runtime.metrics import Counters, Gauges, as_dict
from dataserver.spool.directory import Spool
from dataserver.spool.rejected import Rejected

Run = Callable[..., "CompletedProcess[str]"]

ROOT = Path(__file__).parents[2]
PACKET = """<?xml version="1.0" encoding="UTF-8"?>
<agent_data agent_name="web1" timestamp="2026/01/01 00:00:00" interval="300">
<module><name>load</name><type>generic_data</type><data><![CDATA[1.5]]></data></module>
<module><name>evil \x7f</name><type>generic_data_string</type><data>\u202e</data></module>
</agent_data>
"""


def one_line(text: str) -> str:
    assert text.startswith("dataserver: ")
    assert text.count("\n") == 1
    return text


class TestErrors:
    def test_an_error_is_one_line_with_what_to_do_next(self, dataserver: Run) -> None:
        result = dataserver("check", "--home", "/nonexistent")
        assert result.returncode == 2
        assert "dataserver init" in one_line(result.stderr)
        assert result.stdout == ""

    def test_debug_shows_the_traceback(self, dataserver: Run) -> None:
        result = dataserver("--debug", "check", "--home", "/nonexistent")
        assert result.returncode == 2
        assert "Traceback" in result.stderr

    def test_a_wrong_call_is_one_line_that_points_to_the_help(self, dataserver: Run) -> None:
        calls = ["chekc"], ["check", "--hom", "x"], ["rejected", "show"], ["packet", "x"]
        results = [dataserver(*arguments) for arguments in calls]
        assert [result.returncode for result in results] == [2] * len(calls)
        assert [r.stderr for r in results if "--help" not in one_line(r.stderr)] == []

    def test_a_wrong_setting_has_its_own_exit_code(self, dataserver: Run, home: Home) -> None:
        home.config.write_text("settle = 'soon'\n")
        result = dataserver("config", "show", "--home", home.root)
        assert result.returncode == 3
        assert str(home.config) in one_line(result.stderr)

    def test_a_reader_that_leaves_early_gets_no_complaint(self, installed: Run, home: Home) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            streams = {"stdout": writer, "stderr": PIPE}
            result = installed("config", "show", "--home", home.root, **streams)
        finally:
            os.close(writer)
        assert result.returncode == 1
        assert result.stderr == ""


class TestHelp:
    def test_without_arguments_the_help_is_shown(self, dataserver: Run) -> None:
        result = dataserver()
        assert result.returncode == 2
        assert "Commands:" in result.stderr

    def test_every_command_has_help_with_an_example(self, dataserver: Run) -> None:
        listing = dataserver("--help").stdout.partition("Commands:\n")[2]
        commands = [line.split()[0] for line in listing.splitlines() if line.strip()]
        assert {"init", "check", "status", "config", "packet", "rejected"} <= set(commands)
        for command in commands:
            text = dataserver(command, "--help").stdout
            assert "Examples:" in text, command

    def test_the_version_is_that_of_the_package(self, dataserver: Run) -> None:
        assert dataserver("--version").stdout == "dataserver 0.1.0\n"


class TestHome:
    def test_it_can_be_named_before_and_after_the_command(
        self, dataserver: Run, home: Home
    ) -> None:
        before = dataserver("--home", home.root, "config", "show")
        after = dataserver("config", "show", "--home", home.root)
        between = dataserver("config", "--home", home.root, "show")
        assert before.returncode == 0
        assert before.stdout == after.stdout == between.stdout

    def test_it_can_be_named_in_the_environment(self, dataserver: Run, home: Home) -> None:
        environment = {**os.environ, "DATASERVER_HOME": str(home.root)}
        assert dataserver("config", "show", env=environment).returncode == 0

    def test_the_current_directory_is_one_if_it_holds_the_settings(
        self, dataserver: Run, home: Home
    ) -> None:
        home.config.touch()
        assert dataserver("config", "show", cwd=home.root).returncode == 0

    def test_the_checkout_is_one(self, dataserver: Run) -> None:
        result = dataserver("config", "show", "--json", cwd=ROOT)
        assert json.loads(result.stdout)["data_in"]["value"] == str(ROOT / "data_in")


class TestInit:
    def test_it_makes_a_home_that_passes_the_check(self, dataserver: Run, tmp_path: Path) -> None:
        made = dataserver("init", tmp_path / "new")
        assert made.returncode == 0
        checked = dataserver("check", "--home", tmp_path / "new")
        assert checked.returncode == 0, checked.stdout

    def test_it_writes_what_the_checkout_has(self, dataserver: Run, tmp_path: Path) -> None:
        dataserver("init", tmp_path / "new")
        written = {
            path.relative_to(tmp_path / "new"): path.read_text("utf-8")
            for path in (tmp_path / "new").rglob("*")
            if path.is_file()
        }
        assert len(written) >= 5
        assert written == {name: (ROOT / name).read_text("utf-8") for name in written}

    def test_a_second_time_it_keeps_what_is_there(self, dataserver: Run, tmp_path: Path) -> None:
        dataserver("init", tmp_path)
        (tmp_path / "dataserver.toml").write_text("settle = 1\n")
        result = dataserver("init", tmp_path)
        assert result.returncode == 0
        assert f"kept   {tmp_path / 'dataserver.toml'}" in result.stdout
        assert (tmp_path / "dataserver.toml").read_text() == "settle = 1\n"


class TestInitFromPerl:
    @pytest.fixture
    def conf(self, tmp_path: Path) -> Path:
        path = tmp_path / "pandora_server.conf"
        path.write_text(
            f"servername gateway\nincomingdir {tmp_path}/spool\ndbname pandora\ndbuser me\n"
            "dbpass hush\ndbhost db.example.net\ndataserver_threads 4\n"
        )
        return path

    def test_what_it_says_becomes_ours(self, dataserver: Run, conf: Path, tmp_path: Path) -> None:
        assert dataserver("init", tmp_path / "new", "--from", conf).returncode == 0
        shown = json.loads(
            dataserver("config", "show", "--json", "--home", tmp_path / "new").stdout
        )
        assert shown["database"]["value"] == "mysql://me@db.example.net/pandora"
        assert shown["server_name"]["value"] == "gateway"
        assert shown["data_in"]["value"] == f"{tmp_path}/spool"
        assert shown["autocreate_group_force"]["value"] is True

    def test_the_password_goes_into_a_file_of_its_own(
        self, dataserver: Run, conf: Path, tmp_path: Path
    ) -> None:
        result = dataserver("init", tmp_path / "new", "--from", conf)
        password = tmp_path / "new/database.password"
        assert password.read_text() == "hush\n"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert "hush" not in result.stdout + result.stderr
        assert "hush" not in (tmp_path / "new/dataserver.toml").read_text()

    def test_every_key_is_accounted_for_and_no_line_is_wider_than_the_terminal(
        self, dataserver: Run, conf: Path, tmp_path: Path
    ) -> None:
        others = [f"network_key_{number}" for number in range(60)]
        more = ["dbssl 0", "unknown_interval 3", *(f"{key} 1" for key in others)]
        conf.write_text(conf.read_text() + "\n".join(more))
        told = dataserver("init", tmp_path / "new", "--from", conf).stdout
        lines = told[told.index("taken over from") :].splitlines()
        assert '  servername -> server_name = "gateway"' in lines
        assert (
            "  dataserver_threads 4: an instance has one worker; more instances take more" in lines
        )
        assert any(line.startswith("  unknown_interval 3: ") for line in lines)
        assert lines[lines.index("no difference:") + 1] == "  dbssl"
        assert [key for key in others if key not in told] == []
        assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80

    def test_its_file_is_utf_8(self, dataserver: Run, conf: Path, tmp_path: Path) -> None:
        conf.write_text(
            "servername café\nincomingdir /var/spool/pandora/data_in\n"
            "dbpass paßwort\nautocreate_group_name Grüppe\n",
            "utf-8",
        )
        assert dataserver("init", tmp_path / "new", "--from", conf).returncode == 0
        settings = (tmp_path / "new/dataserver.toml").read_text("utf-8")
        assert 'server_name = "café"' in settings
        assert 'autocreate_group_name = "Grüppe"' in settings
        assert (tmp_path / "new/database.password").read_text("utf-8") == "paßwort\n"

    def test_a_line_in_another_encoding_is_read_and_named(
        self, dataserver: Run, conf: Path, tmp_path: Path
    ) -> None:
        conf.write_bytes(conf.read_bytes() + "dbpass paßwort\n".encode("latin-1"))
        result = dataserver("init", tmp_path / "new", "--from", conf)
        assert "line 8 (dbpass) is not UTF-8" in result.stdout
        assert (tmp_path / "new/database.password").read_text("utf-8") == "paßwort\n"

    def test_it_refuses_to_mix_with_settings_that_are_there(
        self, dataserver: Run, conf: Path, home: Home
    ) -> None:
        result = dataserver("init", home.root, "--from", conf)
        assert result.returncode == 2
        assert "exists already" in one_line(result.stderr)
        assert not (home.root / "database.password").exists()

    def test_a_missing_file_is_named(self, dataserver: Run, tmp_path: Path) -> None:
        result = dataserver("init", tmp_path / "new", "--from", tmp_path / "none.conf")
        assert result.returncode == 2
        assert "none.conf" in one_line(result.stderr)

    def test_a_file_that_is_none_of_its_configurations_is_refused(
        self, dataserver: Run, tmp_path: Path
    ) -> None:
        for text in ("", "# Pandora FMS\n", "to whom it may concern\n"):
            (tmp_path / "other.conf").write_text(text)
            result = dataserver("init", tmp_path / "new", "--from", tmp_path / "other.conf")
            assert result.returncode == 2, text
            assert "pandora_server.conf" in one_line(result.stderr)
            assert not (tmp_path / "new").exists()

    def test_a_value_that_cannot_be_ours_is_named_before_anything_is_written(
        self, dataserver: Run, conf: Path, tmp_path: Path
    ) -> None:
        good = conf.read_text()
        for line in ("servername a\x07b", "verbosity high"):
            conf.write_text(f"{good}{line}\n")
            result = dataserver("init", tmp_path / "new", "--from", conf)
            assert result.returncode == 3, line
            assert line.split()[0] in one_line(result.stderr)
            assert not (tmp_path / "new").exists()


class TestCheck:
    def test_a_missing_drop_directory_is_a_problem_with_a_remedy(
        self, dataserver: Run, home: Home
    ) -> None:
        (home.root / "data_in").rmdir()
        result = dataserver("check", "--home", home.root)
        assert result.returncode == 1
        problem = next(line for line in result.stdout.splitlines() if "PROBLEM" in line)
        assert f"mkdir -p {home.root / 'data_in'}" in problem

    def test_a_password_that_everyone_can_read_is_a_problem(
        self, dataserver: Run, home: Home
    ) -> None:
        (home.root / "password").write_text("hush\n")
        (home.root / "password").chmod(0o644)
        home.config.write_text('database_password_file = "password"\n')
        result = dataserver("check", "--json", "--home", home.root)
        assert result.returncode == 1
        wrong = [each["name"] for each in json.loads(result.stdout)["checks"] if not each["ok"]]
        assert wrong == ["password file"]

    def test_a_database_that_is_away_is_a_problem(self, dataserver: Run, home: Home) -> None:
        home.config.write_text('database = "mysql://me:hush@127.0.0.1:1/x"\n')
        result = dataserver("check", "--json", "--home", home.root)
        assert result.returncode == 1
        assert [c["name"] for c in json.loads(result.stdout)["checks"] if not c["ok"]] == [
            "database"
        ]
        assert "hush" not in result.stdout + result.stderr

    def test_it_changes_nothing(self, dataserver: Run, home: Home) -> None:
        before = sorted(home.root.rglob("*"))
        dataserver("check", "--home", home.root)
        assert sorted(home.root.rglob("*")) == before


class TestConfigShow:
    def test_it_is_toml_that_says_the_same_again(self, dataserver: Run, home: Home) -> None:
        home.config.write_text('server_name = "a \\"b\\" \\\\c"\n')
        first = dataserver("config", "show", "--home", home.root).stdout
        lines = [
            line
            for line in first.splitlines()
            if not line.startswith(("data_in", "database_password"))
        ]
        home.config.write_text("\n".join(lines))
        assert dataserver("config", "show", "--home", home.root).stdout == first

    def test_origins_name_file_variable_or_default(self, dataserver: Run, home: Home) -> None:
        home.config.write_text("settle = 4\n")
        environment = {**os.environ, "DATASERVER_LOG_LEVEL": "debug"}
        result = dataserver("config", "show", "--origin", "--home", home.root, env=environment)
        origins = {
            line.split(" = ")[0]: line.rpartition("# ")[2] for line in result.stdout.splitlines()
        }
        assert origins["settle"] == str(home.config)
        assert origins["log_level"] == "environment DATASERVER_LOG_LEVEL"
        assert origins["ledger_days"] == "default"

    def test_a_password_is_never_shown(self, dataserver: Run, home: Home) -> None:
        environment = {
            **os.environ,
            "DATASERVER_DATABASE": "mysql://me:hush@h/n",
            "DATASERVER_DATABASE_PASSWORD": "hush",
        }
        for form in ([], ["--json"]):
            shown = dataserver("config", "show", *form, "--home", home.root, env=environment)
            assert "mysql://me:***@h/n" in shown.stdout
            assert "hush" not in shown.stdout


class TestStatus:
    @pytest.fixture
    def heart(self, home: Home) -> Heartbeat:
        """An instance that took something in, played by this process."""
        paths = home.instance()
        paths.var.mkdir(parents=True)
        counters = Counters(packets=7, samples=70, stored=30)
        counters.rejected["clock"] = 2
        Status(
            instance="main",
            server_name="s",
            version="1",
            pid=os.getpid(),
            run="r",
            started=time.time(),
            written=time.time(),
            phase="idle",
            data_in="/d",
            database="sqlite:///x",
            last_packet_agent="web\x1b[31m1",
            counters=as_dict(counters),
            gauges=as_dict(Gauges(queue=3, oldest_age_seconds=65.0)),
            unreadable={"a.1.data": "Permission denied"},
        ).write(paths.status)
        return Heartbeat(paths.heartbeat, "r")

    def test_an_instance_that_never_ran_says_so(self, dataserver: Run, home: Home) -> None:
        result = dataserver("status", "--home", home.root)
        assert result.returncode == 7
        assert "has not run here yet" in result.stdout

    def test_a_running_one_shows_queue_and_counts(
        self, dataserver: Run, home: Home, heart: Heartbeat
    ) -> None:
        heart.start()
        try:
            result = dataserver("status", "--home", home.root)
        finally:
            heart.stop()
        assert result.returncode == 0
        assert "running" in result.stdout
        assert "3 files, the oldest 1 min 5 s old" in result.stdout
        assert "7 packets" in result.stdout
        assert "2 clock" in result.stdout
        assert "a.1.data: Permission denied" in result.stdout

    def test_names_from_packets_cannot_move_the_cursor(
        self, dataserver: Run, home: Home, heart: Heartbeat
    ) -> None:
        heart.stop()
        assert "\x1b" not in dataserver("status", "--home", home.root).stdout

    def test_a_heartbeat_that_cannot_be_read_says_nothing_of_the_instance(
        self, dataserver: Run, home: Home, heart: Heartbeat
    ) -> None:
        # What a missing right is to others, a directory in its place is to root as well.
        home.instance().heartbeat.mkdir()
        result = dataserver("status", "--home", home.root)
        assert result.returncode == 1
        assert str(home.instance().heartbeat) in one_line(result.stderr)

    def test_a_stopped_one_has_an_exit_code_of_its_own(
        self, dataserver: Run, home: Home, heart: Heartbeat
    ) -> None:
        heart.enter(Phase.IDLE)
        heart.stop()
        result = dataserver("status", "--json", "--home", home.root)
        assert result.returncode == 7
        told = json.loads(result.stdout)
        assert told["state"] == "stopped"
        assert told["status"]["counters"]["packets"] == 7


class TestPacketShow:
    @pytest.fixture
    def packet(self, tmp_path: Path) -> Path:
        path = tmp_path / "web1.1767225600.data"
        path.write_text(PACKET, "utf-8")
        return path

    def test_it_prints_what_the_packet_says(self, dataserver: Run, packet: Path) -> None:
        result = dataserver("packet", "show", packet)
        assert result.returncode == 0
        assert "agent_name: web1" in result.stdout
        assert "load" in result.stdout

    def test_text_of_a_packet_cannot_move_the_cursor(self, dataserver: Run, packet: Path) -> None:
        text = dataserver("packet", "show", packet).stdout
        assert all(line.isprintable() for line in text.splitlines())

    def test_json_has_all_of_it(self, dataserver: Run, packet: Path) -> None:
        told = json.loads(dataserver("packet", "show", "--json", packet).stdout)
        assert told["agent_name"] == "web1"
        assert told["modules"][0]["name"] == "load"
        assert told["modules"][0]["value"] == "1.5"

    def test_it_reads_stdin(self, dataserver: Run) -> None:
        result = dataserver("packet", "show", "-", "--json", input=PACKET)
        assert json.loads(result.stdout)["agent_name"] == "web1"

    def test_what_is_no_packet_is_one_line(self, dataserver: Run, tmp_path: Path) -> None:
        (tmp_path / "x.1.data").write_text("<other/>")
        result = dataserver("packet", "show", tmp_path / "x.1.data")
        assert result.returncode == 1
        line = one_line(result.stderr)
        assert "x.1.data: " in line
        assert "reject it as malformed" in line

    def test_of_a_beginning_the_server_would_wait_for_the_rest(
        self, dataserver: Run, packet: Path
    ) -> None:
        packet.write_text(PACKET[:200], "utf-8")
        result = dataserver("packet", "show", packet)
        assert result.returncode == 1
        assert "wait for the rest" in one_line(result.stderr)

    def test_a_file_that_cannot_be_read_is_named(self, dataserver: Run, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none.1.data"):
            result = dataserver("packet", "show", path)
            assert result.returncode == 1
            assert f"{path}: " in one_line(result.stderr)


class TestRejected:
    @pytest.fixture
    def rid(self, home: Home) -> str:
        """One rejected packet of `main`; its id."""
        drop = home.root / "data_in"
        (drop / "web1.1767225600.data").write_text(PACKET, "utf-8")
        folder = Rejected(home.instance().rejected, server="s")
        with Spool(drop, max_packet=1 << 20, checksum="ignore", rejected=folder) as spool:
            (file,) = spool.scan()
            assert spool.reject(file, Reason.CLOCK, "from the future", agent="web1")
        return folder.list()[0].id

    def test_none_is_said(self, dataserver: Run, home: Home) -> None:
        assert dataserver("rejected", "list", "--home", home.root).stdout == "none\n"

    def test_the_list_says_why(self, dataserver: Run, home: Home, rid: str) -> None:
        text = dataserver("rejected", "list", "--home", home.root).stdout
        assert rid in text
        assert "from the future" in text
        told = json.loads(dataserver("rejected", "list", "--json", "--home", home.root).stdout)
        assert [each["reason"] for each in told] == ["clock"]

    def test_the_content_is_what_was_uploaded(self, dataserver: Run, home: Home, rid: str) -> None:
        result = dataserver("rejected", "show", rid, "--content", "--home", home.root)
        assert result.stdout == PACKET

    def test_show_says_why_and_what(self, dataserver: Run, home: Home, rid: str) -> None:
        text = dataserver("rejected", "show", rid, "--home", home.root).stdout
        assert "from the future" in text
        assert '<agent_data agent_name="web1"' in text
        assert all(line.isprintable() for line in text.splitlines())

    def test_retry_puts_it_back(self, dataserver: Run, home: Home, rid: str) -> None:
        result = dataserver("rejected", "retry", rid, "--home", home.root)
        assert result.returncode == 0
        assert (home.root / "data_in/web1.1767225600.data").read_text("utf-8") == PACKET
        assert dataserver("rejected", "list", "--home", home.root).stdout == "none\n"

    def test_one_whose_name_is_taken_stays_and_holds_up_nobody(
        self, dataserver: Run, home: Home, rid: str
    ) -> None:
        drop = home.root / "data_in"
        (drop / "web2.1767225600.data").write_text(PACKET, "utf-8")
        folder = Rejected(home.instance().rejected, server="s")
        with Spool(drop, max_packet=1 << 20, checksum="ignore", rejected=folder) as spool:
            (file,) = spool.scan()
            assert spool.reject(file, Reason.CLOCK, "from the future", agent="web2")
        (drop / "web1.1767225600.data").write_text("another one")
        result = dataserver("rejected", "retry", "--all", "--home", home.root)
        assert result.returncode == 2
        assert rid in one_line(result.stderr)
        assert [packet.id for packet in folder.list()] == [rid]
        assert (drop / "web2.1767225600.data").read_text("utf-8") == PACKET
        assert (drop / "web1.1767225600.data").read_text() == "another one"

    def test_drop_removes_all_of_one_reason_only(
        self, dataserver: Run, home: Home, rid: str
    ) -> None:
        other = dataserver("rejected", "drop", "--reason", "incomplete", "--home", home.root)
        assert (other.returncode, other.stdout) == (0, "")
        dropped = dataserver("rejected", "drop", "--reason", "clock", "--home", home.root)
        assert dropped.stdout == f"{rid}: dropped\n"

    def test_drop_needs_to_be_told_what(self, dataserver: Run, home: Home) -> None:
        result = dataserver("rejected", "drop", "--home", home.root)
        assert result.returncode == 2
        one_line(result.stderr)

    def test_an_unknown_one_is_a_usage_error(self, dataserver: Run, home: Home) -> None:
        result = dataserver("rejected", "show", "../../x", "--home", home.root)
        assert result.returncode == 2
        one_line(result.stderr)
